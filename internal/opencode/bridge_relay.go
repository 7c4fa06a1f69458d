package opencode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// relay is what the plugin holds of a sandbox. It passes each call on to the
// sandbox's stub, callbacks included, and tells what a plain forward could not:
// that the sandbox's connection broke, which is no answer of the sandbox. The
// plugin then asks again, and the sandbox answers from the same run.
type relay struct {
	bridge        *Bridge
	session, root string
	stub          *capnweb.Stub
}

func (r *relay) Dispatch(ctx context.Context, in capnweb.Invocation) (any, error) {
	began := time.Now()
	var p *capnweb.Promise
	if in.Get {
		path := make([]any, len(in.Path))
		for i := range in.Path {
			path[i] = in.Path[i]
		}
		p = r.stub.Get(path...)
	} else {
		if len(in.Path) != 1 {
			return nil, &capnweb.Error{Name: "TypeError", Message: "'" + strings.Join(in.Path, ".") + "' is not a function."}
		}
		args := make([]any, in.Args.Len())
		for i := range args {
			var v capnweb.Value
			if err := in.Args.Decode(i, &v); err != nil {
				return nil, err
			}
			args[i] = v
			if object, ok := v.V.(capnweb.Object); ok && i == 0 && in.Path[0] == "tool" {
				routed, done := r.bridge.questions.route(object)
				defer done()
				args[i] = routed
			}
		}
		p = r.stub.Call(in.Path[0], args...)
	}
	var result capnweb.Value
	err := p.Await(ctx, &result)
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
	event := CallEvent{Session: r.session, Root: r.root, Method: in.Path[0], Began: began, Took: time.Since(began), Err: err}
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
	Method  string // "tool", "cancel", "exec", …
	Tool    string // name of the tool, if Method is "tool"
	CallID  string // OpenCode's id of the call, if Method is "tool"
	Began   time.Time
	Took    time.Duration // from the call's arrival in this process to its answer
	Err     error
}
