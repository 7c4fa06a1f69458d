package opencode

import "github.com/tongs-dev/tongs/sandbox"

// Codes of the errors that a [Host] and a [Bridge] return, as [sandbox.Error].
const (
	// CodeStartup: OpenCode did not become ready.
	CodeStartup sandbox.Code = "OPENCODE_STARTUP_FAILED"
	// CodeToolNotOurs: a tool that acts would run in the agent host.
	CodeToolNotOurs sandbox.Code = "OPENCODE_TOOL_NOT_OURS"
	// CodeNotRunning: there is no OpenCode, because it was stopped or never started.
	CodeNotRunning sandbox.Code = "OPENCODE_NOT_RUNNING"
	// CodeOpenCodeAPI: OpenCode's own API gave an answer that cannot be used.
	CodeOpenCodeAPI sandbox.Code = "OPENCODE_API"
	// CodeSessionNotFound: OpenCode has no session of that id.
	CodeSessionNotFound sandbox.Code = "SESSION_NOT_FOUND"
	// CodeBridgeDown: the plugin in OpenCode cannot be reached.
	CodeBridgeDown sandbox.Code = "BRIDGE_DOWN"
)
