// Package guest is the one process of ours inside a sandbox: it runs commands,
// serves files, reaches ports, and runs OpenCode's tools, and it answers for
// all of that on one unix socket that the host bound before the sandbox began.
//
// It is written to be process 1: it reaps everything, it is the only thing in
// the process that waits for or forks a child, and it ends only when it is told
// to, or when nobody has asked for it during its lease. Commands it started,
// their output and their exit codes outlive every connection.
//
// The contract it carries out is package sandbox; what goes over the socket is
// package sandbox/wire.
package guest
