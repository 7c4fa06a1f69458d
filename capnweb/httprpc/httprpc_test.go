package httprpc_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func target() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"square": func(i int) int { return i * i },
		"echo":   func(v capnweb.Value) any { return v },
		"call": func(ctx context.Context, f *capnweb.Stub, i int) (int, error) {
			return capnweb.Call[int](ctx, f, "", i)
		},
	})
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return "ws" + strings.TrimPrefix(srv.URL, "http")
}

func dial(t *testing.T, url string, o *httprpc.DialOptions) *capnweb.Session {
	t.Helper()
	s, err := httprpc.Dial(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Close(nil)
		<-s.Done()
	})
	return s
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	url := serve(t, &httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }})
	s := dial(t, url, nil)
	ctx := testContext(t)
	if n, err := capnweb.Call[int](ctx, s.Main(), "square", 9); err != nil || n != 81 {
		t.Fatal(n, err)
	}
	if n, err := capnweb.Call[int](ctx, s.Main(), "call", capnweb.Func(func(i int) int { return -i }), 9); err != nil || n != -9 {
		t.Fatal(n, err)
	}
	big := strings.Repeat("é", 1<<20)
	if got, err := capnweb.Call[string](ctx, s.Main(), "echo", big); err != nil || got != big {
		t.Fatal(len(got), err)
	}
	// A burst.
	ps := make([]*capnweb.Promise, 1000)
	for i := range ps {
		ps[i] = s.Main().Call("square", i)
	}
	for i, p := range ps {
		if n, err := capnweb.Await[int](ctx, p); err != nil || n != i*i {
			t.Fatal(i, n, err)
		}
	}
}

// TestDialContext connects over a unix socket, with a token.
func TestDialContext(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var sessions atomic.Int32
	srv := &http.Server{Handler: &httprpc.Handler{
		Main: func(r *http.Request) (any, error) {
			if r.Header.Get("Authorization") != "Bearer t" {
				return nil, &httprpc.StatusError{Code: http.StatusUnauthorized, Message: "no token"}
			}
			return target(), nil
		},
		OnSession: func(*http.Request, *capnweb.Session) { sessions.Add(1) },
	}}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	d := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sock)
	}
	_, err = httprpc.Dial(t.Context(), "ws://sandbox/", &httprpc.DialOptions{DialContext: d})
	var he *httprpc.HandshakeError
	if !errors.As(err, &he) || he.StatusCode != http.StatusUnauthorized || !strings.Contains(he.Body, "no token") {
		t.Fatal(err)
	}
	s := dial(t, "ws://sandbox/", &httprpc.DialOptions{DialContext: d, Header: http.Header{"Authorization": {"Bearer t"}}})
	if n, err := capnweb.Call[int](testContext(t), s.Main(), "square", 9); err != nil || n != 81 {
		t.Fatal(n, err)
	}
	if sessions.Load() != 1 {
		t.Fatal(sessions.Load())
	}
}

// TestHalfOpen: a peer that stops answering is noticed.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	url := serve(t, &httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }, PingInterval: -1})
	var stall atomic.Bool
	d := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &stalling{Conn: c, stall: &stall}, err
	}
	s := dial(t, url, &httprpc.DialOptions{DialContext: d, PingInterval: 50 * time.Millisecond})
	stall.Store(true)
	p := s.Main().Call("square", 1)
	defer p.Close()
	err := p.Await(testContext(t), nil)
	if !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "ping") {
		t.Fatal(err)
	}
}

// stalling swallows what is written.
type stalling struct {
	net.Conn
	stall *atomic.Bool
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.stall.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	url := serve(t, &httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }})
	_, err := httprpc.Dial(t.Context(), url, &httprpc.DialOptions{Header: http.Header{"Origin": {"http://evil.example"}}})
	var he *httprpc.HandshakeError
	if !errors.As(err, &he) || he.StatusCode != http.StatusForbidden {
		t.Fatal(err)
	}
}
