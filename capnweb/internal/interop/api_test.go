package interop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// suite is the twin of js/api.mjs: the same methods with the same results. One
// is made per session.
type suite struct {
	made, disposed, cancelled atomic.Int64

	mu   sync.Mutex
	kept *capnweb.Stub
}

type user struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// newSuite makes the main object of one session, and what it keeps count of.
func newSuite() (*capnweb.Target, *suite) {
	s := &suite{}
	m := capnweb.Methods{
		// Values
		"square":  func(i float64) float64 { return i * i },
		"add":     add,
		"echo":    func(v capnweb.Value) capnweb.Value { return v },
		"nothing": func() {},
		"nul":     func() any { return nil },
		"later":   later,
		"hang": func(ctx context.Context) error {
			capnweb.Unblock(ctx)
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"list":   list,
		"nested": func() [][]int { return [][]int{{1, 2}, {3}} },
		"users":  func() []user { return []user{{1, "Ada"}, {2, "Grace"}} },
		"config": capnweb.Getter(func() any {
			return capnweb.Object{
				{Key: "name", Value: "tongs"},
				{Key: "deep", Value: map[string]any{"list": []int{10, 20, 30}}},
			}
		}),
		"counter": capnweb.Getter(func() *capnweb.Target { return s.newCounter(100) }),

		// Objects
		"makeCounter": s.newCounter,
		"makeCounters": func(n int) []*capnweb.Target {
			all := make([]*capnweb.Target, n)
			for i := range all {
				all[i] = s.newCounter(i)
			}
			return all
		},
		"incrementCounter": func(ctx context.Context, c *capnweb.Stub, by *int) (int, error) {
			n := 1
			if by != nil {
				n = *by
			}
			return capnweb.Call[int](ctx, c, "increment", n)
		},
		"incrementBoth": func(ctx context.Context, a, b *capnweb.Stub) ([]int, error) {
			pa, pb := a.Call("increment", 1), b.Call("increment", 1)
			x, errA := capnweb.Await[int](ctx, pa)
			y, errB := capnweb.Await[int](ctx, pb)
			return []int{x, y}, errors.Join(errA, errB)
		},
		"live": func() int64 { return s.made.Load() - s.disposed.Load() },

		// Callbacks
		"callFunction": func(ctx context.Context, f *capnweb.Stub, i int) (map[string]capnweb.Value, error) {
			v, err := capnweb.Call[capnweb.Value](ctx, f, "", i)
			return map[string]capnweb.Value{"result": v}, err
		},
		"callSquare": func(self *capnweb.Stub, i int) map[string]any {
			return map[string]any{"result": self.Call("square", i)}
		},
		"callMany": func(ctx context.Context, f *capnweb.Stub, n int) (int, error) {
			sum := 0
			for i := range n {
				v, err := capnweb.Call[int](ctx, f, "", i)
				if err != nil {
					return 0, err
				}
				sum += v
			}
			return sum, nil
		},
		"keep":   s.keep,
		"fire":   func(i int) *capnweb.Promise { return s.held().Call("", i) },
		"forget": func() { s.keep(nil) },

		// Errors
		"fail": fail,
	}
	s.addMedia(m)
	return capnweb.NewTarget(m, capnweb.OnClose(func() { s.keep(nil) })), s
}

func add(a, b any) (any, error) {
	switch x := a.(type) {
	case float64:
		if y, ok := b.(float64); ok {
			return x + y, nil
		}
	case string:
		if y, ok := b.(string); ok {
			return x + y, nil
		}
	}
	return nil, fmt.Errorf("cannot add %T and %T", a, b)
}

func later(ctx context.Context, v capnweb.Value, ms int) (capnweb.Value, error) {
	capnweb.Unblock(ctx)
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

func list(n int) []int {
	l := make([]int, n)
	for i := range l {
		l[i] = i
	}
	return l
}

// keep replaces the function that fire calls; nil forgets it.
func (s *suite) keep(f *capnweb.Stub) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept != nil {
		s.kept.Close()
	}
	s.kept = nil
	if f != nil {
		s.kept = f.Dup()
	}
}

func (s *suite) held() *capnweb.Stub {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

func fail(kind any) error {
	switch kind {
	case "range":
		return &capnweb.Error{Name: "RangeError", Message: "test error"}
	case "props":
		return &capnweb.Error{
			Name: "TypeError", Message: "boom",
			Props: capnweb.Object{
				{Key: "code", Value: "E_BOOM"}, {Key: "op", Value: "test"}, {Key: "count", Value: 3},
				{Key: "detail", Value: map[string]any{"list": []int{1, 2}}},
			},
			Cause: &capnweb.Error{
				Name: "RangeError", Message: "inner",
				Props: capnweb.Object{{Key: "code", Value: "E_INNER"}},
			},
		}
	case "cause value":
		return &capnweb.Error{Message: "outer", Cause: "just text"}
	case "aggregate":
		return &capnweb.Error{Name: "AggregateError", Message: "many", Errors: []any{
			&capnweb.Error{Message: "one"}, &capnweb.Error{Name: "TypeError", Message: "two"},
		}}
	case "text":
		return capnweb.Thrown("plain text")
	case "object":
		return capnweb.Thrown(map[string]any{"a": 1})
	}
	return fmt.Errorf("no error of kind %v", kind)
}

// counter counts, and is counted.
type counter struct {
	s *suite
	n int
}

var counters *capnweb.Class[*counter]

// The class makes itself (another), which an initialized variable may not.
func init() {
	counters = capnweb.NewClass[*counter](capnweb.Methods{
		"increment": func(c *counter, by *int) int {
			if by == nil {
				c.n++
			} else {
				c.n += *by
			}
			return c.n
		},
		"value":   capnweb.Getter(func(c *counter) int { return c.n }),
		"another": func(c *counter, n int) *capnweb.Target { return c.s.newCounter(n) },
	})
}

func (s *suite) newCounter(n int) *capnweb.Target {
	s.made.Add(1)
	return counters.New(&counter{s: s, n: n})
}

// Close is called when the last reference is gone.
func (c *counter) Close() error {
	c.s.disposed.Add(1)
	return nil
}
