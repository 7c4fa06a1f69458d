package guest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// caller is one attached call: where questions and progress of a run go.
type caller struct {
	ask, progress *capnweb.Stub // either may be nil
	ctx           context.Context
}

// runHooks connect a run with whoever is attached to it now. The last to attach
// is the one; while nobody is, a question waits.
type runHooks struct {
	ctx    context.Context // ends with the run, or with finish
	cancel context.CancelFunc
	orphan time.Duration

	mu       sync.Mutex
	caller   *caller
	changed  chan struct{} // closed at the next attach
	latest   *sandbox.ProgressReport
	sending  bool
	sent     sync.WaitGroup
	finished bool
}

func (h *runHooks) init(ctx context.Context, orphan time.Duration) {
	h.ctx, h.cancel = context.WithCancel(ctx)
	h.orphan, h.changed = orphan, make(chan struct{})
}

// attach makes c the caller until the returned function is called.
func (h *runHooks) attach(c *caller) (detach func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caller = c
	close(h.changed)
	h.changed = make(chan struct{})
	h.push()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.caller == c {
			h.caller = nil
		}
	}
}

func (h *runHooks) current() (*caller, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.caller, h.changed
}

// ask puts a question to the caller. When the line breaks before the answer, it
// is put again to the next one.
func (h *runHooks) ask(ctx context.Context, req sandbox.AskRequest) error {
	patience := time.NewTimer(h.orphan)
	defer patience.Stop()
	for {
		c, changed := h.current()
		if c != nil {
			if c.ask == nil {
				return nil
			}
			_, err := capnweb.Call[capnweb.Value](ctx, c.ask, "", req)
			switch {
			case err == nil:
				return nil
			case ctx.Err() != nil:
				return ctx.Err()
			case !lost(err):
				return rejected(err)
			}
			// This caller is gone, whether or not it has been detached yet.
			if now, _ := h.current(); now != nil && now != c {
				continue
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			return sandbox.Errf(sandbox.CodeRejected, "ask", "nobody was there to answer whether the tool may go on", "connect again and repeat the call")
		}
	}
}

// lost tells a line that broke, here or further on the way to who is asked, from
// somebody who said no.
func lost(err error) bool {
	var w *capnweb.Error
	return errors.Is(err, capnweb.ErrDisconnected) || errors.Is(err, capnweb.ErrClosed) ||
		errors.As(err, &w) && w.Code() == string(sandbox.CodeConnectionLost)
}

func rejected(err error) error {
	e := &sandbox.Error{Code: sandbox.CodeRejected, Op: "ask", Message: err.Error(), Err: err}
	var w *capnweb.Error
	if errors.As(err, &w) {
		e.Message = w.Message
	}
	return e
}

// progress tells the caller what the run shows now. It never waits: what has not
// been sent when something newer comes is replaced by it.
func (h *runHooks) progress(title string, metadata map[string]any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finished {
		return
	}
	h.latest = &sandbox.ProgressReport{Title: title, Metadata: metadata}
	h.push()
}

// push sends the latest report if there is a caller and nothing is being sent.
func (h *runHooks) push() {
	if h.latest == nil || h.sending || h.finished || h.caller == nil || h.caller.progress == nil {
		return
	}
	h.sending = true
	h.sent.Go(h.send)
}

func (h *runHooks) send() {
	for {
		h.mu.Lock()
		c, report := h.caller, h.latest
		if c == nil || c.progress == nil || report == nil || h.finished {
			h.sending = false
			h.mu.Unlock()
			return
		}
		h.latest = nil
		h.mu.Unlock()
		// The answer is waited for, so that a slow caller gets few reports.
		ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
		stop := context.AfterFunc(h.ctx, cancel)
		_, err := capnweb.Call[capnweb.Value](ctx, c.progress, "", *report)
		stop()
		cancel()
		if err == nil {
			continue
		}
		h.mu.Lock()
		if h.latest == nil {
			h.latest = report // the next caller may not have seen it
		}
		if h.caller == c {
			h.sending = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// finish ends all talk: no report is sent after it has returned.
func (h *runHooks) finish() {
	h.mu.Lock()
	h.finished = true
	h.mu.Unlock()
	h.cancel()
	h.sent.Wait()
}
