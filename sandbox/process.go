package sandbox

import (
	"context"
	"io"
	"time"
)

// Mode says what happens to a command when its log is full.
type Mode string

const (
	// Lossless: the command waits, as it would on a full pipe, until a reader
	// has confirmed what it got. No byte is lost. When no reader has been
	// attached for ten minutes the log turns into Follow, so that nothing
	// waits for ever.
	Lossless Mode = "lossless"

	// Follow: the command never waits; the oldest bytes go, and a reader that
	// comes late or reads slowly is told how many it missed.
	Follow Mode = "follow"
)

// Bounds of a process's log. It is kept in the guest's memory, which grows with
// what is in the log, and not on the sandbox's disk.
const (
	DefaultLogBytes = 1 << 20  // 1 MiB
	MinLogBytes     = 4 << 10  // 4 KiB
	MaxLogBytes     = 64 << 20 // 64 MiB
)

// ProcessSpec is what to run. Only Argv is needed.
type ProcessSpec struct {
	// ID names the process in this sandbox: 1 to 128 of A-Z a-z 0-9 . _ : -.
	// Default: chosen by the sandbox. An id in use is CodeProcessExists.
	ID string `json:"id,omitempty"`

	// Argv is the program and its arguments. There is no shell unless it is
	// named: {"bash", "-c", script}. A program without a slash is looked up
	// in the PATH of the command's own environment.
	Argv []string `json:"argv"`

	// Env is set on top of the sandbox's base environment; Unset takes
	// variables out of it.
	Env   map[string]string `json:"env,omitempty"`
	Unset []string          `json:"unset,omitempty"`

	// Dir is the working directory. Default: the project directory.
	Dir string `json:"dir,omitempty"`

	// User is "" for the sandbox's user or "root" for uid 0 of the sandbox,
	// where the sandbox allows that; else CodePermissionDenied.
	User string `json:"user,omitempty"`

	// Stdin keeps standard input open for Processes.Stdin. Without it the
	// command reads end-of-file at once.
	Stdin bool `json:"stdin,omitempty"`

	// Merge gives the command one pipe for stdout and stderr, which keeps the
	// exact order of everything it writes; all of it is then marked Stdout.
	// Without Merge each stream keeps its own order, and the order between
	// the two is that of arrival.
	Merge bool `json:"merge,omitempty"`

	// Terminal runs the command on a terminal of this size. Implies Stdin and
	// Merge.
	Terminal *TerminalSize `json:"terminal,omitempty"`

	// Timeout is how long the command may run. Then its process group gets
	// SIGTERM, and two seconds later whatever is left of its session gets
	// SIGKILL. Zero is no limit.
	Timeout time.Duration `json:"-"`

	// Mode is Follow by default for Start, Lossless for Exec and Run.
	Mode Mode `json:"mode,omitempty"`

	// LogBytes bounds the log, MinLogBytes to MaxLogBytes. Default
	// DefaultLogBytes.
	LogBytes int64 `json:"logBytes,omitempty"`

	// Labels are kept and given back.
	Labels map[string]string `json:"labels,omitempty"`
}

// TerminalSize is in characters; 1 to 65,535 each.
type TerminalSize struct {
	Columns int `json:"columns"`
	Rows    int `json:"rows"`
}

// Exit is how a process ended, as wait(2) told it.
type Exit struct {
	// Code is the exit status, 0 to 255; -1 when a signal ended the process.
	Code int `json:"code"`
	// Signal is the name of that signal ("SIGKILL"), else "".
	Signal string `json:"signal,omitempty"`
	// TimedOut: the deadline of the spec had passed and the kill was ours.
	TimedOut bool `json:"timedOut,omitempty"`
	// Killed: somebody asked for the end by Kill or by ending an Exec.
	Killed bool `json:"killed,omitempty"`
	// OutOfMemory: the process was killed with SIGKILL while the kernel's
	// count of kills for want of memory in this sandbox grew.
	OutOfMemory bool `json:"outOfMemory,omitempty"`
}

// Success reports whether the process ended by itself with status 0.
func (e Exit) Success() bool { return e.Code == 0 && e.Signal == "" && !e.TimedOut }

// ShellCode is the status a shell would report: 128 plus the number of the
// signal for a process that a signal ended.
func (e Exit) ShellCode() int {
	if e.Signal != "" {
		if n, ok := signalNumber(e.Signal); ok {
			return 128 + n
		}
	}
	return e.Code
}

// ProcessInfo is what is known of a process.
type ProcessInfo struct {
	ID       string            `json:"id"`
	PID      int               `json:"pid"`
	Argv     []string          `json:"argv"`
	Dir      string            `json:"dir"`
	Mode     Mode              `json:"mode"`
	Terminal *TerminalSize     `json:"terminal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Started  time.Time         `json:"started"`
	Running  bool              `json:"running"`
	Ended    time.Time         `json:"ended,omitzero"`
	Exit     *Exit             `json:"exit,omitempty"` // nil while it runs

	// The log holds the bytes from LogStart to LogEnd, counted from the first
	// byte the process wrote.
	LogStart int64 `json:"logStart"`
	LogEnd   int64 `json:"logEnd"`

	// Viewers is how many read the log right now.
	Viewers int `json:"viewers,omitempty"`
}

// Stream marks bytes of a log.
type Stream byte

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// ExecSpec is a command whose output is collected.
type ExecSpec struct {
	ProcessSpec
	// Input is the command's whole standard input.
	Input []byte
	// MaxOutput bounds what is kept of each stream, in bytes; the rest is read
	// and counted, and Truncated is set. Default 64 MiB.
	MaxOutput int64
}

// ExecResult is what a collected command gave. Bytes are exactly those that
// the command wrote.
type ExecResult struct {
	ID             string
	Exit           Exit
	Stdout, Stderr []byte
	// Truncated: a stream was longer than MaxOutput. Total is the number of
	// bytes that both streams really had.
	Truncated bool
	Total     int64
	Started   time.Time
	Duration  time.Duration
}

// OutputOptions say which part of a log to read.
type OutputOptions struct {
	// Offset is the first byte wanted. If it is gone already, reading begins
	// at the oldest byte there is, and the gap is reported as dropped.
	Offset int64
	// Follow goes on until the process has ended and all is read. Without it
	// reading ends at the last byte there was when it began.
	Follow bool
}

// Output reads a log. It is not safe for use by several goroutines at once.
type Output interface {
	// Next waits for bytes. data is valid until the next call. dropped is the
	// number of bytes missing before data. io.EOF says that the log is at its
	// end. In Lossless mode calling Next confirms all that came before.
	Next(ctx context.Context) (stream Stream, data []byte, dropped int64, err error)
	// Offset is that of the first byte not yet returned: the place from which
	// to go on after a broken connection.
	Offset() int64
	// Info is the process as it was at the end of the log; nil before io.EOF.
	Info() *ProcessInfo
	Close() error
}

// Processes starts and watches commands. A process is named by its id; one
// that has ended is remembered for ten minutes (at most 256 of them), or until
// Remove.
type Processes interface {
	// Start returns when the program has been started (execve succeeded).
	// CodeCommandNotFound, CodeCommandPermissionDenied, CodeInvalidCommand,
	// CodeNotDirectory or CodeFileNotFound (for Dir), CodeProcessExists,
	// CodeTooManyProcesses.
	Start(ctx context.Context, spec ProcessSpec) (*ProcessInfo, error)
	// Exec runs a command and collects its output. A status other than 0 is
	// no error. When ctx ends, the command's group is killed, and what was
	// printed until then comes back together with the context's error.
	Exec(ctx context.Context, spec ExecSpec) (*ExecResult, error)
	Get(ctx context.Context, id string) (*ProcessInfo, error)
	List(ctx context.Context) ([]ProcessInfo, error)
	// Wait returns when the process has ended. Ending ctx ends the wait only.
	Wait(ctx context.Context, id string) (*ProcessInfo, error)
	// WaitLog returns when a line of the process's output is the one wanted,
	// printed before or after the call. It neither takes output from a reader
	// nor counts as one: a Lossless command whose log is full waits for a
	// reader all the same. CodeExitedBeforeReady when the process ends without
	// the line, CodeReadyTimeout. Ending ctx ends the wait only.
	WaitLog(ctx context.Context, id string, want LogWait) (*LogMatch, error)
	// WaitPort returns when something in the sandbox accepts connections at a
	// port of its loopback, IPv4 or IPv6, and answers as wanted; whether the
	// process itself does is not looked at. Tries come in pauses of 10 to 250
	// milliseconds, each with five seconds to answer. When the process ends
	// first it is CodeExitedBeforeReady, unless the port is ready right then;
	// with the id "" only the port is waited for. CodeReadyTimeout,
	// CodeInvalidPort. Ending ctx ends the wait only.
	WaitPort(ctx context.Context, id string, port int, want PortWait) (*PortReady, error)
	// Signal sends a signal ("SIGINT", "INT" or "2") to the process group.
	// CodeProcessExited when there is no process any more.
	Signal(ctx context.Context, id, signal string) error
	// Kill ends the process as a timeout does: SIGTERM, then SIGKILL. It
	// returns without waiting for that; a process that has ended is no error.
	Kill(ctx context.Context, id string) error
	// Remove forgets an ended process, or kills and forgets a running one.
	Remove(ctx context.Context, id string) error
	// Output opens the log.
	Output(ctx context.Context, id string, opts OutputOptions) (Output, error)
	// Stdin opens standard input for writing; Close gives the command its
	// end-of-file. CodeStdinClosed when there is none (any more). One writer
	// at a time: a new one takes over from the one before, which is told so by
	// CodeStdinTaken at its next Write or Close; what it had on the way to a
	// command that doesn't read is lost. ctx covers the writer's whole life:
	// when it ends, so do Write and Close, and standard input stays open.
	Stdin(ctx context.Context, id string) (io.WriteCloser, error)
	// Resize changes the size of a process's terminal.
	Resize(ctx context.Context, id string, size TerminalSize) error
}
