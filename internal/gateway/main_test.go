package gateway_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const directory = "/home/user/project"

// upstream is an OpenCode made of a function. It keeps what it was asked.
type upstream struct {
	answer func(r *http.Request, body []byte) *http.Response

	mu  sync.Mutex
	got []*http.Request
	raw [][]byte
}

func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
		body = b
	}
	u.mu.Lock()
	u.got, u.raw = append(u.got, r), append(u.raw, body)
	u.mu.Unlock()
	resp := reply(200, "application/json", strings.NewReader(`{"from":"opencode"}`))
	if u.answer != nil {
		resp = u.answer(r, body)
	}
	resp.Request = r
	return resp, nil
}

// asked returns the last request, and how many there were.
func (u *upstream) asked() (last *http.Request, body string, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.got) == 0 {
		return nil, "", 0
	}
	return u.got[len(u.got)-1], string(u.raw[len(u.raw)-1]), len(u.got)
}

func reply(status int, contentType string, body io.Reader) *http.Response {
	rc, ok := body.(io.ReadCloser)
	if !ok {
		rc = io.NopCloser(body)
	}
	return &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {contentType}},
		Body: rc, ContentLength: -1,
	}
}

// front makes a gateway; change may alter its configuration.
func front(t testing.TB, up *upstream, change func(*gateway.Config)) http.Handler {
	t.Helper()
	cfg := gateway.Config{Upstream: up, Listen: "127.0.0.1:8787", Directory: directory}
	if change != nil {
		change(&cfg)
	}
	h, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// request is what a stock client sends.
func request(method, target, body string) *http.Request {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, "http://localhost:8787/", nil)
	} else {
		r = httptest.NewRequest(method, "http://localhost:8787/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, query
	return r
}

func ask(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// refusal is an error as clients read it.
type refusal struct {
	Name string
	Data struct{ Message, Code string }
}

// wantRefusal checks the shape of an error and returns it.
func wantRefusal(t testing.TB, w *httptest.ResponseRecorder, status int, code string) refusal {
	t.Helper()
	var got refusal
	dec := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Errorf("status %d, body %.200q: %v", w.Code, w.Body, err)
		return got
	}
	if w.Code != status || got.Data.Code != code || got.Name == "" || got.Data.Message == "" {
		t.Errorf("got %d %+v, want %d %s", w.Code, got, status, code)
	}
	return got
}
