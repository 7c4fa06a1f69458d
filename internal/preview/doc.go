// Package preview serves what listens inside sandboxes to browsers, each port
// under a host name of its own:
//
//	http://<port>-<sandbox>.localhost:8787
//	http://<port>-<sandbox>-<token>.<domain>
//
// A preview is a web origin of its own: its pages are foreign to the gateway, to
// the previews of other sandboxes, and they to it.
//
// # Who may
//
// An open front is reached from this machine alone and has no password. There,
// every listening port is served by its plain name. Every other front serves only
// ports that were exposed, by a name with the token of that exposure; the token
// has 128 random bits unless the caller chose one, and ends with the exposure.
// Exposures are kept in a file, so that URLs outlive the process.
//
// # What passes
//
// HTTP/1.1 in both directions as it comes: streams are not held back, bodies have
// no limit, a WebSocket's upgrade passes, an abort on either side ends the other.
// The server in the sandbox sees the Host that the browser asked for, and
// X-Forwarded-For, -Host and -Proto that can be believed. It never sees the
// password of the gateway, and can set no cookie for another host than its own.
//
// # Limits
//
// MaxConnections to one sandbox at a time, 64 KiB of request headers (the
// server's), MaxResponseHeader bytes of response headers, IdleConnection without a
// byte in either direction, MaxExposures per sandbox.
package preview
