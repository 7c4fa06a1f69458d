package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// toolCaller is tool.Call; tests put their own tools in its place.
type toolCaller func(ctx context.Context, env tool.Env, name string, args json.RawMessage, hooks tool.Hooks) (tool.Result, error)

// runs are the runs of tools, by the call that asked for them. A run goes on
// whatever becomes of the connection, and its result is kept, so that asking
// again is attaching and never running twice.
type runs struct {
	call    toolCaller
	env     tool.Env
	ripgrep func() string
	lim     Limits
	orphan  time.Duration
	ctx     context.Context // ends with the guest
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	byKey   map[runKey]*run
	past    []*run // ended, oldest first
	bytes   int64  // of results in past
	active  int
	serial  uint64
	janitor *time.Timer
	closed  bool
}

type runKey struct{ session, message, call string }

type run struct {
	key    runKey
	digest [16]byte // of the tool's name and arguments
	cancel context.CancelCauseFunc
	done   chan struct{}
	result *sandbox.ToolResult
	err    error
	size   int64
	ended  time.Time
	hooks  runHooks
}

var errAborted = &sandbox.Error{Code: sandbox.CodeAborted, Op: "tool", Message: "Tool execution aborted"}

func newRuns(cfg *Config, call toolCaller, env tool.Env) *runs {
	r := &runs{call: call, env: env, ripgrep: cfg.ripgrep, lim: cfg.Limits, orphan: seconds(cfg.Limits.OrphanSeconds), byKey: map[runKey]*run{}}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r
}

// attach finds the run that a call names, or begins it. again says that the run
// may have begun before: what changes something is then not begun anew, since a
// guest that was started in between can't know how far it came.
func (r *runs) attach(name string, args json.RawMessage, key runKey, again bool) (*run, error) {
	// Whoever makes two calls collide on purpose only gets a result of its own.
	h := fnv.New128a()
	_, _ = h.Write([]byte(name + "\x00"))
	_, _ = h.Write(args)
	digest := [16]byte(h.Sum(nil))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, sandbox.Errf(sandbox.CodeShuttingDown, "tool", "the sandbox is shutting down", "")
	}
	if key.call == "" {
		r.serial++
		key.call = fmt.Sprintf("\x00%d", r.serial) // matches nothing
	}
	if old := r.byKey[key]; old != nil {
		if old.digest == digest {
			return old, nil
		}
		if old.ended.IsZero() {
			return nil, sandbox.Errf(sandbox.CodeCallConflict, "tool", "call "+key.call+" is running with another tool or other arguments", "give each call an id of its own")
		}
		r.forget(old)
	}
	if again && !tool.Repeatable(name) {
		return nil, sandbox.Errf(sandbox.CodeRunLost, "tool", "The sandbox was restarted while this command ran, and what came of it is not known.",
			"It may have been done, wholly or in part: look before you repeat it.")
	}
	if r.active >= r.lim.Runs {
		return nil, sandbox.Errf(sandbox.CodeTooManyProcesses, "tool", fmt.Sprintf("%d tools are running, and no more are allowed", r.active), "wait for one to end, or cancel one")
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	x := &run{key: key, digest: digest, cancel: cancel, done: make(chan struct{})}
	x.hooks.init(ctx, r.orphan)
	r.byKey[key] = x
	r.active++
	r.wg.Go(func() { r.execute(ctx, x, name, args) })
	return x, nil
}

func (r *runs) execute(ctx context.Context, x *run, name string, args json.RawMessage) {
	defer x.cancel(nil)
	env := r.env
	if name == "grep" { // looked up each time: it may be installed in between
		env.Ripgrep = r.ripgrep()
	}
	env.Session = x.key.session
	res, err := r.guarded(ctx, env, name, args, tool.Hooks{Ask: x.hooks.ask, Progress: x.hooks.progress})
	switch {
	case errors.Is(context.Cause(ctx), errAborted):
		err = errAborted
	case err != nil && r.ctx.Err() != nil:
		err = sandbox.Errf(sandbox.CodeShuttingDown, "tool", "the sandbox was shut down while the tool ran", "")
	}
	x.hooks.finish()
	if err != nil {
		x.err, x.size = err, int64(len(err.Error()))
	} else {
		x.result, x.size = &res, resultSize(&res)
	}
	r.mu.Lock()
	x.ended = time.Now()
	r.active--
	r.past = append(r.past, x)
	r.bytes += x.size
	r.sweep()
	r.mu.Unlock()
	close(x.done)
}

// guarded keeps a fault in a tool from ending the guest.
func (r *runs) guarded(ctx context.Context, env tool.Env, name string, args json.RawMessage, hooks tool.Hooks) (res tool.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &sandbox.Error{Code: sandbox.CodeInternal, Op: "tool", Message: fmt.Sprintf("the tool %s failed inside: %v", name, p), Hint: "this is a fault of ours: please report it",
				Err: fmt.Errorf("%s", debug.Stack())}
		}
	}()
	return r.call(ctx, env, name, args, hooks)
}

func resultSize(res *sandbox.ToolResult) int64 {
	n := len(res.Title) + len(res.Output)
	for _, a := range res.Attachments {
		n += len(a.URL)
	}
	if b, err := json.Marshal(res.Metadata); err == nil {
		n += len(b)
	}
	return int64(n) + 256
}

// abort cancels the runs of a call that are under way.
func (r *runs) abort(callID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := false
	for key, x := range r.byKey {
		if key.call == callID && callID != "" && x.ended.IsZero() {
			x.cancel(errAborted)
			found = true
		}
	}
	return found
}

func (r *runs) forget(x *run) {
	for i, p := range r.past {
		if p == x {
			r.past = append(r.past[:i], r.past[i+1:]...)
			r.bytes -= x.size
			break
		}
	}
	if r.byKey[x.key] == x {
		delete(r.byKey, x.key)
	}
}

// sweep forgets ended runs that are too many, too large or too old.
func (r *runs) sweep() {
	keep := seconds(r.lim.FinishedSeconds)
	for len(r.past) > 0 {
		x := r.past[0]
		over := len(r.past) > r.lim.FinishedRuns || r.bytes > r.lim.FinishedRunBytes && len(r.past) > 1
		if !over && time.Since(x.ended) < keep && x.key.call[0] != 0 {
			break
		}
		r.forget(x)
	}
	if r.janitor != nil {
		r.janitor.Stop()
		r.janitor = nil
	}
	if len(r.past) > 0 && !r.closed {
		r.janitor = time.AfterFunc(keep-time.Since(r.past[0].ended)+time.Second, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sweep()
		})
	}
}

// close ends all runs; those attached are told.
func (r *runs) close() {
	r.mu.Lock()
	r.closed = true
	if r.janitor != nil {
		r.janitor.Stop()
	}
	r.mu.Unlock()
	r.cancel(errors.New("the guest ends"))
	r.wg.Wait()
}
