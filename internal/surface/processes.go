package surface

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// processes is the contract's sandbox.Processes.
type processes struct{ part }

var processRoomMethods = capnweb.Methods{
	"start":  guarded("process.start", "", processes.start),
	"exec":   guarded("command.execute", "", processes.exec),
	"get":    guarded("process.get", "processId", processes.get),
	"list":   guarded("process.list", "", processes.list),
	"wait":   guarded("process.get", "processId", processes.wait),
	"signal": guarded("process.kill", "processId", processes.signal),
	"kill":   guarded("process.kill", "processId", processes.kill),
	"remove": guarded("process.list", "processId", processes.remove),
	"logs":   guarded("process.logs", "processId", processes.logs),
	"stdin":  guarded("process.stdin", "processId", processes.stdin),
	"resize": guarded("process.resize", "processId", processes.resize),
}

// startOptions are the members of sandbox.ProcessSpec but for argv, and the timeout in milliseconds.
type startOptions struct {
	ID       string                `json:"id"`
	Env      map[string]string     `json:"env"`
	Unset    []string              `json:"unset"`
	Dir      string                `json:"dir"`
	User     string                `json:"user"`
	Stdin    bool                  `json:"stdin"`
	Merge    bool                  `json:"merge"`
	Terminal *sandbox.TerminalSize `json:"terminal"`
	Timeout  float64               `json:"timeout"`
	Mode     sandbox.Mode          `json:"mode"`
	LogBytes int64                 `json:"logBytes"`
	Labels   map[string]string     `json:"labels"`
	// Input and MaxOutput are for exec.
	Input     any     `json:"input"` // text or bytes
	MaxOutput float64 `json:"maxOutput"`
}

func (o *startOptions) spec(op string, argv []string) (sandbox.ProcessSpec, error) {
	if o == nil {
		return sandbox.ProcessSpec{Argv: argv}, nil
	}
	timeout, err := duration(op, "timeout", o.Timeout)
	return sandbox.ProcessSpec{
		ID: o.ID, Argv: argv, Env: o.Env, Unset: o.Unset, Dir: o.Dir, User: o.User, Stdin: o.Stdin, Merge: o.Merge,
		Terminal: o.Terminal, Timeout: timeout, Mode: o.Mode, LogBytes: o.LogBytes, Labels: o.Labels,
	}, err
}

// start starts a program: start(["node", "server.js"], {dir, env, …}).
func (p processes) start(ctx context.Context, argv []string, o *startOptions) (*sandbox.ProcessInfo, error) {
	spec, err := o.spec("start", argv)
	if err != nil {
		return nil, err
	}
	return p.b.Start(ctx, spec)
}

// output is what exec gives: bytes, exactly as they were written.
type output struct {
	ID        string       `json:"id"`
	Exit      sandbox.Exit `json:"exit"`
	Stdout    []byte       `json:"stdout"`
	Stderr    []byte       `json:"stderr"`
	Truncated bool         `json:"truncated"`
	Total     int64        `json:"total"`
	Duration  float64      `json:"duration"` // milliseconds
}

// exec runs a program to its end. It runs on when its caller goes.
func (p processes) exec(ctx context.Context, argv []string, o *startOptions) (*output, error) {
	const op = "exec"
	spec, err := o.spec(op, argv)
	if err != nil {
		return nil, err
	}
	x := sandbox.ExecSpec{ProcessSpec: spec, MaxOutput: defaultOutput}
	if o != nil {
		if x.MaxOutput, err = outputLimit(op, o.MaxOutput); err != nil {
			return nil, err
		}
		switch in := o.Input.(type) {
		case nil:
		case string:
			x.Input = []byte(in)
		case []byte:
			x.Input = in
		default:
			return nil, invalid(op, "the input is neither text nor bytes", "")
		}
	}
	type answer struct {
		res *sandbox.ExecResult
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		res, err := p.b.Exec(context.WithoutCancel(ctx), x)
		answers <- answer{res, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return nil, a.err
		}
		r := a.res
		return &output{r.ID, r.Exit, r.Stdout, r.Stderr, r.Truncated, r.Total, milliseconds(r.Duration)}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p processes) get(ctx context.Context, id string) (*sandbox.ProcessInfo, error) {
	return p.b.Get(ctx, id)
}

func (p processes) list(ctx context.Context) ([]sandbox.ProcessInfo, error) { return p.b.List(ctx) }

func (p processes) wait(id string) (*capnweb.Promise, error) {
	return await(p.b.life, "process.get", about(id), func(ctx context.Context) (*sandbox.ProcessInfo, error) { return p.b.Wait(ctx, id) })
}

// about is the context of an error that concerns a process.
func about(id string) capnweb.Object {
	return capnweb.Object{{Key: "processId", Value: clipped(id)}}
}

// signal takes a name or a number.
func (p processes) signal(ctx context.Context, id string, signal any) error {
	switch s := signal.(type) {
	case string:
		return p.b.Signal(ctx, id, s)
	case float64:
		return p.b.Signal(ctx, id, strconv.FormatFloat(s, 'f', -1, 64))
	}
	return invalid("signal", "the signal must be a name or a number", "")
}

func (p processes) kill(ctx context.Context, id string) error   { return p.b.Kill(ctx, id) }
func (p processes) remove(ctx context.Context, id string) error { return p.b.Remove(ctx, id) }

func (p processes) resize(ctx context.Context, id string, size sandbox.TerminalSize) error {
	return p.b.Resize(ctx, id, size)
}

type followOptions struct {
	Since  float64 `json:"since"`  // the first byte wanted
	Follow *bool   `json:"follow"` // go on until the process has ended; default true
}

// logChunk is one item of a log's stream. The last one has the process as it ended.
type logChunk struct {
	Stream  string               `json:"stream,omitempty"` // stdout or stderr
	Data    []byte               `json:"data,omitempty"`
	Dropped int64                `json:"dropped,omitempty"` // bytes missing before data
	Offset  int64                `json:"offset"`            // of the first byte after data: since, to go on from here
	Info    *sandbox.ProcessInfo `json:"info,omitempty"`
}

// logs gives a stream of logChunk.
func (p processes) logs(ctx context.Context, id string, o *followOptions) (*capnweb.ReadableStream, error) {
	opts := sandbox.OutputOptions{Follow: true}
	if o != nil {
		if !(o.Since >= 0 && o.Since < 1<<53) {
			return nil, invalid("logs", "since must be an offset, 0 or more", "")
		}
		opts.Offset = int64(o.Since)
		opts.Follow = o.Follow == nil || *o.Follow
	}
	out, err := p.b.Output(ctx, id, opts)
	if err != nil {
		return nil, err
	}
	over := false
	next := func(ctx context.Context) (any, error) {
		if over {
			return nil, io.EOF
		}
		stream, data, dropped, err := out.Next(ctx)
		if errors.Is(err, io.EOF) {
			over = true
			return logChunk{Dropped: dropped, Offset: out.Offset(), Info: out.Info()}, nil
		}
		if err != nil {
			return nil, asFailure("process.logs", nil, err)
		}
		return logChunk{Stream: streamName(stream), Data: data, Dropped: dropped, Offset: out.Offset()}, nil
	}
	return capnweb.NewSource(next, func(error) { _ = out.Close() }), nil
}

// stdin gives a stream to write to; closing it gives the command its end of file.
func (p processes) stdin(ctx context.Context, id string) (*capnweb.WritableStream, error) {
	life, leave := context.WithCancel(context.WithoutCancel(ctx))
	w, err := p.b.Stdin(life, id)
	if err != nil {
		leave()
		return nil, err
	}
	return capnweb.NewSink(&inputSink{w, leave}), nil
}

// inputSink writes to a command. A writer that breaks off leaves standard input open: somebody
// else may go on.
type inputSink struct {
	w     io.WriteCloser
	leave func()
}

func (s *inputSink) WriteChunk(_ context.Context, chunk capnweb.Value) error {
	data, err := bytesOf(chunk)
	if err != nil {
		return err
	}
	_, err = s.w.Write(data)
	return asFailure("process.stdin", nil, err)
}

func (s *inputSink) Close(context.Context) error {
	defer s.leave()
	return asFailure("process.stdin", nil, s.w.Close())
}

func (s *inputSink) Abort(error) { s.leave() }

func bytesOf(chunk capnweb.Value) ([]byte, error) {
	switch x := chunk.V.(type) {
	case []byte:
		return x, nil
	case string:
		return []byte(x), nil
	case capnweb.TypedArray:
		return x.Data, nil
	}
	return nil, invalid("write", "a chunk is text or bytes", "")
}
