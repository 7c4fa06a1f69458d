package capnweb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// chunkSink collects what is written. hold, if set, delays each chunk until it is closed or sent to;
// failAt makes the chunk of that number fail.
type chunkSink struct {
	hold   chan struct{}
	failAt int

	mu      sync.Mutex
	chunks  []any
	ended   bool
	aborted chan error
}

func newChunkSink() *chunkSink { return &chunkSink{aborted: make(chan error, 1)} }

func (s *chunkSink) WriteChunk(ctx context.Context, c capnweb.Value) error {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks = append(s.chunks, c.V)
	if s.failAt > 0 && len(s.chunks) >= s.failAt {
		return errors.New("write limit exceeded")
	}
	return nil
}

func (s *chunkSink) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return nil
}
func (s *chunkSink) Abort(err error) { s.aborted <- err }

func (s *chunkSink) expect(t *testing.T, ended bool, chunks ...any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := alike(chunks, s.chunks); d != "" || s.ended != ended {
		t.Errorf("closed: %v; %s", s.ended, d)
	}
}

// writing is a server that writes to streams; each chunk that a write took is counted.
func writing(taken *atomic.Int64) *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"write": func(ctx context.Context, w *capnweb.WritableStream, chunks capnweb.Value) (string, error) {
			for _, c := range chunks.V.([]any) {
				if err := w.WriteValue(ctx, c); err != nil {
					return "", err
				}
				taken.Add(1)
			}
			return "done", w.CloseContext(ctx)
		},
		"writeNested": func(ctx context.Context, in struct {
			Stream *capnweb.WritableStream `json:"stream"`
			Label  string                  `json:"label"`
		}) (string, error) {
			if err := in.Stream.WriteValue(ctx, in.Label+": hello"); err != nil {
				return "", err
			}
			return "done", in.Stream.CloseContext(ctx)
		},
		"writeAndLeave": func(ctx context.Context, w *capnweb.WritableStream) error {
			w = w.Keep()
			return w.WriteValue(ctx, "data")
		},
		"abort": func(ctx context.Context, w *capnweb.WritableStream) error {
			if err := w.WriteValue(ctx, "data"); err != nil {
				return err
			}
			return w.CloseWithError(capnweb.Thrown("User requested abort"))
		},
		"many": func(ctx context.Context, w *capnweb.WritableStream, n, size int) error {
			for range n {
				if err := w.WriteValue(ctx, strings.Repeat("x", size)); err != nil {
					return err
				}
				taken.Add(1)
			}
			return w.CloseContext(ctx)
		},
	})
}

// Group "WritableStream over RPC".
func TestWritableStreamOverRPC(t *testing.T) {
	t.Parallel()
	t.Run("chunks and the end arrive", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		h := newHarness(t, writing(new(atomic.Int64)))
		want[string](t, "done")(capnweb.Call[string](h.ctx, h.api, "write", capnweb.NewSink(s), []any{"hello", "world"}))
		s.expect(t, true, "hello", "world")
	})
	object := capnweb.Object{{Key: "name", Value: "test"}, {Key: "value", Value: 42.0}}
	t.Run("chunks of all types", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		h := newHarness(t, writing(new(atomic.Int64)))
		chunks := []any{object, []any{1.0, 2.0, 3.0}, time.UnixMilli(1234567890000)}
		want[string](t, "done")(capnweb.Call[string](h.ctx, h.api, "write", capnweb.NewSink(s), chunks))
		s.expect(t, true, chunks...)
	})
	t.Run("an error of a write comes back", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		s.failAt = 3
		h := newHarness(t, writing(new(atomic.Int64)))
		fails(t, await(h.ctx, h.api.Call("write", capnweb.NewSink(s), []any{"first", "second", "third"})), "write limit exceeded")
		s.expect(t, false, "first", "second", "third")
	})
	t.Run("the line's end aborts what was not closed", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		h := newHarness(t, writing(new(atomic.Int64)))
		h.broken = true
		if err := await(h.ctx, h.api.Call("writeAndLeave", capnweb.NewSink(s))); err != nil {
			t.Fatal(err)
		}
		_ = h.client.Close(nil)
		fails(t, soon(t, s.aborted), "without calling close")
	})
	t.Run("the writer aborts", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		h := newHarness(t, writing(new(atomic.Int64)))
		if err := await(h.ctx, h.api.Call("abort", capnweb.NewSink(s))); err != nil {
			t.Fatal(err)
		}
		fails(t, soon(t, s.aborted), "User requested abort")
	})
	t.Run("in an object", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		h := newHarness(t, writing(new(atomic.Int64)))
		want[string](t, "done")(capnweb.Call[string](h.ctx, h.api, "writeNested", map[string]any{"stream": capnweb.NewSink(s), "label": "test"}))
		s.expect(t, true, "test: hello")
	})
	t.Run("writes do not wait for each other", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		s.hold = make(chan struct{})
		taken := new(atomic.Int64)
		h := newHarness(t, writing(taken))
		p := h.api.Call("write", capnweb.NewSink(s), []any{0, 1, 2, 3, 4})
		for deadline := time.Now().Add(patience); taken.Load() < 5; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d writes, while the first is being taken", taken.Load())
			}
		}
		close(s.hold)
		want[string](t, "done")(capnweb.Await[string](h.ctx, p))
		s.expect(t, true, 0.0, 1.0, 2.0, 3.0, 4.0)
	})
	t.Run("a full window holds the writer back", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		s.hold = make(chan struct{})
		taken := new(atomic.Int64)
		h := newHarness(t, writing(taken))
		p := h.api.Call("many", capnweb.NewSink(s), 20, 40_000)
		// Of 256 KiB, with 40 KB each, the seventh fills it.
		for deadline := time.Now().Add(patience); h.answered.count("stream") < 7; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("only %d writes", taken.Load())
			}
		}
		h.settle(t)
		if n := taken.Load(); n < 6 || n > 7 {
			t.Errorf("%d writes were taken", n)
		}
		if n := h.answered.count("stream"); n != 7 {
			t.Errorf("%d chunks were sent", n)
		}
		close(s.hold)
		if err := await(h.ctx, p); err != nil || taken.Load() != 20 {
			t.Error(taken.Load(), err)
		}
	})
	t.Run("a chunk is one message, and none but its answer", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, writing(new(atomic.Int64)))
		want[string](t, "done")(capnweb.Call[string](h.ctx, h.api, "write", capnweb.NewSink(newChunkSink()), []any{"hello", "world"}))
		waitStats(t, h.client, 1, 1)
		waitStats(t, h.server, 1, 1)
		got := map[string]int{}
		for _, kind := range []string{"stream", "push", "pull", "resolve", "release"} {
			got["server "+kind], got["client "+kind] = h.answered.count(kind), h.said.count(kind)
		}
		if d := cmp.Diff(map[string]int{
			"client stream": 0, "client push": 1, "client pull": 1, "client resolve": 3, "client release": 1,
			"server stream": 3, "server push": 0, "server pull": 0, "server resolve": 1, "server release": 1,
		}, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("an error lets a writer go that is held back", func(t *testing.T) {
		t.Parallel()
		s := newChunkSink()
		s.failAt = 2
		s.hold = make(chan struct{})
		h := newHarness(t, writing(new(atomic.Int64)))
		p := h.api.Call("many", capnweb.NewSink(s), 20, 100_000)
		for deadline := time.Now().Add(patience); h.answered.count("stream") < 3; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the window is not full")
			}
		}
		close(s.hold)
		fails(t, await(h.ctx, p), "write limit exceeded")
	})
}

// Group "WritableStream stub argument disposal".
func TestWritableStreamArguments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, call, text string }{
		{"of a call that streams do not have", `["pipeline",1,["not","a","method"],[["export",-1]]]`, "only supports direct method calls"},
		{"of a write after the end", `["pipeline",1,["write"],[["export",-1]]]`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newRawPeer(t, recordedMain())
			p.send(`["pipe"]`, `["push",["readable",1]]`)
			if c.text == "" {
				p.send(`["stream",["pipeline",1,["close"],[]]]`)
			} else {
				p.send(`["stream",1]`)
			}
			p.send(`["push",`+c.call+`]`, `["pull",4]`)
			released, answered := false, false
			timeout := time.After(patience)
			for !released || !answered {
				select {
				case m, ok := <-p.in:
					if !ok {
						t.Fatal(p.s.Err())
					}
					released = released || m == `["release",-1,1]`
					if strings.HasPrefix(m, `["reject",4,`) {
						answered = true
						if !strings.Contains(m, c.text) {
							t.Errorf("answered %s", m)
						}
					}
				case <-timeout:
					t.Fatalf("released: %v, answered: %v", released, answered)
				}
			}
		})
	}
}

// listSource makes a stream of values.
func listSource(values ...any) *capnweb.ReadableStream {
	return capnweb.NewSource(func(context.Context) (any, error) {
		if len(values) == 0 {
			return nil, io.EOF
		}
		v := values[0]
		values = values[1:]
		return v, nil
	}, nil)
}

func collect(ctx context.Context, r *capnweb.ReadableStream) ([]any, error) {
	var all []any
	for v, err := range capnweb.Chunks[capnweb.Value](ctx, r) {
		if err != nil {
			return all, err
		}
		all = append(all, v.V)
	}
	return all, nil
}

// Group "ReadableStream over RPC".
func TestReadableStreamOverRPC(t *testing.T) {
	t.Parallel()
	chunkTarget := func(id int) *capnweb.Target {
		return capnweb.NewTarget(capnweb.Methods{
			"square": func(i int) int { return i * i },
			"label":  capnweb.Getter(func() string { return fmt.Sprint("chunk ", id) }),
			"id":     func() int { return id },
		})
	}
	type nested struct {
		Stream *capnweb.ReadableStream `json:"stream"`
		Label  string                  `json:"label"`
	}
	cancelled := make(chan error, 1)
	server := func() *capnweb.Target {
		return capnweb.NewTarget(capnweb.Methods{
			"read": collect,
			"give": func() *capnweb.ReadableStream { return listSource("a", "b", "c") },
			"nested": func(ctx context.Context, in nested) (string, error) {
				all, err := collect(ctx, in.Stream)
				return fmt.Sprint(in.Label, ": ", all), err
			},
			"first": func(ctx context.Context, in nested) (string, error) {
				var v string
				err := in.Stream.Next(ctx, &v)
				_ = in.Stream.Close()
				return in.Label + ": " + v, err
			},
			"count": func(ctx context.Context, r *capnweb.ReadableStream) (int, error) {
				all, err := collect(ctx, r)
				return len(all), err
			},
			"copy": func(ctx context.Context, r *capnweb.ReadableStream, w *capnweb.WritableStream) error {
				all, err := collect(ctx, r)
				for _, v := range all {
					err = errors.Join(err, w.WriteValue(ctx, v))
				}
				return errors.Join(err, w.CloseContext(ctx))
			},
			"open": func() any {
				return map[string]any{"stream": capnweb.NewSource(func(context.Context) (any, error) { return "chunk", nil },
					func(err error) { cancelled <- err })}
			},
			"callChunk": func(ctx context.Context, r *capnweb.ReadableStream) (string, error) {
				var c *capnweb.Stub
				if err := r.Next(ctx, &c); err != nil {
					return "", err
				}
				defer c.Close()
				n, err := capnweb.Call[int](ctx, c, "square", 5)
				label, err2 := capnweb.Await[string](ctx, c.Get("label"))
				return fmt.Sprint(n, " ", label), errors.Join(err, err2)
			},
			"giveTargets": func() *capnweb.ReadableStream { return listSource(chunkTarget(1)) },
			"ids": func(ctx context.Context, r *capnweb.ReadableStream) ([]int, error) {
				var ids []int
				for c, err := range capnweb.Chunks[*capnweb.Stub](ctx, r) {
					if err != nil {
						return nil, err
					}
					defer c.Close()
					id, err := capnweb.Call[int](ctx, c, "id")
					if err != nil {
						return nil, err
					}
					ids = append(ids, id)
				}
				return ids, nil
			},
		})
	}
	type list = []any
	t.Run("as an argument", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		same(t, list{"hello", "world"})(capnweb.Call[list](h.ctx, h.api, "read", listSource("hello", "world")))
	})
	t.Run("as a result", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		r, err := capnweb.Call[*capnweb.ReadableStream](h.ctx, h.api, "give")
		if err != nil {
			t.Fatal(err)
		}
		same(t, list{"a", "b", "c"})(collect(h.ctx, r))
	})
	t.Run("in an object", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "test: [nested]")(capnweb.Call[string](h.ctx, h.api, "nested", nested{listSource("nested"), "test"}))
	})
	t.Run("in an object, read in part", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "test: first")(capnweb.Call[string](h.ctx, h.api, "first", nested{listSource("first", "second"), "test"}))
	})
	t.Run("chunks of all types", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		chunks := list{capnweb.Object{{Key: "name", Value: "test"}, {Key: "value", Value: 42.0}}, list{1.0, 2.0, 3.0}, time.UnixMilli(1234567890000)}
		got, err := capnweb.Call[capnweb.Value](h.ctx, h.api, "read", listSource(append(list(nil), chunks...)...))
		if d := alike(any(chunks), got.V); d != "" || err != nil {
			t.Error(d, err)
		}
	})
	t.Run("an error of the source reaches the reader", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		n := 0
		bad := capnweb.NewSource(func(context.Context) (any, error) {
			if n++; n == 1 {
				return "first", nil
			}
			return nil, errors.New("stream error")
		}, nil)
		fails(t, await(h.ctx, h.api.Call("read", bad)), "stream error")
	})
	t.Run("many chunks", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		var chunks list
		for i := range 1000 {
			chunks = append(chunks, i)
		}
		want[int](t, 1000)(capnweb.Call[int](h.ctx, h.api, "count", listSource(chunks...)))
	})
	t.Run("both kinds in one message", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		s := newChunkSink()
		if err := await(h.ctx, h.api.Call("copy", listSource("one", "two"), capnweb.NewSink(s))); err != nil {
			t.Fatal(err)
		}
		s.expect(t, true, "one", "two")
	})
	t.Run("dropping a result cancels the streams in it", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		p := h.api.Call("open")
		if err := p.Await(h.ctx, nil); err != nil { // the result is dropped
			t.Fatal(err)
		}
		p.Close()
		select {
		case <-cancelled:
		case <-h.ctx.Done():
			t.Fatal("the source was not stopped")
		}
	})
	t.Run("a target in a chunk", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		want[string](t, "25 chunk 7")(capnweb.Call[string](h.ctx, h.api, "callChunk", listSource(chunkTarget(7))))
	})
	t.Run("a target in a chunk of a result", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		r, err := capnweb.Call[*capnweb.ReadableStream](h.ctx, h.api, "giveTargets")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var c *capnweb.Stub
		if err := r.Next(h.ctx, &c); err != nil {
			t.Fatal(err)
		}
		want[int](t, 36)(capnweb.Call[int](h.ctx, c, "square", 6))
		want[string](t, "chunk 1")(capnweb.Await[string](h.ctx, c.Get("label")))
		c.Close()
		if err := r.Next(h.ctx, &c); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("targets in several chunks", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, server())
		same(t, []int{1, 2, 3})(capnweb.Call[[]int](h.ctx, h.api, "ids", listSource(chunkTarget(1), chunkTarget(2), chunkTarget(3))))
	})
}
