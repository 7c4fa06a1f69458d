package code

import (
	"encoding/json"
	"time"
)

// Language of a context.
type Language string

const (
	Python     Language = "python"
	JavaScript Language = "javascript"
	TypeScript Language = "typescript"
)

// Bounds.
const (
	MaxContexts  = 32       // of one sandbox
	MaxCode      = 8 << 20  // bytes of one run
	MaxOutput    = 1 << 20  // bytes of each stream that an Outcome keeps
	MaxResults   = 1000     // that an Outcome keeps
	maxMessage   = 96 << 20 // bytes of a line from an interpreter
	startTimeout = 60 * time.Second
	// grace is how long an interpreter may take to stop when it is interrupted.
	grace = 5 * time.Second
	// settle is how long is waited for the rest, when one of the ways to an
	// interpreter has come to its end before the others.
	settle = 2 * time.Second
)

// Spec says which context to make.
type Spec struct {
	// ID names the context in this sandbox: 1 to 32 of a-z A-Z 0-9 _ -.
	// Default: made up.
	ID string
	// Language: Python when it is empty.
	Language Language
	// Dir is the working directory. Default: the project directory.
	Dir string
	// Env is added to the environment.
	Env map[string]string
	// Timeout bounds each run that has none of its own. Zero is no limit.
	Timeout time.Duration
}

// Info describes a context.
type Info struct {
	ID       string    `json:"id"`
	Language Language  `json:"language"`
	Dir      string    `json:"dir"`
	Created  time.Time `json:"created"`           // when its interpreter was started
	Version  string    `json:"version,omitempty"` // of the interpreter; "" from List
}

// RunOptions may be zero. The functions are called one at a time, in the order in
// which things happened within each stream; the run waits for them.
type RunOptions struct {
	OnStdout func([]byte) // valid during the call
	OnStderr func([]byte)
	OnResult func(Result)
	OnError  func(*Error)
	// Timeout replaces that of the context; negative is no limit.
	Timeout time.Duration
}

// Result is a value in all the ways in which it can be shown. A chart is an image: its data is not told apart.
type Result struct {
	Text       string          `json:"text,omitempty"`
	HTML       string          `json:"html,omitempty"`
	Markdown   string          `json:"markdown,omitempty"`
	SVG        string          `json:"svg,omitempty"`
	LaTeX      string          `json:"latex,omitempty"`
	JavaScript string          `json:"javascript,omitempty"`
	PNG        []byte          `json:"png,omitempty"`
	JPEG       []byte          `json:"jpeg,omitempty"`
	JSON       json.RawMessage `json:"json,omitempty"`
	// Final: it is the value of the last expression.
	Final bool `json:"final,omitempty"`
}

// Error is what the code has raised and not caught. An interrupted run ends with
// KeyboardInterrupt in Python, with InterruptedError in JavaScript.
type Error struct {
	Name      string   `json:"name"`
	Message   string   `json:"message"`
	Traceback []string `json:"traceback"` // lines, or pieces of several lines
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Name + ": " + e.Message
}

// Outcome is a finished run.
type Outcome struct {
	// Count numbers the runs of this interpreter, as this client counts them.
	Count   int
	Results []Result
	Error   *Error // nil when the code came to its end
	// Stdout and Stderr are what was written meanwhile, up to MaxOutput each;
	// Truncated says that there was more.
	Stdout, Stderr []byte
	Truncated      bool
	// Fresh: the interpreter before had ended, and this run was the first of a
	// new one.
	Fresh    bool
	Duration time.Duration
}
