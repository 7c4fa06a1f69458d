package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
)

func TestRequestsWaitUntilOpenCodeIsReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		up := &upstream{}
		ready := make(chan struct{})
		h := front(t, up, func(c *gateway.Config) {
			c.Ready = func(ctx context.Context) error {
				select {
				case <-ready:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
		begin := time.Now()
		w := ask(h, request("GET", "/config", ""))
		got := wantRefusal(t, w, 503, "NOT_READY")
		if d := time.Since(begin); d != time.Minute || !strings.Contains(got.Data.Message, "did not become ready in 1m0s") {
			t.Errorf("after %v: %q", d, got.Data.Message)
		}
		if w.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		// What is refused or answered here does not wait.
		begin = time.Now()
		wantRefusal(t, ask(h, request("POST", "/pty", "{}")), 403, "REFUSED")
		if w := ask(h, request("GET", "/vcs", "")); w.Code != 200 || time.Since(begin) != 0 {
			t.Errorf("%d after %v", w.Code, time.Since(begin))
		}
		p := start(h, request("GET", "/config", ""))
		synctest.Wait()
		if _, _, n := up.asked(); n != 0 || p.over() {
			t.Fatal("OpenCode was asked before it was ready")
		}
		close(ready)
		<-p.done
		if p.w.Code != 200 {
			t.Errorf("%d %s", p.w.Code, p.w.Body)
		}
	})
}

func TestReasonWhyOpenCodeIsNotReady(t *testing.T) {
	t.Parallel()
	h := front(t, &upstream{}, func(c *gateway.Config) {
		c.Ready = func(context.Context) error { return errors.New("it exited with status 7") }
	})
	if got := wantRefusal(t, ask(h, request("GET", "/config", "")), 503, "NOT_READY"); !strings.Contains(got.Data.Message, "status 7") {
		t.Errorf("message %q", got.Data.Message)
	}
}

type broken struct{}

func (broken) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused at /run/secret.sock")
}

func TestUpstreamThatFails(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h, err := gateway.New(gateway.Config{Upstream: broken{}, Listen: "localhost:1", Directory: directory, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	got := wantRefusal(t, ask(h, request("GET", "/config?auth_token=tok123", "")), 502, "UPSTREAM_FAILED")
	if strings.Contains(got.Data.Message, "secret.sock") {
		t.Errorf("the client is told %q", got.Data.Message)
	}
	if !strings.Contains(log.String(), "secret.sock") || strings.Contains(log.String(), "tok123") {
		t.Errorf("log: %s", &log)
	}
	up := &upstream{answer: func(*http.Request, []byte) *http.Response {
		resp := reply(401, "text/plain", strings.NewReader("no"))
		resp.Header.Set("WWW-Authenticate", "Basic")
		return resp
	}}
	wantRefusal(t, ask(front(t, up, nil), request("GET", "/config", "")), 502, "UPSTREAM_AUTH")
}

// pipes is a listener in memory, so that deadlines run on the test's clock.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }
func (pipeConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8787} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return pipeConn{c}, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return pipeConn{}.LocalAddr() }

func serve(t *testing.T, h http.Handler) (dial func() net.Conn) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := gateway.NewServer(h, nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-over
	})
	return func() net.Conn {
		client, server := net.Pipe()
		l.conns <- server
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "data: x\n\n"), nil }

func TestClientThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	up := &upstream{answer: func(*http.Request, []byte) *http.Response {
		return reply(200, "text/event-stream", &closing{Reader: endless{}, closed: closed})
	}}
	srv := httptest.NewServer(front(t, up, func(c *gateway.Config) { c.StallTimeout = 100 * time.Millisecond }))
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /event HTTP/1.1\r\nHost: localhost:8787\r\n\r\n")
	select { // nobody reads c
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("a client that does not read holds its stream")
	}
}

type closing struct {
	io.Reader
	closed chan struct{}
	once   sync.Once
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func TestSlowRequestsAreCutOff(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		send   string
		within time.Duration
		status string
	}{
		"headers": {"POST /session HTTP/1.1\r\nHost: localho", 11 * time.Second, ""},
		"body":    {"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{", 121 * time.Second, "408"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				up := &upstream{}
				c := serve(t, front(t, up, nil))()
				_, _ = io.WriteString(c, tc.send)
				begin := time.Now()
				b, _ := io.ReadAll(bufio.NewReader(c))
				if d := time.Since(begin); d > tc.within || !strings.Contains(string(b), tc.status) {
					t.Errorf("after %v: %q", d, b)
				}
				if _, _, n := up.asked(); n != 0 {
					t.Error("OpenCode was asked")
				}
			})
		})
	}
}

func TestLongTurnIsNotCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		up := &upstream{answer: func(*http.Request, []byte) *http.Response {
			time.Sleep(45 * time.Minute)
			return reply(200, "application/json", strings.NewReader(`{"late":true}`))
		}}
		c := serve(t, front(t, up, nil))()
		go func() {
			_, _ = io.WriteString(c, "POST /session/s/message HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 39\r\n\r\n"+hello)
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || string(b) != `{"late":true}` {
			t.Errorf("%q %v", b, err)
		}
	})
}
