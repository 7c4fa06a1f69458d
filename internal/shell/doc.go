// Package shell is the shell that OpenCode is configured with: a small program that
// runs nothing where it is. It asks the host, by one connection to an address inside
// the agent host, to run its command in the sandbox of a session, copies the output
// while it comes, and ends with the command's exit status.
//
// The session is in the environment, where the plugin puts it. A command that has none,
// and no host, ends with status 126 and a reason; it never runs anywhere else.
//
// The protocol: the shell sends one line, a [Request] in JSON, and keeps the connection
// open; to close it is to end the command. The host answers with frames of package
// sandbox: FrameStdout, FrameStderr, and at the end FrameEnd with a [Result], or
// FrameError when the command was not run.
package shell
