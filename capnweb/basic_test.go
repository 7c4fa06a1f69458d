package capnweb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// failingTransport cannot send: from the beginning, or, if first is set, after a first write.
type failingTransport struct {
	wrote  chan struct{}
	err    error
	closed chan struct{}
	once   sync.Once
	first  bool
}

func (f *failingTransport) ReadMessage() ([]byte, error) {
	<-f.closed
	return nil, io.EOF
}
func (f *failingTransport) WriteMessages([][]byte) error {
	if f.first {
		f.first = false
		close(f.wrote)
		return nil
	}
	return f.err
}
func (f *failingTransport) Close(error) error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Group "transports".
func TestSendFailures(t *testing.T) {
	t.Parallel()
	broken := errors.New("send failed")
	for _, first := range []bool{false, true} {
		name := "the first message"
		if first {
			name = "a later message"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line := &failingTransport{err: broken, closed: make(chan struct{}), wrote: make(chan struct{}), first: first}
			s := capnweb.NewSession(line, nil)
			ctx := testContext(t)
			main := s.Main()
			defer main.Close()
			p := main.Call("square", 1)
			defer p.Close()
			if first {
				select {
				case <-line.wrote:
				case <-ctx.Done():
					t.Fatal("nothing was sent")
				}
			}
			if err := await(ctx, main.Call("square", p)); !errors.Is(err, broken) || !errors.Is(err, capnweb.ErrDisconnected) {
				t.Errorf("the call ended with %v", err)
			}
			select {
			case <-s.Done():
			case <-ctx.Done():
				t.Fatal("the session goes on")
			}
			if err := s.Err(); !errors.Is(err, broken) {
				t.Errorf("the session ended with %v", err)
			}
		})
	}
}

// Group "basic rpc".
func TestBasicRPC(t *testing.T) {
	t.Parallel()
	fail := func(err error) capnweb.Methods {
		return capnweb.Methods{
			"fail":   func() error { return err },
			"square": func(i int) int { return i * i },
			"wrap":   func() any { return map[string]any{"wrapped": err} },
		}
	}
	thrown := func(t *testing.T, h *harness) *capnweb.Error {
		t.Helper()
		_, err := capnweb.Call[any](h.ctx, h.api, "fail")
		var e *capnweb.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		return e
	}
	t.Run("a call", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		want[int](t, 9)(capnweb.Call[int](h.ctx, h.api, "square", 3))
	})
	t.Run("an error", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		_, err := capnweb.Call[any](h.ctx, h.api, "throwError")
		if !errors.Is(err, &capnweb.Error{Name: "RangeError", Message: "test error"}) {
			t.Error(err)
		}
	})
	t.Run("own properties of an error", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, capnweb.NewTarget(fail(&capnweb.Error{Message: "m", Props: capnweb.Object{
			{Key: "code", Value: "E_FOO"}, {Key: "details", Value: map[string]any{"reason": "x", "retries": 3}},
		}})))
		e := thrown(t, h)
		details, _ := e.Props.Get("details")
		if d := cmp.Diff(map[string]any{"reason": "x", "retries": 3.0}, details); d != "" || e.Code() != "E_FOO" {
			t.Error(e.Code(), d)
		}
	})
	t.Run("the cause of an error", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, capnweb.NewTarget(fail(&capnweb.Error{Message: "outer", Cause: &capnweb.Error{Name: "TypeError", Message: "inner"}})))
		e := thrown(t, h)
		if inner, ok := e.Cause.(*capnweb.Error); !ok || inner.Name != "TypeError" || inner.Message != "inner" {
			t.Errorf("%#v", e.Cause)
		}
	})
	t.Run("dates, bigints, bytes and errors in an error", func(t *testing.T) {
		t.Parallel()
		huge, _ := new(big.Int).SetString("12345678901234567890", 10)
		data := bytes.Repeat([]byte{7}, 10_000)
		h := newHarness(t, capnweb.NewTarget(fail(&capnweb.Error{Message: "heavy", Props: capnweb.Object{
			{Key: "when", Value: time.UnixMilli(1234)}, {Key: "big", Value: huge}, {Key: "bytes", Value: data},
			{Key: "inner", Value: &capnweb.Error{Name: "TypeError", Message: "in"}},
		}})))
		e := thrown(t, h)
		get := func(key string) any { v, _ := e.Props.Get(key); return v }
		if w, ok := get("when").(time.Time); !ok || w.UnixMilli() != 1234 {
			t.Error(get("when"))
		}
		if b, ok := get("big").(*big.Int); !ok || b.Cmp(huge) != 0 {
			t.Error(get("big"))
		}
		if b, ok := get("bytes").([]byte); !ok || !bytes.Equal(b, data) {
			t.Errorf("%T", get("bytes"))
		}
		if in, ok := get("inner").(*capnweb.Error); !ok || in.Name != "TypeError" {
			t.Error(get("inner"))
		}
	})
	t.Run("a stub in an error does not travel", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		stub := s.stub()
		h := newHarness(t, capnweb.NewTarget(fail(&capnweb.Error{Message: "with a stub", Props: capnweb.Object{
			{Key: "counter", Value: stub}, {Key: "code", Value: "E_STUB"},
		}})))
		e := thrown(t, h)
		if _, there := e.Props.Get("counter"); there || e.Code() != "E_STUB" {
			t.Error(e.Props)
		}
		waitStats(t, h.server, 1, 1)
		s.notYet(t) // it is its owner's
		stub.Close()
		s.times(t, 1)
	})
	t.Run("a property with a stub and something unserializable goes whole", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		stub := s.stub()
		defer stub.Close()
		h := newHarness(t, capnweb.NewTarget(fail(&capnweb.Error{Message: "mixed", Props: capnweb.Object{
			{Key: "mixed", Value: map[string]any{"counter": stub, "bad": make(chan int)}}, {Key: "code", Value: "E_MIXED"},
		}})))
		got, err := capnweb.Call[map[string]*capnweb.Error](h.ctx, h.api, "wrap")
		if err != nil {
			t.Fatal(err)
		}
		e := got["wrapped"]
		if _, there := e.Props.Get("mixed"); there || e.Code() != "E_MIXED" || e.Message != "mixed" {
			t.Error(e, e.Props)
		}
	})
	t.Run("a promise is awaited several times, by several goroutines", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p, q := h.api.Call("square", 3), h.api.Call("throwError")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var n int
				if err := p.Await(h.ctx, &n); err != nil || n != 9 {
					t.Error(n, err)
				}
				fails(t, q.Await(h.ctx, &n), "test error")
			})
		}
		wg.Wait()
		p.Close()
		q.Close()
	})
	t.Run("an argument that cannot be sent", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		fails(t, await(h.ctx, h.api.Call("square", make(chan int))), "Cannot serialize value: chan int")
		if n := h.said.count("push"); n != 0 {
			t.Errorf("%d calls were sent", n)
		}
		h.settle(t)
	})
	t.Run("a result that cannot be sent", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, capnweb.NewTarget(capnweb.Methods{
			"bad": func() any { return make(chan int) }, "square": func(i int) int { return i * i },
		}))
		err := await(h.ctx, h.api.Call("bad"))
		fails(t, err, "Cannot serialize value: chan int")
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Name != "TypeError" {
			t.Error(err)
		}
		h.settle(t)
	})
	inherited := []string{"toString", "hasOwnProperty", "__proto__", "constructor", "valueOf", "isPrototypeOf", "toLocaleString", "__defineGetter__"}
	t.Run("members that every object has are not on targets", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		for _, name := range inherited {
			same(t, capnweb.Value{V: capnweb.Undefined})(capnweb.Await[capnweb.Value](h.ctx, h.api.Get(name)))
			fails(t, await(h.ctx, h.api.Call(name)), "'"+name+"' is not a function.")
		}
	})
	t.Run("members that every object has are not on objects, nor received", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, capnweb.NewTarget(capnweb.Methods{
			"get": func() *capnweb.Stub {
				return capnweb.NewStub(map[string]any{
					"foo": 123, "arr": []int{1, 2},
					"func": capnweb.Func(func(v capnweb.Value) string { return fmt.Sprint(v.V) }),
				})
			},
		}))
		s, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "get")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		want[int](t, 123)(capnweb.Await[int](h.ctx, s.Get("foo")))
		for _, name := range append(inherited, "map", "call", "length") {
			for _, path := range [][]any{{name}, {"arr", name}, {"func", name}} {
				same(t, capnweb.Value{V: capnweb.Undefined})(capnweb.Await[capnweb.Value](h.ctx, s.Get(path...)))
			}
		}
		want[string](t, "[]")(capnweb.Call[string](h.ctx, s, "func", capnweb.Object{
			{Key: "toString", Value: "bad"}, {Key: "__proto__", Value: capnweb.Object{{Key: "toString", Value: "bad"}}},
			{Key: "toJSON", Value: capnweb.Func(func() string { return "bad" })},
		}))
		want[string](t, "[{x 123}]")(capnweb.Call[string](h.ctx, s, "func", capnweb.Object{
			{Key: "x", Value: 123}, {Key: "toJSON", Value: capnweb.Func(func() string { return "bad" })},
		}))
	})
	t.Run("a callback that waits", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		square := capnweb.Func(func(ctx context.Context, i int) (int, error) {
			return capnweb.Call[int](ctx, h.api, "square", i)
		})
		same(t, map[string]int{"result": 9})(capnweb.Call[map[string]int](h.ctx, h.api, "callFunction", square, 3))
	})
}

// Group "capability-passing".
func TestCapabilityPassing(t *testing.T) {
	t.Parallel()
	t.Run("a target is returned", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		c, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "makeCounter", 4)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[int](t, 5)(capnweb.Call[int](h.ctx, c, "increment"))
		want[int](t, 9)(capnweb.Call[int](h.ctx, c, "increment", 4))
	})
	t.Run("a stub goes back to where it came from", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		c, err := capnweb.Call[*capnweb.Stub](h.ctx, h.api, "makeCounter", 4)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[int](t, 7)(capnweb.Call[int](h.ctx, h.api, "incrementCounter", c, 3))
		if n := h.said.count("push") + h.answered.count("push"); n != 2 {
			t.Errorf("%d calls were made: the counter was not called where it is", n)
		}
	})
	t.Run("a stub of one peer is passed to another", func(t *testing.T) {
		t.Parallel()
		alice, bob := newHarness(t, mathMain()), newHarness(t, mathMain())
		c, err := capnweb.Call[*capnweb.Stub](alice.ctx, alice.api, "makeCounter", 10)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[int](t, 13)(capnweb.Call[int](bob.ctx, bob.api, "incrementCounter", c, 3))
	})
	// Us to Bob to Alice.
	proxy := func(t *testing.T) *harness {
		alice := newHarness(t, mathMain())
		a := alice.api
		return newHarness(t, capnweb.NewTarget(capnweb.Methods{
			"getCounter": func(ctx context.Context, n int) (*capnweb.Stub, error) {
				return capnweb.Call[*capnweb.Stub](ctx, a, "makeCounter", n)
			},
			"getCounterPromise": func(n int) *capnweb.Promise { return a.Call("makeCounter", n) },
			"incrementCounter":  func(c *capnweb.Stub, by int) *capnweb.Promise { return a.Call("incrementCounter", c, by) },
		}))
	}
	t.Run("a proxy returns a stub", func(t *testing.T) {
		t.Parallel()
		bob := proxy(t)
		c, err := capnweb.Call[*capnweb.Stub](bob.ctx, bob.api, "getCounter", 4)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want[int](t, 6)(capnweb.Call[int](bob.ctx, c, "increment", 2))
	})
	for name, method := range map[string]string{
		"a proxy's stub is called before it arrived":    "getCounter",
		"a proxy's promise is called before it arrived": "getCounterPromise",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bob := proxy(t)
			p := bob.api.Call(method, 4)
			defer p.Close()
			want[int](t, 6)(capnweb.Call[int](bob.ctx, p, "increment", 2))
		})
	}
	t.Run("a target goes through a proxy", func(t *testing.T) {
		t.Parallel()
		bob := proxy(t)
		c := newCounter(10)
		want[int](t, 13)(capnweb.Call[int](bob.ctx, bob.api, "incrementCounter", counters.New(c), 3))
		want[int](t, 13)(c.value(), nil)
	})
}

// Group "promise pipelining".
func TestPromisePipelining(t *testing.T) {
	t.Parallel()
	t.Run("a promise as an argument", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p := h.api.Call("square", 2)
		defer p.Close()
		want[int](t, 16)(capnweb.Call[int](h.ctx, h.api, "square", p))
	})
	t.Run("calls on a promise", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		c := h.api.Call("makeCounter", 4)
		defer c.Close()
		a, b := c.Call("increment"), c.Call("increment", 4)
		want[int](t, 5)(capnweb.Await[int](h.ctx, a))
		want[int](t, 9)(capnweb.Await[int](h.ctx, b))
	})
	t.Run("a promise as a result", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		same(t, map[string]int{"result": 9})(capnweb.Call[map[string]int](h.ctx, h.api, "callSquare", h.api, 3))
	})
	t.Run("an error reaches the calls on its promise", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p := h.api.Call("throwError")
		defer p.Close()
		fails(t, await(h.ctx, p.Call("square", 5)), "RangeError: test error")
	})
	t.Run("an error reaches the calls with its promise", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p := h.api.Call("throwError")
		defer p.Close()
		fails(t, await(h.ctx, h.api.Call("square", p)), "RangeError: test error")
	})
	t.Run("errors that are asked for late", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		p := h.api.Call("throwError")
		q := h.api.Call("square", p)
		h.settle(t) // both have failed there
		if n := h.answered.count("reject"); n != 0 {
			t.Errorf("%d errors were sent unasked", n)
		}
		fails(t, q.Await(h.ctx, nil), "test error")
		fails(t, p.Await(h.ctx, nil), "test error")
		q.Close()
		p.Close()
	})
}
