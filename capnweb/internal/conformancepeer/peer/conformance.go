package peer

import (
	"context"

	"github.com/tongs-dev/tongs/capnweb"
)

// newConformance makes the object served on /.
func newConformance() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i float64) float64 { return i * i },
		"callSquare": func(self *capnweb.Stub, i float64) map[string]any {
			// The promise itself goes back, so the caller may pipeline on it.
			return map[string]any{"result": self.Call("square", i)}
		},
		"callFunction": func(ctx context.Context, f *capnweb.Stub, i float64) (map[string]any, error) {
			v, err := capnweb.Call[capnweb.Value](ctx, f, "", i)
			return map[string]any{"result": v}, err
		},
		"throwError": func() error {
			return &capnweb.Error{Name: "RangeError", Message: "test error"}
		},
		"makeCounter": newCounter,
		"incrementCounter": func(ctx context.Context, c *capnweb.Stub, n *float64) (float64, error) {
			return capnweb.Call[float64](ctx, c, "increment", orOne(n))
		},
		"generateFibonacci": fibonacci,
		"returnNull":        func() any { return nil },
		"returnUndefined":   func() {},
		"returnNumber":      func(i float64) float64 { return i },
		"echoBlob":          func(b capnweb.Value) capnweb.Value { return b },
	})
}

// maxFibonacci is the longest sequence that float64 holds without reaching infinity.
const maxFibonacci = 1476

// fibonacci returns the first n numbers of the sequence that starts 0, 1.
func fibonacci(n int) ([]float64, error) {
	if n < 0 || n > maxFibonacci {
		return nil, &capnweb.Error{Name: "RangeError", Message: "generateFibonacci: n must be from 0 to 1476"}
	}
	seq := make([]float64, n)
	for i := range seq {
		if i < 2 {
			seq[i] = float64(i)
		} else {
			seq[i] = seq[i-1] + seq[i-2]
		}
	}
	return seq, nil
}

type counter struct{ n float64 }

var counters *capnweb.Class[*counter]

// The class makes itself (next), which an initialized variable may not.
func init() {
	counters = capnweb.NewClass[*counter](capnweb.Methods{
		"increment": func(c *counter, by *float64) float64 {
			c.n += orOne(by)
			return c.n
		},
		"value": capnweb.Getter(func(c *counter) float64 { return c.n }),
		"next":  func(c *counter) *capnweb.Target { return newCounter(c.n + 1) },
	})
}

func newCounter(n float64) *capnweb.Target { return counters.New(&counter{n}) }

func orOne(n *float64) float64 {
	if n == nil {
		return 1
	}
	return *n
}
