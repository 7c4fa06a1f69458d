package capnweb_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

type counter struct {
	n      atomic.Int64
	closed chan struct{}
}

func newCounter(n int) *counter {
	c := &counter{closed: make(chan struct{})}
	c.n.Store(int64(n))
	return c
}

func (c *counter) increment(by *int) int {
	if by == nil {
		return int(c.n.Add(1))
	}
	return int(c.n.Add(int64(*by)))
}
func (c *counter) value() int   { return int(c.n.Load()) }
func (c *counter) Close() error { close(c.closed); return nil }

var counters = capnweb.NewClass[*counter](capnweb.Methods{
	"increment": (*counter).increment,
	"value":     capnweb.Getter((*counter).value),
})

// testMain has the methods of the reference's own test object.
func testMain() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"add":    func(a, b float64) float64 { return a + b },
		"echo":   func(v capnweb.Value) any { return v },
		"undef":  func() {},
		"ret":    func() int { return 7 },
		"fail": func() error {
			return &capnweb.Error{
				Name: "TypeError", Message: "boom", Props: capnweb.Object{{Key: "code", Value: "E1"}},
				Cause: &capnweb.Error{Name: "RangeError", Message: "inner"},
			}
		},
		"panic": func() { panic("secret") },
		"prop":  capnweb.Getter(func() any { return map[string]any{"deep": []int{10, 20}} }),
		"call": func(ctx context.Context, f *capnweb.Stub, i int) (any, error) {
			return capnweb.Call[any](ctx, f, "", i)
		},
		"callNoAwait": func(f *capnweb.Stub, i int) *capnweb.Promise { return f.Call("", i) },
		"makeCounter": func(n int) *capnweb.Target { return counters.New(newCounter(n)) },
		"inc": func(ctx context.Context, c *capnweb.Stub, n int) (int, error) {
			return capnweb.Call[int](ctx, c, "increment", n)
		},
		"list": func(n int) []int {
			l := make([]int, n)
			for i := range l {
				l[i] = i
			}
			return l
		},
		"hang": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"nul":  func() any { return nil },
		"obj": func() any {
			return capnweb.Object{
				{Key: "a", Value: []any{1, map[string]any{"b": time.UnixMilli(5)}}},
				{Key: "f", Value: capnweb.Func(func(i int) int { return i + 1 })},
			}
		},
	})
}

func TestCall(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	got, err := capnweb.Call[int](ctx, client.Main(), "square", 5)
	if err != nil || got != 25 {
		t.Fatalf("square(5) = %d, %v", got, err)
	}
	if _, err := capnweb.Call[any](ctx, client.Main(), "undef"); err != nil {
		t.Fatal(err)
	}
	_, err = capnweb.Call[any](ctx, client.Main(), "fail")
	var e *capnweb.Error
	if !errors.As(err, &e) || e.Name != "TypeError" || e.Message != "boom" || e.Code() != "E1" {
		t.Fatalf("fail: %v", err)
	}
	if c, ok := e.Cause.(*capnweb.Error); !ok || c.Name != "RangeError" {
		t.Fatalf("cause %v", e.Cause)
	}
	if errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal("a peer's error counts as a broken line")
	}
	_, err = capnweb.Call[any](ctx, client.Main(), "panic")
	if !errors.As(err, &e) || e.Message != "internal error: the handler panicked" {
		t.Fatalf("panic: %v", err)
	}
	_, err = capnweb.Call[any](ctx, client.Main(), "square", "x")
	if !errors.As(err, &e) || e.Name != "TypeError" {
		t.Fatalf("bad argument: %v", err)
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}

func TestPipelining(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	c := client.Main().Call("makeCounter", 3)
	n, err := capnweb.Call[int](ctx, c, "increment", 2)
	if err != nil || n != 5 {
		t.Fatal(n, err)
	}
	v, err := capnweb.Await[int](ctx, c.Get("value"))
	if err != nil || v != 5 {
		t.Fatal(v, err)
	}
	c.Close()
	a, b := client.Main().Call("square", 3), client.Main().Call("square", 2)
	sum, err := capnweb.Call[int](ctx, client.Main(), "add", a, b)
	if err != nil || sum != 13 {
		t.Fatal(sum, err)
	}
	a.Close()
	b.Close()
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}

func TestCallback(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	double := capnweb.Func(func(i int) int { return 2 * i })
	for _, m := range []string{"call", "callNoAwait"} {
		got, err := capnweb.Call[int](ctx, client.Main(), m, double, 21)
		if err != nil || got != 42 {
			t.Fatal(m, got, err)
		}
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}

// TestForward relays through a gateway that has a session with each side.
func TestForward(t *testing.T) {
	t.Parallel()
	backClient, backServer := connect(t, nil, testMain())
	front, gate := connect(t, nil, backClient.Main())
	ctx := testContext(t)
	got, err := capnweb.Call[int](ctx, front.Main(), "call", capnweb.Func(func(i int) int { return i + 1 }), 1)
	if err != nil || got != 2 {
		t.Fatal(got, err)
	}
	c, err := capnweb.Call[*capnweb.Stub](ctx, front.Main(), "makeCounter", 1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := capnweb.Call[int](ctx, front.Main(), "inc", c, 5)
	if err != nil || n != 6 {
		t.Fatal(n, err)
	}
	c2, err := capnweb.Call[*capnweb.Stub](ctx, front.Main(), "echo", c)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := capnweb.Await[int](ctx, c2.Get("value")); err != nil || v != 6 {
		t.Fatal(v, err)
	}
	c2.Close()
	c.Close()
	var e *capnweb.Error
	if _, err = capnweb.Call[any](ctx, front.Main(), "fail"); !errors.As(err, &e) || e.Code() != "E1" {
		t.Fatal(err)
	}
	var m map[string]any
	if err := front.Main().Get("prop").Await(ctx, &m); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]any{"deep": []any{10.0, 20.0}}, m); d != "" {
		t.Fatal(d)
	}
	for _, s := range []*capnweb.Session{backClient, backServer, front, gate} {
		waitStats(t, s, 1, 1)
	}
	// The end of the line behind is the peer's error here, and calls end.
	p := front.Main().Call("hang")
	defer p.Close()
	done := make(chan error, 1)
	go func() { done <- p.Await(ctx, nil) }()
	for gate.Stats().Exports < 2 {
		time.Sleep(time.Millisecond)
	}
	backServer.Close(nil)
	if err := <-done; err == nil || errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
}

func TestDisconnect(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	var order []int
	main := client.Main()
	main.OnBroken(func(error) { order = append(order, 1) })
	stop := main.OnBroken(func(error) { order = append(order, 2) })
	main.OnBroken(func(error) { order = append(order, 3) })
	stop()
	p := main.Call("hang")
	done := make(chan error, 1)
	go func() { _, err := capnweb.Await[any](ctx, p); done <- err }()
	for server.Stats().Calls == 0 {
		time.Sleep(time.Millisecond)
	}
	server.Close(fmt.Errorf("maintenance"))
	if err := <-done; !errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
	<-client.Done()
	if d := cmp.Diff([]int{1, 3}, order); d != "" {
		t.Fatal(d)
	}
	if _, err := capnweb.Call[any](ctx, main, "ret"); !errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx, cancel := context.WithCancelCause(testContext(t))
	mine := errors.New("mine")
	go func() {
		for server.Stats().Calls == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel(mine)
	}()
	if _, err := capnweb.Call[any](ctx, client.Main(), "hang"); !errors.Is(err, mine) {
		t.Fatal(err)
	}
	waitStats(t, client, 1, 1)
}

// TestReentrant: a handler waits for a callback that calls the same target.
func TestReentrant(t *testing.T) {
	t.Parallel()
	client, _ := connect(t, nil, testMain())
	ctx := testContext(t)
	f := capnweb.Func(func(ctx context.Context, i int) (int, error) {
		return capnweb.Call[int](ctx, client.Main(), "square", i)
	})
	if n, err := capnweb.Call[int](ctx, client.Main(), "call", f, 5); err != nil || n != 25 {
		t.Fatal(n, err)
	}
}

func TestStructs(t *testing.T) {
	t.Parallel()
	type inner struct {
		At   time.Time `json:"at"`
		Skip string    `json:"-"`
		N    int64     `json:"n,omitempty"`
	}
	type outer struct {
		inner
		Name  string            `json:"other" rpc:"name"`
		List  []inner           `json:"list"`
		M     map[string]string `json:"m"`
		Bytes []byte            `json:"bytes"`
		F     *capnweb.Stub     `json:"f"`
		P     *int              `json:"p"`
	}
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	f := capnweb.NewStub(capnweb.Func(func() string { return "called" }))
	in := outer{inner: inner{At: time.UnixMilli(7).UTC()}, Name: "x", List: []inner{{N: 3, At: time.UnixMilli(0).UTC()}}, M: map[string]string{"k": "v"}, Bytes: []byte{1, 2, 255}, F: f}
	out, err := capnweb.Call[outer](ctx, client.Main(), "echo", in)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := capnweb.Call[string](ctx, out.F, ""); err != nil || s != "called" {
		t.Fatal(s, err)
	}
	out.F.Close()
	f.Close()
	in.F, out.F = nil, nil
	if d := cmp.Diff(in, out, cmp.AllowUnexported(outer{}, inner{})); d != "" {
		t.Fatal(d)
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}
