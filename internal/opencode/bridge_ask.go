package opencode

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// reaskWait is how long a question of a tool waits for the plugin to come back
// when the connection broke before the answer.
const reaskWait = 90 * time.Second

// callKey names a tool call: the same again is the same run.
type callKey struct{ session, message, call string }

// questions brings the questions of running tools to the plugin. The sandbox
// asks over its own connection, which holds when that to the plugin breaks: the
// question then waits until the plugin has asked for the run again, and is put
// to it anew, so that a broken connection is never taken for a refusal.
type questions struct {
	mu    sync.Mutex
	calls map[callKey]*askedCall
}

// askedCall is a call that is attached, or whose question is under way.
type askedCall struct {
	users   int
	ask     *capnweb.Stub // of the newest attachment; nil while there is none
	changed chan struct{} // closed at the next attachment
}

func (q *questions) use(key callKey) *askedCall {
	c := q.calls[key]
	if c == nil {
		c = &askedCall{changed: make(chan struct{})}
		q.calls[key] = c
	}
	c.users++
	return c
}

func (q *questions) leave(key callKey, c *askedCall) {
	if c.users--; c.users == 0 {
		delete(q.calls, key)
	}
}

// attach makes ask the one that is asked, until the returned function is called.
func (q *questions) attach(key callKey, ask *capnweb.Stub) (detach func()) {
	own := ask.Dup()
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.use(key)
	c.ask = own
	close(c.changed)
	c.changed = make(chan struct{})
	return func() {
		q.mu.Lock()
		if c.ask == own {
			c.ask = nil
		}
		q.leave(key, c)
		q.mu.Unlock()
		own.Close()
	}
}

// put puts a question to whoever is attached to the call, or will be.
func (q *questions) put(ctx context.Context, key callKey, request capnweb.Value) (capnweb.Value, error) {
	patience := time.NewTimer(reaskWait)
	defer patience.Stop()
	q.mu.Lock()
	c := q.use(key)
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.leave(key, c)
		q.mu.Unlock()
	}()
	for {
		q.mu.Lock()
		var ask *capnweb.Stub
		if c.ask != nil {
			ask = c.ask.Dup()
		}
		changed := c.changed
		q.mu.Unlock()
		if ask != nil {
			answer, err := capnweb.Call[capnweb.Value](ctx, ask, "", request)
			ask.Close()
			if err == nil || ctx.Err() != nil || !errors.Is(err, capnweb.ErrDisconnected) && !errors.Is(err, capnweb.ErrClosed) {
				return answer, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return capnweb.Value{}, context.Cause(ctx)
		case <-patience.C:
			return capnweb.Value{}, sandbox.Errf(sandbox.CodeConnectionLost, "ask", "OpenCode was away for too long to answer whether the tool may go on", "try again")
		}
	}
}

// route takes the call's question function out of its arguments and puts one
// in its place that goes through q. It returns what to do when the call is over.
func (q *questions) route(call capnweb.Object) (routed capnweb.Object, done func()) {
	text := func(name string) string {
		v, _ := call.Get(name)
		s, _ := v.(string)
		return s
	}
	key := callKey{text("sessionID"), text("messageID"), text("callID")}
	v, _ := call.Get("ask")
	ask, ok := v.(*capnweb.Stub)
	if !ok || key.call == "" {
		return call, func() {}
	}
	detach := q.attach(key, ask)
	routed = make(capnweb.Object, len(call))
	copy(routed, call)
	for i := range routed {
		if routed[i].Key == "ask" {
			routed[i].Value = capnweb.Func(func(ctx context.Context, request capnweb.Value) (capnweb.Value, error) {
				return q.put(ctx, key, request)
			}, capnweb.Concurrent())
		}
	}
	return routed, detach
}
