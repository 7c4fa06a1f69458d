package capnweb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// streamMain has methods with streams, blobs and bodies.
func streamMain() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"read": func(r io.Reader) (string, error) {
			b, err := io.ReadAll(r)
			return string(b), err
		},
		"source": func(n int) *capnweb.ReadableStream {
			return capnweb.NewReader(io.LimitReader(zeros{}, int64(n)))
		},
		"sink": func(ctx context.Context, w *capnweb.WritableStream, n int) error {
			for range n {
				if err := w.WriteValue(ctx, make([]byte, 1000)); err != nil {
					return err
				}
			}
			return w.CloseContext(ctx)
		},
		"echo":   func(v capnweb.Value) any { return v },
		"ignore": func(*capnweb.ReadableStream) {},
		"broken": func() *capnweb.ReadableStream {
			return capnweb.NewReader(io.MultiReader(strings.NewReader("abc"), badReader{}))
		},
		"response":  func(r *capnweb.Response) *capnweb.Response { return r },
		"wantsBlob": func(b *capnweb.Blob) string { return b.Type + ":" + string(b.Data) },
		"objects": func(ctx context.Context, s *capnweb.ReadableStream) (int, error) {
			total := 0
			for c, err := range capnweb.Chunks[*capnweb.Stub](ctx, s) {
				if err != nil {
					return 0, err
				}
				n, err := capnweb.Call[int](ctx, c, "increment")
				c.Close()
				if err != nil {
					return 0, err
				}
				total += n
			}
			return total, nil
		},
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type badReader struct{}

func (badReader) Read([]byte) (int, error) {
	return 0, &capnweb.Error{Name: "RangeError", Message: "disk on fire"}
}

// topologies runs a test against a session, and through a gateway.
func topologies(t *testing.T, main func() *capnweb.Target, f func(t *testing.T, ctx context.Context, main *capnweb.Stub)) {
	t.Helper()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		client, server := connect(t, nil, main(), capnweb.WithNewerEncodings())
		f(t, testContext(t), client.Main())
		waitStats(t, client, 1, 1)
		waitStats(t, server, 1, 1)
	})
	t.Run("forwarded", func(t *testing.T) {
		t.Parallel()
		back, server := connect(t, nil, main(), capnweb.WithNewerEncodings())
		client, gate := connect(t, nil, back.Main(), capnweb.WithNewerEncodings())
		f(t, testContext(t), client.Main())
		for _, s := range []*capnweb.Session{client, gate, back, server} {
			waitStats(t, s, 1, 1)
		}
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		s := capnweb.NewStub(main())
		defer s.Close()
		f(t, testContext(t), s)
	})
}

func TestReadableStream(t *testing.T) {
	t.Parallel()
	topologies(t, streamMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		text := strings.Repeat("0123456789", 100_000)
		got, err := capnweb.Call[string](ctx, main, "read", capnweb.NewReader(strings.NewReader(text)))
		if err != nil || got != text {
			t.Fatal(len(got), err)
		}
		s, err := capnweb.Call[*capnweb.ReadableStream](ctx, main, "source", 3_000_000)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, s); err != nil || n != 3_000_000 {
			t.Fatal(n, err)
		}
		// Nobody reads it.
		if _, err := capnweb.Call[any](ctx, main, "ignore", capnweb.NewReader(strings.NewReader("x"))); err != nil {
			t.Fatal(err)
		}
		// Read in part.
		s, err = capnweb.Call[*capnweb.ReadableStream](ctx, main, "source", 3_000_000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		// Broken at its source.
		s, err = capnweb.Call[*capnweb.ReadableStream](ctx, main, "broken")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(s)
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Name != "RangeError" {
			t.Fatal(err)
		}
		// Objects in chunks.
		n := 0
		objects := capnweb.NewSource(func(context.Context) (any, error) {
			if n++; n > 5 {
				return nil, io.EOF
			}
			return counters.New(newCounter(n)), nil
		}, nil)
		if sum, err := capnweb.Call[int](ctx, main, "objects", objects); err != nil || sum != 2+3+4+5+6 {
			t.Fatal(sum, err)
		}
	})
}

// memorySink keeps what is written.
type memorySink struct {
	mu      sync.Mutex
	bytes   int
	err     error
	closed  bool
	aborted chan error
}

func (s *memorySink) WriteChunk(_ context.Context, c capnweb.Value) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := c.V.([]byte)
	s.bytes += len(b)
	if s.err != nil && s.bytes > 5000 {
		return s.err
	}
	return nil
}

func (s *memorySink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *memorySink) Abort(err error) { s.aborted <- err }

func TestWritableStream(t *testing.T) {
	t.Parallel()
	topologies(t, streamMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		s := &memorySink{aborted: make(chan error, 1)}
		if _, err := capnweb.Call[any](ctx, main, "sink", capnweb.NewSink(s), 1000); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		if s.bytes != 1_000_000 || !s.closed {
			t.Fatal(s.bytes, s.closed)
		}
		s.mu.Unlock()
		bad := &memorySink{aborted: make(chan error, 1), err: &capnweb.Error{Name: "RangeError", Message: "full"}}
		_, err := capnweb.Call[any](ctx, main, "sink", capnweb.NewSink(bad), 1000)
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Name != "RangeError" {
			t.Fatal(err)
		}
		<-bad.aborted
		// Given up without being closed.
		dropped := &memorySink{aborted: make(chan error, 1)}
		if _, err := capnweb.Call[any](ctx, main, "ret", capnweb.NewSink(dropped)); err == nil {
			t.Fatal("no such method")
		}
		if err := <-dropped.aborted; !strings.Contains(err.Error(), "without calling close") {
			t.Fatal(err)
		}
	})
}

func TestBlob(t *testing.T) {
	t.Parallel()
	topologies(t, streamMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		data := bytes.Repeat([]byte("blob"), 100_000)
		b, err := capnweb.Call[*capnweb.Blob](ctx, main, "echo", capnweb.NewBlob("text/plain", data))
		if err != nil || b.Type != "text/plain" || !bytes.Equal(b.Data, data) {
			t.Fatal(err)
		}
		s, err := capnweb.Call[string](ctx, main, "wantsBlob", capnweb.NewBlob("a/b", []byte("x")))
		if err != nil || s != "a/b:x" {
			t.Fatal(s, err)
		}
		if s, err = capnweb.Call[string](ctx, main, "wantsBlob", capnweb.NewBlob("", nil)); err != nil || s != ":" {
			t.Fatal(s, err)
		}
	})
}

func TestFetchTypes(t *testing.T) {
	t.Parallel()
	topologies(t, streamMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		in := &capnweb.Response{
			Status: 201, StatusText: "Made", Headers: capnweb.Headers{{"a", "b"}, {"a", "c"}},
			Body: capnweb.NewReader(strings.NewReader("body")), Init: capnweb.Object{{Key: "encodeBody", Value: "manual"}},
		}
		r, err := capnweb.Call[*capnweb.Response](ctx, main, "response", in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body.(io.Reader))
		if err != nil || string(b) != "body" {
			t.Fatal(string(b), err)
		}
		r.Body, in.Body = nil, nil
		if d := cmp.Diff(in, r); d != "" {
			t.Fatal(d)
		}
		req := &capnweb.Request{URL: "http://x/", Method: "PUT", Headers: capnweb.Headers{{"h", "v"}}, Body: "text"}
		got, err := capnweb.Call[*capnweb.Request](ctx, main, "echo", req)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(req, got); d != "" {
			t.Fatal(d)
		}
		req.Body = capnweb.NewReader(strings.NewReader("stream"))
		got, err = capnweb.Call[*capnweb.Request](ctx, main, "echo", req)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(got.Body.(io.Reader)); err != nil || string(b) != "stream" {
			t.Fatal(string(b), err)
		}
	})
}

func TestValues(t *testing.T) {
	t.Parallel()
	topologies(t, streamMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		big1, _ := new(big.Int).SetString("-123456789012345678901234567890", 10)
		for _, v := range []any{
			nil, true, 1.5, "s\u0000\"\u2028é", math.Inf(1), math.Inf(-1), 1e21, 1e-7, capnweb.Undefined,
			big1, time.UnixMilli(1234567).UTC(), capnweb.InvalidDate, []byte{1, 2, 255}, []any{}, []any{[]any{}, []any{1.0}},
			capnweb.Object{{Key: "z", Value: 1.0}, {Key: "a", Value: []any{"x"}}},
			capnweb.TypedArray{Type: "Float32Array", Data: []byte{0, 0, 192, 63}},
			capnweb.URL("http://x/"), capnweb.Headers{{"a", "b"}},
			&capnweb.Error{Name: "AggregateError", Message: "m", Errors: []any{&capnweb.Error{Name: "Error", Message: "x"}}},
		} {
			got, err := capnweb.Call[capnweb.Value](ctx, main, "echo", v)
			if err != nil {
				t.Fatal(v, err)
			}
			if d := cmp.Diff(v, got.V, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }), cmp.AllowUnexported(capnweb.Error{})); d != "" {
				t.Fatalf("%v: %s", v, d)
			}
		}
		nan, err := capnweb.Call[float64](ctx, main, "echo", math.NaN())
		if err != nil || !math.IsNaN(nan) {
			t.Fatal(nan, err)
		}
	})
}

func TestMap(t *testing.T) {
	t.Parallel()
	topologies(t, testMain, func(t *testing.T, ctx context.Context, main *capnweb.Stub) {
		list := main.Call("list", 4)
		defer list.Close()
		got, err := capnweb.Await[[]int](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(main).Call("square", x)
		}))
		if err != nil || fmt.Sprint(got) != "[0 1 4 9]" {
			t.Fatal(got, err)
		}
		objs, err := capnweb.Await[[]map[string]any](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			u := m.Use(main)
			return map[string]any{"i": x, "sum": u.Call("add", x, u.Call("square", x)), "k": []string{"c"}}
		}))
		if err != nil || fmt.Sprint(objs[3]) != "map[i:3 k:[c] sum:12]" {
			t.Fatal(objs, err)
		}
		nested, err := capnweb.Await[[][]int](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return capnweb.Map(m.Use(main).Call("list", x), func(m *capnweb.Mapper, y *capnweb.Promise) any {
				return m.Use(main).Call("add", x, y)
			})
		}))
		if err != nil || fmt.Sprint(nested) != "[[] [1] [2 3] [3 4 5]]" {
			t.Fatal(nested, err)
		}
		// A function of ours is called back.
		f := capnweb.NewStub(capnweb.Func(func(i int) int { return i + 100 }))
		defer f.Close()
		back, err := capnweb.Await[[]int](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(f).Call("", x)
		}))
		if err != nil || fmt.Sprint(back) != "[100 101 102 103]" {
			t.Fatal(back, err)
		}
		nul := main.Call("nul")
		defer nul.Close()
		v, err := capnweb.Await[any](ctx, capnweb.Map(nul, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(main).Call("square", x)
		}))
		if err != nil || v != nil {
			t.Fatal(v, err)
		}
		_, err = capnweb.Await[any](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return capnweb.Func(func() {})
		}))
		if err == nil || !strings.Contains(err.Error(), "mapper function") {
			t.Fatal(err)
		}
	})
}
