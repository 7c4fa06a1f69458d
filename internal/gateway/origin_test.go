package gateway_test

import (
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/gateway"
)

func TestForeignHostIsRefused(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, func(c *gateway.Config) { c.Hosts = []string{"Tongs.Example."} })
	for host, ok := range map[string]bool{
		"localhost:8787": true, "localhost": true, "LOCALHOST:8787": true, "localhost.:8787": true, "127.0.0.1:8787": true, "127.0.0.1": true,
		"[::1]:8787": true, "[::1]": true, "tongs.example": true, "tongs.example:443": true,
		"evil.example": false, "evil.example:8787": false, "localhost.evil.example:8787": false, "127.0.0.1.evil.example": false,
		"192.168.1.5:8787": false, "localhost:8787:1": false, "localhost:http": false, "": false, "0x7f000001": false, "127.1": false,
		"user@localhost:8787": false, "[::1%eth0]:8787": false, "0.0.0.0:8787": false,
	} {
		r := request("GET", "/config", "")
		r.Host = host
		w := ask(h, r)
		if ok && w.Code != 200 {
			t.Errorf("%q: %d %s", host, w.Code, w.Body)
		}
		if !ok {
			wantRefusal(t, w, 403, "FOREIGN_HOST")
		}
	}
	// An address is ours if the connection came to it.
	r := request("GET", "/config", "")
	r.Host = "192.168.1.5:8787"
	ctx := contextWithLocal(r, &net.TCPAddr{IP: net.ParseIP("192.168.1.5"), Port: 8787})
	if w := ask(h, r.WithContext(ctx)); w.Code != 200 {
		t.Errorf("own address: %d %s", w.Code, w.Body)
	}
}

func TestForeignOriginIsRefused(t *testing.T) {
	t.Parallel()
	up := &upstream{answer: func(*http.Request, []byte) *http.Response {
		resp := reply(200, "application/json", strings.NewReader("{}"))
		resp.Header.Set("Access-Control-Allow-Origin", "http://localhost:3000")
		resp.Header.Set("Access-Control-Allow-Credentials", "true")
		resp.Header.Set("Set-Cookie", "a=b")
		return resp
	}}
	h := front(t, up, nil)
	type head map[string]string
	for i, tc := range []struct {
		head head
		ok   bool
	}{
		{nil, true},
		{head{"Origin": "http://localhost:8787"}, true},
		{head{"Origin": "https://localhost:8787"}, true},
		{head{"Origin": "http://localhost:8787", "Sec-Fetch-Site": "same-origin"}, true},
		{head{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, true},
		{head{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, true},
		{head{"Origin": "http://localhost:3000"}, false},
		{head{"Origin": "http://127.0.0.1:8787"}, false},
		{head{"Origin": "https://evil.example"}, false},
		{head{"Origin": "https://app.opencode.ai"}, false},
		{head{"Origin": "tauri://localhost:8787"}, false},
		{head{"Origin": "null"}, false},
		{head{"Origin": "http://localhost:8787.evil.example"}, false},
		{head{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, false},
		{head{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, false},
		{head{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, false},
	} {
		r := request("GET", "/config", "")
		for k, v := range tc.head {
			r.Header.Set(k, v)
		}
		w := ask(h, r)
		if tc.ok != (w.Code == 200) {
			t.Errorf("case %d, %v: %d", i, tc.head, w.Code)
		}
		if !tc.ok {
			wantRefusal(t, w, 403, "FOREIGN_ORIGIN")
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
				t.Errorf("case %d: header %s", i, name)
			}
		}
		if w.Header().Get("Cross-Origin-Resource-Policy") != "same-origin" || w.Header().Get("X-Frame-Options") != "DENY" {
			t.Errorf("case %d: our headers are missing: %v", i, w.Header())
		}
	}
	preflight := request("OPTIONS", "/config", "")
	preflight.Header.Set("Origin", "http://localhost:3000")
	preflight.Header.Set("Access-Control-Request-Method", "POST")
	wantRefusal(t, ask(h, preflight), 403, "FOREIGN_ORIGIN")
}

func TestPassword(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, func(c *gateway.Config) { c.Password = "hunter:2 ž"; c.Listen = "0.0.0.0:8787" })
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	token := func(enc *base64.Encoding, text string) func(*http.Request) {
		return func(r *http.Request) {
			r.URL.RawQuery = "auth_token=" + strings.ReplaceAll(enc.EncodeToString([]byte(text)), "+", "%2B")
		}
	}
	for name, tc := range map[string]struct {
		set func(*http.Request)
		ok  bool
	}{
		"none":           {func(*http.Request) {}, false},
		"right":          {basic("opencode", "hunter:2 ž"), true},
		"wrong":          {basic("opencode", "hunter"), false},
		"other user":     {basic("root", "hunter:2 ž"), false},
		"empty":          {basic("", ""), false},
		"bearer":         {func(r *http.Request) { r.Header.Set("Authorization", "Bearer hunter:2 ž") }, false},
		"token":          {token(base64.StdEncoding, "opencode:hunter:2 ž"), true},
		"token url-safe": {token(base64.RawURLEncoding, "opencode:hunter:2 ž"), true},
		"token wrong":    {token(base64.StdEncoding, "opencode:x"), false},
		"token junk":     {func(r *http.Request) { r.URL.RawQuery = "auth_token=%ff" }, false},
	} {
		r := request("GET", "/config", "")
		tc.set(r)
		w := ask(h, r)
		if !tc.ok {
			wantRefusal(t, w, 401, "UNAUTHORIZED")
			if !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s: no challenge", name)
			}
			continue
		}
		if w.Code != 200 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		last, _, _ := up.asked()
		if last.Header.Get("Authorization") != "" || strings.Contains(last.URL.RawQuery, "auth_token") {
			t.Errorf("%s: OpenCode got the client's password: %v %s", name, last.Header, last.URL)
		}
	}
	// The page and the refused routes are behind it too.
	for _, path := range []string{"/", "/assets/x.js", "/doc", "/nothing", "/vcs"} {
		wantRefusal(t, ask(h, request("GET", path, "")), 401, "UNAUTHORIZED")
	}
}

func TestListenAddressAndPassword(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		listen, password, want string
	}{
		{"127.0.0.1:8787", "", ""}, {"localhost:0", "", ""}, {"[::1]:8787", "", ""}, {"127.9.9.9:1", "", ""},
		{":8787", "", "set a password"}, {"0.0.0.0:8787", "", "set a password"}, {"[::]:8787", "", "set a password"},
		{"192.168.1.5:8787", "", "set a password"}, {"host.example:8787", "", "set a password"},
		{":8787", "secret", ""}, {"8787", "secret", "host:port"}, {"", "secret", "host:port"},
	} {
		_, err := gateway.New(gateway.Config{Upstream: &upstream{}, Directory: "/x", Listen: tc.listen, Password: tc.password})
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%q: %v", tc.listen, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%q: %v, want %q", tc.listen, err, tc.want)
		}
	}
	for _, cfg := range []gateway.Config{
		{Listen: "localhost:1", Directory: "/x"}, {Listen: "localhost:1", Upstream: &upstream{}},
		{Listen: "localhost:1", Upstream: &upstream{}, Directory: "x"}, {Listen: "localhost:1", Upstream: &upstream{}, Directory: "/x", Username: "a:b"},
	} {
		if _, err := gateway.New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestOnlyOneDirectory(t *testing.T) {
	t.Parallel()
	up := &upstream{}
	h := front(t, up, nil)
	for _, target := range []string{
		"/session", "/session?directory=%2Fetc", "/session?directory=/etc&directory=/root&Directory=/x", "/session?direct%6Fry=/etc",
		"/api/agent?location%5Bdirectory%5D=/etc", "/api/agent?location[directory]=/etc&location[workspace]=w&location=/etc",
		"/session?workspace=wrk_1&roots=true", "/session?a=%zz&directory=/etc",
	} {
		r := request("GET", target, "")
		r.Header.Set("X-Opencode-Directory", "%2Fetc")
		r.Header.Set("X-Opencode-Workspace", "wrk_1")
		r.Header.Set("X-Opencode-Sync", "1")
		r.Header.Set("X-Forwarded-For", "1.2.3.4")
		r.Header.Set("Cookie", "a=b")
		if w := ask(h, r); w.Code != 200 {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		last, _, _ := up.asked()
		if got := last.Header.Get("X-Opencode-Directory"); got != "%2Fhome%2Fuser%2Fproject" {
			t.Errorf("%s: header %q", target, got)
		}
		for _, name := range []string{"X-Opencode-Workspace", "X-Opencode-Sync", "X-Forwarded-For", "Cookie", "Origin"} {
			if last.Header.Get(name) != "" {
				t.Errorf("%s: header %s reached OpenCode", target, name)
			}
		}
		for key, values := range last.URL.Query() {
			for _, v := range values {
				if strings.Contains(v, "etc") || strings.Contains(v, "wrk") || strings.Contains(v, "root") && key != "roots" {
					t.Errorf("%s: OpenCode was asked %s", target, last.URL)
				}
			}
		}
		if strings.Contains(target, "roots=true") && last.URL.Query().Get("roots") != "true" {
			t.Errorf("%s: the rest of the query is lost: %s", target, last.URL)
		}
		if strings.HasPrefix(target, "/api/") && last.URL.Query().Get("location[directory]") != directory {
			t.Errorf("%s: %s", target, last.URL)
		}
	}
}
