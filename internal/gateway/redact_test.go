package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// upstreamSays is an upstream that answers everything with one JSON text.
func upstreamSays(text string) *upstream {
	return &upstream{answer: func(*http.Request, []byte) *http.Response {
		resp := reply(200, "application/json", strings.NewReader(text))
		resp.ContentLength = int64(len(text))
		resp.Header.Set("Content-Length", fmt.Sprint(len(text)))
		resp.Header.Set("Etag", `"1"`)
		return resp
	}}
}

var described = []string{"/config", "/config/providers", "/provider", "/global/config", "/api/provider", "/api/provider/openai", "/api/model", "/api/integration", "/agent", "/mcp"}

func TestKeysDoNotLeave(t *testing.T) {
	t.Parallel()
	in := `{"provider":{"openai":{"options":{"apiKey":"canary","baseURL":"http://x/","headers":{"X-Custom":"canary","n":1},"timeout":5},
		"key":"canary","env":["OPENAI_API_KEY"],"models":{"key":{"name":"Key"}}}},
		"methods":[{"type":"key"},{"token":["canary",{"deep":"canary"}]}],"API_KEY":"canary","x-api-key":"canary","secret":"","access_token":null,
		"password":"c\u0061nary","keybinds":{"leader":"ctrl+x"},"tokens":{"input":3}}`
	want := `{"provider":{"openai":{"options":{"apiKey":"redacted","baseURL":"http://x/","headers":{"X-Custom":"redacted","n":1},"timeout":5},
		"key":"redacted","env":["OPENAI_API_KEY"],"models":{"key":{"name":"redacted"}}}},
		"methods":[{"type":"key"},{"token":["redacted",{"deep":"redacted"}]}],"API_KEY":"redacted","x-api-key":"redacted","secret":"","access_token":null,
		"password":"redacted","keybinds":{"leader":"ctrl+x"},"tokens":{"input":3}}`
	for _, path := range described {
		up := upstreamSays(in)
		r := request("GET", path, "")
		r.Header.Set("Accept-Encoding", "gzip")
		r.Header.Set("If-None-Match", `"1"`)
		r.Header.Set("Range", "bytes=0-1")
		w := ask(front(t, up, nil), r)
		var a, b any
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil {
			t.Errorf("%s: %v in %s", path, err, w.Body)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		if w.Header().Get("Content-Length") != "" || w.Header().Get("Etag") != "" {
			t.Errorf("%s: headers of the old text: %v", path, w.Header())
		}
		last, _, _ := up.asked()
		if last.Header.Get("Accept-Encoding") != "identity" || last.Header.Get("Range") != "" || last.Header.Get("If-None-Match") != "" {
			t.Errorf("%s: OpenCode was asked with %v", path, last.Header)
		}
	}
}

func TestRedactionKeepsTheRest(t *testing.T) {
	t.Parallel()
	names := rapid.SampledFrom([]string{"a", "key", "apiKey", "headers", "b", "token", "é\"", ""})
	var value func(t *rapid.T, depth int) any
	value = func(t *rapid.T, depth int) any {
		switch n := rapid.IntRange(0, 6).Draw(t, "kind"); {
		case n == 0 && depth < 4:
			m := map[string]any{}
			for range rapid.IntRange(0, 4).Draw(t, "members") {
				m[names.Draw(t, "name")] = value(t, depth+1)
			}
			return m
		case n == 1 && depth < 4:
			l := []any{}
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				l = append(l, value(t, depth+1))
			}
			return l
		case n == 2:
			return true
		case n == 3:
			return nil
		case n == 4:
			return 1.5
		}
		return rapid.StringOf(rapid.RuneFrom([]rune("xyz\"\\ü\n"))).Draw(t, "text")
	}
	var expect func(v any, secret bool) any
	expect = func(v any, secret bool) any {
		switch v := v.(type) {
		case map[string]any:
			out := map[string]any{}
			for k, one := range v {
				out[k] = expect(one, secret || k == "key" || k == "apiKey" || k == "headers" || k == "token")
			}
			return out
		case []any:
			out := []any{}
			for _, one := range v {
				out = append(out, expect(one, secret))
			}
			return out
		case string:
			if secret && v != "" {
				return "redacted"
			}
		}
		return v
	}
	rapid.Check(t, func(rt *rapid.T) {
		v := value(rt, 0)
		b, err := json.Marshal(v)
		if err != nil {
			rt.Fatal(err)
		}
		w := ask(front(t, upstreamSays(string(b)), nil), request("GET", "/config", ""))
		var got any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			rt.Fatalf("%v in %q of %q", err, w.Body, b)
		}
		if diff := cmp.Diff(expect(v, false), got); diff != "" {
			rt.Fatalf("%s (-want +got):\n%s", b, diff)
		}
	})
}

func TestResponseThatCannotBeSearchedIsBrokenOff(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`{"apiKey":"canary"`, `{"apiKey" "canary"}`, "apiKey: canary", `{"a":1} {"key":"canary"}x`} {
		srv := httptest.NewServer(front(t, upstreamSays(text), nil))
		req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/config", nil)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			srv.Close()
			continue // broken off before anything was sent
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		srv.Close()
		if err == nil || strings.Contains(string(b), "canary") {
			t.Errorf("%q: got %q, %v", text, b, err)
		}
	}
	up := &upstream{answer: func(*http.Request, []byte) *http.Response {
		resp := reply(200, "application/json", strings.NewReader("\x1f\x8b"))
		resp.Header.Set("Content-Encoding", "gzip")
		return resp
	}}
	wantRefusal(t, ask(front(t, up, nil), request("GET", "/config", "")), 502, "UPSTREAM_ENCODING")
}

func FuzzRedact(f *testing.F) {
	f.Add(`{"key":"a","b":[{"headers":{"x":"y"}}]}`)
	f.Add(`[1,"key",{"key":{"key":[[]]}}] {}`)
	f.Add(`{"key":`)
	f.Fuzz(func(t *testing.T, text string) {
		defer func() {
			// A text that is no JSON breaks the response off, as net/http wants it.
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		h := front(t, upstreamSays(text), nil)
		w := ask(h, request("GET", "/config", ""))
		if !json.Valid([]byte(text)) {
			return
		}
		again := ask(front(t, upstreamSays(w.Body.String()), nil), request("GET", "/config", ""))
		if again.Body.String() != w.Body.String() {
			t.Errorf("a second pass changes %q to %q", w.Body, again.Body)
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"all":[`)
	for i := range 5000 {
		if i > 0 {
			s.WriteByte(',')
		}
		fmt.Fprintf(&s, `{"id":"m%d","options":{"apiKey":"sk-%d","baseURL":"http://127.0.0.1:4100/x"},"limit":{"context":200000,"output":8192},"name":"Model %d","env":["A_KEY"],"cost":{"input":1.25,"output":10}}`, i, i, i)
	}
	s.WriteString(`]}`)
	h := front(b, upstreamSays(s.String()), nil)
	b.SetBytes(int64(s.Len()))
	for b.Loop() {
		if w := ask(h, request("GET", "/config/providers", "")); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}
