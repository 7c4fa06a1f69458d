package sandbox

import "context"

// ToolCall names one run of a tool.
type ToolCall struct {
	// Name of the tool: "bash", "read", …
	Name string `json:"name"`
	// Args is the tool's JSON object of arguments, decoded.
	Args map[string]any `json:"args"`

	// CallID, with SessionID and MessageID, names the run. The same again,
	// while it runs and for ten minutes after, is the same run: the caller is
	// attached to it and gets its one result. The same id with another tool
	// or other arguments is another run if the first has ended, else
	// CodeCallConflict. An empty CallID never matches.
	CallID    string `json:"callID"`
	SessionID string `json:"sessionID,omitempty"`
	MessageID string `json:"messageID,omitempty"`
	Agent     string `json:"agent,omitempty"`

	// Again says that this call may have been made before, and that the caller
	// wants that run. Where it is not known any more (the sandbox was started
	// anew) a tool that only looks is run; one that changes something is not,
	// and the call ends with CodeRunLost.
	Again bool `json:"again,omitempty"`
}

// AskRequest is a tool's question whether it may do something.
type AskRequest struct {
	Permission string         `json:"permission"`
	Patterns   []string       `json:"patterns"`
	Always     []string       `json:"always"`
	Metadata   map[string]any `json:"metadata"`
}

// ToolHooks are how a running tool talks back. Both may be nil: without Ask all
// is allowed.
type ToolHooks struct {
	// Ask returns nil to allow, an error to refuse; the tool then ends with
	// CodeRejected and the error's message.
	Ask func(ctx context.Context, req AskRequest) error
	// Progress is told a title ("" is none) and metadata while the tool runs.
	// It is called in order, and not again once the run has ended. What it is
	// told last may be missing from a slow one: newer replaces older.
	Progress func(title string, metadata map[string]any)
}

// ToolResult is what a tool gives.
type ToolResult struct {
	Title       string         `json:"title"`
	Output      string         `json:"output"`
	Metadata    map[string]any `json:"metadata"`
	Attachments []Attachment   `json:"attachments,omitempty"`
}

// Attachment is a file that goes to the model beside the output.
type Attachment struct {
	Type     string `json:"type"` // "file"
	Mime     string `json:"mime"`
	URL      string `json:"url"` // data: URL
	Filename string `json:"filename,omitempty"`
}

// Tools runs OpenCode's tools in the sandbox.
type Tools interface {
	// RunTool runs a tool, or attaches to a run. Ending ctx ends the wait
	// only; CancelTool ends the run.
	RunTool(ctx context.Context, call ToolCall, hooks ToolHooks) (*ToolResult, error)
	// CancelTool kills the run's processes; the run ends with CodeAborted and
	// the message "Tool execution aborted". It reports whether there was one.
	CancelTool(ctx context.Context, callID string) (bool, error)
}
