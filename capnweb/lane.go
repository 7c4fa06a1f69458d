package capnweb

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// lane runs the calls on one target one at a time, in order.
type lane struct {
	mu      sync.Mutex
	queue   []*job
	running bool
}

func (l *lane) add(j *job) {
	l.mu.Lock()
	l.queue = append(l.queue, j)
	start := !l.running
	l.running = true
	l.mu.Unlock()
	if start && !(j.args.origin != nil && j.method.quick() && j.args.origin.offer(l)) {
		go l.drain()
	}
}

func (l *lane) drain() {
	for l.one(false) {
	}
}

// one runs the next call. It returns false when there is none, or somebody else
// runs it. inline says that the reader runs it.
func (l *lane) one(inline bool) bool {
	l.mu.Lock()
	if len(l.queue) == 0 {
		l.queue = nil
		l.running = false
		l.mu.Unlock()
		return false
	}
	j := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.mu.Unlock()
	j.timed()
	if s := j.origin; s != nil {
		s.kick(true, l.waiting() || inline && s.moreRunners())
	}
	return j.state.CompareAndSwap(jobRunning, jobDone) // else it let the next one begin, elsewhere
}

func (l *lane) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

const (
	jobRunning = iota
	jobUnblocked
	jobDone
)

// job is one call on a target of this process.
type job struct {
	t      *Target
	method *method
	path   []key
	get    bool
	args   *payload
	result deferred
	state  atomic.Int32
	info   CallInfo
	origin *Session
}

// CallInfo says what a running handler is answering.
type CallInfo struct{ j *job }

// Session is the session on which the call arrived; nil for a call within the process.
func (c *CallInfo) Session() *Session { return c.j.origin }

// Method is the name that was called, with dots below the first level.
func (c *CallInfo) Method() string { return pathString(c.j.path) }

func (c *CallInfo) unblock() {
	if c.j.t.parallel {
		return
	}
	if c.j.origin != nil {
		c.j.origin.handOver() // should the reader itself be running the handler
	}
	if c.j.state.CompareAndSwap(jobRunning, jobUnblocked) {
		go c.j.t.lane.drain()
	}
}

// Unblock lets the next call on the same target begin before the handler whose
// context ctx is has returned. From then on the two run in parallel.
// It does nothing outside of a handler.
func Unblock(ctx context.Context) {
	if c := FromContext(ctx); c != nil {
		c.unblock()
	}
}

type callKey struct{}

// callContext is the context of a handler.
type callContext struct {
	context.Context
	j *job
}

func (c *callContext) Value(k any) any {
	if _, ok := k.(callKey); ok {
		return &c.j.info
	}
	return c.Context.Value(k)
}

// FromContext returns what the handler with this context is answering, or nil.
func FromContext(ctx context.Context) *CallInfo {
	c, _ := ctx.Value(callKey{}).(*CallInfo)
	return c
}

// run calls the function and settles the result.
func (j *job) run() {
	origin := j.args.origin
	j.origin = origin
	ctx := context.Background()
	if origin != nil {
		ctx = origin.ctx
	}
	j.info.j = j
	v, err := j.invoke(&callContext{ctx, j})
	var out *payload
	if err == nil {
		out, err = buildResult(v)
	}
	// Parameters are given back before the result goes out, as the reference does.
	j.args.close()
	if !j.method.raw {
		j.args.v = nil
	}
	if origin != nil {
		origin.endCall(j, err)
	}
	if err != nil {
		j.result.reject(err)
	} else {
		out.origin = origin
		j.result.resolve(hookOf(out))
	}
	j.result.close()
	j.t.close()
}

func (j *job) invoke(ctx context.Context) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, &panicError{value: r, stack: debug.Stack(), method: pathString(j.path)}
		}
	}()
	if j.method != dispatchMethod {
		return j.method.invoke(ctx, j.t, j.args)
	}
	in := Invocation{Get: j.get, Args: Args{j.args}}
	for _, k := range j.path {
		in.Path = append(in.Path, k.String())
	}
	return j.t.dispatch.Dispatch(ctx, in)
}

// panicError is a handler that panicked. The peer learns only that it did.
type panicError struct {
	value  any
	stack  []byte
	method string
}

func (e *panicError) Error() string {
	return fmt.Sprintf("capnweb: handler of %q panicked: %v\n%s", e.method, e.value, e.stack)
}

func (e *panicError) RPCError() *Error {
	return &Error{Name: "Error", Message: "internal error: the handler panicked"}
}
