// Package api is the public endpoint: sandboxes over Cap'n Web for other programs, for the command
// line and for the Go SDK (sandbox/remote). /rpc takes WebSockets and HTTP batches, /health says
// that the process lives.
//
// Whoever comes needs a bearer token: the host's own, or one that was issued for a single sandbox
// and reaches nothing else. Tokens come as `Authorization: Bearer`, or, from browsers, as the
// WebSocket subprotocol `tongs.bearer.<token>`; never in a URL. Requests for a foreign Host and from
// pages of a foreign Origin are refused before that.
package api
