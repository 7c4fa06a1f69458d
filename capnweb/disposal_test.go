package capnweb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// Group "map() over RPC".
func TestMapOverRPC(t *testing.T) {
	t.Parallel()
	t.Run("null, undefined and single values", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		mapOfSingles(t, h.ctx, h.api)
	})
	t.Run("arrays", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		mapOfArrays(t, h.ctx, h.api)
	})
	t.Run("map within map", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		mapWithinMap(t, h.ctx, h.api)
	})
}

// vendor serves targets that a spy sees closed.
func vendor(s *spy) *capnweb.Target {
	value := capnweb.Methods{"getValue": func() int { return 42 }}
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"get":    func() *capnweb.Target { return s.target(value) },
		"three": func() []*capnweb.Stub {
			one := capnweb.NewStub(s.target(value))
			defer one.Close()
			return []*capnweb.Stub{one.Dup(), one.Dup(), one.Dup()}
		},
		"threeTargets": func() []*capnweb.Target {
			return []*capnweb.Target{s.target(value), s.target(value), s.target(value)}
		},
		"use": func(ctx context.Context, x *capnweb.Stub) (int, error) { return capnweb.Call[int](ctx, x, "getValue") },
	})
}

// Group "stub disposal over RPC".
func TestDisposalOverRPC(t *testing.T) {
	t.Parallel()
	get := func(t *testing.T, h *harness) *capnweb.Stub {
		t.Helper()
		x, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "get")
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	t.Run("closing the stub closes the target", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		h := newHarness(t, vendor(s))
		x := get(t, h)
		want[int](t, 42)(capnweb.Call[int](h.ctx, x, "getValue"))
		s.notYet(t)
		x.Close()
		s.times(t, 1)
	})
	t.Run("each appearance in a result is a reference", func(t *testing.T) {
		t.Parallel()
		for method, closings := range map[string]int{"three": 1, "threeTargets": 3} {
			s := newSpy()
			h := newHarness(t, vendor(s))
			list, err := capnweb.Call[[]*capnweb.Stub](h.ctx, h.api, method)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				want[int](t, 42)(capnweb.Call[int](h.ctx, x, "getValue"))
			}
			list[0].Close()
			list[1].Close()
			h.settle(t)
			if n := s.n.Load(); n >= int64(closings) {
				t.Errorf("%s: closed %d times while a reference is left", method, n)
			}
			list[2].Close()
			s.times(t, closings)
		}
	})
	t.Run("a target in the parameters is closed after the call", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		h := newHarness(t, vendor(newSpy()))
		target := s.target(capnweb.Methods{"getValue": func() int { return 42 }})
		want[int](t, 42)(capnweb.Call[int](h.ctx, h.api, "use", target))
		s.times(t, 1)
	})
	t.Run("a stub in the parameters is duplicated", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		h := newHarness(t, vendor(newSpy()))
		stub := capnweb.NewStub(s.target(capnweb.Methods{"getValue": func() int { return 42 }}))
		for range 2 {
			want[int](t, 42)(capnweb.Call[int](h.ctx, h.api, "use", stub))
		}
		waitStats(t, h.client, 1, 1)
		s.notYet(t)
		stub.Close()
		s.times(t, 1)
	})
	t.Run("the last duplicate closes the target", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		h := newHarness(t, vendor(s))
		a := get(t, h)
		b, c := a.Dup(), a.Dup()
		for _, x := range []*capnweb.Stub{a, b} {
			x.Close()
			h.settle(t)
			s.notYet(t)
		}
		c.Close()
		s.times(t, 1)
	})
	t.Run("closing twice counts once", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		h := newHarness(t, vendor(s))
		a := get(t, h)
		b := a.Dup()
		b.Close()
		b.Close()
		h.settle(t)
		s.notYet(t)
		a.Close()
		s.times(t, 1)
	})
	t.Run("the end of the line closes what the peer held, and breaks calls", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		started := make(chan struct{})
		h := newHarness(t, s.target(capnweb.Methods{
			"hang": func(ctx context.Context) error { close(started); <-ctx.Done(); return ctx.Err() },
		}))
		h.broken = true
		p := h.api.Call("hang")
		result := make(chan error, 1)
		go func() { result <- await(h.ctx, p) }()
		soon(t, started)
		_ = h.client.Close(errors.New("test error"))
		if err := soon(t, result); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
		if err := await(h.ctx, h.api.Call("hang")); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
		s.times(t, 1)
	})
	t.Run("the session ends by Close, not with its main stub", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		h.broken = true
		c, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "makeCounter", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h.api.Close()
		want[int](t, 1)(capnweb.Call[int](h.ctx, c, "increment"))
		_ = h.client.Close(nil)
		if _, err := capnweb.Call[int](h.ctx, c, "increment"); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
	})
}

// Group "e-order".
func TestEOrder(t *testing.T) {
	t.Parallel()
	type log struct {
		mu    sync.Mutex
		calls []int
	}
	methods := func(l *log) capnweb.Methods {
		return capnweb.Methods{"note": func(i int) int {
			l.mu.Lock()
			l.calls = append(l.calls, i)
			l.mu.Unlock()
			return i
		}}
	}
	check := func(t *testing.T, ctx context.Context, l *log, ps []*capnweb.Promise) {
		t.Helper()
		var wanted []int
		for i := len(ps) - 1; i >= 0; i-- { // asked for the other way round
			want[int](t, i)(capnweb.Await[int](ctx, ps[i]))
		}
		for i := range ps {
			wanted = append(wanted, i)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if d := cmp.Diff(wanted, l.calls); d != "" {
			t.Error(d)
		}
	}
	t.Run("calls on one stub", func(t *testing.T) {
		t.Parallel()
		l := &log{}
		h := newHarness(t, capnweb.NewTarget(methods(l)))
		var ps []*capnweb.Promise
		for i := range 50 {
			ps = append(ps, h.api.Call("note", i))
		}
		check(t, h.ctx, l, ps)
	})
	t.Run("calls on one promise", func(t *testing.T) {
		t.Parallel()
		l := &log{}
		gate := make(chan struct{})
		h := newHarness(t, capnweb.NewTarget(capnweb.Methods{
			"object": func() *capnweb.Target { <-gate; return capnweb.NewTarget(methods(l)) },
		}))
		p := h.api.Call("object")
		var ps []*capnweb.Promise
		for i := range 25 {
			ps = append(ps, p.Call("note", i))
		}
		close(gate)
		for i := range 25 {
			ps = append(ps, p.Call("note", 25+i))
		}
		check(t, h.ctx, l, ps)
		p.Close()
	})
}

// Group "error stack policy": what the hook for sent errors decides.
func TestErrorStack(t *testing.T) {
	t.Parallel()
	thrown := func(t *testing.T, main *capnweb.Target, hook func(*capnweb.Error) *capnweb.Error) *capnweb.Error {
		t.Helper()
		var opts []capnweb.Option
		if hook != nil {
			opts = append(opts, capnweb.WithErrorHook(hook))
		}
		h := newHarness(t, main, opts...)
		_, err := capnweb.Call[any](h.ctx, h.api, "fail")
		var e *capnweb.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		return e
	}
	failing := func() *capnweb.Target {
		return capnweb.NewTarget(capnweb.Methods{"fail": func() error {
			return &capnweb.Error{Name: "RangeError", Message: "test error", Stack: "where it was", Props: capnweb.Object{
				{Key: "code", Value: "E_ORIGINAL"}, {Key: "secret", Value: "super-sensitive-data"},
			}}
		}})
	}
	t.Run("the stack is hidden", func(t *testing.T) {
		t.Parallel()
		for _, hook := range []func(*capnweb.Error) *capnweb.Error{nil, func(*capnweb.Error) *capnweb.Error { return nil }} {
			if e := thrown(t, failing(), hook); e.Stack != "" || e.Name != "RangeError" || e.Message != "test error" {
				t.Errorf("%#v", e)
			}
		}
	})
	t.Run("the stack is sent when the hook returns the error", func(t *testing.T) {
		t.Parallel()
		if e := thrown(t, failing(), func(e *capnweb.Error) *capnweb.Error { return e }); e.Stack != "where it was" {
			t.Errorf("%#v", e)
		}
	})
	t.Run("the hook writes another error", func(t *testing.T) {
		t.Parallel()
		e := thrown(t, failing(), func(*capnweb.Error) *capnweb.Error {
			return &capnweb.Error{Name: "TypeError", Message: "rewritten error", Stack: "test stack"}
		})
		if e.Name != "TypeError" || e.Message != "rewritten error" || e.Stack != "test stack" {
			t.Errorf("%#v", e)
		}
	})
	t.Run("the properties are the other error's", func(t *testing.T) {
		t.Parallel()
		e := thrown(t, failing(), func(*capnweb.Error) *capnweb.Error {
			return &capnweb.Error{Name: "TypeError", Message: "rewritten", Props: capnweb.Object{{Key: "code", Value: "E_REWRITTEN"}}}
		})
		if d := cmp.Diff(capnweb.Object{{Key: "code", Value: "E_REWRITTEN"}}, e.Props); d != "" {
			t.Error(d)
		}
	})
	t.Run("the hook removes a property", func(t *testing.T) {
		t.Parallel()
		e := thrown(t, failing(), func(e *capnweb.Error) *capnweb.Error {
			e.Props = e.Props[:1]
			return e
		})
		if d := cmp.Diff(capnweb.Object{{Key: "code", Value: "E_ORIGINAL"}}, e.Props); d != "" || e.Message != "test error" {
			t.Error(d, e)
		}
	})
}

// Group "onRpcBroken".
func TestOnBroken(t *testing.T) {
	t.Parallel()
	t.Run("rejection at once, the line's end in the order of registration", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, capnweb.NewTarget(capnweb.Methods{
			"makeCounter": func() *capnweb.Target { return counters.New(newCounter(0)) },
			"hang":        func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			"fail":        func() error { return errors.New("test error") },
		}, capnweb.Concurrent()))
		h.broken = true
		var mu sync.Mutex
		var seen []string
		note := func(which string) func(error) {
			return func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, capnweb.ErrDisconnected) {
					which += ": over"
				}
				seen = append(seen, which)
			}
		}
		expect := func(list ...string) {
			t.Helper()
			for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				mu.Lock()
				d := cmp.Diff(list, seen)
				mu.Unlock()
				if d == "" {
					return
				}
				if time.Now().After(deadline) {
					t.Fatal(d)
				}
			}
		}
		h.api.OnBroken(note("main"))
		one := h.api.Call("makeCounter")
		one.OnBroken(note("promise of one"))
		two, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "makeCounter")
		if err != nil {
			t.Fatal(err)
		}
		two.OnBroken(note("two"))
		var oneStub *capnweb.Stub
		if err := one.Await(h.ctx, &oneStub); err != nil {
			t.Fatal(err)
		}
		oneStub.OnBroken(note("one"))
		hanging := h.api.Call("hang")
		hanging.OnBroken(note("hanging"))
		failing := h.api.Call("fail")
		failing.OnBroken(note("failing"))
		fails(t, failing.Await(h.ctx, nil), "test error")
		expect("failing")
		failing.OnBroken(note("failing, late"))
		expect("failing", "failing, late")
		_ = h.server.Close(errors.New("test disconnect"))
		if err := hanging.Await(h.ctx, nil); !errors.Is(err, capnweb.ErrDisconnected) {
			t.Error(err)
		}
		expect("failing", "failing, late", "main: over", "promise of one: over", "two: over", "one: over", "hanging: over")
	})
}
