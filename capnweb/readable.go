package capnweb

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"sync/atomic"
)

// chunkSize is how Go readers are cut into chunks: one chunk is one message.
const chunkSize = 64 << 10

// ReadableStream is a stream of chunks to read: of a peer, or made here to be
// passed to one. It is an io.ReadCloser for streams of bytes and text; for other
// chunks use [ReadableStream.Next] or [Chunks].
//
// Passing a stream gives it away: it cannot be used here afterwards. One that
// came as a parameter is lent for the call, like a stub; [ReadableStream.Keep] takes it.
// A stream must be read to its end or closed.
type ReadableStream struct {
	core *readCore
	gone atomic.Bool
}

// readCore is what the successive handles of a stream share.
type readCore struct {
	src  source
	mu   sync.Mutex // held by the reader
	rest []byte
	// used is the chunk that rest is the end of, to be given back after it.
	used *payload
	err  error
}

// source yields the chunks of a stream.
type source interface {
	// next waits for a chunk. At the end it returns one with eof set, or an error.
	next(ctx context.Context) (chunk, error)
	// cancel says that no more will be read.
	cancel(err error)
}

// chunk is one item of a stream. done, if set, tells the sender what became of it.
type chunk struct {
	p    *payload
	eof  bool
	done func(error)
}

func (c *chunk) ack(err error) {
	if c.done != nil {
		c.done(err)
		c.done = nil
	}
}

func newReadable(src source) *ReadableStream { return &ReadableStream{core: &readCore{src: src}} }

// NewReader makes a stream of bytes of r. When the stream ends, or is cancelled,
// r is closed if it is an io.Closer. Each stream that is passed on is read by one goroutine.
func NewReader(r io.Reader) *ReadableStream { return newReadable(&readerSource{r: r}) }

// NewSource makes a stream of values: next is called for one chunk after the other
// until it returns io.EOF, which ends the stream, or another error, which breaks it.
// stop, if not nil, is called once when no more chunks will be asked for.
func NewSource(next func(context.Context) (any, error), stop func(error)) *ReadableStream {
	return newReadable(&funcSource{f: next, stop: stop})
}

var errStreamGone = &Error{Name: "Error", Message: "the stream was passed on or closed"}

// take moves the stream to a new handle; nil if this one is used up.
func (s *ReadableStream) take() *ReadableStream {
	if s == nil || s.core == nil || !s.gone.CompareAndSwap(false, true) {
		return nil
	}
	return &ReadableStream{core: s.core}
}

// Keep takes a stream that was lent to a handler: it stays open after the handler
// returns, until it is closed.
func (s *ReadableStream) Keep() *ReadableStream {
	if t := s.take(); t != nil {
		return t
	}
	return newReadable(errorSource{errStreamGone})
}

var errNotConsumed = &Error{Name: "Error", Message: "ReadableStream RPC stub was disposed without being consumed"}

func (s *ReadableStream) dropUnused() {
	if t := s.take(); t != nil {
		t.core.src.cancel(errNotConsumed)
	}
}

// Close ends reading. The sender is told, and stops.
func (s *ReadableStream) Close() error {
	if t := s.take(); t != nil {
		t.core.src.cancel(plainErrorf("the stream was cancelled by its reader"))
	}
	return nil
}

// next takes one chunk; the core is locked.
func (c *readCore) next(ctx context.Context) (chunk, error) {
	if c.err != nil {
		return chunk{}, c.err
	}
	if len(c.rest) > 0 {
		p := &payload{v: c.rest}
		c.rest, c.used = nil, nil
		return chunk{p: p}, nil
	}
	ch, err := c.src.next(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.err = err
		}
		return chunk{}, err
	}
	if ch.eof {
		c.err = io.EOF
	}
	return ch, nil
}

func (s *ReadableStream) pull(ctx context.Context) (*payload, error) {
	if s.gone.Load() {
		return nil, errStreamGone
	}
	ch, err := s.core.next(ctx)
	if err != nil {
		return nil, err
	}
	ch.ack(nil)
	if ch.eof {
		return nil, io.EOF
	}
	return ch.p, nil
}

// Next waits for the next chunk and stores it in out, as [Promise.Await] stores
// results. At the end it returns io.EOF.
func (s *ReadableStream) Next(ctx context.Context, out any) error {
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	if c := FromContext(ctx); c != nil {
		c.unblock()
	}
	p, err := s.pull(ctx)
	if err != nil {
		return err
	}
	return p.deliver(out)
}

// Read implements io.Reader for streams of bytes or text.
func (s *ReadableStream) Read(b []byte) (int, error) {
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for len(s.core.rest) == 0 {
		if err := s.bytes(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.core.rest)
	if s.core.rest = s.core.rest[n:]; len(s.core.rest) == 0 {
		s.core.recycle()
	}
	return n, nil
}

// recycle gives back the chunk of which everything is used.
func (c *readCore) recycle() {
	c.rest = nil
	if c.used != nil {
		c.used.recycle()
		c.used = nil
	}
}

// bytes takes the next chunk as bytes, into rest.
func (s *ReadableStream) bytes() error {
	p, err := s.pull(context.Background())
	if err != nil {
		return err
	}
	defer p.close()
	switch x := p.v.(type) {
	case []byte:
		s.core.rest, s.core.used = x, p
		return nil
	case string:
		s.core.rest, s.core.used = []byte(x), nil
		return nil
	case TypedArray:
		s.core.rest, s.core.used = x.Data, nil
		return nil
	}
	err = typeErrorf("a chunk of the stream is %s, not bytes: read it with Next", kindName(p.v))
	s.core.err = err
	s.core.src.cancel(err)
	return err
}

// WriteTo implements io.WriterTo.
func (s *ReadableStream) WriteTo(w io.Writer) (int64, error) {
	s.core.mu.Lock()
	defer s.core.mu.Unlock()
	var total int64
	for {
		if len(s.core.rest) == 0 {
			if err := s.bytes(); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				return total, err
			}
		}
		n, err := w.Write(s.core.rest)
		total += int64(n)
		s.core.recycle()
		if err != nil {
			return total, err
		}
	}
}

// Chunks yields the chunks of a stream as values of type T, until its end or its first error.
func Chunks[T any](ctx context.Context, s *ReadableStream) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			var v T
			err := s.Next(ctx, &v)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// readerSource cuts an io.Reader into chunks.
type readerSource struct {
	r    io.Reader
	once sync.Once
	// reuse says that chunks are done with when the next is asked for.
	reuse bool
	buf   []byte
}

func (s *readerSource) next(context.Context) (chunk, error) {
	buf := s.buf
	if buf == nil {
		buf = make([]byte, chunkSize)
		if s.reuse {
			s.buf = buf
		}
	}
	for {
		n, err := s.r.Read(buf)
		if n > 0 {
			return chunk{p: &payload{v: buf[:n:n]}}, nil
		}
		if errors.Is(err, io.EOF) {
			s.cancel(nil)
			return chunk{eof: true}, nil
		}
		if err != nil {
			s.cancel(err)
			return chunk{}, err
		}
	}
}

func (s *readerSource) cancel(error) {
	s.once.Do(func() {
		if c, ok := s.r.(io.Closer); ok {
			_ = c.Close()
		}
	})
}

// bytesSource yields bytes that are at hand.
type bytesSource struct{ data []byte }

func (s *bytesSource) next(context.Context) (chunk, error) {
	if len(s.data) == 0 {
		return chunk{eof: true}, nil
	}
	n := min(len(s.data), chunkSize)
	c := chunk{p: &payload{v: s.data[:n:n], shared: true}}
	s.data = s.data[n:]
	return c, nil
}

func (s *bytesSource) cancel(error) {}

// funcSource yields what a function returns.
type funcSource struct {
	f    func(context.Context) (any, error)
	stop func(error)
	once sync.Once
}

func (s *funcSource) next(ctx context.Context) (chunk, error) {
	v, err := s.f(ctx)
	if errors.Is(err, io.EOF) {
		s.cancel(nil)
		return chunk{eof: true}, nil
	}
	if err == nil {
		var p *payload
		if p, err = buildResult(v); err == nil {
			return chunk{p: p}, nil
		}
	}
	s.cancel(err)
	return chunk{}, err
}

func (s *funcSource) cancel(err error) {
	s.once.Do(func() {
		if s.stop != nil {
			s.stop(err)
		}
	})
}

type errorSource struct{ err error }

func (s errorSource) next(context.Context) (chunk, error) { return chunk{}, s.err }
func (s errorSource) cancel(error)                        {}
