package modelproxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/internal/modelproxy"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "sk-canary-0123456789"

// seen is one request as an upstream got it.
type seen struct {
	method, host, uri string
	header            http.Header
	body              string
}

// stand stands in for the upstreams of the providers: it gets every request that
// the proxy sends to any host.
type stand struct {
	mu     sync.Mutex
	got    []seen
	answer func(w http.ResponseWriter, r *http.Request)
	server *httptest.Server
}

func newStand(t testing.TB, answer func(w http.ResponseWriter, r *http.Request)) *stand {
	t.Helper()
	s := &stand{answer: answer}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.got = append(s.got, seen{r.Method, r.Host, r.RequestURI, r.Header.Clone(), string(body)})
		s.mu.Unlock()
		if s.answer != nil {
			s.answer(w, r)
		}
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *stand) last(t testing.TB) seen {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) == 0 {
		t.Fatal("the upstream got no request")
	}
	return s.got[len(s.got)-1]
}

func (s *stand) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// RoundTrip sends to the stand what is meant for the internet, and keeps the
// host that was meant.
func (s *stand) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	if out.Host == "" {
		out.Host = r.URL.Host
	}
	u, err := url.Parse(s.server.URL)
	if err != nil {
		return nil, err
	}
	out.URL.Scheme, out.URL.Host = u.Scheme, u.Host
	return s.server.Client().Transport.RoundTrip(out)
}

// serve starts a proxy as OpenCode would reach it.
func serve(t testing.TB, c modelproxy.Config) *httptest.Server {
	t.Helper()
	p, err := modelproxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(p)
	t.Cleanup(func() { srv.Close(); p.Close() })
	return srv
}

// send makes a request with a deadline; header lines are "Name: value".
func send(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Each provider of the table gets the real key in the header of its protocol,
// at the URL its SDK would use, and the placeholder in no place.
func TestEachKnownProvider(t *testing.T) {
	t.Parallel()
	const bearer, anthropic, google = "Authorization", "X-Api-Key", "X-Goog-Api-Key"
	cases := map[string][]struct{ send, host, uri, header string }{
		"openai":     {{"/responses", "api.openai.com", "/v1/responses", bearer}, {"/chat/completions", "api.openai.com", "/v1/chat/completions", bearer}},
		"anthropic":  {{"/messages", "api.anthropic.com", "/v1/messages", anthropic}},
		"google":     {{"/models/gemini-2.5-pro:streamGenerateContent?alt=sse", "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", google}},
		"openrouter": {{"/chat/completions", "openrouter.ai", "/api/v1/chat/completions", bearer}},
		"groq":       {{"/chat/completions", "api.groq.com", "/openai/v1/chat/completions", bearer}},
		"mistral":    {{"/chat/completions", "api.mistral.ai", "/v1/chat/completions", bearer}},
		"deepseek":   {{"/chat/completions", "api.deepseek.com", "/chat/completions", bearer}},
		"xai":        {{"/responses", "api.x.ai", "/v1/responses", bearer}, {"/chat/completions", "api.x.ai", "/v1/chat/completions", bearer}},
		"opencode": {
			{"/chat/completions", "opencode.ai", "/zen/v1/chat/completions", bearer},
			{"/responses", "opencode.ai", "/zen/v1/responses", bearer},
			{"/messages", "opencode.ai", "/zen/v1/messages", anthropic},
			{"/models/gemini-3:streamGenerateContent?alt=sse", "opencode.ai", "/zen/v1/models/gemini-3:streamGenerateContent?alt=sse", google},
		},
	}
	for _, known := range modelproxy.KnownProviders() {
		if len(cases[known.ID]) == 0 {
			t.Errorf("no case for %s", known.ID)
		}
		for _, tc := range cases[known.ID] {
			t.Run(known.ID+tc.send, func(t *testing.T) {
				t.Parallel()
				var logs bytes.Buffer
				up := newStand(t, func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "you sent %v", r.Header) // an upstream that echoes
				})
				srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{known.Provider(modelproxy.NewSecret(canary))}, Transport: up,
					Logger: slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
				sep := "?"
				if strings.Contains(tc.send, "?") {
					sep = "&"
				}
				resp, body := send(t, "POST", srv.URL+"/"+known.ID+tc.send+sep+"key="+modelproxy.Placeholder+"&other="+modelproxy.Placeholder, `{"model":"m"}`,
					"Authorization: Bearer "+modelproxy.Placeholder, "x-api-key: "+modelproxy.Placeholder, "x-goog-api-key: "+modelproxy.Placeholder,
					"api-key: "+modelproxy.Placeholder, "Cookie: a="+modelproxy.Placeholder, "X-Odd: "+modelproxy.Placeholder,
					"anthropic-version: 2023-06-01", "Content-Type: application/json")
				got := up.last(t)
				if got.host != tc.host || got.uri != tc.uri || got.method != "POST" || got.body != `{"model":"m"}` {
					t.Errorf("the upstream got %s http://%s%s %q; want http://%s%s", got.method, got.host, got.uri, got.body, tc.host, tc.uri)
				}
				want := http.Header{}
				value := canary
				if tc.header == bearer {
					value = "Bearer " + canary
				}
				want.Set(tc.header, value)
				have := http.Header{}
				for _, name := range []string{bearer, anthropic, google, "Api-Key", "Cookie", "X-Odd"} {
					if v := got.header.Values(name); len(v) > 0 {
						have[http.CanonicalHeaderKey(name)] = v
					}
				}
				if diff := cmp.Diff(want, have); diff != "" {
					t.Errorf("credentials (-want +got):\n%s", diff)
				}
				if got.header.Get("Anthropic-Version") != "2023-06-01" || got.header.Get("Content-Type") != "application/json" {
					t.Errorf("other headers were lost: %v", got.header)
				}
				if all := fmt.Sprint(got); strings.Contains(all, modelproxy.Placeholder) {
					t.Errorf("the placeholder went out: %s", all)
				}
				if all := body + fmt.Sprint(resp.Header) + logs.String(); strings.Contains(all, canary) || !strings.Contains(body, "[redacted]") {
					t.Errorf("the key came back or was logged: %s", all)
				}
				if !strings.Contains(logs.String(), "provider="+known.ID) {
					t.Errorf("the request was not logged: %s", logs.String())
				}
			})
		}
	}
}

func TestKeylessOpenCode(t *testing.T) {
	t.Parallel()
	known, ok := modelproxy.LookupKnown("opencode")
	if !ok {
		t.Fatal("not in the table")
	}
	up := newStand(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a public answer") })
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{known.Provider(modelproxy.Secret{})}, Transport: up})
	_, body := send(t, "POST", srv.URL+"/opencode/chat/completions", "{}", "Authorization: Bearer public")
	if got := up.last(t).header.Get("Authorization"); got != "Bearer public" {
		t.Errorf("Authorization %q, want Bearer public", got)
	}
	if body != "a public answer" {
		t.Errorf("the word public was taken for a secret: %q", body)
	}
}

func TestHeadersOfProviderAndModel(t *testing.T) {
	t.Parallel()
	up := newStand(t, nil)
	p := custom(t, up.server.URL+"/base/")
	p.Headers = map[string]modelproxy.Secret{"X-Team": modelproxy.NewSecret("blue"), "X-Both": modelproxy.NewSecret("provider")}
	p.ModelHeaders = map[string]map[string]modelproxy.Secret{"big/one": {"X-Both": modelproxy.NewSecret("model"), "X-Only": modelproxy.NewSecret("big")}}
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{p}})
	long := strings.Repeat("x", 1<<20)
	for _, tc := range []struct{ path, body, both, only string }{
		{"/chat", `{"model":"big/one","messages":[]}`, "model", "big"},
		{"/chat", `{"messages":["` + long + `",{"model":"small"}],"model":"big\/one"}`, "model", "big"},
		{"/chat", `{"model":"small"}`, "provider", ""},
		{"/chat", `{"model":7}`, "provider", ""},
		{"/chat", `{"model`, "provider", ""},
		{"/chat", ``, "provider", ""},
		{"/chat", `["big/one"]`, "provider", ""},
		{"/models/big/one:generateContent", `{"contents":[]}`, "model", "big"},
		{"/models/other:generateContent", `{"model":"big/one"}`, "provider", ""},
	} {
		resp, _ := send(t, "POST", srv.URL+"/mine"+tc.path, tc.body, "X-Team: red", "X-Both: red")
		got := up.last(t)
		if resp.StatusCode != 200 || got.body != tc.body || got.uri != "/base"+tc.path {
			t.Errorf("%s: status %d, %s with %d of %d bytes", tc.path, resp.StatusCode, got.uri, len(got.body), len(tc.body))
		}
		have := []string{got.header.Get("X-Team"), got.header.Get("X-Both"), got.header.Get("X-Only")}
		if diff := cmp.Diff([]string{"blue", tc.both, tc.only}, have); diff != "" {
			t.Errorf("%s %.60s: headers (-want +got):\n%s", tc.path, tc.body, diff)
		}
	}
}

func TestNoKeyAtAll(t *testing.T) {
	t.Parallel()
	up := newStand(t, nil)
	p := custom(t, up.server.URL)
	p.Key = modelproxy.Secret{}
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{p}})
	send(t, "POST", srv.URL+"/mine/chat", "{}", "Authorization: Bearer "+modelproxy.Placeholder)
	if got, ok := up.last(t).header["Authorization"]; ok {
		t.Errorf("Authorization %q was sent", got)
	}
}

// errorBody checks that an answer has the members that the SDKs read.
func errorBody(t *testing.T, body string) (code, message string) {
	t.Helper()
	var e struct {
		Type    string `json:"type"`
		Message string `json:"message"`
		Error   struct {
			Type, Message, Status string
			Code                  int
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatalf("the error is no JSON: %v: %q", err, body)
	}
	if e.Type != "error" || e.Error.Message == "" || e.Message != e.Error.Message || e.Error.Type == "" || e.Error.Code < 400 {
		t.Errorf("the error lacks members: %s", body)
	}
	return e.Error.Status, e.Error.Message
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	up := newStand(t, nil)
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL+"/v1")}})
	for _, tc := range []struct {
		method, path string
		header       string
		status       int
		code         string
	}{
		{"POST", "/other/chat", "", 404, "UNKNOWN_PROVIDER"},
		{"POST", "/", "", 404, "UNKNOWN_PROVIDER"},
		{"POST", "/mine", "", 404, "BAD_PATH"},
		{"POST", "/mine/", "", 404, "BAD_PATH"},
		{"POST", "/mine/../admin", "", 400, "BAD_PATH"},
		{"POST", "/mine/a/..", "", 400, "BAD_PATH"},
		{"POST", "/mine/./a", "", 400, "BAD_PATH"},
		{"POST", "/mine//a", "", 400, "BAD_PATH"},
		{"POST", "/mine/%2e%2e/admin", "", 400, "BAD_PATH"},
		{"POST", "/mine/%2E./admin", "", 400, "BAD_PATH"},
		{"POST", "/mine/..%2fadmin", "", 400, "BAD_PATH"},
		{"POST", "/mine/a%5c..%5cb", "", 400, "BAD_PATH"},
		{"POST", "/mine/%252e%252e/x", "", 400, "BAD_PATH"},
		{"POST", "/mine/a%00b", "", 400, "BAD_PATH"},
		{"POST", "/mine/a%0d%0aX:1", "", 400, "BAD_PATH"},
		{"POST", "/mine/..;/x", "", 400, "BAD_PATH"},
		{"POST", "/mine%2fchat", "", 400, "BAD_PATH"},
		{"DELETE", "/mine/files/1", "", 405, "BAD_METHOD"},
		{"PUT", "/mine/x", "", 405, "BAD_METHOD"},
		{"TRACE", "/mine/x", "", 405, "BAD_METHOD"},
		{"GET", "/mine/realtime", "Upgrade: websocket", 400, "UPGRADE_REFUSED"},
	} {
		resp, body := send(t, tc.method, srv.URL+tc.path, "", func() []string {
			if tc.header != "" {
				return []string{tc.header, "Connection: Upgrade"}
			}
			return nil
		}()...)
		if code, _ := errorBody(t, body); resp.StatusCode != tc.status || code != tc.code {
			t.Errorf("%s %s: %d %s, want %d %s", tc.method, tc.path, resp.StatusCode, body, tc.status, tc.code)
		}
	}
	if n := up.count(); n != 0 {
		t.Errorf("%d refused requests went out: %v", n, up.got)
	}
	_, body := send(t, "POST", srv.URL+"/other/chat", "")
	if _, message := errorBody(t, body); !strings.Contains(message, "mine") {
		t.Errorf("%q does not name what is configured", message)
	}
}

func TestBodyTooLarge(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	up := newStand(t, nil)
	p := custom(t, up.server.URL)
	p.ModelHeaders = map[string]map[string]modelproxy.Secret{"m": {"X": modelproxy.NewSecret("1")}}
	plain := custom(t, up.server.URL)
	plain.ID = "plain"
	handler, err := modelproxy.New(modelproxy.Config{Providers: []modelproxy.Provider{p, plain}, MaxBody: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handler.Close)
	for name, tc := range map[string]struct {
		id     string
		length int64
		more   int
		status int
	}{
		"length said":     {"plain", most + 1, 1, 413},
		"length not said": {"plain", -1, 1, 413},
		"looked into":     {"mine", -1, 1, 413},
		"just fits":       {"plain", -1, 0, 200},
		"fits, looked at": {"mine", -1, 0, 200},
	} {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), "POST", "/"+tc.id+"/x", strings.NewReader(`{"a":"`+strings.Repeat("x", most-8+tc.more)+`"}`))
			req.ContentLength = tc.length
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, req)
			if w.Code != tc.status {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tc.status)
			}
			if tc.status == 413 {
				if code, message := errorBody(t, w.Body.String()); code != "BODY_TOO_LARGE" || !strings.Contains(message, "1048576") {
					t.Errorf("%s %s", code, message)
				}
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	thief := newStand(t, nil)
	for _, code := range []int{301, 302, 303, 307, 308} {
		up := newStand(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.server.URL+"/steal", code)
		})
		srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL)}})
		resp, body := send(t, "POST", srv.URL+"/mine/chat", "{}")
		code, message := errorBody(t, body)
		if resp.StatusCode != 400 || code != "UPSTREAM_REDIRECTS" || !strings.Contains(message, strings.TrimPrefix(thief.server.URL, "http://")) || resp.Header.Get("Location") != "" {
			t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
		}
	}
	if thief.count() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(nil)
	closed.Close()
	silent := newStand(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	broken := newStand(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	untrusted := httptest.NewUnstartedServer(nil)
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	for name, tc := range map[string]struct {
		base    string
		timeout time.Duration
		status  int
		code    string
		word    string
	}{
		"refused":     {closed.URL, 0, 502, "UPSTREAM_UNREACHABLE", "connection refused"},
		"silent":      {silent.server.URL, 50 * time.Millisecond, 504, "UPSTREAM_TIMEOUT", "in time"},
		"broken":      {broken.server.URL, 0, 502, "UPSTREAM_UNREACHABLE", "connection"},
		"certificate": {untrusted.URL, 0, 502, "UPSTREAM_UNREACHABLE", "SSL_CERT_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, tc.base)}, HeaderTimeout: tc.timeout})
			resp, body := send(t, "POST", srv.URL+"/mine/chat", "{}")
			if code, message := errorBody(t, body); resp.StatusCode != tc.status || code != tc.code || !strings.Contains(message, tc.word) {
				t.Errorf("%d %s; want %d %s with %q", resp.StatusCode, body, tc.status, tc.code, tc.word)
			}
			if strings.Contains(body, canary) {
				t.Error("the error shows the key")
			}
		})
	}
}

func TestAnswersAreCleaned(t *testing.T) {
	t.Parallel()
	up := newStand(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Request-Id", "r1")
		w.WriteHeader(429)
		io.WriteString(w, `{"error":"slow down"}`)
	})
	srv := serve(t, modelproxy.Config{Providers: []modelproxy.Provider{custom(t, up.server.URL)}})
	resp, body := send(t, "GET", srv.URL+"/mine/models?a=1&API_KEY=x&b=2", "", "Accept-Encoding: gzip", "Referer: http://x", "Connection: X-Hop", "X-Hop: 1")
	if resp.StatusCode != 429 || body != `{"error":"slow down"}` || resp.Header.Get("X-Request-Id") != "r1" {
		t.Errorf("%d %q %v: what the upstream said was changed", resp.StatusCode, body, resp.Header)
	}
	if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers that are not for the client came through: %v", resp.Header)
	}
	got := up.last(t)
	for _, name := range []string{"Accept-Encoding", "Referer", "X-Hop", "X-Forwarded-For"} {
		if got.header.Get(name) != "" {
			t.Errorf("%s went out", name)
		}
	}
	if got.uri != "/models?a=1&b=2" {
		t.Errorf("uri %s", got.uri)
	}
}
