package capnweb_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// boundCounter and boundMain are typed views of the objects of testMain.
type boundCounter struct {
	Increment func(ctx context.Context, by int) (int, error)
	Next      func(ctx context.Context) (int, error) `rpc:"increment"`
	Current   func(ctx context.Context) (int, error) `rpc:"value,get"`
}

type boundMain struct {
	Square      func(context.Context, int) (int, error)
	Fail        func(context.Context) error
	Undef       func(context.Context) error
	Echo        func(ctx context.Context, v any) (capnweb.Value, error)
	Prop        func() *capnweb.Promise `rpc:",get"`
	MakeCounter func(start int) *capnweb.Promise
	Call        func(ctx context.Context, f *capnweb.Target, i int) (int, error)
	Counter     func(ctx context.Context, start int) (*capnweb.Stub, error) `rpc:"makeCounter2"`
	Skipped     int                                                         `rpc:"-"`
	private     func()
}

func TestBind(t *testing.T) {
	t.Parallel()
	type counterOnly struct {
		Increment func(ctx context.Context, by ...int) (int, error)
	}
	topologies(t, testMain, func(t *testing.T, ctx context.Context, stub *capnweb.Stub) {
		main, err := capnweb.Bind[boundMain](stub)
		if err != nil {
			t.Fatal(err)
		}
		if main.private != nil || main.Skipped != 0 {
			t.Error("fields that are not to be bound were")
		}
		want[int](t, 25)(main.Square(ctx, 5))
		want[int](t, 42)(main.Call(ctx, capnweb.Func(func(i int) int { return 2 * i }), 21))
		if err := main.Undef(ctx); err != nil {
			t.Error(err)
		}
		var e *capnweb.Error
		if err := main.Fail(ctx); !errors.As(err, &e) || e.Code() != "E1" {
			t.Error(err)
		}
		if v, err := main.Echo(ctx, nil); err != nil || v.V != nil {
			t.Error(v, err)
		}
		if _, err := main.Counter(ctx, 1); err == nil || !strings.Contains(err.Error(), "'makeCounter2' is not a function.") {
			t.Error(err)
		}
		want[int](t, 10)(capnweb.Await[int](ctx, main.Prop().Get("deep", 0)))

		// One round trip: the counter is bound before it has arrived.
		promise := main.MakeCounter(3)
		counter, err := capnweb.Bind[boundCounter](promise)
		if err != nil {
			t.Fatal(err)
		}
		want[int](t, 5)(counter.Increment(ctx, 2))
		want[int](t, 6)(counter.Next(ctx))
		want[int](t, 6)(counter.Current(ctx))
		several, err := capnweb.Bind[counterOnly](promise)
		if err != nil {
			t.Fatal(err)
		}
		want[int](t, 7)(several.Increment(ctx))
		want[int](t, 9)(several.Increment(ctx, 2, 100))
		promise.Close()
		if _, err := counter.Current(ctx); !errors.Is(err, capnweb.ErrClosed) {
			t.Error(err)
		}
		done, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := main.Square(done, 1); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestBindShapes: a struct that cannot be bound is found when it is bound.
func TestBindShapes(t *testing.T) {
	t.Parallel()
	stub := capnweb.NewStub(testMain())
	defer stub.Close()
	type (
		ctx      = context.Context
		noFunc   struct{ N int }
		noCtx    struct{ F func(int) error }
		noError  struct{ F func(ctx) int }
		nothing  struct{ F func(ctx) }
		three    struct{ F func(ctx) (int, int, error) }
		channel  struct{ F func(ctx, chan int) error }
		callback struct{ F func(ctx, []func()) error }
		result   struct{ F func(ctx) (func(), error) }
		getArgs  struct {
			F func(ctx, int) error `rpc:"f,get"`
		}
		option struct {
			F func(ctx) error `rpc:"f,set"`
		}
		reserved struct {
			F func(ctx) error `rpc:"constructor"`
		}
		lazyCtx struct{ F func(ctx) *capnweb.Promise }
		empty   struct{}
		hidden  struct{ f func(ctx) error }
		good    struct{ F func(ctx) error }
	)
	_ = hidden{}.f
	got := map[string]string{}
	note := func(name string, err error) {
		if err == nil {
			t.Errorf("%s was bound", name)
			return
		}
		got[name] = err.Error()
	}
	try := func(name string, bind func() error) { note(name, bind()) }
	try("not a struct", func() error { _, err := capnweb.Bind[int](stub); return err })
	try("no function", func() error { _, err := capnweb.Bind[noFunc](stub); return err })
	try("no context", func() error { _, err := capnweb.Bind[noCtx](stub); return err })
	try("no error", func() error { _, err := capnweb.Bind[noError](stub); return err })
	try("nothing", func() error { _, err := capnweb.Bind[nothing](stub); return err })
	try("three", func() error { _, err := capnweb.Bind[three](stub); return err })
	try("channel", func() error { _, err := capnweb.Bind[channel](stub); return err })
	try("callback", func() error { _, err := capnweb.Bind[callback](stub); return err })
	try("result", func() error { _, err := capnweb.Bind[result](stub); return err })
	try("get with arguments", func() error { _, err := capnweb.Bind[getArgs](stub); return err })
	try("option", func() error { _, err := capnweb.Bind[option](stub); return err })
	try("reserved", func() error { _, err := capnweb.Bind[reserved](stub); return err })
	try("promise with context", func() error { _, err := capnweb.Bind[lazyCtx](stub); return err })
	try("empty", func() error { _, err := capnweb.Bind[empty](stub); return err })
	try("hidden", func() error { _, err := capnweb.Bind[hidden](stub); return err })
	try("nil", func() error { _, err := capnweb.Bind[good](nil); return err })
	try("nil stub", func() error { _, err := capnweb.Bind[good]((*capnweb.Stub)(nil)); return err })
	const p = "capnweb.Bind: capnweb_test."
	if d := cmp.Diff(map[string]string{
		"not a struct":         "capnweb.Bind: int: it is not a struct of functions",
		"no function":          p + "noFunc: field N: int is not a function (leave it out with `rpc:\"-\"`)",
		"no context":           p + "noCtx: field F: func(int) error does not take a context.Context first",
		"no error":             p + "noError: field F: func(context.Context) int does not return an error, or a result and an error",
		"nothing":              p + "nothing: field F: func(context.Context) does not return an error, or a result and an error",
		"three":                p + "three: field F: func(context.Context) (int, int, error) does not return an error, or a result and an error",
		"channel":              p + "channel: field F: func(context.Context, chan int) error takes a chan int, which cannot be sent (a callback is a *capnweb.Target, made by Func)",
		"callback":             p + "callback: field F: func(context.Context, []func()) error takes a func(), which cannot be sent (a callback is a *capnweb.Target, made by Func)",
		"result":               p + "result: field F: func(context.Context) (func(), error) returns a func(), which cannot be decoded",
		"get with arguments":   p + "getArgs: field F: func(context.Context, int) error reads a property, and so takes no arguments",
		"option":               p + "option: field F: unknown option \"set\" in its tag (there is get)",
		"reserved":             p + "reserved: field F: the method name \"constructor\" is reserved",
		"promise with context": p + "lazyCtx: field F: func(context.Context) *capnweb.Promise returns a promise, and so takes no context: it does not wait",
		"empty":                p + "empty: it has no exported functions",
		"hidden":               p + "hidden: it has no exported functions",
		"nil":                  p + "good: the reference is nil",
		"nil stub":             p + "good: the reference is nil",
	}, got); d != "" {
		t.Error(d)
	}
}

// TestBindNames: how Go names become JavaScript's.
func TestBindNames(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	stub := capnweb.NewStub(capnweb.NewDispatcher(dispatchFunc(func(_ context.Context, in capnweb.Invocation) (any, error) {
		seen <- strings.Join(in.Path, ".")
		return nil, nil
	})))
	defer stub.Close()
	s, err := capnweb.Bind[struct{ Increment, ID, HTTPGet, X, ReadFile2, Übung func(context.Context) error }](stub)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	for _, f := range []func(context.Context) error{s.Increment, s.ID, s.HTTPGet, s.X, s.ReadFile2, s.Übung} {
		if err := f(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for range 6 {
		names = append(names, <-seen)
	}
	if d := cmp.Diff([]string{"increment", "id", "httpGet", "x", "readFile2", "übung"}, names); d != "" {
		t.Error(d)
	}
}

type dispatchFunc func(context.Context, capnweb.Invocation) (any, error)

func (f dispatchFunc) Dispatch(ctx context.Context, in capnweb.Invocation) (any, error) {
	return f(ctx, in)
}
