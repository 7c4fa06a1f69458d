package surface

import (
	"context"
	"errors"
	"io"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// terminals are processes on terminals.
type terminals struct{ part }

var terminalRoomMethods = capnweb.Methods{
	"create": guarded("terminal.create", "", terminals.create),
	"get":    guarded("terminal.get", "processId", terminals.get),
	"list":   guarded("terminal.list", "", terminals.list),
	"output": guarded("terminal.output", "processId", terminals.output),
	"input":  guarded("terminal.input", "processId", terminals.input),
	"resize": guarded("terminal.resize", "processId", terminals.resize),
	"kill":   guarded("terminal.kill", "processId", terminals.kill),
	"wait":   guarded("terminal.get", "processId", terminals.wait),
}

var terminalsClass = capnweb.NewClass[terminals](terminalRoomMethods, capnweb.Concurrent())

type terminalOptions struct {
	ID      string             `json:"id"`
	Cols    int                `json:"cols"`
	Rows    int                `json:"rows"`
	Shell   string             `json:"shell"`
	Command []string           `json:"command"` // in place of a shell
	Cwd     string             `json:"cwd"`
	Env     map[string]*string `json:"env"`
}

// create starts a shell, or another program, on a terminal: by default of 80 × 24.
func (t terminals) create(ctx context.Context, o *terminalOptions) (*sandbox.ProcessInfo, error) {
	if o == nil {
		o = &terminalOptions{}
	}
	size := sandbox.TerminalSize{Columns: 80, Rows: 24}
	if o.Cols != 0 {
		size.Columns = o.Cols
	}
	if o.Rows != 0 {
		size.Rows = o.Rows
	}
	argv := o.Command
	if len(argv) == 0 {
		argv = []string{"bash", "-l"}
		if o.Shell != "" {
			argv = []string{o.Shell}
		}
	}
	spec := sandbox.ProcessSpec{ID: o.ID, Argv: argv, Dir: o.Cwd, Terminal: &size, Labels: map[string]string{}}
	if err := t.b.place(ctx, &spec, o.Env); err != nil {
		return nil, err
	}
	if _, ok := spec.Env["TERM"]; !ok {
		spec.Env["TERM"] = "xterm-256color"
	}
	if t.b.session != "" {
		spec.Labels[labelSession] = t.b.session
	}
	return withShell(t.b, spec, func(spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error) { return t.b.Start(ctx, spec) })
}

func (t terminals) get(ctx context.Context, id string) (*sandbox.ProcessInfo, error) {
	in, err := t.b.Get(ctx, id)
	if err == nil && in.Terminal == nil {
		return nil, sandbox.Errf(sandbox.CodeProcessNotFound, "get terminal", "the process "+clipped(id)+" has no terminal", "see processes.get")
	}
	return in, err
}

func (t terminals) list(ctx context.Context) ([]sandbox.ProcessInfo, error) {
	all, err := t.b.List(ctx)
	list := []sandbox.ProcessInfo{}
	for _, in := range all {
		if in.Terminal != nil {
			list = append(list, in)
		}
	}
	return list, err
}

type sinceOption struct {
	Since float64 `json:"since"`
}

// output gives the terminal's bytes from an offset on, until its program has ended. Several may
// read; each has its own place. What is older than the log is not there any more.
func (t terminals) output(ctx context.Context, id string, o *sinceOption) (*capnweb.ReadableStream, error) {
	opts := sandbox.OutputOptions{Follow: true}
	if o != nil {
		if !(o.Since >= 0 && o.Since < 1<<53) {
			return nil, invalid("terminal output", "since must be an offset, 0 or more", "")
		}
		opts.Offset = int64(o.Since)
	}
	out, err := t.b.Output(ctx, id, opts)
	if err != nil {
		return nil, err
	}
	next := func(ctx context.Context) (any, error) {
		_, data, _, err := out.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return data, asFailure("terminal.output", nil, err)
	}
	return capnweb.NewSource(next, func(error) { _ = out.Close() }), nil
}

// input gives a stream to type into. The newest one takes over from those before.
func (t terminals) input(ctx context.Context, id string) (*capnweb.WritableStream, error) {
	return processes(t).stdin(ctx, id)
}

func (t terminals) resize(ctx context.Context, id string, cols, rows int) error {
	return t.b.Resize(ctx, id, sandbox.TerminalSize{Columns: cols, Rows: rows})
}

func (t terminals) kill(ctx context.Context, id string, signal any) error {
	return t.b.killProcess(ctx, id, signal)
}

func (t terminals) wait(id string) (*capnweb.Promise, error) { return processes(t).wait(id) }

var terminalMethods = capnweb.Methods{"terminal": guarded("terminal.create", "", (*box).terminal)}

// terminalHandle is what the functions of terminal's answer belong to.
type terminalHandle struct {
	part
	id string
}

var terminalHandleClass = capnweb.NewClass[*terminalHandle](capnweb.Methods{
	"resize": guarded("terminal.resize", "", func(h *terminalHandle, ctx context.Context, cols, rows int) error {
		return terminals{h.part}.resize(ctx, h.id, cols, rows)
	}),
	"kill": guarded("terminal.kill", "", func(h *terminalHandle, ctx context.Context, signal any) error {
		return h.b.killProcess(ctx, h.id, signal)
	}),
	"exited": guarded("terminal.get", "", func(h *terminalHandle) (*capnweb.Promise, error) {
		return (&handle{h.part, h.id}).waitForExit(nil)
	}),
}, capnweb.Concurrent())

// terminal is terminal(options), or the SDK's terminal(request, options). A WebSocket cannot travel, so
// the answer has streams of bytes in its place: {id, pid, readable, writable, resize, kill, exited}.
func (b *box) terminal(ctx context.Context, args capnweb.Args) (capnweb.Object, error) {
	var o *terminalOptions
	at := 0
	if _, ok := args.Value(0).(*capnweb.Request); ok {
		at = 1
	}
	if err := args.Decode(at, &o); err != nil {
		return nil, err
	}
	t := terminals{part{b}}
	in, err := t.create(ctx, o)
	if err != nil {
		return nil, err
	}
	out, err := t.output(context.WithoutCancel(ctx), in.ID, nil)
	if err != nil {
		return nil, err
	}
	input, err := t.input(ctx, in.ID)
	if err != nil {
		out.Close()
		return nil, err
	}
	o2 := capnweb.Object{
		{Key: "id", Value: in.ID}, {Key: "pid", Value: in.PID}, {Key: "readable", Value: out}, {Key: "writable", Value: input},
	}
	return append(o2, functions(terminalHandleClass.New(&terminalHandle{b.part(), in.ID}), []string{"resize", "kill", "exited"})...), nil
}
