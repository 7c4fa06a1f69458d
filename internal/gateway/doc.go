// Package gateway is the HTTP front that people and OpenCode's clients talk to:
// the terminal client, `opencode run --attach`, the web page and the SDKs.
//
// It trusts nobody and opens nothing by default. A request passes these gates, in
// this order, and each answers with a status, a code and what to do:
//
//  1. Host and Origin: a name that is not ours is refused (DNS rebinding), and so
//     is a request that another site's page makes.
//  2. The password, where one is set. An address that is not loopback needs one.
//  3. The table (table.go): the one allow-list. A route passes, is answered here,
//     or is refused with its reason; what has no row is refused.
//  4. Readiness of OpenCode, waited for with a deadline.
//  5. The body, read whole within limits where it can name files or lift a
//     permission, and passed on as what was checked, not as what was sent.
//
// OpenCode is told one directory whatever the client says. Keys are removed from
// the responses that describe configuration and providers; CORS headers are ours.
// The reply to a prompt is held back until the session's idle event has gone out,
// because clients leave when the reply is there.
package gateway
