package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/gateway"
)

// previews plays the handler of preview URLs.
type previews struct{ http.Handler }

func (previews) Owns(host string) bool { return strings.HasPrefix(host, "3000-box.localhost") }

// What a preview's host name asks for never reaches the gateway's routes, nor does
// a page from there.
func TestPreviewsAreForeign(t *testing.T) {
	t.Parallel()
	cfg := gateway.Config{
		Upstream: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{Request: r, StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("opencode"))}, nil
		}),
		Listen: "127.0.0.1:8787", Directory: "/home/user/project",
		Preview: previews{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "preview") })},
	}
	front, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Preview = nil
	without, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, host string
		header     []string
		handler    http.Handler
		status     int
		body       string
	}{
		{"a preview", "3000-box.localhost:8787", nil, front, 200, "preview"},
		{"the gateway", "localhost:8787", nil, front, 200, "opencode"},
		{"another name", "4000-box.localhost:8787", nil, front, 403, "FOREIGN_HOST"},
		{"a preview's page", "localhost:8787", []string{"Origin", "http://3000-box.localhost:8787"}, front, 403, "FOREIGN_ORIGIN"},
		{"a preview's image", "localhost:8787", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}, front, 403, "FOREIGN_ORIGIN"},
		{"a preview where there are none", "3000-box.localhost:8787", nil, without, 403, "FOREIGN_HOST"},
	} {
		r := httptest.NewRequest("GET", "http://"+c.host+"/session", nil)
		for i := 0; i+1 < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		w := httptest.NewRecorder()
		c.handler.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
