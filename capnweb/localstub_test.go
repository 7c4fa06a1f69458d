package capnweb_test

import (
	"context"
	"errors"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// mathMain has the methods that most groups use.
func mathMain() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"callSquare": func(self *capnweb.Stub, i int) any {
			return map[string]any{"result": self.Call("square", i)}
		},
		"callFunction": func(ctx context.Context, f *capnweb.Stub, i int) (any, error) {
			n, err := capnweb.Call[int](ctx, f, "", i)
			return map[string]int{"result": n}, err
		},
		"throwError": func() error { return &capnweb.Error{Name: "RangeError", Message: "test error"} },
		"makeCounter": func(n int) *capnweb.Target {
			return counters.New(newCounter(n))
		},
		"incrementCounter": func(ctx context.Context, c *capnweb.Stub, by int) (int, error) {
			return capnweb.Call[int](ctx, c, "increment", by)
		},
		"generateFibonacci": func(n int) []int {
			list := []int{}
			for a, b := 0, 1; len(list) < n; a, b = b, a+b {
				list = append(list, a)
			}
			return list
		},
		"returnNull":      func() any { return nil },
		"returnUndefined": func() {},
		"returnNumber":    func(i int) int { return i },
		"echo":            func(v capnweb.Value) any { return v },
	})
}

// Group "local stub".
func TestStubWithinTheProcess(t *testing.T) {
	t.Parallel()
	stubOf := func(t *testing.T, v any) (context.Context, *capnweb.Stub) {
		t.Parallel()
		s := capnweb.NewStub(v)
		t.Cleanup(func() { _ = s.Close() })
		return testContext(t), s
	}
	addOne := capnweb.Methods{"add": func(i int) int { return i + 1 }}
	slowly := func(ctx context.Context, i int) (int, error) {
		p, r := capnweb.NewPromise()
		defer p.Close()
		go func() { _ = r.Resolve(i + 1) }()
		var n int
		err := p.Await(ctx, &n)
		return n, err
	}
	t.Run("of a target", func(t *testing.T) {
		ctx, s := stubOf(t, mathMain())
		want[int](t, 9)(capnweb.Call[int](ctx, s, "square", 3))
	})
	t.Run("of a function", func(t *testing.T) {
		ctx, s := stubOf(t, capnweb.Func(func(i int) int { return i + 1 }))
		want[int](t, 4)(capnweb.Call[int](ctx, s, "", 3))
	})
	t.Run("of a function that waits", func(t *testing.T) {
		ctx, s := stubOf(t, capnweb.Func(slowly))
		want[int](t, 4)(capnweb.Call[int](ctx, s, "", 3))
	})
	t.Run("of a plain object", func(t *testing.T) {
		ctx, s := stubOf(t, map[string]any{"abc": "hello"})
		want[string](t, "hello")(capnweb.Await[string](ctx, s.Get("abc")))
	})
	t.Run("of an object with stubs in it", func(t *testing.T) {
		inner := capnweb.NewStub(capnweb.NewTarget(addOne))
		defer inner.Close()
		ctx, s := stubOf(t, map[string]any{"deep": []any{inner}})
		want[int](t, 4)(capnweb.Call[int](ctx, s.Get("deep", 0), "add", 3))
	})
	t.Run("of an object with targets in it", func(t *testing.T) {
		ctx, s := stubOf(t, map[string]any{"math": capnweb.NewTarget(addOne)})
		want[int](t, 4)(capnweb.Call[int](ctx, s.Get("math"), "add", 3))
	})
	t.Run("of an object with functions in it", func(t *testing.T) {
		ctx, s := stubOf(t, map[string]any{"add": capnweb.Func(func(i int) int { return i + 1 })})
		want[int](t, 4)(capnweb.Call[int](ctx, s, "add", 3))
	})
	t.Run("of an object with functions that wait in it", func(t *testing.T) {
		ctx, s := stubOf(t, map[string]any{"add": capnweb.Func(slowly), "deep": map[string]any{"add": capnweb.Func(slowly)}})
		want[int](t, 4)(capnweb.Call[int](ctx, s, "add", 3))
		want[int](t, 4)(capnweb.Call[int](ctx, s.Get("deep"), "add", 3))
	})
	t.Run("of a target with stubs below getters", func(t *testing.T) {
		inner := capnweb.NewStub(capnweb.NewTarget(addOne))
		defer inner.Close()
		ctx, s := stubOf(t, capnweb.NewTarget(capnweb.Methods{"inner": capnweb.Getter(func() *capnweb.Stub { return inner.Dup() })}))
		want[int](t, 4)(capnweb.Call[int](ctx, s.Get("inner"), "add", 3))
	})
	t.Run("of a target with targets below getters", func(t *testing.T) {
		ctx, s := stubOf(t, capnweb.NewTarget(capnweb.Methods{
			"inner": capnweb.Getter(func() *capnweb.Target { return capnweb.NewTarget(addOne) }),
		}))
		want[int](t, 4)(capnweb.Call[int](ctx, s.Get("inner"), "add", 3))
	})
	t.Run("what is missing is undefined, and below it is an error", func(t *testing.T) {
		ctx, s := stubOf(t, map[string]any{"object": map[string]any{}, "list": []int{1}, "target": mathMain()})
		for _, of := range []string{"object", "list", "target"} {
			v, err := capnweb.Await[capnweb.Value](ctx, s.Get(of, "nonexistent"))
			if err != nil || v.V != any(capnweb.Undefined) {
				t.Errorf("%s: %v, %v", of, v.V, err)
			}
			var e *capnweb.Error
			if err := await(ctx, s.Get(of, "nonexistent", "foo")); !errors.As(err, &e) || e.Name != "TypeError" {
				t.Errorf("%s: %v", of, err)
			}
		}
	})
	t.Run("only what is exported can be reached", func(t *testing.T) {
		type account struct{ Balance int }
		class := capnweb.NewClass[*account](capnweb.Methods{
			"prop":   capnweb.Getter(func(*account) string { return "a getter" }),
			"method": func(*account) string { return "a method" },
		})
		ctx, s := stubOf(t, class.New(&account{Balance: 5}))
		want[string](t, "a getter")(capnweb.Await[string](ctx, s.Get("prop")))
		want[string](t, "a method")(capnweb.Call[string](ctx, s, "method"))
		for _, name := range []string{"Balance", "balance"} {
			v, err := capnweb.Await[capnweb.Value](ctx, s.Get(name))
			if err != nil || v.V != any(capnweb.Undefined) {
				t.Errorf("%s: %v, %v", name, v.V, err)
			}
			fails(t, await(ctx, s.Call(name)), "'"+name+"' is not a function.")
		}
	})
	t.Run("a name with a number sign is nothing special", func(t *testing.T) {
		ctx, s := stubOf(t, mathMain())
		want[int](t, 9)(capnweb.Call[int](ctx, s, "square", 3))
		same(t, capnweb.Value{V: capnweb.Undefined})(capnweb.Await[capnweb.Value](ctx, s.Get("#square")))
	})
	t.Run("map over null, undefined and single values", func(t *testing.T) {
		ctx, s := stubOf(t, mathMain())
		mapOfSingles(t, ctx, s)
	})
	t.Run("map over arrays", func(t *testing.T) {
		ctx, s := stubOf(t, mathMain())
		mapOfArrays(t, ctx, s)
	})
	t.Run("map within map", func(t *testing.T) {
		ctx, s := stubOf(t, mathMain())
		mapWithinMap(t, ctx, s)
	})
}

// mapOfSingles: nothing is called for null and undefined; a value that is no array
// is mapped itself.
func mapOfSingles(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	t.Helper()
	counter := capnweb.NewStub(counters.New(newCounter(0)))
	defer counter.Close()
	for _, c := range []struct {
		method string
		args   []any
		by     any
		want   any
	}{
		{"returnNull", nil, 123, nil},
		{"returnUndefined", nil, 456, capnweb.Undefined},
		{"returnNumber", []any{2}, nil, 2.0},
		{"returnNumber", []any{4}, nil, 6.0},
	} {
		p := api.Call(c.method, c.args...)
		same(t, capnweb.Value{V: c.want})(capnweb.Await[capnweb.Value](ctx, capnweb.Map(p, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			if c.by != nil {
				return m.Use(counter).Call("increment", c.by)
			}
			return m.Use(counter).Call("increment", x)
		})))
		p.Close()
	}
}

// mapOfArrays: results hold stubs and values for each element, and a call on what is
// captured is made for each.
func mapOfArrays(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	t.Helper()
	outer := capnweb.NewStub(counters.New(newCounter(0)))
	defer outer.Close()
	list := api.Call("generateFibonacci", 6)
	defer list.Close()
	type element struct {
		Counter *capnweb.Stub `json:"counter"`
		Val     int           `json:"val"`
	}
	got, err := capnweb.Await[[]element](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
		counter := m.Use(api).Call("makeCounter", x)
		val := counter.Call("increment", 3)
		m.Use(outer).Call("increment")
		return map[string]any{"counter": counter, "val": val}
	}))
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{3, 4, 4, 5, 6, 8} {
		if got[i].Val != n {
			t.Errorf("element %d is %d, want %d", i, got[i].Val, n)
		}
		want[int](t, n)(capnweb.Await[int](ctx, got[i].Counter.Get("value")))
		got[i].Counter.Close()
	}
	want[int](t, 6)(capnweb.Await[int](ctx, outer.Get("value")))
}

func mapWithinMap(t *testing.T, ctx context.Context, api *capnweb.Stub) {
	t.Helper()
	list := api.Call("generateFibonacci", 7)
	defer list.Close()
	same(t, [][][]int{
		{},
		{{}},
		{{}},
		{{}, {0}},
		{{}, {0}, {0}},
		{{}, {0}, {0}, {0, 1}, {0, 1, 1}},
		{{}, {0}, {0}, {0, 1}, {0, 1, 1}, {0, 1, 1, 2, 3}, {0, 1, 1, 2, 3, 5, 8, 13}, {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144}},
	})(capnweb.Await[[][][]int](ctx, capnweb.Map(list, func(m *capnweb.Mapper, i *capnweb.Promise) any {
		return capnweb.Map(m.Use(api).Call("generateFibonacci", i), func(m *capnweb.Mapper, j *capnweb.Promise) any {
			return m.Use(api).Call("generateFibonacci", j)
		})
	})))
}

// Group "stub disposal", within the process.
func TestDisposalWithinTheProcess(t *testing.T) {
	t.Parallel()
	t.Run("an object closes the stubs and targets in it", func(t *testing.T) {
		t.Parallel()
		inStub, inTarget := newSpy(), newSpy()
		inner := inStub.stub()
		outer := capnweb.NewStub(map[string]any{"stub": inner, "target": inTarget.target(capnweb.Methods{}), "value": 42})
		outer.Close()
		inTarget.times(t, 1)
		inStub.notYet(t) // ours still
		inner.Close()
		inStub.times(t, 1)
	})
	t.Run("a target closes only itself", func(t *testing.T) {
		t.Parallel()
		outside, inside := newSpy(), newSpy()
		inner := inside.stub()
		outer := capnweb.NewStub(outside.target(capnweb.Methods{"inner": capnweb.Getter(func() *capnweb.Stub { return inner.Dup() })}))
		outer.Close()
		outside.times(t, 1)
		inside.notYet(t)
		inner.Close()
		inside.times(t, 1)
	})
	t.Run("the last duplicate closes the target", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		a := s.stub()
		b, c := a.Dup(), a.Dup()
		a.Close()
		b.Close()
		s.notYet(t)
		c.Close()
		s.times(t, 1)
	})
	t.Run("closing twice counts once", func(t *testing.T) {
		t.Parallel()
		s := newSpy()
		a := s.stub()
		b := a.Dup()
		b.Close()
		b.Close()
		s.notYet(t)
		a.Close()
		s.times(t, 1)
	})
}
