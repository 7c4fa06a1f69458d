package surface

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// event is one server-sent event: a JSON object with a type.
type event map[string]any

// heartbeat is how often a stream that has nothing to say says so: of events, with a comment. A
// reader that has gone is noticed by the second thing that is sent to it, so within ten seconds.
const heartbeat = 5 * time.Second

// eventStream makes a stream of bytes, in the format of server-sent events, of what
// next returns; next is called by one goroutine, for one event after the other, until it
// returns io.EOF. Any other error becomes a last event of type error, and the stream ends
// properly: that is how the SDK's readers learn of it. When no more will be read next's
// context ends, and stop is called once, when next does not run any more.
func eventStream(operation string, next func(context.Context) (event, error), stop func()) *capnweb.ReadableStream {
	ctx, cancel := context.WithCancel(context.Background())
	if stop == nil {
		stop = func() {}
	}
	s := &events{next: next, operation: operation, ctx: ctx, cancel: cancel, stop: stop, asked: make(chan struct{}), given: make(chan given)}
	return capnweb.NewSource(s.chunk, func(error) { s.close() })
}

type given struct {
	e   event
	err error
}

type events struct {
	next      func(context.Context) (event, error)
	operation string
	ctx       context.Context
	cancel    context.CancelFunc
	stop      func()

	asked   chan struct{} // one for each event that is wanted
	given   chan given
	waiting bool // an event was asked for and has not come
	over    bool

	mu              sync.Mutex
	running, closed bool // running: run calls next, and stop in the end
}

func (s *events) close() {
	s.mu.Lock()
	first, running := !s.closed, s.running
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	if first && !running {
		s.stop()
	}
}

// begin starts the goroutine that calls next.
func (s *events) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running && !s.closed {
		s.running = true
		go s.run()
	}
	return !s.closed
}

// run calls next whenever an event is asked for.
func (s *events) run() {
	defer s.stop()
	for {
		select {
		case <-s.asked:
		case <-s.ctx.Done():
			return
		}
		e, err := s.next(s.ctx)
		select {
		case s.given <- given{e, err}:
		case <-s.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (s *events) chunk(ctx context.Context) (any, error) {
	if s.over || !s.begin() {
		return nil, io.EOF
	}
	if !s.waiting {
		select {
		case s.asked <- struct{}{}:
			s.waiting = true
		case <-s.ctx.Done():
			return nil, io.EOF
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	select {
	case g := <-s.given:
		s.waiting = false
		if g.err == nil {
			return encodeEvent(g.e), nil
		}
		s.over = true
		if errors.Is(g.err, io.EOF) {
			return nil, io.EOF
		}
		return encodeEvent(errorEvent(s.operation, g.err)), nil
	case <-timer.C:
		return []byte(": still here\n\n"), nil
	case <-s.ctx.Done():
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func errorEvent(operation string, err error) event {
	e := event{"type": "error", "error": err.Error(), "timestamp": timestamp(time.Now())}
	var f *failure
	if errors.As(asFailure(operation, nil, err), &f) {
		e["error"], e["code"] = f.RPCError().Message, string(f.err.Code)
		if f.err.Hint != "" {
			e["suggestion"] = f.err.Hint
		}
	}
	return e
}

func encodeEvent(e event) []byte {
	var b bytes.Buffer
	b.WriteString("data: ")
	enc := json.NewEncoder(&b) // ends with a newline, and writes no other
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		b.Reset()
		b.WriteString(`data: {"type":"error","error":"the event could not be written"}` + "\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}
