package interop_test

import (
	"context"
	"errors"
	"io"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/capnweb"
)

func init() { goCases = append(goCases, mediaCases...) }

// mediaCases are those of goCases that deal in maps, streams, blobs and HTTP messages.
var mediaCases = []goCase{
	{name: "map", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		list, users, nested, nul, none := api.Call("list", 5), api.Call("users"), api.Call("nested"), api.Call("nul"), api.Call("list", 0)
		counters := api.Call("makeCounters", 3)
		defer closeAll(list, users, nested, nul, none, counters)
		square := func(m *capnweb.Mapper, x *capnweb.Promise) any { return m.Use(api).Call("square", x) }
		squares := capnweb.Map(list, square)
		objects := capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return map[string]any{"i": x, "sum": m.Use(api).Call("add", x, 10), "k": []any{1, "x"}}
		})
		names := capnweb.Map(users, func(_ *capnweb.Mapper, x *capnweb.Promise) any { return x.Get("name") })
		rows := capnweb.Map(nested, func(m *capnweb.Mapper, row *capnweb.Promise) any {
			self := m.Use(api)
			return capnweb.Map(row, func(m *capnweb.Mapper, x *capnweb.Promise) any { return m.Use(self).Call("square", x) })
		})
		increments := capnweb.Map(counters, func(_ *capnweb.Mapper, c *capnweb.Promise) any { return c.Call("increment", 2) })
		ofNull, ofNone := capnweb.Map(nul, square), capnweb.Map(none, square)

		equal(t, await[[]int](t, ctx, squares), []int{0, 1, 4, 9, 16})
		type object struct {
			I   int   `json:"i"`
			Sum int   `json:"sum"`
			K   []any `json:"k"`
		}
		equal(t, await[[]object](t, ctx, objects)[:2], []object{{0, 10, []any{1.0, "x"}}, {1, 11, []any{1.0, "x"}}})
		equal(t, await[[]string](t, ctx, names), []string{"Ada", "Grace"})
		equal(t, await[[][]int](t, ctx, rows), [][]int{{1, 4}, {9}})
		equal(t, await[[]int](t, ctx, increments), []int{2, 3, 4})
		equal(t, await[capnweb.Value](t, ctx, ofNull).V, nil)
		equal(t, await[[]int](t, ctx, ofNone), []int{})
	}},
	{name: "map with a local function", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		list := api.Call("list", 3)
		defer list.Close()
		plus := capnweb.NewStub(capnweb.Func(func(i int) int { return i + 100 }))
		defer plus.Close()
		p := capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any { return m.Use(plus).Call("", x) })
		equal(t, await[[]int](t, ctx, p), []int{100, 101, 102})
	}},
	{name: "map whose calls fail", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		list := api.Call("list", 3)
		defer list.Close()
		p := capnweb.Map(list, func(m *capnweb.Mapper, _ *capnweb.Promise) any { return m.Use(api).Call("fail", "range") })
		equal(t, thrown(t, ctx, p).Message, "test error")
	}},
	{name: "map over a hundred", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		list := api.Call("list", 100)
		defer list.Close()
		got := await[[]int](t, ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any { return m.Use(api).Call("square", x) }))
		equal(t, len(got), 100)
		equal(t, got[99], 99*99)
	}},

	{name: "buffers and URLs", since: "0.12.0", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		for _, kind := range []string{"ArrayBuffer", "DataView", "Int8Array", "Uint8ClampedArray", "Int16Array", "Float64Array", "BigUint64Array"} {
			want := capnweb.TypedArray{Type: kind, Data: patternBytes(16, 1)}
			equal(t, call[capnweb.Value](t, ctx, api, "echo", want).V, any(want))
		}
		equal(t, call[capnweb.Value](t, ctx, api, "echo", capnweb.URL("https://example.com/a?b=c#d")).V, any(capnweb.URL("https://example.com/a?b=c#d")))
	}},
	{name: "what an older peer does not know is degraded", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		got := call[capnweb.Value](t, ctx, api, "echo", map[string]any{
			"a": capnweb.TypedArray{Type: "Int8Array", Data: []byte{1, 2}}, "u": capnweb.URL("http://x/"),
		}).V
		o, ok := got.(capnweb.Object)
		equal(t, ok && len(o) == 2, true)
	}},
	{name: "headers", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		want := capnweb.Headers{{"set-cookie", "a=b"}, {"set-cookie", "c=d"}, {"x-one", "1"}}
		equal(t, call[capnweb.Headers](t, ctx, api, "echo", want), want)
	}},

	{name: "stream of bytes up", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, call[Sum](t, ctx, api, "readBytes", capnweb.NewReader(strings.NewReader("hello"))), hashOf([]byte("hello")))
		for _, size := range []int{0, 1, 1 << 20} {
			equal(t, call[Sum](t, ctx, api, "readBytes", patternStream(size, 32<<10)), hashOf(patternBytes(size, 0)))
		}
	}},
	{name: "stream of bytes down", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		for _, size := range []int{0, 1, 1 << 20} {
			r := call[io.ReadCloser](t, ctx, api, "sourceBytes", size, 32<<10)
			got, err := readAll(r)
			r.Close()
			equal(t, err, nil)
			equal(t, got, hashOf(patternBytes(size, 0)))
		}
	}},
	{name: "stream of objects", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		want := []any{
			1.0, "two", nil, capnweb.Object{{Key: "three", Value: []any{3.0}}}, time.UnixMilli(4).UTC(), big.NewInt(5), []byte{6},
			capnweb.Undefined, []any{[]any{}}, []any{},
		}
		i := 0
		up := capnweb.NewSource(func(context.Context) (any, error) {
			if i == len(want) {
				return nil, io.EOF
			}
			i++
			return want[i-1], nil
		}, nil)
		got, _ := call[capnweb.Value](t, ctx, api, "readObjects", up).V.([]any)
		for i := range got {
			if w, ok := got[i].(time.Time); ok {
				got[i] = w.UTC()
			}
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}

		type item struct {
			I      int `json:"i"`
			Square int `json:"square"`
		}
		down := call[*capnweb.ReadableStream](t, ctx, api, "sourceObjects", 100)
		defer down.Close()
		n := 0
		for v, err := range capnweb.Chunks[item](ctx, down) {
			equal(t, err, nil)
			equal(t, v, item{n, n * n})
			n++
		}
		equal(t, n, 100)
	}},
	{name: "objects in the chunks of a stream", since: "0.12.0", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		var closed atomic.Int64
		i, all := 0, make(chan struct{})
		up := capnweb.NewSource(func(context.Context) (any, error) {
			if i == 3 {
				return nil, io.EOF
			}
			i++
			n := i
			return capnweb.NewTarget(capnweb.Methods{"increment": func(by int) int { return n + by }}, capnweb.OnClose(func() {
				if closed.Add(1) == 3 {
					close(all)
				}
			})), nil
		}, nil)
		equal(t, call[int](t, ctx, api, "readCounters", up), 9)
		wait(t, ctx, all, "the objects in the chunks are closed")
	}},
	{name: "writable stream as an argument", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		s := &sink{h: newHasher(), state: "open"}
		equal(t, call[int](t, ctx, api, "writeTo", capnweb.NewSink(s), 50, 5000), 250_000)
		equal(t, s.outcome(), outcome{hashOf(patternBytes(250_000, 0)), "closed"})
	}},
	{name: "writable stream as an argument, given up", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		aborted := make(chan error, 1)
		call[capnweb.Value](t, ctx, api, "abortTo", capnweb.NewSink(abortSink{aborted}))
		select {
		case err := <-aborted:
			equal(t, err.Error(), "writer gave up")
		case <-ctx.Done():
			t.Error("the sink was not aborted")
		}
	}},
	{name: "writable stream as a result", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		s := call[*capnweb.Stub](t, ctx, api, "makeSink", 0)
		defer s.Close()
		w := call[io.WriteCloser](t, ctx, s, "stream")
		_, err := io.Copy(w, strings.NewReader(string(patternBytes(300_000, 0))))
		equal(t, err, nil)
		equal(t, w.Close(), nil)
		equal(t, call[outcome](t, ctx, s, "outcome"), outcome{hashOf(patternBytes(300_000, 0)), "closed"})
	}},
	{name: "writable stream as a result, given up", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		s := call[*capnweb.Stub](t, ctx, api, "makeSink", 0)
		defer s.Close()
		w := call[*capnweb.WritableStream](t, ctx, s, "stream")
		_, err := w.Write(patternBytes(10, 0))
		equal(t, err, nil)
		equal(t, w.CloseWithError(errors.New("changed my mind")), nil)
		got := outcome{State: "open"}
		for got.State == "open" {
			got = call[outcome](t, ctx, s, "outcome")
		}
		equal(t, got.State, "aborted: changed my mind")
	}},
	{name: "writable stream that fails", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		s := call[*capnweb.Stub](t, ctx, api, "makeSink", 10_000)
		defer s.Close()
		w := call[*capnweb.WritableStream](t, ctx, s, "stream")
		var err error
		for i := 0; i < 10_000 && err == nil; i++ {
			err = w.WriteValue(ctx, patternBytes(1000, 0))
		}
		if err == nil {
			err = w.CloseContext(ctx)
		} else {
			w.Close()
		}
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Message != "sink is full" {
			t.Errorf("the writer got %v", err)
		}
	}},
	{name: "the reader holds the writer back", run: heldBack},
	{name: "a reader that stops", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		r := call[*capnweb.ReadableStream](t, ctx, api, "endless")
		for range 3 {
			var b []byte
			equal(t, r.Next(ctx, &b), nil)
			equal(t, len(b), 1024)
		}
		r.Close()
		for call[int](t, ctx, api, "cancelled") != 1 {
		}
	}},
	{name: "a stream nobody wants", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		stopped := make(chan struct{})
		s := capnweb.NewSource(func(context.Context) (any, error) { return patternBytes(1000, 0), nil }, func(error) { close(stopped) })
		call[capnweb.Value](t, ctx, api, "nothing", s)
		wait(t, ctx, stopped, "the source is stopped")
	}},
	{name: "a source that fails", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, thrown(t, ctx, api.Call("readBytes", failingStream(3))).Message, "source failed")
		r := call[io.ReadCloser](t, ctx, api, "failing", 3)
		defer r.Close()
		_, err := readAll(r)
		if err == nil || !strings.Contains(err.Error(), "source failed") {
			t.Errorf("the reader got %v", err)
		}
	}},
	{name: "eight streams at once", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		const size = 256 << 10
		want := hashOf(patternBytes(size, 0))
		group, ctx := errgroup.WithContext(ctx)
		for range 4 {
			group.Go(func() error {
				got, err := capnweb.Call[Sum](ctx, api, "readBytes", patternStream(size, 10_000))
				equal(t, got, want)
				return err
			})
			group.Go(func() error {
				r, err := capnweb.Call[io.ReadCloser](ctx, api, "sourceBytes", size, 10_000)
				if err != nil {
					return err
				}
				defer r.Close()
				got, err := readAll(r)
				equal(t, got, want)
				return err
			})
		}
		equal(t, group.Wait(), nil)
	}},

	{name: "blobs", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		for _, size := range []int{0, 1, 300_000} {
			b := capnweb.NewBlob("application/x-test", patternBytes(size, 0))
			equal(t, call[blobDescription](t, ctx, api, "describeBlob", b), blobDescription{b.Type, hashOf(b.Data)})
			made := call[*capnweb.Blob](t, ctx, api, "makeBlob", size, "image/x-test")
			equal(t, blobDescription{made.Type, hashOf(made.Data)}, blobDescription{"image/x-test", hashOf(b.Data)})
			back := call[*capnweb.Blob](t, ctx, api, "echoBlob", b)
			equal(t, blobDescription{back.Type, hashOf(back.Data)}, blobDescription{b.Type, hashOf(b.Data)})
		}
	}},
	{name: "requests", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		h := capnweb.Headers{{"x-test", "yes"}}
		got := call[requestDescription](t, ctx, api, "describeRequest", &capnweb.Request{URL: "http://example.com/a?b=c", Headers: h})
		equal(t, got, requestDescription{"GET", "http://example.com/a?b=c", "yes", hashOf(nil)})
		got = call[requestDescription](t, ctx, api, "describeRequest",
			&capnweb.Request{URL: "http://example.com/p", Method: "POST", Headers: h, Body: patternBytes(1000, 0)})
		equal(t, got, requestDescription{"POST", "http://example.com/p", "yes", hashOf(patternBytes(1000, 0))})
		got = call[requestDescription](t, ctx, api, "describeRequest",
			&capnweb.Request{URL: "http://example.com/s", Method: "PUT", Headers: h, Body: patternStream(200_000, 7000)})
		equal(t, got, requestDescription{"PUT", "http://example.com/s", "yes", hashOf(patternBytes(200_000, 0))})
	}},
	{name: "responses", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		for status, size := range map[int]int{204: 0, 201: 200_000} {
			r := call[*capnweb.Response](t, ctx, api, "makeResponse", status, size)
			got, err := describeResponse(r)
			equal(t, err, nil)
			equal(t, got, responseDescription{status, "yes", hashOf(patternBytes(size, 0))})
			if body, ok := r.Body.(*capnweb.ReadableStream); ok {
				body.Close()
			}
		}
		got := call[responseDescription](t, ctx, api, "describeResponse",
			&capnweb.Response{Status: 418, Headers: capnweb.Headers{{"x-test", "ja"}}, Body: patternBytes(5000, 0)})
		equal(t, got, responseDescription{418, "ja", hashOf(patternBytes(5000, 0))})
	}},
}

// heldBack gives a long stream to a reader that wants little of it.
func heldBack(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	const chunk, total = 16 << 10, 4 << 20
	var made atomic.Int64
	s := capnweb.NewSource(func(context.Context) (any, error) {
		at := int(made.Load())
		if at >= total {
			return nil, io.EOF
		}
		made.Add(chunk)
		return patternBytes(chunk, at), nil
	}, nil)
	r := call[*capnweb.Stub](t, ctx, api, "slowReader", s)
	defer r.Close()
	call[capnweb.Value](t, ctx, r, "take", 1)
	for before, still := int64(-1), 0; still < 20; {
		call[int](t, ctx, api, "square", 1)
		if now := made.Load(); now == before {
			still++
		} else {
			before, still = now, 0
		}
	}
	if n := made.Load(); n > 2<<20 {
		t.Errorf("%d bytes were taken from the source for a reader that wants none", n)
	}
	type taken struct {
		Sum
		Done bool `json:"done"`
	}
	var got taken
	for !got.Done {
		got = call[taken](t, ctx, r, "take", 10)
	}
	equal(t, got.Sum, hashOf(patternBytes(total, 0)))
}

// abortSink only waits to be aborted.
type abortSink struct{ aborted chan<- error }

func (s abortSink) WriteChunk(context.Context, capnweb.Value) error { return nil }
func (s abortSink) Close(context.Context) error                     { return nil }
func (s abortSink) Abort(err error)                                 { s.aborted <- err }
