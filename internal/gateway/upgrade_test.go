package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestWebSocketOnlyWhereARowSaysSo needs a table of its own: no row of the real one
// passes a WebSocket on.
func TestWebSocketOnlyWhereARowSaysSo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(ctx)
			if err != nil || c.Write(ctx, kind, b) != nil {
				return
			}
		}
	}))
	defer echo.Close()
	up := &http.Transport{DisableKeepAlives: true}
	g, err := newGateway(Config{
		Upstream: roundTrip(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.URL.Host = strings.TrimPrefix(echo.URL, "http://")
			return up.RoundTrip(r)
		}),
		Listen: "127.0.0.1:8787", Directory: "/d",
	}, []row{
		{method: "GET", pattern: "/terminal/{id}", kind: pass, upgrade: true, reason: "test"},
		{method: "GET", pattern: "/plain", kind: pass, reason: "test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(g)
	defer front.Close()
	c, _, err := websocket.Dial(ctx, front.URL+"/terminal/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(ctx); err != nil || string(b) != "hello" {
		t.Errorf("echo %q %v", b, err)
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
	if _, resp, err := websocket.Dial(ctx, front.URL+"/plain", nil); err == nil || resp.StatusCode != 403 {
		t.Errorf("a WebSocket on a route that has none: %v", err)
	}
	if _, resp, err := websocket.Dial(ctx, front.URL+"/terminal/1", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"http://localhost:3000"}}}); err == nil || resp.StatusCode != 403 {
		t.Errorf("a WebSocket from another origin: %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRowsOfOnePathAreChosenByTheClosest(t *testing.T) {
	t.Parallel()
	rt, err := newRouter(table, nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/session/status": "/session/status", "/session/ses_1": "/session/{sessionID}", "/pty/shells": "/pty/shells", "/pty/x": "/pty/{ptyID}",
		"/api/session/active": "/api/session/active", "/": "/", "/assets/a/b.js": "/assets/{file...}", "/what/ever": "/{page...}",
	} {
		if r, _, _ := rt.find("GET", path); r == nil || r.pattern != want {
			t.Errorf("%s: %+v, want %s", path, r, want)
		}
	}
	if _, err := newRouter(append(table[:1:1], table[0]), nil); err == nil {
		t.Error("two rows for one operation were taken")
	}
}
