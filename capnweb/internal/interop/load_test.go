package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

func long() bool { return os.Getenv("TONGS_TEST_LONG") == "1" }

// Many calls of all kinds on one session leave its tables and the heap as they were.
// It does not run in parallel with others, whose heap it would measure.
func TestManyCalls(t *testing.T) {
	calls, atOnce := 20_000, 64
	if long() {
		calls = 1_000_000
	}
	everyWay(t, func(t *testing.T, ctx context.Context, api *capnweb.Stub, check func()) {
		round := func(n int) {
			group, ctx := errgroup.WithContext(ctx)
			for worker := range atOnce {
				group.Go(func() error {
					for i := worker; i < n; i += atOnce {
						if err := oneOfMany(ctx, api, i); err != nil {
							return fmt.Errorf("call %d: %w", i, err)
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			check()
		}
		// What grows with the number of calls shows as at least a byte for each.
		flatHeap(t, fmt.Sprintf("%d calls", calls), int64(calls), func() { round(calls / 10) }, func() { round(calls - calls/10) })
	})
}

// oneOfMany makes the i-th call; the kinds take turns.
func oneOfMany(ctx context.Context, api *capnweb.Stub, i int) error {
	want := func(got, want int, err error) error {
		if err == nil && got != want {
			err = fmt.Errorf("got %d, want %d", got, want)
		}
		return err
	}
	switch i % 8 {
	case 0: // an object, used and let go of
		c, err := capnweb.Call[*capnweb.Stub](ctx, api, "makeCounter", i)
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := capnweb.Call[int](ctx, c, "increment", 1)
		return want(n, i+1, err)
	case 1: // pipelined
		c := api.Call("makeCounter", i)
		defer c.Close()
		n, err := capnweb.Call[int](ctx, c, "increment", 1)
		return want(n, i+1, err)
	case 2: // a callback
		f := capnweb.Func(func(x int) int { return x + 1 })
		r, err := capnweb.Call[map[string]int](ctx, api, "callFunction", f, i)
		return want(r["result"], i+1, err)
	case 3: // an error
		_, err := capnweb.Call[int](ctx, api, "fail", "range")
		if err == nil {
			return fmt.Errorf("the call did not fail")
		}
		return nil
	default:
		n, err := capnweb.Call[int](ctx, api, "add", i, 1)
		return want(n, i+1, err)
	}
}

// Many streams, one after the other and several at once, leave tables and heap as they were.
func TestManyStreams(t *testing.T) {
	rounds := 60
	if long() {
		rounds = 6000
	}
	const size = 200_000
	want := hashOf(patternBytes(size, 0))
	one := func(ctx context.Context, api *capnweb.Stub, i int) error {
		switch i % 4 {
		case 0:
			got, err := capnweb.Call[Sum](ctx, api, "readBytes", patternStream(size, 10_000))
			if err == nil && got != want {
				err = fmt.Errorf("up: got %v, want %v", got, want)
			}
			return err
		case 1:
			r, err := capnweb.Call[io.ReadCloser](ctx, api, "sourceBytes", size, 10_000)
			if err != nil {
				return err
			}
			defer r.Close()
			got, err := readAll(r)
			if err == nil && got != want {
				err = fmt.Errorf("down: got %v, want %v", got, want)
			}
			return err
		case 2: // given up half-way
			r, err := capnweb.Call[*capnweb.ReadableStream](ctx, api, "endless")
			if err != nil {
				return err
			}
			defer r.Close()
			var b []byte
			return r.Next(ctx, &b)
		default:
			b := capnweb.NewBlob("a/b", patternBytes(size, 0))
			back, err := capnweb.Call[*capnweb.Blob](ctx, api, "echoBlob", b)
			if err == nil && hashOf(back.Data) != want {
				err = fmt.Errorf("blob: got %d bytes", len(back.Data))
			}
			return err
		}
	}
	everyWay(t, func(t *testing.T, ctx context.Context, api *capnweb.Stub, check func()) {
		run := func(n int) {
			group, ctx := errgroup.WithContext(ctx)
			group.SetLimit(8)
			for i := range n {
				group.Go(func() error { return one(ctx, api, i) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			check()
		}
		flatHeap(t, fmt.Sprintf("%d streams", rounds*4), int64(rounds)*200, func() { run(rounds) }, func() { run(rounds * 3) })
	})
}

// One stream that goes on and on: as many chunks as pass in an hour at a
// hundred a second, with TONGS_TEST_LONG=1.
func TestLongStream(t *testing.T) {
	chunks := 10_000
	if long() {
		chunks = 360_000
	}
	const chunk = 1000
	everyWay(t, func(t *testing.T, ctx context.Context, api *capnweb.Stub, check func()) {
		r := await[*capnweb.ReadableStream](t, ctx, api.Call("sourceBytes", chunks*chunk, chunk))
		defer r.Close()
		h := newHasher()
		var b []byte
		read := func(n int) {
			for range n {
				if err := r.Next(ctx, &b); err != nil {
					t.Fatal(err)
				}
				_, _ = h.Write(b)
			}
		}
		flatHeap(t, fmt.Sprintf("%d chunks", chunks), int64(chunks)*16, func() { read(chunks / 10) }, func() { read(chunks/10*9 - 1) })
		read(1)
		if err := r.Next(ctx, &b); !errors.Is(err, io.EOF) {
			t.Errorf("after the last chunk: %v", err)
		}
		equal(t, h.size, chunks*chunk)
		r.Close()
		check()
	})
}

// everyWay runs f to our own server, to the reference, and through a relay.
// check looks at the tables of all sides.
func everyWay(t *testing.T, f func(t *testing.T, ctx context.Context, api *capnweb.Stub, check func())) {
	t.Helper()
	dial := func(t *testing.T, ctx context.Context, url string) *capnweb.Session {
		s, err := httprpc.Dial(ctx, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(nil) })
		return s
	}
	way := func(name string, run func(t *testing.T, ctx context.Context)) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			run(t, ctx)
		})
	}
	way("to our server", func(t *testing.T, ctx context.Context) {
		server := serveSuite(t, "0.12.0")
		s := dial(t, ctx, server.url("ws", "load"))
		f(t, ctx, s.Main(), func() {
			expectIdle(t, "client", s)
			expectIdle(t, "server", server.sessions.get(t, "/", "load"))
		})
	})
	way("to the reference", func(t *testing.T, ctx context.Context) {
		node := interop.Start(t)
		s := dial(t, ctx, fmt.Sprintf("ws://127.0.0.1:%d/0.12.0?id=load", node.Port))
		f(t, ctx, s.Main(), func() {
			expectIdle(t, "client", s)
			sides := map[string]tables{}
			if err := node.Do(ctx, "served", map[string]any{"session": "load"}, &sides); err != nil {
				t.Fatal(err)
			}
			equal(t, sides["server"], idle)
		})
	})
	way("through a relay", func(t *testing.T, ctx context.Context) {
		target, client, relayed := dialRelay(t, ctx)
		f(t, ctx, client.Main(), func() {
			for i, s := range append(relayed, client, target) {
				expectIdle(t, fmt.Sprint("session ", i), s)
			}
		})
	})
}

// heapNoise is what the buffers of a few sessions may come to or go by.
const heapNoise = 4 << 20

// flatHeap compares what lives on the heap after warm with what does after the rest.
func flatHeap(t *testing.T, what string, grow int64, warm, rest func()) {
	t.Helper()
	began := time.Now()
	warm()
	before := heap()
	rest()
	after := heap()
	t.Logf("%s in %v; heap at the beginning %d KiB, at the end %d KiB", what, time.Since(began).Round(time.Millisecond), before>>10, after>>10)
	if grown := int64(after) - int64(before); grown > max(grow, heapNoise) {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// heap is the size of what lives on the heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
