package httprpc_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

func benchSession(b *testing.B) *capnweb.Session {
	b.Helper()
	srv := httptest.NewServer(&httprpc.Handler{Main: func(*http.Request) (any, error) { return benchTarget(), nil }})
	s, err := httprpc.Dial(b.Context(), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = s.Close(nil)
		srv.Close()
	})
	return s
}

// box has objects that lead to further ones.
type box struct{ n int }

var boxes *capnweb.Class[*box]

func init() { // they make their own kind
	boxes = capnweb.NewClass[*box](capnweb.Methods{
		"next":  func(b *box) *capnweb.Target { return boxes.New(&box{b.n + 1}) },
		"value": func(b *box) int { return b.n },
	})
}

func benchTarget() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"box":    func(i int) *capnweb.Target { return boxes.New(&box{i}) },
		"size":   func(b []byte) int { return len(b) },
		"zeros":  func(n int) []byte { return make([]byte, n) },
	})
}

// reportCPU reports the processor time of both sides, which other programs on the
// machine disturb less than the time that passes.
func reportCPU(b *testing.B) {
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.Cleanup(func() {
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		b.ReportMetric(float64(spent)/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkCall is one call after the other.
func BenchmarkCall(b *testing.B) {
	s := benchSession(b)
	ctx := context.Background()
	main := s.Main()
	b.ReportAllocs()
	reportCPU(b)
	for b.Loop() {
		if _, err := capnweb.Call[int](ctx, main, "square", 12); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCall64 keeps 64 calls in flight.
func BenchmarkCall64(b *testing.B) {
	s := benchSession(b)
	ctx := context.Background()
	main := s.Main()
	b.ReportAllocs()
	reportCPU(b)
	var wg sync.WaitGroup
	n := b.N/64 + 1
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for range n {
				if _, err := capnweb.Call[int](ctx, main, "square", 12); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkChain makes an object, and calls through it and a further one, in one round trip.
func BenchmarkChain(b *testing.B) {
	for _, inFlight := range []int{1, 16} {
		b.Run(fmt.Sprint(inFlight), func(b *testing.B) {
			main := benchSession(b).Main()
			b.ReportAllocs()
			reportCPU(b)
			var wg sync.WaitGroup
			n := b.N/inFlight + 1
			b.ResetTimer()
			for range inFlight {
				wg.Go(func() {
					for range n {
						if n, err := chain(b.Context(), main); err != nil || n != 21 {
							b.Error(n, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func chain(ctx context.Context, main *capnweb.Stub) (int, error) {
	one := main.Call("box", 20)
	defer one.Close()
	two := one.Call("next")
	defer two.Close()
	return capnweb.Call[int](ctx, two, "value")
}

// BenchmarkBytes sends and gets 1 MiB, a call each.
func BenchmarkBytes(b *testing.B) {
	s := benchSession(b)
	ctx := context.Background()
	main := s.Main()
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	reportCPU(b)
	for b.Loop() {
		if n, err := capnweb.Call[int](ctx, main, "size", data); err != nil || n != len(data) {
			b.Fatal(n, err)
		}
		if got, err := capnweb.Call[[]byte](ctx, main, "zeros", len(data)); err != nil || len(got) != len(data) {
			b.Fatal(len(got), err)
		}
	}
}
