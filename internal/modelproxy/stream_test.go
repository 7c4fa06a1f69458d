package modelproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/modelproxy"
)

// A streamed answer comes piece by piece: each is here before the upstream
// sends the next.
func TestStreams(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	up := newStand(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL)}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL+"/mine/chat", strings.NewReader("{}"))
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("piece %d: %q, %v", i, line, err)
		}
		lines.ReadString('\n')
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// When the client goes away, so does the request to the upstream.
func TestCancelReachesUpstream(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	up := newStand(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL)}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", srv.URL+"/mine/chat", strings.NewReader("{}"))
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}()
	<-begun
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the upstream still answers")
	}
}

// A key that an upstream echoes is taken out wherever the pieces are cut, and
// nothing else changes.
func TestRedactsAcrossPieces(t *testing.T) {
	t.Parallel()
	text := "before " + canary + " between " + canary[:10] + " and " + canary + canary + " end " + canary[:19]
	want := strings.ReplaceAll(text, canary, "[redacted]")
	for size := 1; size <= len(text); size++ {
		up := newStand(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Echo", "key="+canary)
			w.WriteHeader(401)
			for rest := text; rest != ""; rest = rest[min(size, len(rest)):] {
				io.WriteString(w, rest[:min(size, len(rest))])
				w.(http.Flusher).Flush()
			}
		})
		srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL)}})
		resp, body := send(t, "POST", srv.URL+"/mine/chat", "{}")
		if resp.StatusCode != 401 || body != want || resp.Header.Get("X-Echo") != "key=[redacted]" {
			t.Fatalf("pieces of %d: %d %q %q, want %q", size, resp.StatusCode, resp.Header.Get("X-Echo"), body, want)
		}
	}
}

func TestTooManyAtOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p, err := modelproxy.New(modelproxy.Config{Providers: []modelproxy.Provider{custom(t, "http://x.example")},
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			<-release
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})})
	if err != nil {
		t.Fatal(err)
	}
	codes := make(chan int)
	for range modelproxy.MaxInFlight + 1 {
		go func() {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest("POST", "/mine/x", nil))
			codes <- w.Code
		}()
	}
	if code := <-codes; code != 503 { // the one too many is the only one that ends
		t.Errorf("status %d, want 503", code)
	}
	close(release)
	for range modelproxy.MaxInFlight {
		if code := <-codes; code != 200 {
			t.Errorf("status %d, want 200", code)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzPath: whatever the path, the upstream is asked below its base or not at all.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/mine/chat", "/mine/../x", "/mine/%2e%2e/x", "/mine//x", "/mine/a%5cb", "/mine/\x00", "/mine/models/a:b?key=1&x=%zz", "//mine/x", "/mine/x;y", "mine"} {
		f.Add(s, `{"model":"m"}`)
	}
	f.Fuzz(func(t *testing.T, path, body string) {
		var uri, auth string
		pr := custom(t, "http://x.example/base/v1")
		pr.ModelHeaders = map[string]map[string]modelproxy.Secret{"m": secrets("X-M", "1")}
		p, err := modelproxy.New(modelproxy.Config{Providers: []modelproxy.Provider{pr}, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			uri, auth = r.URL.RequestURI(), r.Header.Get("Authorization")
			var got []byte
			var err error
			if r.Body != nil {
				got, err = io.ReadAll(r.Body)
			}
			if err != nil || string(got) != body {
				t.Errorf("the body became %q, %v", got, err)
			}
			if r.URL.Host != "x.example" {
				t.Errorf("asked %s", r.URL)
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		req := httptest.NewRequest("POST", "/", strings.NewReader(body))
		req.URL = u
		w := httptest.NewRecorder()
		p.ServeHTTP(w, req)
		if uri == "" {
			if w.Code < 400 {
				t.Errorf("%q: %d without asking", path, w.Code)
			}
			return
		}
		if !strings.HasPrefix(uri, "/base/v1/") || auth != "Bearer "+canary {
			t.Errorf("%q became %q with %q", path, uri, auth)
		}
		if plain, err := url.PathUnescape(strings.SplitN(uri, "?", 2)[0]); err != nil || strings.Contains(plain+"/", "/../") || strings.Contains(plain, "\\") {
			t.Errorf("%q became %q", path, uri)
		}
	})
}

func BenchmarkProxy(b *testing.B) {
	chunk := bytes.Repeat([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n"), 20)
	up := newStand(b, func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			w.Write(chunk)
			w.(http.Flusher).Flush()
		}
	})
	p := custom(b, up.server.URL)
	run := func(b *testing.B, url string) {
		b.SetBytes(int64(100 * len(chunk)))
		for b.Loop() {
			resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	b.Run("direct", func(b *testing.B) { run(b, up.server.URL+"/x") })
	srv := serve(b, modelproxy.Config{Providers: []modelproxy.Provider{p}})
	b.Run("through", func(b *testing.B) { run(b, srv.URL+"/mine/x") })
}
