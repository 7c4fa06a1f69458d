package interop_test

import (
	"context"
	"errors"
	"math"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/capnweb"
)

// goCase is one thing that our client does to the object of js/api.mjs.
type goCase struct {
	name string
	run  func(t *testing.T, ctx context.Context, api *capnweb.Stub)
	// since is the version whose server can do it first; empty means 0.8.0.
	since string
	// batch: makes all its calls before it waits for one, so works in an HTTP batch.
	batch bool
}

var goCases = []goCase{
	{name: "call", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, call[int](t, ctx, api, "square", 5), 25)
		equal(t, call[string](t, ctx, api, "add", "tö", "ngs"), "töngs")
		equal(t, call[capnweb.Value](t, ctx, api, "nothing").V, any(capnweb.Undefined))
		equal(t, call[capnweb.Value](t, ctx, api, "nul").V, nil)
	}},
	{name: "calls in one turn", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		a, b, c := api.Call("square", 3), api.Call("add", 1, 2), api.Call("nul")
		equal(t, await[int](t, ctx, a), 9)
		equal(t, await[int](t, ctx, b), 3)
		equal(t, await[capnweb.Value](t, ctx, c).V, nil)
	}},
	{name: "values", run: values},
	{name: "struct", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, call[[]user](t, ctx, api, "users"), []user{{1, "Ada"}, {2, "Grace"}})
		equal(t, call[user](t, ctx, api, "echo", user{7, "Barbara"}), user{7, "Barbara"})
		equal(t, call[[][]int](t, ctx, api, "nested"), [][]int{{1, 2}, {3}})
	}},
	{name: "large messages", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		text := strings.Repeat("x", 1<<20)
		equal(t, call[string](t, ctx, api, "echo", text) == text, true)
		b := patternBytes(1<<20, 0)
		equal(t, hashOf(call[[]byte](t, ctx, api, "echo", b)), hashOf(b))
		numbers := list(50_000)
		equal(t, call[[]int](t, ctx, api, "echo", numbers), numbers)
	}},
	{name: "two hundred at once", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		all := make([]*capnweb.Promise, 200)
		for i := range all {
			if i%3 == 0 {
				all[i] = api.Call("later", i*i, i%7)
			} else {
				all[i] = api.Call("square", i)
			}
		}
		for i, p := range all {
			equal(t, await[int](t, ctx, p), i*i)
		}
	}},

	{name: "properties", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		name, deep, missing := api.Get("config", "name"), api.Get("config").Get("deep", "list"), api.Get("missing")
		equal(t, await[string](t, ctx, name), "tongs")
		equal(t, await[[]int](t, ctx, deep), []int{10, 20, 30})
		equal(t, await[capnweb.Value](t, ctx, missing).V, any(capnweb.Undefined))
	}},
	{name: "an element of an array", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		users := api.Call("users")
		defer users.Close()
		equal(t, await[string](t, ctx, users.Get(1, "name")), "Grace")
	}},
	{name: "below a getter", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, await[int](t, ctx, api.Get("counter", "value")), 100)
		c := await[*capnweb.Stub](t, ctx, api.Get("counter"))
		defer c.Close()
		equal(t, call[int](t, ctx, c, "increment", 1), 101)
	}},

	{name: "object", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		c := call[*capnweb.Stub](t, ctx, api, "makeCounter", 3)
		equal(t, call[int](t, ctx, c, "increment", 2), 5)
		equal(t, call[int](t, ctx, c, "increment"), 6)
		equal(t, await[int](t, ctx, c.Get("value")), 6)
		equal(t, call[int](t, ctx, api, "incrementCounter", c, 4), 10)
		equal(t, call[int](t, ctx, api, "live"), 1)
		d := c.Dup()
		c.Close()
		c.Close()
		equal(t, call[int](t, ctx, d, "increment", 1), 11)
		d.Close()
		untilNoneLive(t, ctx, api)
	}},
	{name: "many objects in one result", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		all := call[[]*capnweb.Stub](t, ctx, api, "makeCounters", 20)
		for i, c := range all {
			equal(t, call[int](t, ctx, c, "increment", 1), i+1)
		}
		equal(t, call[int](t, ctx, api, "live"), 20)
		for _, c := range all {
			c.Close()
		}
		untilNoneLive(t, ctx, api)
	}},
	{name: "close what is not awaited", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		api.Call("makeCounter", 1).Close()
		untilNoneLive(t, ctx, api)
		short, cancel := context.WithCancelCause(ctx)
		enough := errors.New("enough")
		cancel(enough)
		if _, err := capnweb.Call[int](short, api, "hang"); !errors.Is(err, context.Canceled) && !errors.Is(err, enough) {
			t.Errorf("a call given up: %v", err)
		}
	}},
	{name: "a local object passed twice", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		closed := make(chan struct{})
		stub := capnweb.NewStub(capnweb.NewTarget(capnweb.Methods{
			"increment": func(n int) int { return n + 1 },
		}, capnweb.OnClose(func() { close(closed) })))
		equal(t, call[[]int](t, ctx, api, "incrementBoth", stub, stub), []int{2, 2})
		equal(t, call[int](t, ctx, api, "incrementCounter", stub, 5), 6)
		stub.Close()
		wait(t, ctx, closed, "the object is closed")
	}},

	{name: "pipelining", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		c := api.Call("makeCounter", 3)
		defer c.Close()
		other := c.Call("another", 7)
		defer other.Close()
		five, seven := c.Call("increment", 2), other.Get("value")
		equal(t, await[int](t, ctx, five), 5)
		equal(t, await[int](t, ctx, seven), 7)
	}},
	{name: "promises as arguments", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		two, three, c, late := api.Call("square", 2), api.Call("square", 3), api.Call("makeCounter", 4), api.Call("later", "x", 5)
		defer closeAll(two, three, c, late)
		sum := api.Call("add", two, three)
		count := api.Call("incrementCounter", c, three)
		deep := api.Call("echo", map[string]any{"deep": []any{late}})
		equal(t, await[int](t, ctx, sum), 13)
		equal(t, await[int](t, ctx, count), 13)
		equal(t, await[map[string][]string](t, ctx, deep), map[string][]string{"deep": {"x"}})
	}},
	{name: "order of calls on one object", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		c := api.Call("makeCounter", 0)
		defer c.Close()
		all := make([]*capnweb.Promise, 100)
		for i := range all {
			all[i] = c.Call("increment", 1)
		}
		for i, p := range all {
			equal(t, await[int](t, ctx, p), i+1)
		}
	}},
	{name: "errors travel down the pipeline", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		failed := api.Call("fail", "range")
		defer failed.Close()
		below, argument := failed.Get("a").Call("b"), api.Call("square", failed)
		for _, p := range []*capnweb.Promise{below, argument} {
			e := thrown(t, ctx, p)
			equal(t, e.Name, "RangeError")
			equal(t, e.Message, "test error")
		}
	}},

	{name: "callback", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		double := capnweb.Func(func(i int) int { return i * 2 })
		equal(t, call[map[string]int](t, ctx, api, "callFunction", double, 21), map[string]int{"result": 42})
		equal(t, call[int](t, ctx, api, "callMany", capnweb.Func(func(i int) int { return i }), 200), 19900)
	}},
	{name: "callback that calls back", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		f := capnweb.Func(func(ctx context.Context, i int) (int, error) {
			n, err := capnweb.Call[int](ctx, api, "square", i)
			return n + 1, err
		})
		equal(t, call[map[string]int](t, ctx, api, "callFunction", f, 4), map[string]int{"result": 17})
	}},
	{name: "callback that fails", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		f := capnweb.Func(func() error {
			return &capnweb.Error{Name: "RangeError", Message: "from the callback", Props: capnweb.Object{{Key: "code", Value: "E_BACK"}}}
		})
		e := thrown(t, ctx, api.Call("callFunction", f, 1))
		equal(t, e.Name, "RangeError")
		equal(t, e.Message, "from the callback")
		equal(t, e.Code(), "E_BACK")
	}},
	{name: "the peer's own object as an argument", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		equal(t, call[map[string]int](t, ctx, api, "callSquare", api, 5), map[string]int{"result": 25})
	}},
	{name: "a local object whose result the peer passes back", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		squarer := capnweb.NewTarget(capnweb.Methods{"square": func(i int) int { return i*i + 1 }})
		equal(t, call[map[string]int](t, ctx, api, "callSquare", squarer, 5), map[string]int{"result": 26})
	}},
	{name: "callback kept after the call", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		var seen atomic.Int64
		closed := make(chan struct{})
		call[capnweb.Value](t, ctx, api, "keep", capnweb.Func(func(i int64) int64 {
			return seen.Add(i)
		}, capnweb.OnClose(func() { close(closed) })))
		equal(t, call[int](t, ctx, api, "fire", 1), 1)
		equal(t, call[int](t, ctx, api, "fire", 2), 3)
		select {
		case <-closed:
			t.Error("the callback was let go of while the peer keeps it")
		default:
		}
		call[capnweb.Value](t, ctx, api, "forget")
		wait(t, ctx, closed, "the callback is let go of")
	}},

	{name: "errors", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		e := thrown(t, ctx, api.Call("fail", "props"))
		equal(t, e.Name, "TypeError")
		equal(t, e.Message, "boom")
		equal(t, e.Code(), "E_BOOM")
		count, _ := e.Props.Get("count")
		equal(t, count, any(3.0))
		detail, _ := e.Props.Get("detail")
		equal(t, detail, any(map[string]any{"list": []any{1.0, 2.0}}))
		var inner *capnweb.Error
		if !errors.As(e.Unwrap()[0], &inner) {
			t.Fatalf("no cause: %#v", e)
		}
		equal(t, inner.Name, "RangeError")
		equal(t, inner.Code(), "E_INNER")

		e = thrown(t, ctx, api.Call("fail", "cause value"))
		equal(t, e.Cause, any("just text"))

		e = thrown(t, ctx, api.Call("fail", "aggregate"))
		equal(t, e.Name, "AggregateError")
		equal(t, len(e.Errors), 2)

		v, ok := thrown(t, ctx, api.Call("fail", "text")).ThrownValue()
		equal(t, v, any("plain text"))
		equal(t, ok, true)
	}},
	{name: "errors in one turn", batch: true, run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		props, cause, text := api.Call("fail", "props"), api.Call("fail", "cause value"), api.Call("fail", "text")
		e := thrown(t, ctx, props)
		equal(t, e.Name, "TypeError")
		equal(t, e.Code(), "E_BOOM")
		detail, _ := e.Props.Get("detail")
		equal(t, detail, any(map[string]any{"list": []any{1.0, 2.0}}))
		equal(t, thrown(t, ctx, cause).Cause, any("just text"))
		v, _ := thrown(t, ctx, text).ThrownValue()
		equal(t, v, any("plain text"))
	}},
	{name: "errors of the dispatch", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		e := thrown(t, ctx, api.Call("nope", 1))
		equal(t, e.Name, "TypeError")
		equal(t, e.Message, "'nope' is not a function.")
	}},
	{name: "what cannot be sent fails alone", run: func(t *testing.T, ctx context.Context, api *capnweb.Stub) {
		if err := api.Call("echo", make(chan int)).Await(ctx, nil); err == nil {
			t.Error("a channel was sent")
		}
		equal(t, call[int](t, ctx, api, "square", 3), 9)
	}},
}

// values sends every plain value and gets it back.
func values(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	huge, _ := new(big.Int).SetString("-12345678901234567890123456789", 10)
	for _, v := range []any{
		nil, true, false, 0.0, 1.0, -1.0, 1.5, 1e21, 1e-7, 5e-324, float64(1<<53 - 1), math.Inf(1), math.Inf(-1),
		"", "text", "é\u2028\u2029\x00\"\\\n", "😀", []any{}, []any{[]any{}}, []any{[]any{[]any{1.0}}}, []any{[]any{}, []any{}},
		capnweb.Object{}, capnweb.Object{{Key: "b", Value: []any{1.0}}, {Key: "a", Value: capnweb.Object{}}},
		capnweb.Undefined, []any{capnweb.Undefined, nil}, big.NewInt(5), huge,
		time.UnixMilli(0).UTC(), time.UnixMilli(1700000000123).UTC(), capnweb.InvalidDate,
		[]byte{}, []byte{255}, []byte{1, 2}, []byte{1, 2, 3}, patternBytes(61, 0),
	} {
		got := call[capnweb.Value](t, ctx, api, "echo", v).V
		if w, ok := got.(time.Time); ok {
			got = w.UTC()
		}
		if diff := cmp.Diff(v, got, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); diff != "" {
			t.Errorf("echo of %v (-want +got):\n%s", v, diff)
		}
	}
	if got := call[float64](t, ctx, api, "echo", math.NaN()); !math.IsNaN(got) {
		t.Errorf("NaN came back as %v", got)
	}
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func call[T any](t *testing.T, ctx context.Context, r capnweb.Ref, method string, args ...any) T {
	t.Helper()
	v, err := capnweb.Call[T](ctx, r, method, args...)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return v
}

func await[T any](t *testing.T, ctx context.Context, r capnweb.Ref) T {
	t.Helper()
	v, err := capnweb.Await[T](ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// thrown waits for a call to fail, closes it, and returns what the peer threw.
func thrown(t *testing.T, ctx context.Context, p *capnweb.Promise) *capnweb.Error {
	t.Helper()
	_, err := capnweb.Await[any](ctx, p)
	var e *capnweb.Error
	if !errors.As(err, &e) {
		t.Fatalf("the call ended with %v, want an error of the peer", err)
	}
	return e
}

func closeAll(all ...*capnweb.Promise) {
	for _, p := range all {
		p.Close()
	}
}

func wait(t *testing.T, ctx context.Context, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-ctx.Done():
		t.Fatalf("still not so: %s", what)
	}
}

// untilNoneLive waits until every counter of the peer is disposed of. Each round
// is a round trip.
func untilNoneLive(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	t.Helper()
	for call[int](t, ctx, api, "live") != 0 {
	}
}
