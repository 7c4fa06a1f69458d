// Package bench measures our Cap'n Web server beside the reference's server on
// node: one load generator, both servers as processes of their own, in turns,
// in one run, so that the ratios mean something on any machine.
//
//	go test -run '^$' -bench Interop ./capnweb/internal/bench
//
// Calls are driven by a generator that knows the wire format and nothing else
// (raw.go): what it costs is small beside what either server does, and the
// same for both. Maps, callbacks and streams are driven by our client.
package bench
