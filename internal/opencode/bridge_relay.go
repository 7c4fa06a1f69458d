package opencode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// relay is what the plugin holds of a sandbox. It passes calls of tools on to the
// sandbox's stub, and all others to its surface, callbacks included, and tells what a plain forward
// could not: that the sandbox's connection broke, which is no answer of the sandbox. The
// plugin then asks again, and the sandbox answers from the same run.
type relay struct {
	bridge        *Bridge
	session, root string
	stub          *capnweb.Stub

	mu      sync.Mutex
	surface *capnweb.Stub // made when it is first needed
	closed  bool
}

func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.stub.Close()
	r.surface.Close()
}

// ofTheSandbox are the calls that the sandbox's own stub answers.
var ofTheSandbox = []string{"tool", "cancel", "project"}

// target is who answers a call or read.
func (r *relay) target(ctx context.Context, in capnweb.Invocation) (*capnweb.Stub, error) {
	if r.bridge.cfg.Surface == nil || len(in.Path) == 1 && !in.Get && slices.Contains(ofTheSandbox, in.Path[0]) {
		return r.stub, nil
	}
	r.mu.Lock()
	made := r.surface
	r.mu.Unlock()
	if made != nil {
		return made, nil
	}
	target, err := r.bridge.cfg.Surface(ctx, r.root)
	if err != nil {
		return nil, err
	}
	made = capnweb.NewStub(target)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.surface != nil || r.closed {
		made.Close()
	} else {
		r.surface = made
	}
	if r.surface == nil {
		return nil, sandbox.Errf(sandbox.CodeConnectionLost, "call the sandbox", "the sandbox was let go", "ask for it again")
	}
	return r.surface, nil
}

// maxPath is how deep a call or read may reach into a sandbox's object.
const maxPath = 16

func (r *relay) Dispatch(ctx context.Context, in capnweb.Invocation) (any, error) {
	began := time.Now()
	if len(in.Path) == 0 || len(in.Path) > maxPath {
		return nil, &capnweb.Error{Name: "TypeError", Message: "a sandbox is not a function."}
	}
	if result, err, mine := r.fetch(ctx, in); mine {
		r.report(in, began, err)
		return result, err
	}
	target, err := r.target(ctx, in)
	if err != nil {
		return nil, err
	}
	path := make([]any, len(in.Path))
	for i := range in.Path {
		path[i] = in.Path[i]
	}
	defer r.step(ctx, in)()
	var p *capnweb.Promise
	if in.Get {
		p = target.Get(path...)
	} else {
		args := make([]any, in.Args.Len())
		for i := range args {
			var v capnweb.Value
			if err := in.Args.Decode(i, &v); err != nil {
				return nil, err
			}
			args[i] = v
			if object, ok := v.V.(capnweb.Object); ok && i == 0 && len(in.Path) == 1 && in.Path[0] == "tool" {
				routed, done := r.bridge.questions.route(object)
				defer done()
				args[i] = routed
			}
		}
		if last := len(path) - 1; last == 0 {
			p = target.Call(in.Path[0], args...)
		} else {
			p = target.Get(path[:last]...).Call(in.Path[last], args...)
		}
	}
	var result capnweb.Value
	err = p.Await(ctx, &result)
	p.Close()
	if err != nil && ctx.Err() == nil && errors.Is(err, capnweb.ErrDisconnected) {
		err = &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: "call the sandbox", Message: "the connection to the sandbox broke", Err: err}
	}
	if size := textSize(result.V); err == nil && size > maxResultBytes {
		err = sandbox.Errf(sandbox.CodeFileTooLarge, "call the sandbox", fmt.Sprintf("the answer has %d bytes and may have %d", size, maxResultBytes), "ask for less at once")
	}
	if !in.Get {
		r.report(in, began, err)
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// StepCall is a call of a tool that is about to go to a sandbox.
type StepCall struct {
	Session   string `json:"-"` // that the call came from
	Root      string `json:"-"` // root of that session
	MessageID string `json:"messageID"`
	CallID    string `json:"callID"`
	Tool      string `json:"name"`
}

// step tells of a call of a tool, and returns what is to be called behind it.
func (r *relay) step(ctx context.Context, in capnweb.Invocation) (done func()) {
	call := StepCall{Session: r.session, Root: r.root}
	if r.bridge.cfg.Step == nil || in.Get || len(in.Path) != 1 || in.Path[0] != "tool" || in.Args.Decode(0, &call) != nil {
		return func() {}
	}
	return r.bridge.cfg.Step(ctx, call)
}

// maxResultBytes bounds what one call gives back. A message to the plugin may
// have 32 MiB, and one that has more would end the connection, again and again.
const maxResultBytes = 24 << 20

// textSize is about how long a value is on the wire.
func textSize(v any) int {
	switch x := v.(type) {
	case string:
		return len(x)
	case []byte:
		return len(x) * 4 / 3
	case []any:
		n := 0
		for _, e := range x {
			n += textSize(e) + 1
		}
		return n
	case capnweb.Object:
		n := 0
		for _, m := range x {
			n += len(m.Key) + textSize(m.Value) + 4
		}
		return n
	}
	return 8
}

// report logs one call: which tool, for whom, how long.
func (r *relay) report(in capnweb.Invocation, began time.Time, err error) {
	event := CallEvent{Session: r.session, Root: r.root, Method: strings.Join(in.Path, "."), Began: began, Took: time.Since(began), Err: err}
	if event.Method == "tool" {
		var call struct {
			Name   string `json:"name"`
			CallID string `json:"callID"`
		}
		if in.Args.Decode(0, &call) == nil {
			event.Tool, event.CallID = call.Name, call.CallID
		}
	}
	r.bridge.logger.Debug("call", "method", event.Method, "tool", event.Tool, "call", event.CallID,
		"session", event.Session, "root", event.Root, "took", event.Took, "error", err)
	if r.bridge.cfg.OnCall != nil {
		r.bridge.cfg.OnCall(event)
	}
}

// CallEvent is a call of the plugin to a sandbox that has ended.
type CallEvent struct {
	Session string // that the call came from
	Root    string // root of that session, whose sandbox it went to
	Method  string // "tool", "cancel", "exec", "files.read", …
	Tool    string // name of the tool, if Method is "tool"
	CallID  string // OpenCode's id of the call, if Method is "tool"
	Began   time.Time
	Took    time.Duration // from the call's arrival in this process to its answer
	Err     error
}
