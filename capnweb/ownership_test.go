package capnweb_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// Groups "PromiseStubHook" and "RpcImportHook argument disposal": what was passed with a
// call or a chunk that cannot be delivered is let go of.
func TestArgumentDisposal(t *testing.T) {
	t.Parallel()
	nope := errors.New("nope")
	// lent passes a stub to what cannot take it; ours is then the last reference.
	lent := func(t *testing.T, text string, pass func(arg *capnweb.Stub) error) {
		t.Helper()
		s := newSpy()
		arg := s.stub()
		fails(t, pass(arg), text)
		s.notYet(t)
		arg.Close()
		s.times(t, 1)
	}
	// writerOf is a writable stream that breaks with the first chunk.
	writerOf := func(t *testing.T, sink capnweb.Sink) (*harness, *capnweb.WritableStream) {
		t.Helper()
		h := newHarness(t, capnweb.NewTarget(capnweb.Methods{"sink": func() *capnweb.WritableStream { return capnweb.NewSink(sink) }}))
		w, err := capnweb.Call[*capnweb.WritableStream](h.ctx, h.api, "sink")
		if err != nil {
			t.Fatal(err)
		}
		return h, w
	}
	// broken writes a stub until the stream says that it is broken.
	broken := func(ctx context.Context, w *capnweb.WritableStream, arg *capnweb.Stub) error {
		var err error
		for err == nil && ctx.Err() == nil {
			err = w.WriteValue(ctx, arg)
		}
		_ = w.Close()
		return err
	}
	t.Run("of a call on a promise that is rejected", func(t *testing.T) {
		t.Parallel()
		lent(t, "nope", func(arg *capnweb.Stub) error {
			p, r := capnweb.NewPromise()
			defer p.Close()
			q := p.Call("", arg)
			r.Reject(nope)
			return await(testContext(t), q)
		})
	})
	t.Run("of a chunk for a stream that is rejected", func(t *testing.T) {
		t.Parallel()
		h, w := writerOf(t, failingSink{nope})
		lent(t, "nope", func(arg *capnweb.Stub) error { return broken(h.ctx, w, arg) })
	})
	t.Run("a call made before the reference was closed is delivered", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		gate := make(chan struct{})
		stub := capnweb.NewStub(s.target(capnweb.Methods{"increment": func(i int) int { <-gate; return i + 1 }}))
		q := stub.Call("increment", 2)
		stub.Close()
		s.notYet(t)
		close(gate)
		want[int](t, 3)(capnweb.Await[int](testContext(t), q))
		s.times(t, 1)
	})
	t.Run("of a call on what is broken", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		h.broken = true
		_ = h.client.Close(nil)
		lent(t, "session is over", func(arg *capnweb.Stub) error { return await(h.ctx, h.api.Call("square", arg)) })
	})
	t.Run("of a chunk for a stream that is broken", func(t *testing.T) {
		t.Parallel()
		h, w := writerOf(t, failingSink{nil})
		h.broken = true
		_ = h.server.Close(nil)
		soon(t, h.client.Done())
		lent(t, "", func(arg *capnweb.Stub) error { return broken(h.ctx, w, arg) })
	})
	t.Run("of a call of what is no function", func(t *testing.T) {
		t.Parallel()
		lent(t, "'nope' is not a function", func(arg *capnweb.Stub) error {
			object := capnweb.NewStub(map[string]any{})
			defer object.Close()
			return await(testContext(t), object.Call("nope", arg))
		})
	})
	t.Run("captures of a map over what is broken", func(t *testing.T) {
		t.Parallel()
		lent(t, "nope", func(arg *capnweb.Stub) error {
			p, r := capnweb.NewPromise()
			defer p.Close()
			r.Reject(nope)
			return await(testContext(t), capnweb.Map(p, func(m *capnweb.Mapper, x *capnweb.Promise) any {
				return m.Use(arg).Call("", x)
			}))
		})
	})
	t.Run("of a call whose handler panics", func(t *testing.T) {
		t.Parallel()
		lent(t, "panicked", func(arg *capnweb.Stub) error {
			f := capnweb.NewStub(capnweb.Func(func(*capnweb.Stub) { panic("sync failure") }))
			defer f.Close()
			return await(testContext(t), f.Call("", arg))
		})
		h := newHarness(t, capnweb.Func(func(*capnweb.Stub) { panic("sync failure") }))
		lent(t, "the handler panicked", func(arg *capnweb.Stub) error { return await(h.ctx, h.api.Call("", arg)) })
	})
	t.Run("of a chunk whose sink panics", func(t *testing.T) {
		t.Parallel()
		h, w := writerOf(t, panickingSink{})
		lent(t, "panicked", func(arg *capnweb.Stub) error { return broken(h.ctx, w, arg) })
	})
	t.Run("of a call that cannot be serialized", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		lent(t, "Cannot serialize value", func(arg *capnweb.Stub) error {
			return await(h.ctx, h.api.Call("square", arg, make(chan int)))
		})
	})
	t.Run("of a chunk that cannot be serialized", func(t *testing.T) {
		t.Parallel()
		h, w := writerOf(t, failingSink{nil})
		lent(t, "Cannot serialize value", func(arg *capnweb.Stub) error {
			return w.WriteValue(h.ctx, []any{arg, make(chan int)})
		})
		_ = w.Close()
	})
}

// failingSink breaks with the first chunk, if it has an error.
type failingSink struct{ err error }

func (s failingSink) WriteChunk(context.Context, capnweb.Value) error { return s.err }
func (failingSink) Close(context.Context) error                       { return nil }
func (failingSink) Abort(error)                                       {}

type panickingSink struct{}

func (panickingSink) WriteChunk(context.Context, capnweb.Value) error { panic("sync failure") }
func (panickingSink) Close(context.Context) error                     { return nil }
func (panickingSink) Abort(error)                                     {}

// Group "constructing RpcPromise from a promise": NewPromise and its resolver.
func TestPromiseOfOnesOwn(t *testing.T) {
	t.Parallel()
	settled := func(v any) *capnweb.Promise {
		p, r := capnweb.NewPromise()
		if err := r.Resolve(v); err != nil {
			t.Error(err)
		}
		return p
	}
	counter := func(s *spy, n int) *capnweb.Target {
		return s.target(capnweb.Methods{"increment": func(by int) int { n += by; return n }})
	}
	t.Run("calls go through without asking for the resolution", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p, r := capnweb.NewPromise()
		c := p.Call("makeCounter", 1)
		n := c.Call("increment", 2)
		_ = r.Resolve(h.api.Dup())
		want[int](t, 3)(capnweb.Await[int](h.ctx, n))
		if got := h.said.count("pull"); got != 1 || h.said.count("push") != 2 {
			t.Errorf("%d results were asked for", got)
		}
		c.Close()
		p.Close()
	})
	t.Run("calls wait, and come in order", func(t *testing.T) {
		t.Parallel()
		var calls []int
		p, r := capnweb.NewPromise()
		defer p.Close()
		var qs []*capnweb.Promise
		for i := range 3 {
			qs = append(qs, p.Call("record", i))
		}
		if calls != nil {
			t.Error("a call did not wait")
		}
		_ = r.Resolve(capnweb.NewTarget(capnweb.Methods{"record": func(i int) int { calls = append(calls, i); return i }}))
		for i, q := range qs {
			want[int](t, i)(capnweb.Await[int](testContext(t), q))
		}
		if d := cmp.Diff([]int{0, 1, 2}, calls); d != "" {
			t.Error(d)
		}
	})
	t.Run("of a target, a peer's stub, a value", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		target, remote, value := settled(counter(newSpy(), 1)), settled(h.api.Dup()), settled(map[string]int{"foo": 123})
		want[int](t, 2)(capnweb.Call[int](h.ctx, target, "increment", 1))
		want[int](t, 9)(capnweb.Call[int](h.ctx, remote, "square", 3))
		want[int](t, 123)(capnweb.Await[int](h.ctx, value.Get("foo")))
		target.Close()
		remote.Close()
		value.Close()
	})
	t.Run("waiting yields the resolution", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		same(t, map[string]int{"foo": 123})(capnweb.Await[map[string]int](h.ctx, settled(map[string]int{"foo": 123})))
		s, err := capnweb.Await[*capnweb.Stub](h.ctx, settled(h.api.Dup()))
		if err != nil {
			t.Fatal(err)
		}
		want[int](t, 16)(capnweb.Call[int](h.ctx, s, "square", 4))
		s.Close()
	})
	nope := errors.New("nope")
	t.Run("rejection reaches calls, those who wait and those who watch", func(t *testing.T) {
		t.Parallel()
		p, r := capnweb.NewPromise()
		defer p.Close()
		watched := make(chan error, 1)
		p.OnBroken(func(err error) { watched <- err })
		q := p.Call("increment")
		r.Reject(nope)
		ctx := testContext(t)
		if err := await(ctx, q); !errors.Is(err, nope) {
			t.Error(err)
		}
		if err := p.Await(ctx, nil); !errors.Is(err, nope) {
			t.Error(err)
		}
		if err := soon(t, watched); !errors.Is(err, nope) {
			t.Error(err)
		}
	})
	// Go has no unhandled rejections: nothing may happen, and goleak sees that nothing is left.
	t.Run("rejected and never used", func(t *testing.T) {
		t.Parallel()
		_, r := capnweb.NewPromise()
		r.Reject(nope)
	})
	t.Run("rejected, with a call that nobody waits for", func(t *testing.T) {
		t.Parallel()
		p, r := capnweb.NewPromise()
		q := p.Call("increment")
		r.Reject(nope)
		q.Close()
		p.Close()
	})
	t.Run("rejected, with a map that nobody waits for", func(t *testing.T) {
		t.Parallel()
		p, r := capnweb.NewPromise()
		q := capnweb.Map(p, func(_ *capnweb.Mapper, x *capnweb.Promise) any { return x })
		r.Reject(nope)
		q.Close()
		p.Close()
	})
	t.Run("closed before it is settled, it closes what it gets", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		p, r := capnweb.NewPromise()
		p.Close()
		_ = r.Resolve(s.target(capnweb.Methods{}))
		s.times(t, 1)
	})
	t.Run("a call made before it was closed is delivered", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		p := settled(counter(s, 1))
		q := p.Call("increment", 2)
		p.Close()
		want[int](t, 3)(capnweb.Await[int](testContext(t), q))
		s.times(t, 1)
	})
	t.Run("settled with a promise, it does not ask for it", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p := settled(h.api.Call("makeCounter", 1))
		want[int](t, 3)(capnweb.Call[int](h.ctx, p, "increment", 2))
		if got := h.said.count("pull"); got != 1 {
			t.Errorf("%d results were asked for", got)
		}
		p.Close()
	})
	t.Run("settled with a property, it is read when it is asked for", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		c := h.api.Call("makeCounter", 5)
		source := c.Get("value")
		want[int](t, 5)(capnweb.Await[int](h.ctx, settled(source)))
		want[int](t, 5)(capnweb.Await[int](h.ctx, c.Get("value")))
		c.Close()
	})
	t.Run("settled with a property, a getter runs when it is asked for", func(t *testing.T) {
		t.Parallel()
		reads := 0
		stub := capnweb.NewStub(capnweb.NewTarget(capnweb.Methods{"prop": capnweb.Getter(func() int { reads++; return 42 })}))
		defer stub.Close()
		p := stub.Get("prop")
		if reads != 0 {
			t.Error("the getter ran before anybody asked")
		}
		ctx := testContext(t)
		want[int](t, 42)(capnweb.Await[int](ctx, settled(p)))
		want[int](t, 42)(capnweb.Await[int](ctx, stub.Get("prop")))
	})
	t.Run("settling it takes the promise away", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		source := h.api.Call("makeCounter", 1)
		p := settled(source)
		if err := await(h.ctx, source.Call("increment", 1)); !errors.Is(err, capnweb.ErrClosed) {
			t.Error(err)
		}
		source.Close()
		want[int](t, 3)(capnweb.Call[int](h.ctx, p, "increment", 2))
		p.Close()
	})
	t.Run("settled with a duplicate, it does not ask for it", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		c := h.api.Call("makeCounter", 1)
		p, r := capnweb.NewPromise()
		q := p.Call("increment", 2)
		_ = r.Resolve(c.Stub())
		want[int](t, 3)(capnweb.Await[int](h.ctx, q))
		if got := h.said.count("pull"); got != 1 {
			t.Errorf("%d results were asked for", got)
		}
		p.Close()
		c.Close()
	})
	t.Run("settled with a stub that breaks", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		h.broken = true
		p := settled(h.api.Dup())
		defer p.Close()
		watched := make(chan error, 1)
		p.OnBroken(func(err error) { watched <- err })
		_ = h.server.Close(errors.New("test disconnect"))
		if err := soon(t, watched); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
	})
	t.Run("closing it and the stub it was settled with counts once", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		inner := s.stub()
		p := settled(inner)
		inner.Close()
		s.notYet(t)
		p.Close()
		s.times(t, 1)
	})
	t.Run("settled with a stub of this process", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		p := settled(capnweb.NewStub(counter(newSpy(), 1)))
		want[int](t, 3)(capnweb.Call[int](ctx, p, "increment", 2))
		s, err := capnweb.Await[*capnweb.Stub](ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		want[int](t, 6)(capnweb.Call[int](ctx, s, "increment", 3))
		s.Close()
	})
}

// Group "MessagePorts": within a process it is Pipe.
func TestPipe(t *testing.T) {
	t.Parallel()
	t.Run("calls", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		want[int](t, 25)(capnweb.Call[int](h.ctx, h.api, "square", 5))
		c, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "makeCounter", 10)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[int](t, 11)(capnweb.Call[int](h.ctx, c, "increment"))
		want[int](t, 16)(capnweb.Call[int](h.ctx, c, "increment", 5))
		want[int](t, 18)(capnweb.Call[int](h.ctx, h.api, "incrementCounter", c, 2))
	})
	t.Run("errors", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		fails(t, await(h.ctx, h.api.Call("throwError")), "test error")
	})
	t.Run("the end is seen by the other side", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		h.broken = true
		want[int](t, 9)(capnweb.Call[int](h.ctx, h.api, "square", 3))
		seen := make(chan error, 1)
		h.api.OnBroken(func(err error) { seen <- err })
		_ = h.server.Close(nil)
		if err := soon(t, seen); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
	})
	t.Run("a transport that is closed ends the session", func(t *testing.T) {
		t.Parallel()
		a, b := capnweb.Pipe()
		s := capnweb.NewSession(a, nil)
		_ = b.Close(nil)
		soon(t, s.Done())
		if err := s.Err(); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
		if _, err := b.ReadMessage(); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}
