package capnweb

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// WritableStream is a stream to write to: of a peer, or made here to be passed to
// one. It is an io.WriteCloser for bytes; [WritableStream.WriteValue] writes any value.
//
// A write returns when the stream takes more, not when the chunk has arrived; a
// failure is reported by a later write, or by Close. Passing a stream gives it away: it cannot be
// used here afterwards. One that came as a parameter is lent for the call;
// [WritableStream.Keep] takes it. A stream that is given up without Close is aborted.
type WritableStream struct {
	core *writeCore
	gone atomic.Bool
}

type writeCore struct {
	h    hook
	mu   sync.Mutex
	w    *chunkWriter
	done bool
}

// Sink takes the chunks of a stream.
type Sink interface {
	// WriteChunk takes one chunk, and owns the references in it unless it returns an error.
	// The next comes when it has returned. An error breaks the stream: the writer gets it.
	WriteChunk(ctx context.Context, chunk Value) error
	// Close is called at the end. The writer waits for it and gets its error.
	Close(ctx context.Context) error
	// Abort is called instead of Close when the stream breaks.
	Abort(err error)
}

// NewWriter makes a stream that writes bytes and text to w, which is closed at the
// end if it is an io.Closer. If the stream is aborted, w's CloseWithError is called instead if
// it has one, else its Close.
func NewWriter(w io.Writer) *WritableStream { return NewSink(&writerSink{w: w}) }

// NewSink makes a stream whose chunks sink takes. A goroutine runs from the first
// write until the end of the stream.
func NewSink(sink Sink) *WritableStream {
	p := newPipe(nil, defaultLimits.MaxPipeBytes)
	p.start = func() { go drainInto(p, sink) }
	return &WritableStream{core: &writeCore{h: p}}
}

// drainInto hands the chunks of a pipe to a sink.
func drainInto(p *pipe, sink Sink) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fail := func(err error) {
		p.cancel(err)
		sink.Abort(err)
	}
	for {
		c, err := p.next(ctx)
		if err != nil {
			sink.Abort(err)
			return
		}
		if c.eof {
			c.ack(guarded(func() error { return sink.Close(ctx) }))
			return
		}
		d := decoder{p: c.p, move: true}
		chunk := Value{d.ordered(c.p.v)}
		if err = guarded(func() error { return sink.WriteChunk(ctx, chunk) }); err != nil {
			closeReferences(chunk.V)
		}
		if _, ok := sink.(*writerSink); ok {
			c.p.recycle()
		}
		c.p.close()
		c.ack(err)
		if err != nil {
			fail(err)
			return
		}
	}
}

// closeReferences closes what a value refers to.
func closeReferences(v any) {
	switch x := v.(type) {
	case io.Closer: // stubs, promises and streams
		_ = x.Close()
	case []any:
		for _, e := range x {
			closeReferences(e)
		}
	case Object:
		for _, m := range x {
			closeReferences(m.Value)
		}
	case *Request:
		closeReferences(x.Body)
	case *Response:
		closeReferences(x.Body)
	}
}

// guarded turns a panic of the application's code into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{value: r, method: "stream"}
		}
	}()
	return f()
}

type writerSink struct{ w io.Writer }

func (s *writerSink) WriteChunk(_ context.Context, c Value) error {
	var b []byte
	switch x := c.V.(type) {
	case []byte:
		b = x
	case string:
		b = []byte(x)
	case TypedArray:
		b = x.Data
	default:
		return typeErrorf("this stream takes bytes or text, not %s", kindName(c.V))
	}
	_, err := s.w.Write(b)
	return err
}

func (s *writerSink) Close(context.Context) error {
	if c, ok := s.w.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (s *writerSink) Abort(err error) {
	switch c := s.w.(type) {
	case interface{ CloseWithError(error) error }:
		_ = c.CloseWithError(err)
	case io.Closer:
		_ = c.Close()
	}
}

// StreamPipe returns a stream and its other end: what is written to the one is
// read from the other.
func StreamPipe() (*WritableStream, *ReadableStream) {
	p := newPipe(nil, defaultLimits.MaxPipeBytes)
	return &WritableStream{core: &writeCore{h: p}}, newReadable(p)
}

func (s *WritableStream) take() *WritableStream {
	if s == nil || s.core == nil || !s.gone.CompareAndSwap(false, true) {
		return nil
	}
	return &WritableStream{core: s.core}
}

// Keep takes a stream that was lent to a handler: it stays open after the handler
// returns, until it is closed.
func (s *WritableStream) Keep() *WritableStream {
	if t := s.take(); t != nil {
		return t
	}
	return &WritableStream{core: &writeCore{h: errorHook{errStreamGone}}}
}

func (s *WritableStream) dropUnused() {
	if t := s.take(); t != nil {
		t.core.release()
	}
}

func (c *writeCore) release() {
	c.mu.Lock()
	done := c.done
	c.done = true
	c.mu.Unlock()
	if !done {
		c.h.close()
	}
}

func (s *WritableStream) writer() (*chunkWriter, error) {
	if s.gone.Load() {
		return nil, errStreamGone
	}
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	if s.core.done {
		return nil, errStreamClosed
	}
	if s.core.w == nil {
		s.core.w = newChunkWriter(s.core.h)
	}
	return s.core.w, nil
}

// Write implements io.Writer. It cuts b into chunks.
func (s *WritableStream) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 || total == 0 {
		n := min(len(b), chunkSize)
		if err := s.WriteValue(context.Background(), append([]byte(nil), b[:n]...)); err != nil {
			return total, err
		}
		total += n
		b = b[n:]
		if len(b) == 0 {
			break
		}
	}
	return total, nil
}

// WriteValue writes one chunk. References in it stay the caller's.
func (s *WritableStream) WriteValue(ctx context.Context, chunk any) error {
	w, err := s.writer()
	if err != nil {
		return err
	}
	p, err := buildArgs([]any{chunk})
	if err != nil {
		return err
	}
	if c := FromContext(ctx); c != nil {
		c.unblock()
	}
	return w.write(ctx, p, nil)
}

// Close ends the stream and waits until its owner has taken everything. It
// returns the first error that a write or the end met.
func (s *WritableStream) Close() error { return s.CloseContext(context.Background()) }

// CloseContext is Close with a bound.
func (s *WritableStream) CloseContext(ctx context.Context) error {
	w, err := s.writer()
	if err != nil {
		if err == errStreamClosed { //nolint:errorlint // our own
			return nil
		}
		return err
	}
	if c := FromContext(ctx); c != nil {
		c.unblock()
	}
	err = w.end(ctx)
	s.core.release()
	s.gone.Store(true)
	return err
}

// CloseWithError aborts the stream: its owner learns the reason.
func (s *WritableStream) CloseWithError(reason error) error {
	w, err := s.writer()
	if err != nil {
		return nil
	}
	w.abort(reason)
	s.core.release()
	s.gone.Store(true)
	return nil
}

// chunkWriter writes to the writing end of a stream, wherever that is, within a
// window of unacknowledged bytes.
type chunkWriter struct {
	h    hook // borrowed
	mu   sync.Mutex
	flow *flow
	err  error         // the first failure
	room chan struct{} // closed when there is room again; nil while there is
}

func newChunkWriter(h hook) *chunkWriter {
	return &chunkWriter{h: h, flow: newFlow(monotonicMillis)}
}

// sentChunk is one write that is under way.
type sentChunk struct {
	w     *chunkWriter
	token flowToken
	sent  bool
	early bool
	err   error
	acked func(error)
}

// write sends a chunk (args is a list of one, and is owned), then waits for room.
// acked, if set, is called when the chunk was taken or refused.
func (w *chunkWriter) write(ctx context.Context, args *payload, acked func(error)) error {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		args.close()
		if acked != nil {
			acked(err)
		}
		return err
	}
	if e, ok := final(w.h).(*importEntry); ok {
		if err := e.s.waitForRoom(ctx); err != nil {
			args.close()
			if acked != nil {
				acked(err)
			}
			return err
		}
	}
	c := &sentChunk{w: w, acked: acked}
	size := streamCall(w.h, "write", args, c.finish)
	w.mu.Lock()
	var full bool
	c.token, full = w.flow.onSend(size)
	c.sent = true
	if full && w.room == nil && w.err == nil {
		w.room = make(chan struct{})
	}
	early := c.early
	w.mu.Unlock()
	if early {
		c.finish(c.err)
	}
	return w.wait(ctx)
}

// wait waits until the window has room.
func (w *chunkWriter) wait(ctx context.Context) error {
	w.mu.Lock()
	room, err := w.room, w.err
	w.mu.Unlock()
	if err != nil || room == nil {
		return err
	}
	select {
	case <-room:
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *sentChunk) finish(err error) {
	w := c.w
	w.mu.Lock()
	if !c.sent { // answered before it was counted
		c.early, c.err = true, err
		w.mu.Unlock()
		return
	}
	open := false
	if err != nil {
		w.flow.onError(c.token)
		if w.err == nil {
			w.err = err
		}
		open = true
	} else {
		open = w.flow.onAck(c.token)
	}
	if open && w.room != nil {
		close(w.room)
		w.room = nil
	}
	w.mu.Unlock()
	if c.acked != nil {
		c.acked(err)
	}
}

// end sends close and waits for its answer.
func (w *chunkWriter) end(ctx context.Context) error {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	streamCall(w.h, "close", &payload{v: []any{}}, func(err error) { done <- err })
	select {
	case err = <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if err != nil {
		w.err = err
	}
	return err
}

// abort sends abort; nothing is waited for.
func (w *chunkWriter) abort(reason error) {
	w.mu.Lock()
	failed := w.err != nil
	if !failed {
		w.err = plainErrorf("WritableStream was aborted")
		if reason != nil {
			w.err = reason
		}
		if w.room != nil {
			close(w.room)
			w.room = nil
		}
	}
	w.mu.Unlock()
	if failed {
		return
	}
	list := []any{}
	if reason != nil {
		b := builder{p: &payload{}}
		list = append(list, b.err(reason, 1))
	}
	streamCall(w.h, "abort", &payload{v: list}, func(error) {})
}

// streamCall calls a method of a writing end and returns the size that flow
// control counts. done may be called before streamCall returns.
func streamCall(h hook, method string, args *payload, done func(error)) int {
	h = final(h)
	if e, ok := h.(*importEntry); ok {
		return e.s.stream(e, method, args, done)
	}
	size := estimate(args.v)
	r := h.call([]key{{name: method}}, args)
	r.pull(newBudget(), func(p *payload, err error) {
		p.close()
		r.close()
		done(err)
	})
	return size
}

// pump sends a readable stream into the writing end of a pipe, which it owns.
func pump(ctx context.Context, r *ReadableStream, h hook) {
	defer h.close()
	w := newChunkWriter(h)
	c := r.core
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A source that waits for more must not outlive the session it is sent on.
	stop := h.onBroken(func(err error) {
		cancel(err)
		c.src.cancel(err)
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.src.(*readerSource); ok {
		_, s.reuse = final(h).(*importEntry) // which encodes a chunk before it returns
	}
	for {
		ch, err := c.next(ctx)
		if err != nil {
			w.abort(err)
			c.src.cancel(err)
			return
		}
		if ch.eof {
			err := w.end(ctx)
			ch.ack(err)
			return
		}
		ch.p.v = []any{ch.p.v}
		if err := w.write(ctx, ch.p, ch.done); err != nil {
			w.abort(err)
			c.src.cancel(err)
			return
		}
	}
}
