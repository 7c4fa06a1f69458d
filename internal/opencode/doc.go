// Package opencode obtains, configures, launches and watches OpenCode, and
// connects it with the sandboxes of its sessions.
//
// [Obtain] fetches the pinned binary. A [Host] runs it, as `opencode serve`, in
// a sandbox of its own, the agent host: one start at a time, ready only when the
// server answers, the plugin is loaded, the bridge stands and every tool that
// acts has been seen to be ours; started again when it dies; taken over when
// this process was started again and OpenCode was not.
//
// The [Bridge] is the Cap'n Web connection to the plugin inside OpenCode. It
// gives the plugin one thing, sandbox(sessionID): the restricted stub of the
// sandbox that belongs to the session's root.
package opencode
