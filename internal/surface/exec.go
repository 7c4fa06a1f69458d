package surface

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of exec.
const (
	// defaultOutput is how much of each stream exec's answer has; maxOutput is what maxOutput
	// may ask for. What is longer goes through execStream.
	defaultOutput = 8 << 20
	maxOutput     = 8 << 20
	// execLog is the buffer between a command and its reader.
	execLog = 256 << 10
	// maxTimeout is the longest time that can be asked for, about 34 years.
	maxTimeout = 1 << 40
)

var commandMethods = capnweb.Methods{
	"exec":       guarded("command.execute", "command", (*box).exec),
	"execStream": guarded("command.stream", "command", (*box).execStream),
	"cancel":     guarded("command.cancel", "processId", (*box).cancel),
}

// commandOptions are those of exec, execStream and startProcess together. Each takes what
// concerns it.
type commandOptions struct {
	Timeout    float64            `json:"timeout"` // milliseconds; 0 is none
	Cwd        string             `json:"cwd"`
	Env        map[string]*string `json:"env"` // null unsets
	Encoding   string             `json:"encoding"`
	ProcessID  string             `json:"processId"`
	Stdin      *string            `json:"stdin"`
	MaxOutput  float64            `json:"maxOutput"`
	OnStart    *capnweb.Stub      `json:"onStart"`
	OnOutput   *capnweb.Stub      `json:"onOutput"`
	OnComplete *capnweb.Stub      `json:"onComplete"`
	OnExit     *capnweb.Stub      `json:"onExit"`
	OnError    *capnweb.Stub      `json:"onError"`
}

type execResult struct {
	Success   bool    `json:"success"`
	ExitCode  int     `json:"exitCode"`
	Stdout    string  `json:"stdout"`
	Stderr    string  `json:"stderr"`
	Command   string  `json:"command"`
	Duration  float64 `json:"duration"` // milliseconds
	Timestamp string  `json:"timestamp"`
	SessionID string  `json:"sessionId,omitempty"`
	TimedOut  bool    `json:"timedOut,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
}

// spec is the process that a command is.
func (b *box) spec(ctx context.Context, op, command string, o *commandOptions) (sandbox.ProcessSpec, error) {
	var none sandbox.ProcessSpec
	timeout, err := duration(op, "timeout", o.Timeout)
	if err != nil {
		return none, err
	}
	switch o.Encoding {
	case "", "utf8", "utf-8", "base64":
	default:
		return none, invalid(op, "the encoding "+clipped(o.Encoding)+" is neither utf-8 nor base64", "")
	}
	shell := "bash"
	if b.noBash.Load() {
		shell = "sh"
	}
	s := sandbox.ProcessSpec{
		ID: o.ProcessID, Argv: []string{shell, "-c", command}, Dir: o.Cwd, Timeout: timeout,
		Stdin: o.Stdin != nil, Labels: map[string]string{labelCommand: clippedLabel(command)},
	}
	if b.session != "" {
		s.Labels[labelSession] = b.session
	}
	if s.Timeout == 0 {
		s.Timeout = b.state.timeout(b.session)
	}
	return s, b.place(ctx, &s, o.Env)
}

// duration reads milliseconds; 0 is none.
func duration(op, name string, ms float64) (time.Duration, error) {
	if !(ms >= 0 && ms < maxTimeout) {
		return 0, invalid(op, name+" must be milliseconds, 0 or more", "")
	}
	return time.Duration(ms * float64(time.Millisecond)), nil
}

// withShell does something with a spec, and again with sh when the sandbox has no bash.
func withShell[T any](b *box, spec sandbox.ProcessSpec, do func(sandbox.ProcessSpec) (T, error)) (T, error) {
	v, err := do(spec)
	if sandbox.CodeOf(err) == sandbox.CodeCommandNotFound && spec.Argv[0] == "bash" {
		spec.Argv = append([]string{"sh"}, spec.Argv[1:]...)
		if v, err = do(spec); err == nil {
			b.noBash.Store(true)
		}
	}
	return v, err
}

// exec runs a shell command to its end. A status other than 0 is no error. A
// command that was killed after its timeout gives what it printed, timedOut, and the
// status of the signal. One whose caller has gone runs on.
func (b *box) exec(ctx context.Context, command string, o *commandOptions) (any, error) {
	if o == nil {
		o = &commandOptions{}
	}
	const op = "exec"
	limit, err := outputLimit(op, o.MaxOutput)
	if err != nil {
		return nil, err
	}
	spec, err := b.spec(ctx, op, command, o)
	if err != nil {
		return nil, err
	}
	if o.OnOutput != nil {
		return b.beginTold(command, spec, o, limit)
	}
	began := time.Now()
	type answer struct {
		res *sandbox.ExecResult
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		if b.shell != nil {
			res, err := b.execInShell(context.WithoutCancel(ctx), spec, o, limit)
			answers <- answer{res, err}
			return
		}
		spec.LogBytes = execLog
		res, err := withShell(b, spec, func(spec sandbox.ProcessSpec) (*sandbox.ExecResult, error) {
			spec.Stdin = false // all of it comes at once
			x := sandbox.ExecSpec{ProcessSpec: spec, MaxOutput: limit}
			if o.Stdin != nil {
				x.Input = []byte(*o.Stdin)
			}
			return b.Exec(context.WithoutCancel(ctx), x)
		})
		answers <- answer{res, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			b.tell(ctx, o.OnError, a.err)
			return nil, a.err
		}
		r := b.result(command, a.res, o.Encoding)
		if a.res.Started.IsZero() {
			r.Timestamp = timestamp(began)
		}
		b.told(ctx, o.OnComplete, r)
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func outputLimit(op string, n float64) (int64, error) {
	switch {
	case n == 0:
		return defaultOutput, nil
	case n >= 1 && n <= maxOutput:
		return int64(n), nil
	}
	return 0, invalid(op, "maxOutput must be 1 to 8388608 bytes", "use execStream for longer output")
}

func (b *box) result(command string, res *sandbox.ExecResult, encoding string) *execResult {
	text := valid
	if encoding == "base64" {
		text = base64.StdEncoding.EncodeToString
	}
	r := &execResult{
		Success: res.Exit.Success(), ExitCode: res.Exit.ShellCode(), Stdout: text(res.Stdout), Stderr: text(res.Stderr),
		Command: command, Duration: milliseconds(res.Duration), Timestamp: timestamp(res.Started), SessionID: b.session,
		TimedOut: res.Exit.TimedOut, Truncated: res.Truncated,
	}
	r.fit()
	return r
}

// fit cuts output that would make a message too long: control characters take six bytes each.
func (r *execResult) fit() {
	var cut bool
	if r.Stdout, cut = fitting(r.Stdout, maxText/2); cut {
		r.Truncated = true
	}
	if r.Stderr, cut = fitting(r.Stderr, maxText/2); cut {
		r.Truncated = true
	}
}

// cancel ends a command by the processId that its caller chose: SIGTERM to the group, two
// seconds later SIGKILL. It tells whether there was one.
func (b *box) cancel(ctx context.Context, id string) (bool, error) {
	in, err := b.Get(ctx, id)
	switch {
	case sandbox.CodeOf(err) == sandbox.CodeProcessNotFound:
		return false, nil
	case err != nil:
		return false, err
	case !in.Running:
		return false, nil
	}
	return true, b.Kill(ctx, id)
}
