package surface

import (
	"context"
	"strconv"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// Labels that the surface gives to processes, for itself.
const (
	labelCommand = "tongs.command" // the text that was given
	labelSession = "tongs.session"
	labelKind    = "tongs.kind" // kindProcess for those of startProcess
	kindProcess  = "process"
)

// maxLabel is how much of a long command a process's label has.
const maxLabel = 4 << 10

func clippedLabel(s string) string {
	if len(s) > maxLabel {
		return valid([]byte(s[:maxLabel])) + "…"
	}
	return valid([]byte(s))
}

var processMethods = capnweb.Methods{
	"startProcess":              guarded("process.start", "command", (*box).startProcess),
	"listProcesses":             guarded("process.list", "", (*box).listProcesses),
	"getProcess":                guarded("process.get", "processId", (*box).getProcess),
	"killProcess":               guarded("process.kill", "processId", (*box).killProcess),
	"killAllProcesses":          guarded("process.kill", "", (*box).killAllProcesses),
	"cleanupCompletedProcesses": guarded("process.list", "", (*box).cleanupCompletedProcesses),
	"getProcessLogs":            guarded("process.logs", "processId", (*box).getProcessLogs),
	"streamProcessLogs":         guarded("process.logs", "processId", (*box).streamProcessLogs),
}

// handle is what the functions of a Process object belong to.
type handle struct {
	part
	id string
}

var handleClass *capnweb.Class[*handle]

// handleMethods are the functions of a Process object, in the order in which it has them.
var handleMethods = []string{"kill", "getStatus", "getLogs", "waitForLog", "waitForPort", "waitForExit"}

func init() {
	handleClass = capnweb.NewClass[*handle](capnweb.Methods{
		"kill":        guarded("process.kill", "", (*handle).kill),
		"getStatus":   guarded("process.get", "", (*handle).getStatus),
		"getLogs":     guarded("process.logs", "", (*handle).getLogs),
		"waitForLog":  guarded("process.logs", "", (*handle).waitForLog),
		"waitForPort": guarded("process.port", "", (*handle).waitForPort),
		"waitForExit": guarded("process.get", "", (*handle).waitForExit),
	}, capnweb.Concurrent())
}

// process is a Process object: plain members and functions.
func (b *box) process(in *sandbox.ProcessInfo) capnweb.Object {
	o := capnweb.Object{
		{Key: "id", Value: in.ID}, {Key: "pid", Value: in.PID}, {Key: "command", Value: commandText(in)},
		{Key: "status", Value: status(in)}, {Key: "startTime", Value: in.Started},
	}
	if !in.Running {
		o = append(o, capnweb.Member{Key: "endTime", Value: in.Ended})
	}
	if in.Exit != nil {
		o = append(o, capnweb.Member{Key: "exitCode", Value: in.Exit.ShellCode()})
	}
	if s := in.Labels[labelSession]; s != "" {
		o = append(o, capnweb.Member{Key: "sessionId", Value: s})
	}
	return append(o, functions(handleClass.New(&handle{b.part(), in.ID}), handleMethods)...)
}

// functions are methods of a target as members of a plain object. They keep the
// target as long as one of them is held.
func functions(t *capnweb.Target, names []string) capnweb.Object {
	stub := capnweb.NewStub(t)
	defer stub.Close()
	o := make(capnweb.Object, len(names))
	for i, name := range names {
		p := stub.Get(name)
		o[i] = capnweb.Member{Key: name, Value: p.Stub()}
		p.Close()
	}
	return o
}

func commandText(in *sandbox.ProcessInfo) string {
	if s, ok := in.Labels[labelCommand]; ok {
		return s
	}
	if len(in.Argv) == 0 {
		return ""
	}
	s := in.Argv[0]
	for _, a := range in.Argv[1:] {
		s += " " + a
	}
	return s
}

// status is the SDK's word for how a process is.
func status(in *sandbox.ProcessInfo) string {
	switch {
	case in.Running:
		return "running"
	case in.Exit == nil:
		return "error"
	case in.Exit.Killed || in.Exit.TimedOut || in.Exit.Signal != "":
		return "killed"
	case in.Exit.Code == 0:
		return "completed"
	}
	return "failed"
}

// startProcess starts a command in the background. It returns when the shell has been started, and
// gives a Process. Its log keeps the newest 1 MiB.
func (b *box) startProcess(ctx context.Context, command string, o *commandOptions) (capnweb.Object, error) {
	if o == nil {
		o = &commandOptions{}
	}
	spec, err := b.spec(ctx, "start process", command, o)
	if err != nil {
		return nil, err
	}
	spec.Mode = sandbox.Follow
	spec.Labels[labelKind] = kindProcess
	in, err := withShell(b, spec, func(spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error) { return b.Start(ctx, spec) })
	if err != nil {
		b.tell(ctx, o.OnError, err)
		return nil, err
	}
	if o.Stdin != nil {
		go b.feed(in.ID, *o.Stdin)
	}
	if o.OnOutput != nil || o.OnExit != nil {
		b.follow(in.ID, o)
	}
	if o.OnStart != nil {
		b.told(ctx, o.OnStart, b.process(in))
	}
	return b.process(in), nil
}

// follow tells the caller's functions of a process's output and end, as long as
// they can be called.
func (b *box) follow(id string, o *commandOptions) {
	ctx, cancel := context.WithCancel(context.Background())
	onOutput, onExit := keep(o.OnOutput, cancel), keep(o.OnExit, cancel)
	go func() {
		defer cancel()
		defer onOutput.Close()
		defer onExit.Close()
		out, err := b.Output(ctx, id, sandbox.OutputOptions{Follow: true})
		if err != nil {
			return
		}
		c := command{b: b, encoding: o.Encoding, id: id, out: out, decoders: map[sandbox.Stream]*textDecoder{sandbox.Stdout: {}, sandbox.Stderr: {}}}
		defer out.Close()
		calls := window{ctx: ctx}
		for {
			stream, data, err := c.next(ctx)
			if err != nil {
				break
			}
			if data != "" {
				calls.call(onOutput, streamName(stream), data)
			}
		}
		calls.wait()
		if in := out.Info(); in != nil && in.Exit != nil {
			b.told(ctx, onExit, in.Exit.ShellCode())
		}
	}()
}

// keep holds a caller's function beyond the call; lost is told when it can't be called any more.
func keep(f *capnweb.Stub, lost func()) *capnweb.Stub {
	if f == nil {
		return nil
	}
	f = f.Dup()
	f.OnBroken(func(error) { lost() })
	return f
}

// own reports whether a process is one of startProcess: those are what the SDK's lists show.
func own(in *sandbox.ProcessInfo) bool { return in.Labels[labelKind] == kindProcess }

func (b *box) owned(ctx context.Context) ([]sandbox.ProcessInfo, error) {
	all, err := b.List(ctx)
	if err != nil {
		return nil, err
	}
	list := all[:0]
	for i := range all {
		if own(&all[i]) {
			list = append(list, all[i])
		}
	}
	return list, nil
}

func (b *box) listProcesses(ctx context.Context) ([]capnweb.Object, error) {
	list, err := b.owned(ctx)
	if err != nil {
		return nil, err
	}
	objects := make([]capnweb.Object, len(list))
	for i := range list {
		objects[i] = b.process(&list[i])
	}
	return objects, nil
}

// getProcess gives a Process, or null when there is none (any more) by that id.
func (b *box) getProcess(ctx context.Context, id string) (any, error) {
	in, err := b.Get(ctx, id)
	if sandbox.CodeOf(err) == sandbox.CodeProcessNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return b.process(in), nil
}

// killProcess sends a signal, by name or number, to the process's group. Without
// one it is SIGTERM, and two seconds later SIGKILL to whatever is left.
func (b *box) killProcess(ctx context.Context, id string, signal any) error {
	switch s := signal.(type) {
	case nil:
		return b.Kill(ctx, id)
	case string:
		return b.Signal(ctx, id, s)
	case float64:
		return b.Signal(ctx, id, strconv.FormatFloat(s, 'f', -1, 64))
	}
	return invalid("kill process", "the signal must be a name or a number", "")
}

// killAllProcesses kills all that run and returns how many those were.
func (b *box) killAllProcesses(ctx context.Context) (int, error) {
	list, err := b.owned(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list {
		if !list[i].Running {
			continue
		}
		if err := b.Kill(ctx, list[i].ID); err == nil {
			n++
		} else if sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			return n, err
		}
	}
	return n, nil
}

// cleanupCompletedProcesses forgets all that have ended and returns how many those were.
func (b *box) cleanupCompletedProcesses(ctx context.Context) (int, error) {
	list, err := b.owned(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list {
		if list[i].Running {
			continue
		}
		if err := b.Remove(ctx, list[i].ID); err == nil {
			n++
		} else if sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			return n, err
		}
	}
	return n, nil
}

func (h *handle) kill(ctx context.Context, signal any) error {
	return h.b.killProcess(ctx, h.id, signal)
}

func (h *handle) getStatus(ctx context.Context) (string, error) {
	in, err := h.b.Get(ctx, h.id)
	if err != nil {
		return "", err
	}
	return status(in), nil
}

func (h *handle) getLogs(ctx context.Context) (*processLogs, error) {
	return h.b.getProcessLogs(ctx, h.id)
}

type exitAnswer struct {
	ExitCode int    `json:"exitCode"`
	Signal   string `json:"signal,omitempty"`
	TimedOut bool   `json:"timedOut,omitempty"`
}

// waitForExit waits, at most timeout milliseconds. Its end ends the wait only.
func (h *handle) waitForExit(timeout *float64) (*capnweb.Promise, error) {
	const op = "wait for exit"
	limit, err := optional(op, timeout)
	if err != nil {
		return nil, err
	}
	return await(h.b.life, "process.get", about(h.id), func(ctx context.Context) (*exitAnswer, error) {
		wait, cancel := limited(ctx, limit)
		defer cancel()
		in, err := h.b.Wait(wait, h.id)
		if err != nil {
			return nil, late(ctx, wait, op, err)
		}
		if in.Exit == nil {
			return nil, sandbox.Errf(sandbox.CodeInternal, op, "the guest gave no exit status", "")
		}
		return &exitAnswer{in.Exit.ShellCode(), in.Exit.Signal, in.Exit.TimedOut}, nil
	})
}

// optional reads a time limit; 0 is none.
func optional(op string, timeout *float64) (time.Duration, error) {
	if timeout == nil {
		return 0, nil
	}
	return duration(op, "timeout", *timeout)
}

// limited bounds a wait.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// late is the error of a wait that its own bound has ended.
func late(caller, wait context.Context, op string, err error) error {
	if caller.Err() == nil && wait.Err() != nil {
		return &sandbox.Error{Code: sandbox.CodeReadyTimeout, Op: op, Message: "it did not happen in the time that was given", Hint: "wait longer, or look at the process's logs", Err: err}
	}
	return err
}
