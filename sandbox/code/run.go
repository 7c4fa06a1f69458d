package code

import (
	"context"
	"fmt"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// run is one run. Its events come from two goroutines and are handled by one, so that
// the caller's functions are never called at the same time.
type run struct {
	c      *Context
	in     *interpreter
	id     string
	opts   RunOptions
	out    *Outcome
	events chan event
}

// event is something that was printed.
type event struct {
	stream sandbox.Stream
	data   []byte
	taken  chan struct{} // closed when data is no longer needed
}

func (r *run) do(ctx context.Context, code string) error {
	const op = "run code"
	over := make(chan struct{})
	defer close(over)
	r.in.expect(r.id)
	r.in.listen(func(stream sandbox.Stream, data []byte) {
		e := event{stream, data, make(chan struct{})}
		select {
		case r.events <- e:
		case <-over:
			return
		}
		select {
		case <-e.taken:
		case <-over:
		}
	})
	defer r.in.listen(nil)
	if err := r.in.send(message{Op: "run", ID: r.id, Code: code}); err != nil {
		return r.crashed(op)
	}

	var timeout <-chan time.Time
	limit := r.opts.Timeout
	if limit == 0 {
		limit = r.c.spec.Timeout
	}
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		timeout = t.C
	}
	var (
		done    = ctx.Done()
		late    *sandbox.Error   // the timeout has passed
		patient <-chan time.Time // until the interpreter is killed
		marks   = 0
		ended   = false // the interpreter says so; its last output may be on the way
	)
	interrupt := func() {
		done, timeout = nil, nil
		_ = r.in.send(message{Op: "interrupt", ID: r.id}) // else it is killed
		patient = time.After(grace)
	}
	for !ended || marks < 2 {
		select {
		case e := <-r.events:
			r.print(e)
			if ended {
				patient = time.After(settle) // what is read goes on
			}
		case <-r.in.marked:
			marks++
		case m, ok := <-r.in.lines:
			if !ok {
				r.drain()
				return r.crashed(op)
			}
			if m.ID != r.id {
				continue // of a run that was given up
			}
			switch m.Event {
			case "result":
				r.result(resultOf(m))
			case "error":
				r.failed(&Error{Name: m.Name, Message: m.Message, Traceback: m.Traceback})
			case "done":
				// The code may have closed its standard output, and no mark comes.
				ended, patient = true, time.After(settle)
			}
		case <-r.in.dead:
			r.drain()
			return r.crashed(op)
		case <-done:
			interrupt()
		case <-timeout:
			late = sandbox.Errf(sandbox.CodeTimeout, op, fmt.Sprintf("the code was not done after %v", limit), "its state is kept; set a longer timeout")
			interrupt()
		case <-patient:
			if ended {
				marks = 2
				continue
			}
			r.c.drop(r.in)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			late.Hint = "it did not stop when it was interrupted, so its interpreter was killed: the next run begins with a new one"
			return late
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if late != nil {
		return late
	}
	return nil
}

// drain takes what was printed before the end.
func (r *run) drain() {
	for {
		select {
		case e := <-r.events:
			r.print(e)
			continue
		default:
		}
		select {
		case e := <-r.events:
			r.print(e)
		case <-r.in.dead:
			if len(r.events) == 0 {
				return
			}
		case <-time.After(settle):
			return
		}
	}
}

func (r *run) crashed(op string) error {
	err := r.in.crash(op)
	if sandbox.CodeOf(err) == sandbox.CodeInterpreterCrashed {
		r.c.drop(r.in)
	} else {
		r.in.close()
	}
	return err
}

func (r *run) print(e event) {
	defer close(e.taken)
	keep, f := &r.out.Stdout, r.opts.OnStdout
	if e.stream == sandbox.Stderr {
		keep, f = &r.out.Stderr, r.opts.OnStderr
	}
	room := MaxOutput - len(*keep)
	if len(e.data) > room {
		r.out.Truncated = true
	}
	*keep = append(*keep, e.data[:min(room, len(e.data))]...)
	if f != nil {
		f(e.data)
	}
}

func (r *run) result(res Result) {
	if len(r.out.Results) < MaxResults {
		r.out.Results = append(r.out.Results, res)
	} else {
		r.out.Truncated = true
	}
	if r.opts.OnResult != nil {
		r.opts.OnResult(res)
	}
}

func (r *run) failed(e *Error) {
	r.out.Error = e
	if r.opts.OnError != nil {
		r.opts.OnError(e)
	}
}
