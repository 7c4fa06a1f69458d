package sandbox

import "time"

// MaxLineBytes is how much of one line WaitLog looks at and gives back; the rest
// of a longer line is passed over.
const MaxLineBytes = 64 << 10

// MaxPatternBytes bounds LogWait.Text and LogWait.Pattern.
const MaxPatternBytes = 4 << 10

// LogWait says what to wait for in a process's log. Exactly one of Text and
// Pattern is given.
type LogWait struct {
	// Text: a line that contains it. A line that has no end yet counts too, as
	// far as it is written: a prompt, for instance.
	Text string `json:"text,omitempty"`

	// Pattern: a line in which this regular expression (RE2) finds a match.
	// Lines are looked at when they are complete, or when the process has
	// ended, because half of a line may match another way.
	Pattern string `json:"pattern,omitempty"`

	// Stream restricts the wait to Stdout or Stderr. Zero is both; the lines
	// of each are put together by themselves.
	Stream Stream `json:"stream,omitempty"`

	// Offset is where in the log to begin: 0 sees what was printed before the
	// wait, LogMatch.End goes on after a match. What the log doesn't hold any
	// more is passed over.
	Offset int64 `json:"offset,omitempty"`

	// Timeout ends the wait with CodeReadyTimeout. Zero is as long as ctx.
	Timeout time.Duration `json:"-"`
}

// LogMatch is the line that was waited for.
type LogMatch struct {
	// Line is without its end, "\n" or "\r\n"; bytes that are no UTF-8 are
	// replaced by U+FFFD.
	Line string `json:"line"`
	// Groups are what Pattern matched: first all of it, then its groups, ""
	// for one that took no part. nil with Text.
	Groups []string `json:"groups,omitempty"`
	Stream Stream   `json:"stream"`
	// The line's first byte is at Offset in the log; End is where it ends, its
	// own end included.
	Offset int64 `json:"offset"`
	End    int64 `json:"end"`
}

// PortWait says what to wait for at a port. The zero value waits until a TCP
// connection is accepted.
type PortWait struct {
	// Path, which begins with "/", asks for more: a GET of it, by HTTP/1.1
	// without encryption, has to be answered with a status from MinStatus to
	// MaxStatus (default 200 to 399).
	Path      string `json:"path,omitempty"`
	MinStatus int    `json:"minStatus,omitempty"`
	MaxStatus int    `json:"maxStatus,omitempty"`

	// Timeout ends the wait with CodeReadyTimeout. Zero is as long as ctx.
	Timeout time.Duration `json:"-"`
}

// PortReady is what answered.
type PortReady struct {
	// Address is "127.0.0.1:3000" or "[::1]:3000".
	Address string `json:"address"`
	// Status is that of the HTTP answer, 0 when none was asked for.
	Status int `json:"status,omitempty"`
}

// LogWaitRequest is LogWait on the wire, PortWaitRequest PortWait. Both are
// answered by a token: its connection brings the result as the JSON of a
// FrameEnd, and closing it ends the wait.
type LogWaitRequest struct {
	LogWait
	TimeoutMS int64 `json:"timeoutMs,omitempty"`
}

type PortWaitRequest struct {
	PortWait
	TimeoutMS int64 `json:"timeoutMs,omitempty"`
}
