// Package doors answers those routes of OpenCode that name files, git or terminals of
// a directory. OpenCode would answer them from the machine on which it runs; here they
// are answered from the sandbox of a session, in OpenCode's own shapes.
//
// Which session? Such a request names none. The rule is in which.go, and for people in
// docs/doors.md. Where it gives no session, the answer is that of an empty project,
// and what would change or start something is refused.
//
// Everything that a sandbox says is hostile: it is bounded in size and in time, and
// checked before it is passed on.
package doors
