package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tongs-dev/tongs/capnweb"
)

// addMedia adds the methods that deal in streams, blobs, requests and responses.
func (s *suite) addMedia(m capnweb.Methods) {
	m["readBytes"] = func(r io.Reader) (Sum, error) { return readAll(r) }
	m["readObjects"] = func(ctx context.Context, r *capnweb.ReadableStream) ([]capnweb.Value, error) {
		var all []capnweb.Value
		for v, err := range capnweb.Chunks[capnweb.Value](ctx, r) {
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	}
	m["readCounters"] = func(ctx context.Context, r *capnweb.ReadableStream) (int, error) {
		total := 0
		for c, err := range capnweb.Chunks[*capnweb.Stub](ctx, r) {
			if err != nil {
				return 0, err
			}
			n, err := capnweb.Call[int](ctx, c, "increment", 1)
			c.Close()
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	}
	m["sourceBytes"] = patternStream
	m["sourceObjects"] = func(n int) *capnweb.ReadableStream {
		i := 0
		return capnweb.NewSource(func(context.Context) (any, error) {
			if i == n {
				return nil, io.EOF
			}
			v := map[string]int{"i": i, "square": i * i}
			i++
			return v, nil
		}, nil)
	}
	m["failing"] = failingStream
	m["endless"] = func() *capnweb.ReadableStream {
		return capnweb.NewSource(func(context.Context) (any, error) { return patternBytes(1024, 0), nil },
			func(error) { s.cancelled.Add(1) })
	}
	m["cancelled"] = func() int64 { return s.cancelled.Load() }
	m["slowReader"] = newSlowReader
	m["makeSink"] = newSink
	m["writeTo"] = func(ctx context.Context, w *capnweb.WritableStream, chunks, size int) (int, error) {
		for i := range chunks {
			if err := w.WriteValue(ctx, patternBytes(size, i*size)); err != nil {
				return 0, err
			}
		}
		return chunks * size, w.CloseContext(ctx)
	}
	m["abortTo"] = func(w *capnweb.WritableStream) error {
		if _, err := w.Write(patternBytes(10, 0)); err != nil {
			return err
		}
		return w.CloseWithError(errors.New("writer gave up"))
	}

	m["echoBlob"] = func(b *capnweb.Blob) *capnweb.Blob { return b }
	m["makeBlob"] = func(size int, kind string) *capnweb.Blob { return capnweb.NewBlob(kind, patternBytes(size, 0)) }
	m["describeBlob"] = func(b *capnweb.Blob) blobDescription { return blobDescription{b.Type, hashOf(b.Data)} }
	m["describeRequest"] = func(r *capnweb.Request) (requestDescription, error) {
		h, err := bodyOf(r.Body)
		method := r.Method
		if method == "" {
			method = "GET"
		}
		return requestDescription{method, r.URL, r.Headers.Get("x-test"), h}, err
	}
	m["makeResponse"] = func(status, size int) *capnweb.Response {
		r := &capnweb.Response{Status: status, Headers: capnweb.Headers{{"x-test", "yes"}}}
		if size > 0 {
			r.Body = patternStream(size, 10_000)
		}
		return r
	}
	m["describeResponse"] = describeResponse
}

type blobDescription struct {
	Type string `json:"type"`
	Sum
}

type requestDescription struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Header string `json:"header"`
	Sum
}

type responseDescription struct {
	Status int    `json:"status"`
	Header string `json:"header"`
	Sum
}

func describeResponse(r *capnweb.Response) (responseDescription, error) {
	h, err := bodyOf(r.Body)
	status := r.Status
	if status == 0 {
		status = 200
	}
	return responseDescription{status, r.Headers.Get("x-test"), h}, err
}

func bodyOf(body any) (Sum, error) {
	switch b := body.(type) {
	case nil:
		return hashOf(nil), nil
	case string:
		return hashOf([]byte(b)), nil
	case []byte:
		return hashOf(b), nil
	case *capnweb.ReadableStream:
		return readAll(b)
	}
	return Sum{}, fmt.Errorf("a body of type %T", body)
}

func failingStream(n int) *capnweb.ReadableStream {
	i := 0
	return capnweb.NewSource(func(context.Context) (any, error) {
		if i == n {
			return nil, &capnweb.Error{Name: "RangeError", Message: "source failed"}
		}
		i++
		return patternBytes(10, 0), nil
	}, nil)
}

// newSlowReader makes an object that reads a stream only when told to.
func newSlowReader(r *capnweb.ReadableStream) *capnweb.Target {
	r = r.Keep()
	h := newHasher()
	return capnweb.NewTarget(capnweb.Methods{
		"take": func(ctx context.Context, n int) (map[string]any, error) {
			done := false
			for range n {
				var b []byte
				err := r.Next(ctx, &b)
				if errors.Is(err, io.EOF) {
					done = true
					break
				}
				if err != nil {
					return nil, err
				}
				_, _ = h.Write(b)
			}
			got := h.sum()
			return map[string]any{"size": got.Size, "hash": got.Hash, "done": done}, nil
		},
	}, capnweb.OnClose(func() { r.Close() }))
}

// sink takes the chunks of a stream and remembers how it ended.
type sink struct {
	limit int

	mu    sync.Mutex
	h     *hasher
	state string
}

func newSink(limit int) *capnweb.Target {
	s := &sink{limit: limit, h: newHasher(), state: "open"}
	return capnweb.NewTarget(capnweb.Methods{
		"stream":  func() *capnweb.WritableStream { return capnweb.NewSink(s) },
		"outcome": s.outcome,
	})
}

type outcome struct {
	Sum
	State string `json:"state"`
}

func (s *sink) outcome() outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return outcome{s.h.sum(), s.state}
}

func (s *sink) WriteChunk(_ context.Context, chunk capnweb.Value) error {
	b, ok := chunk.V.([]byte)
	if !ok {
		return fmt.Errorf("a chunk of type %T", chunk.V)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && s.h.size+len(b) > s.limit {
		return &capnweb.Error{Name: "RangeError", Message: "sink is full"}
	}
	_, _ = s.h.Write(b)
	return nil
}

func (s *sink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = "closed"
	return nil
}

func (s *sink) Abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = "aborted: " + err.Error()
}
