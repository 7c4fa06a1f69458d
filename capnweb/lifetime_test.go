package capnweb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

func closedSoon(t *testing.T, c *counter) {
	t.Helper()
	select {
	case <-c.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the target was not closed")
	}
}

func notClosed(t *testing.T, c *counter) {
	t.Helper()
	select {
	case <-c.closed:
		t.Fatal("the target was closed too early")
	default:
	}
}

// Group "stub disposal over RPC".
func TestDisposal(t *testing.T) {
	t.Parallel()
	type service struct {
		*capnweb.Session
		mu   sync.Mutex
		kept []*capnweb.Stub
	}
	start := func(t *testing.T) (*capnweb.Session, *service) {
		s := &service{}
		client, server := connect(t, nil, capnweb.NewTarget(capnweb.Methods{
			"keep":   func(f *capnweb.Stub) { s.mu.Lock(); s.kept = append(s.kept, f.Dup()); s.mu.Unlock() },
			"drop":   func(f *capnweb.Stub) {},
			"take":   func(f *capnweb.Stub) *capnweb.Stub { return f },
			"fail":   func(f *capnweb.Stub) error { return errors.New("no") },
			"strict": func(n int, f *capnweb.Stub) {},
		}))
		s.Session = server
		return client, s
	}
	t.Run("a parameter is closed when the call returns", func(t *testing.T) {
		t.Parallel()
		client, _ := start(t)
		c := newCounter(0)
		if _, err := capnweb.Call[any](testContext(t), client.Main(), "drop", counters.New(c)); err != nil {
			t.Fatal(err)
		}
		closedSoon(t, c)
		waitStats(t, client, 1, 1)
	})
	t.Run("a parameter that is kept lives on", func(t *testing.T) {
		t.Parallel()
		client, s := start(t)
		c := newCounter(0)
		ctx := testContext(t)
		if _, err := capnweb.Call[any](ctx, client.Main(), "keep", counters.New(c)); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		kept := s.kept[0]
		s.mu.Unlock()
		if n, err := capnweb.Call[int](ctx, kept, "increment"); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		notClosed(t, c)
		kept.Close()
		kept.Close()
		closedSoon(t, c)
		if _, err := capnweb.Call[int](ctx, kept, "increment"); !errors.Is(err, capnweb.ErrClosed) {
			t.Fatal(err)
		}
	})
	t.Run("a parameter that is returned comes back as itself", func(t *testing.T) {
		t.Parallel()
		client, _ := start(t)
		ctx := testContext(t)
		c := newCounter(5)
		back, err := capnweb.Call[*capnweb.Stub](ctx, client.Main(), "take", counters.New(c))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := capnweb.Call[int](ctx, back, "increment"); err != nil || n != 6 {
			t.Fatal(n, err)
		}
		back.Close()
		closedSoon(t, c)
		waitStats(t, client, 1, 1)
	})
	t.Run("arguments of calls that fail are closed", func(t *testing.T) {
		t.Parallel()
		client, _ := start(t)
		ctx := testContext(t)
		broken := client.Main().Call("fail", nil)
		defer broken.Close()
		for name, call := range map[string]func(*capnweb.Target) *capnweb.Promise{
			"handler":       func(x *capnweb.Target) *capnweb.Promise { return client.Main().Call("fail", x) },
			"no method":     func(x *capnweb.Target) *capnweb.Promise { return client.Main().Call("nope", x) },
			"bad argument":  func(x *capnweb.Target) *capnweb.Promise { return client.Main().Call("strict", "x", x) },
			"bad path":      func(x *capnweb.Target) *capnweb.Promise { return client.Main().Get("a", "b").Call("c", x) },
			"broken":        func(x *capnweb.Target) *capnweb.Promise { return broken.Call("x", x) },
			"serialization": func(x *capnweb.Target) *capnweb.Promise { return client.Main().Call("drop", x, make(chan int)) },
			"closed stub":   func(x *capnweb.Target) *capnweb.Promise { return closedStub().Call("", x) },
			"promise fails": func(x *capnweb.Target) *capnweb.Promise { return client.Main().Call("strict", broken, x) },
		} {
			c := newCounter(0)
			s := capnweb.NewStub(counters.New(c))
			p := call(counters.New(newCounter(0)))
			if err := p.Await(ctx, nil); err == nil {
				t.Errorf("%s: no error", name)
			}
			p.Close()
			q := client.Main().Call("drop", s)
			if err := q.Await(ctx, nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			q.Close()
			s.Close()
			closedSoon(t, c)
		}
		broken.Close()
		waitStats(t, client, 1, 1)
	})
	t.Run("a disconnect closes what the peer held", func(t *testing.T) {
		t.Parallel()
		client, s := start(t)
		c := newCounter(0)
		if _, err := capnweb.Call[any](testContext(t), client.Main(), "keep", counters.New(c)); err != nil {
			t.Fatal(err)
		}
		s.Close(nil)
		closedSoon(t, c)
	})
	t.Run("a target with a closer is passed once", func(t *testing.T) {
		t.Parallel()
		client, _ := start(t)
		ctx := testContext(t)
		c := newCounter(0)
		target := counters.New(c)
		if _, err := capnweb.Call[any](ctx, client.Main(), "drop", target); err != nil {
			t.Fatal(err)
		}
		closedSoon(t, c)
		if _, err := capnweb.Call[any](ctx, client.Main(), "drop", target); err == nil || !strings.Contains(err.Error(), "hold a stub") {
			t.Fatal(err)
		}
	})
}

// Group "e-order": calls begin in the order in which they were made.
func TestOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log []int
	note := func(i int) {
		mu.Lock()
		log = append(log, i)
		mu.Unlock()
	}
	release := make(chan struct{})
	object := capnweb.NewTarget(capnweb.Methods{"note": note})
	main := capnweb.NewTarget(capnweb.Methods{
		"note": note,
		"late": func(ctx context.Context) *capnweb.Target {
			capnweb.Unblock(ctx)
			<-release
			return object
		},
	})
	client, _ := connect(t, nil, main)
	ctx := testContext(t)
	var ps []*capnweb.Promise
	for i := range 100 {
		ps = append(ps, client.Main().Call("note", i))
	}
	late := client.Main().Call("late")
	for i := range 100 {
		ps = append(ps, late.Call("note", 1000+i))
	}
	if _, err := capnweb.Call[any](ctx, client.Main(), "note", 100); err != nil {
		t.Fatal(err)
	}
	close(release)
	for _, p := range ps {
		if _, err := capnweb.Await[any](ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	late.Close()
	var want []int
	for i := range 101 {
		want = append(want, i)
	}
	for i := range 100 {
		want = append(want, 1000+i)
	}
	if d := cmp.Diff(want, log); d != "" {
		t.Fatal(d)
	}
}

// TestSerialTarget: one call at a time, unless it lets the next one begin.
func TestSerialTarget(t *testing.T) {
	t.Parallel()
	running := make(chan int, 10)
	done := make(chan struct{})
	client, _ := connect(t, nil, capnweb.NewTarget(capnweb.Methods{
		"hold":   func(i int) { running <- i; <-done },
		"unhold": func(ctx context.Context, i int) { capnweb.Unblock(ctx); running <- i; <-done },
	}))
	a, b := client.Main().Call("unhold", 1), client.Main().Call("hold", 2)
	c := client.Main().Call("hold", 3)
	defer func() { a.Close(); b.Close(); c.Close() }()
	if x, y := <-running, <-running; x+y != 3 {
		t.Fatal(x, y)
	}
	select {
	case i := <-running:
		t.Fatalf("%d began too early", i)
	case <-time.After(20 * time.Millisecond):
	}
	close(done)
	if <-running != 3 {
		t.Fatal()
	}
}

// TestSlowHandlerDoesNotStopReading: a method that was quick and then is not does
// not keep the session from being read.
func TestSlowHandlerDoesNotStopReading(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	for _, opts := range [][]capnweb.TargetOption{nil, {capnweb.Concurrent()}} {
		client, _ := connect(t, nil, capnweb.NewTarget(capnweb.Methods{
			"sometimes": func(wait bool) int {
				if wait {
					<-gate
				}
				return 1
			},
			"other": func() *capnweb.Target { return capnweb.Func(func() int { return 2 }) },
		}, opts...))
		ctx := testContext(t)
		f, err := capnweb.Call[*capnweb.Stub](ctx, client.Main(), "other")
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := capnweb.Call[int](ctx, client.Main(), "sometimes", false); err != nil {
				t.Fatal(err)
			}
		}
		p := client.Main().Call("sometimes", true)
		for range 10 {
			if n, err := capnweb.Call[int](ctx, f, ""); err != nil || n != 2 {
				t.Fatal(n, err)
			}
		}
		gate <- struct{}{}
		if n, err := capnweb.Await[int](ctx, p); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		f.Close()
	}
}

// Group "error stack policy", and the hook.
func TestErrorHook(t *testing.T) {
	t.Parallel()
	main := recordedMain()
	p := newRawPeer(t, main, capnweb.WithErrorHook(func(e *capnweb.Error) *capnweb.Error {
		c := *e
		c.Stack = "STACK"
		return &c
	}))
	p.send(`["push",["pipeline",0,["fail"],[]]]`, `["pull",1]`)
	p.expect(`["reject",1,["error","TypeError","boom","STACK",{"code":"E1","cause":["error","RangeError","inner","STACK"]}]]`)
	// Redaction.
	p = newRawPeer(t, main, capnweb.WithErrorHook(func(*capnweb.Error) *capnweb.Error {
		return &capnweb.Error{Message: "internal error"}
	}))
	p.send(`["push",["pipeline",0,["fail"],[]]]`, `["pull",1]`)
	p.expect(`["reject",1,["error","Error","internal error"]]`)
	// Without a hook a stack is not sent.
	p = newRawPeer(t, capnweb.NewTarget(capnweb.Methods{"f": func() error { return &capnweb.Error{Message: "m", Stack: "S"} }}))
	p.send(`["push",["pipeline",0,["f"],[]]]`, `["pull",1]`)
	p.expect(`["reject",1,["error","Error","m"]]`)
}

// Group "error serialization": what of an error travels.
func TestErrors(t *testing.T) {
	t.Parallel()
	stub := capnweb.NewStub(capnweb.Func(func() {}))
	defer stub.Close()
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("x"), `["error","Error","x"]`},
		{fmt.Errorf("outer: %w", &capnweb.Error{Name: "RangeError", Message: "in", Props: capnweb.Object{{Key: "code", Value: "C"}}}), `["error","RangeError","outer: RangeError: in",null,{"code":"C"}]`},
		{&capnweb.Error{Message: "m", Props: capnweb.Object{{Key: "stub", Value: stub}, {Key: "ok", Value: 1}, {Key: "bad", Value: make(chan int)}}}, `["error","Error","m",null,{"ok":1}]`},
		{&capnweb.Error{Message: "m", Props: capnweb.Object{{Key: "stub", Value: []any{1, stub}}}}, `["error","Error","m"]`},
		{&capnweb.Error{Message: "m", Cause: "text"}, `["error","Error","m",null,{"cause":"text"}]`},
		{&capnweb.Error{Message: "m", Cause: errors.New("c")}, `["error","Error","m",null,{"cause":["error","Error","c"]}]`},
		{&capnweb.Error{Name: "AggregateError", Message: "m", Errors: []any{errors.New("a"), 1}}, `["error","AggregateError","m",null,{"errors":[[["error","Error","a"],1]]}]`},
		{&capnweb.Error{Message: "m", Props: capnweb.Object{{Key: "n", Value: nil}}}, `["error","Error","m",null,{"n":null}]`},
		{wireErr{}, `["error","TypeError","public",null,{"code":"PUBLIC"}]`},
		{fmt.Errorf("private: %w", wireErr{}), `["error","TypeError","public",null,{"code":"PUBLIC"}]`},
		{capnweb.Thrown([]int{1}), `[[1]]`},
		{context.DeadlineExceeded, `["error","Error","context deadline exceeded"]`},
	} {
		p := newRawPeer(t, capnweb.NewTarget(capnweb.Methods{"f": func() error { return c.err }}))
		p.send(`["push",["pipeline",0,["f"],[]]]`, `["pull",1]`)
		p.expect(`["reject",1,` + c.want + `]`)
		p.stats(1, 2)
	}
	// What comes in.
	for _, c := range []struct {
		in   string
		want *capnweb.Error
	}{
		{`["error","MyError","m"]`, &capnweb.Error{Name: "MyError", Message: "m"}},
		{`["error","Error","m","stack",{"name":"x","message":"y","toString":1,"a":["date",1]}]`, &capnweb.Error{Name: "Error", Message: "m", Stack: "stack", Props: capnweb.Object{{Key: "a", Value: time.UnixMilli(1).UTC()}}}},
		{`["error","Error","m",5]`, &capnweb.Error{Name: "Error", Message: "m"}},
	} {
		p := newRawPeer(t, nil)
		call := p.s.Main().Call("f")
		go func() {
			for m := range p.in {
				if m == `["pull",1]` {
					_ = p.tr.WriteMessages([][]byte{[]byte(`["reject",1,` + c.in + `]`)})
					return
				}
			}
		}()
		err := call.Await(testContext(t), nil)
		call.Close()
		var e *capnweb.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, e, cmp.AllowUnexported(capnweb.Error{})); d != "" {
			t.Error(d)
		}
	}
}

type wireErr struct{}

func (wireErr) Error() string { return "secret detail" }
func (wireErr) RPCError() *capnweb.Error {
	return &capnweb.Error{Name: "TypeError", Message: "public", Props: capnweb.Object{{Key: "code", Value: "PUBLIC"}}}
}

// Group "RpcPromise from Promise".
func TestNewPromise(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	p, r := capnweb.NewPromise()
	q := client.Main().Call("square", p)
	early := p.Get("a", "b")
	if err := r.Resolve(map[string]any{"a": map[string]any{"b": 5}}); err != nil {
		t.Fatal(err)
	}
	r.Reject(errors.New("too late"))
	if n, err := capnweb.Await[int](ctx, early); err != nil || n != 5 {
		t.Fatal(n, err)
	}
	if err := q.Await(ctx, nil); err == nil {
		t.Fatal("an object was squared")
	}
	q.Close()
	p.Close()

	p, r = capnweb.NewPromise()
	var order []int
	f := capnweb.NewStub(capnweb.Func(func(i int) int { order = append(order, i); return i }))
	defer f.Close()
	var calls []*capnweb.Promise
	for i := range 10 {
		calls = append(calls, p.Call("", i))
	}
	if err := r.Resolve(f.Dup()); err != nil {
		t.Fatal(err)
	}
	for i, c := range calls {
		if n, err := capnweb.Await[int](ctx, c); err != nil || n != i {
			t.Fatal(n, err)
		}
	}
	p.Close()

	p, r = capnweb.NewPromise()
	broken := make(chan error, 1)
	p.OnBroken(func(err error) { broken <- err })
	q = client.Main().Call("echo", []any{p})
	bad := errors.New("bad")
	r.Reject(bad)
	if err := p.Await(ctx, nil); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if err := <-broken; !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if err := q.Await(ctx, nil); err == nil || err.Error() != "bad" {
		t.Fatal(err)
	}
	q.Close()
	p.Close()
	// A promise that resolves to itself.
	p, r = capnweb.NewPromise()
	if err := r.Resolve(p.Stub()); err != nil {
		t.Fatal(err)
	}
	if err := p.Await(ctx, nil); err == nil || !strings.Contains(err.Error(), "itself") {
		t.Fatal(err)
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
}

// Group "local stub".
func TestLocalStub(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	o := capnweb.NewStub(map[string]any{
		"n": 1, "list": []any{1, map[string]any{"f": capnweb.Func(func(i int) int { return i + 1 })}}, "nul": nil,
	})
	defer o.Close()
	want[int](t, 1)(capnweb.Await[int](ctx, o.Get("n")))
	want[int](t, 6)(capnweb.Call[int](ctx, o.Get("list", 1), "f", 5))
	want[int](t, 6)(capnweb.Call[int](ctx, o.Get("list", "1"), "f", 5))
	for _, path := range [][]any{{"missing"}, {"constructor"}, {"toString"}, {"list", -1}, {"list", 9}, {"list", "01"}, {"list", "length"}, {"n", "x"}, {"nul", "x"}} {
		v, err := capnweb.Await[capnweb.Value](ctx, o.Get(path...))
		if err != nil || v.V != any(capnweb.Undefined) {
			t.Errorf("%v: %v, %v", path, v.V, err)
		}
	}
	for _, path := range [][]any{{"missing", "x"}, {"nul", "x", "y"}} {
		if _, err := capnweb.Await[any](ctx, o.Get(path...)); err == nil {
			t.Errorf("%v: no error", path)
		}
	}
	if _, err := capnweb.Call[any](ctx, o, "n"); err == nil || !strings.Contains(err.Error(), "'n' is not a function.") {
		t.Error(err)
	}
	tgt := capnweb.NewStub(testMain())
	defer tgt.Close()
	f, err := capnweb.Await[*capnweb.Stub](ctx, tgt.Get("square"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want[int](t, 9)(capnweb.Call[int](ctx, f, "", 3))
	if _, err := capnweb.Call[any](ctx, tgt, "constructor"); err == nil || !strings.Contains(err.Error(), "'constructor' is not a function.") {
		t.Error(err)
	}
}

// TestTypeMistakes: exporting something impossible is found when it is made.
func TestTypeMistakes(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"not a function": func() { capnweb.NewTarget(capnweb.Methods{"x": 5}) },
		"two results":    func() { capnweb.Func(func() (int, int) { return 1, 2 }) },
		"channel":        func() { capnweb.Func(func(chan int) {}) },
		"callback type":  func() { capnweb.Func(func(func()) {}) },
		"reserved":       func() { capnweb.NewTarget(capnweb.Methods{"constructor": func() {}}) },
		"getter":         func() { capnweb.NewTarget(capnweb.Methods{"x": capnweb.Getter(func(int) int { return 1 })}) },
		"receiver":       func() { capnweb.NewClass[*counter](capnweb.Methods{"x": func(int) {}}) },
		"nil":            func() { capnweb.Func((func())(nil)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			f()
		}()
	}
}

// TestArguments: optional, variadic, superfluous and missing parameters.
func TestArguments(t *testing.T) {
	t.Parallel()
	s := capnweb.NewStub(capnweb.NewTarget(capnweb.Methods{
		"opt": func(a int, b *int) int {
			if b == nil {
				return a
			}
			return a + *b
		},
		"vari": func(a int, rest ...int) int {
			for _, r := range rest {
				a += r
			}
			return a
		},
		"raw": func(ctx context.Context, a capnweb.Args) (string, error) {
			var n int
			err := a.Decode(1, &n)
			return fmt.Sprintf("%d %v %d %s", a.Len(), a.Value(0), n, capnweb.FromContext(ctx).Method()), err
		},
		"named": func(d time.Duration, u uint8, s []string, m map[string]int) string { return fmt.Sprint(d, u, s, m) },
	}))
	defer s.Close()
	ctx := testContext(t)
	want[int](t, 1)(capnweb.Call[int](ctx, s, "opt", 1))
	want[int](t, 3)(capnweb.Call[int](ctx, s, "opt", 1, 2))
	want[int](t, 3)(capnweb.Call[int](ctx, s, "opt", 1, 2, "superfluous"))
	want[int](t, 1)(capnweb.Call[int](ctx, s, "vari", 1))
	want[int](t, 6)(capnweb.Call[int](ctx, s, "vari", 1, 2, 3))
	want[string](t, "3 x 7 raw")(capnweb.Call[string](ctx, s, "raw", "x", 7, nil))
	want[string](t, "1s 5 [a] map[k:1]")(capnweb.Call[string](ctx, s, "named", time.Second, 5, []string{"a"}, map[string]int{"k": 1}))
	for _, args := range [][]any{{}, {"x"}, {1.5}, {1, "x"}, {nil}, {1e300}} {
		_, err := capnweb.Call[int](ctx, s, "opt", args...)
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Name != "TypeError" || !strings.Contains(e.Message, "argument") {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, err := capnweb.Call[int](ctx, s, "named", 1, 256); err == nil || !strings.Contains(err.Error(), "argument 2: 256 does not fit uint8") {
		t.Error(err)
	}
}

// TestCloseFromHandler: a handler may end its own session, also when the reading
// goroutine runs it.
func TestCloseFromHandler(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, capnweb.NewTarget(capnweb.Methods{
		"maybe": func(ctx context.Context, bye bool) {
			if bye {
				_ = capnweb.FromContext(ctx).Session().Close(errors.New("bye"))
			}
		},
	}))
	ctx := testContext(t)
	for range 50 {
		if _, err := capnweb.Call[any](ctx, client.Main(), "maybe", false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := capnweb.Call[any](ctx, client.Main(), "maybe", true); !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "bye") {
		t.Fatal(err)
	}
	<-server.Done()
}
