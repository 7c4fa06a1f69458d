package httprpc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

func post(t *testing.T, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func batchServer(t *testing.T, h *httprpc.Handler) string {
	t.Helper()
	if h.Main == nil {
		h.Main = func(*http.Request) (any, error) {
			return capnweb.NewTarget(capnweb.Methods{
				"square": func(i int) int { return i * i },
				"add":    func(a, b int) int { return a + b },
				"hang":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
				"fail":   func() error { return &capnweb.Error{Name: "RangeError", Message: "no"} },
				"self":   func() *capnweb.Target { return target() },
				"call":   func(ctx context.Context, f *capnweb.Stub) (any, error) { return capnweb.Call[any](ctx, f, "", 1) },
			}), nil
		}
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	})
	return srv.URL
}

// TestBatchRecordings has the cases of the recorded batches.
func TestBatchRecordings(t *testing.T) {
	t.Parallel()
	url := batchServer(t, &httprpc.Handler{Batch: httprpc.BatchOptions{Timeout: 300 * time.Millisecond}})
	const call = `["push",["pipeline",0,["square"],[3]]]` + "\n" + `["pull",1]`
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"ok", call, 200, `["resolve",1,9]`},
		{"trailing newline", call + "\n", 400, "Unexpected end of JSON input"},
		{"empty", "", 200, ""},
		{"no pull", `["push",["pipeline",0,["square"],[3]]]`, 200, ""},
		{"hang", `["push",["pipeline",0,["hang"],[]]]` + "\n" + `["pull",1]`, 504, "took longer"},
		{"callback", `["push",["pipeline",0,["call"],[["export",-1]]]]` + "\n" + `["pull",1]`, 504, "took longer"},
		{"garbage mid", call + "\n" + `["bogus"]`, 400, `bad RPC message: ["bogus"]`},
		{"crlf", strings.ReplaceAll(call, "\n", "\r\n"), 200, `["resolve",1,9]`},
		{"two", call + "\n" + `["push",["pipeline",0,["add"],[1,["pipeline",1]]]]` + "\n" + `["pull",2]`, 200, "[\"resolve\",1,9]\n[\"resolve\",2,10]"},
	} {
		status, body, header := post(t, url, c.body)
		if status != c.status || c.status == 200 && body != c.want || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %q", c.name, status, body)
		}
		if c.status == 200 && header.Get("Content-Type") != "text/plain;charset=UTF-8" {
			t.Errorf("%s: %v", c.name, header)
		}
	}
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 405 || !strings.Contains(string(b), "This endpoint only accepts POST requests.") {
		t.Error(resp.Status, string(b))
	}
}

func TestBatchClient(t *testing.T) {
	t.Parallel()
	url := batchServer(t, &httprpc.Handler{})
	ctx := testContext(t)
	s := httprpc.NewBatch(ctx, url, nil)
	a, b := s.Main().Call("square", 3), s.Main().Call("square", 4)
	sum := s.Main().Call("add", a, b)
	deep := s.Main().Call("self").Call("square", 5)
	fail := s.Main().Call("fail")
	if n, err := capnweb.Await[int](ctx, sum); err != nil || n != 25 {
		t.Fatal(n, err)
	}
	if n, err := capnweb.Await[int](ctx, deep); err != nil || n != 25 {
		t.Fatal(n, err)
	}
	if n, err := capnweb.Await[int](ctx, a); err != nil || n != 9 {
		t.Fatal(n, err)
	}
	var e *capnweb.Error
	if _, err := capnweb.Await[any](ctx, fail); !errors.As(err, &e) || e.Name != "RangeError" {
		t.Fatal(err)
	}
	<-s.Done()
	if _, err := capnweb.Call[int](ctx, s.Main(), "square", 1); !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "Batch RPC request ended.") {
		t.Fatal(err)
	}
	// Streams are refused, and do not stop the rest.
	s = httprpc.NewBatch(ctx, url, nil)
	r := s.Main().Call("square", capnweb.NewReader(strings.NewReader("x")))
	if err := r.Await(ctx, nil); err == nil || !strings.Contains(err.Error(), "WebSocket") {
		t.Fatal(err)
	}
	s.Close(nil)
	// A server that refuses.
	s = httprpc.NewBatch(ctx, batchServer(t, &httprpc.Handler{Batch: httprpc.BatchOptions{Disabled: true}}), nil)
	if _, err := capnweb.Call[int](ctx, s.Main(), "square", 1); !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "405") {
		t.Fatal(err)
	}
	<-s.Done()
}

// TestBatchProperties: properties that were referred to before the first result
// was awaited come with the batch, also those of promises.
func TestBatchProperties(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	url := batchServer(t, &httprpc.Handler{Main: func(*http.Request) (any, error) {
		requests.Add(1)
		config := func() any { return map[string]any{"name": "x", "deep": map[string]any{"list": []int{10, 20}}} }
		return capnweb.NewTarget(capnweb.Methods{
			"config": capnweb.Getter(config),
			"load":   config,
			"add":    func(a, b int) int { return a + b },
		}), nil
	}})
	ctx := testContext(t)
	s := httprpc.NewBatch(ctx, url, nil)
	defer s.Close(nil)
	main := s.Main()
	name, list, missing := main.Get("config", "name"), main.Get("config").Get("deep", "list"), main.Get("missing")
	below := main.Call("load").Get("deep").Get("list", 1)
	sum := main.Call("add", main.Get("config", "deep", "list", 0), below)
	if got, err := capnweb.Await[string](ctx, name); err != nil || got != "x" {
		t.Error(got, err)
	}
	if got, err := capnweb.Await[[]int](ctx, list); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
	if got, err := capnweb.Await[capnweb.Value](ctx, missing); err != nil || got.V != any(capnweb.Undefined) {
		t.Error(got, err)
	}
	if got, err := capnweb.Await[int](ctx, below); err != nil || got != 20 {
		t.Error(got, err)
	}
	if got, err := capnweb.Await[int](ctx, sum); err != nil || got != 30 {
		t.Error(got, err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	url := batchServer(t, &httprpc.Handler{Batch: httprpc.BatchOptions{MaxBodyBytes: 100, MaxMessages: 3}})
	if status, _, _ := post(t, url, strings.Repeat("x", 101)); status != 413 {
		t.Error(status)
	}
	if status, _, _ := post(t, url, "1\n2\n3\n4"); status != 413 {
		t.Error(status)
	}
}

func TestBatchOrigin(t *testing.T) {
	t.Parallel()
	closed := batchServer(t, &httprpc.Handler{})
	if status, _, _ := post(t, closed, "", "Origin", "http://evil.example"); status != 403 {
		t.Error(status)
	}
	if status, _, h := post(t, closed, "", "Origin", closed); status != 200 || h.Get("Access-Control-Allow-Origin") != "" {
		t.Error(status, h)
	}
	open := batchServer(t, &httprpc.Handler{AllowOrigins: []string{"*.example"}})
	if status, _, h := post(t, open, "", "Origin", "http://good.example"); status != 200 || h.Get("Access-Control-Allow-Origin") != "http://good.example" {
		t.Error(status, h)
	}
	all := batchServer(t, &httprpc.Handler{AllowOrigins: []string{"*"}})
	if status, _, h := post(t, all, "", "Origin", "null"); status != 200 || h.Get("Access-Control-Allow-Origin") != "*" {
		t.Error(status, h)
	}
}
