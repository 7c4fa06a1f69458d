package httprpc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

func benchSession(b *testing.B) *capnweb.Session {
	b.Helper()
	srv := httptest.NewServer(&httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }})
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

// BenchmarkCall is one call after the other.
func BenchmarkCall(b *testing.B) {
	s := benchSession(b)
	ctx := context.Background()
	main := s.Main()
	b.ReportAllocs()
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
