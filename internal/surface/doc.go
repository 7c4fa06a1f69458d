// Package surface is a sandbox as other programs see it over Cap'n Web: one
// object with the methods, options, results, streams and errors of the ISandbox
// interface that programs for Cloudflare's sandbox SDK know, and beside them
// the contract of package sandbox itself, under processes, files, terminals,
// ports and search.
//
// The object is given to OpenCode's plugin, by the bridge, and to whoever comes
// to the public endpoint. Where the two differ, Options says so.
//
// # What differs from the SDK
//
// Nothing has the SDK's limit of 32 MiB: what is too large for one message goes
// as a stream. An AbortSignal cannot travel; commands take a timeout, and cancel,
// or killProcess with the id that the caller chose, ends one. A RegExp cannot
// travel either: waitForLog takes {source, flags} in its place. A command that
// breaks its shell breaks nothing else, and commands of one session run side by
// side. What makes no sense here, or comes later, is refused with NOT_SUPPORTED
// and the reason.
package surface
