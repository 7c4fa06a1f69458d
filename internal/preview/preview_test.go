package preview_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/preview"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// boxes plays sandboxes: servers of this process, by sandbox and port.
type boxes struct {
	mu    sync.Mutex
	ports map[string]string // "sandbox:port" → address
	open  int
	err   error
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error { c.closed(); return c.Conn.Close() }

func (b *boxes) Dial(ctx context.Context, box string, port int) (net.Conn, error) {
	b.mu.Lock()
	address, ok := b.ports[box+":"+strconv.Itoa(port)]
	known := false
	for k := range b.ports {
		known = known || strings.HasPrefix(k, box+":")
	}
	err := b.err
	b.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case !known:
		return nil, sandbox.Errf(sandbox.CodeSandboxNotFound, "dial", "there is no sandbox <"+box+">", "list them")
	case !ok:
		return nil, sandbox.Errf(sandbox.CodeServiceNotResponding, "dial", "nothing answers at "+strconv.Itoa(port), "start the server first")
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.open++
	b.mu.Unlock()
	return &countedConn{c, sync.OnceFunc(func() { b.mu.Lock(); b.open--; b.mu.Unlock() })}, nil
}

// front is a served handler.
type front struct {
	*preview.Handler
	t       testing.TB
	boxes   *boxes
	address string
	client  *http.Client
}

func newFront(t testing.TB, change func(*preview.Config)) *front {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &boxes{ports: map[string]string{"here:9": ""}}
	cfg := preview.Config{Boxes: b, Listen: ln.Addr().String(), Open: true}
	if change != nil {
		change(&cfg)
	}
	h, err := preview.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	done := make(chan struct{})
	go func() { _ = srv.Serve(ln); close(done) }()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, ln.Addr().String())
	}}
	f := &front{Handler: h, t: t, boxes: b, address: ln.Addr().String(), client: &http.Client{Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		h.Close()
		_ = srv.Close()
		<-done
	})
	return f
}

// serve puts a server into a sandbox.
func (f *front) serve(box string, port int, h http.HandlerFunc) {
	srv := httptest.NewServer(h)
	f.t.Cleanup(srv.Close)
	f.boxes.mu.Lock()
	defer f.boxes.mu.Unlock()
	f.boxes.ports[box+":"+strconv.Itoa(port)] = srv.Listener.Addr().String()
}

func (f *front) request(method, host, path string, body io.Reader, header ...string) *http.Request {
	f.t.Helper()
	r, err := http.NewRequest(method, "http://"+host+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

func (f *front) do(r *http.Request) (*http.Response, string) {
	f.t.Helper()
	resp, err := f.client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp, string(body)
}

func (f *front) get(host string, header ...string) (*http.Response, string) {
	f.t.Helper()
	return f.do(f.request("GET", host, "/", nil, header...))
}

func TestRequestPasses(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(c *preview.Config) { c.Password = "s3cret" })
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "a=b; Domain=localhost; Path=/; HttpOnly")
		w.Header().Add("Set-Cookie", "c=d; path=/x")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.WriteHeader(http.StatusTeapot)
		_ = json.NewEncoder(w).Encode(map[string]any{"host": r.Host, "uri": r.RequestURI, "header": r.Header})
	})
	host := "3000-here.localhost:8787"
	resp, body := f.do(f.request("GET", host, "/a%2Fb/?q=1;2&auth_token=b3BlbmNvZGU6czNjcmV0&auth_token=mine", nil,
		"Authorization", "Basic b3BlbmNvZGU6czNjcmV0", "X-Forwarded-For", "192.0.2.1", "Forwarded", "for=192.0.2.1", "X-Forwarded-Proto", "https", "Cookie", "own=1"))
	if resp.StatusCode != http.StatusTeapot {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	var got struct {
		Host, URI string
		Header    http.Header
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Host != host || got.URI != "/a%2Fb/?q=1;2&auth_token=mine" {
		t.Errorf("the server saw host %q and %q", got.Host, got.URI)
	}
	for name, want := range map[string]string{
		"Authorization": "", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": host, "Forwarded": "", "Cookie": "own=1", "X-Sandbox-Name": "here",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s reached the server as %q, want %q", name, v, want)
		}
	}
	if c := resp.Header.Values("Set-Cookie"); len(c) != 2 || c[0] != "a=b; Path=/; HttpOnly" || c[1] != "c=d; path=/x" {
		t.Errorf("cookies %q", c)
	}
	if resp.Header.Get("Alt-Svc") != "" {
		t.Error("Alt-Svc passed")
	}
	_, body = f.get(host, "Authorization", "Bearer of the app")
	if !strings.Contains(body, "Bearer of the app") {
		t.Errorf("the app's own authorization did not pass: %s", body)
	}
}

// Each line of a stream of events comes when it was sent, and the end of the reader
// is the end of the server's request.
func TestEventsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	next, gone := make(chan struct{}), make(chan struct{})
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp, err := f.client.Do(f.request("GET", "3000-here.localhost", "/", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
			t.Fatalf("event %d reads %q, %v", i, lines.Text(), lines.Err())
		}
		next <- struct{}{}
	}
	cancel()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the server was not told that its reader has gone")
	}
}

func TestWebSocketPasses(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), data...)); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dialled := *f.client
	dialled.Timeout = 0
	c, _, err := websocket.Dial(ctx, "ws://3000-here.localhost:8787/socket", &websocket.DialOptions{
		HTTPClient: &dialled, Subprotocols: []string{"chat"}, HTTPHeader: http.Header{"Origin": {"http://3000-here.localhost:8787"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	for _, word := range []string{"one", strings.Repeat("long", 5000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != "echo "+word {
			t.Fatalf("%.40q, %v", got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestLargeBodiesPassBothWays(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	})
	data := make([]byte, 32<<20)
	rand.Read(data)
	_, body := f.do(f.request("POST", "3000-here.localhost", "/", bytes.NewReader(data)))
	if body != string(data) {
		t.Errorf("%d bytes came back of %d, or others", len(body), len(data))
	}
}

// A server that breaks off is an error for the reader too, not a short success.
func TestAbortPasses(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("short"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	resp, err := f.client.Do(f.request("GET", "3000-here.localhost", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("the broken answer reads as whole: %q", got)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(c *preview.Config) { c.Reserved = []int{4100} })
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {})
	f.serve("here", 4100, func(w http.ResponseWriter, r *http.Request) { t.Error("a reserved port was reached") })
	f.serve("here", 3001, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*preview.MaxResponseHeader))
	})
	for _, c := range []struct {
		host   string
		status int
		code   string
	}{
		{"3002-here.localhost", 502, "SERVICE_NOT_RESPONDING"},
		{"3000-nowhere.localhost", 404, "SANDBOX_NOT_FOUND"},
		{"4100-here.localhost", 400, "INVALID_PORT"},
		{"3001-here.localhost", 502, "SERVICE_NOT_RESPONDING"},
	} {
		resp, body := f.get(c.host)
		var got struct{ Error, Code, Hint string }
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != c.status || got.Code != c.code || got.Error == "" {
			t.Errorf("%s: %d %s", c.host, resp.StatusCode, body)
		}
		resp, body = f.get(c.host, "Accept", "text/html,*/*")
		if resp.StatusCode != c.status || !strings.Contains(body, c.code) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s as a page: %d %s", c.host, resp.StatusCode, body)
		}
		if strings.Contains(body, "<nowhere>") {
			t.Error("the page takes text as HTML")
		}
	}
	f.boxes.mu.Lock()
	f.boxes.err = sandbox.Errf("SANDBOX_STOPPED", "dial", "the sandbox is stopped", "start it")
	f.boxes.mu.Unlock()
	if resp, body := f.get("3005-here.localhost"); resp.StatusCode != 503 || !strings.Contains(body, "SANDBOX_STOPPED") {
		t.Errorf("stopped: %d %s", resp.StatusCode, body)
	}
}

// A page of another origin can be linked from, but can't use a preview behind the
// back of whoever looks at it.
func TestForeignPages(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {})
	for _, c := range []struct {
		name, method string
		header       []string
		status       int
	}{
		{"its own page", "POST", []string{"Origin", "http://3000-here.localhost:1"}, 200},
		{"another port of the sandbox", "POST", []string{"Origin", "http://8000-here.localhost:1", "Sec-Fetch-Site", "cross-site"}, 200},
		{"another sandbox", "POST", []string{"Origin", "http://3000-there.localhost:1"}, 403},
		{"the front", "POST", []string{"Origin", "http://localhost:1"}, 403},
		{"a site", "GET", []string{"Origin", "https://example.com"}, 403},
		{"no origin at all", "POST", []string{"Origin", "null"}, 403},
		{"two", "POST", []string{"Origin", "http://3000-here.localhost:1", "Origin", "https://example.com"}, 403},
		{"an image on a site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"a link on a site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		{"a form on a site", "POST", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 403},
		{"curl", "GET", nil, 200},
	} {
		resp, body := f.do(f.request(c.method, "3000-here.localhost:1", "/", nil, c.header...))
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, resp.StatusCode, body)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFront(t, nil)
	release := make(chan struct{})
	f.serve("here", 3000, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	f.serve("there", 3000, func(w http.ResponseWriter, r *http.Request) {})
	var held []*http.Response
	defer func() {
		close(release)
		for _, r := range held {
			r.Body.Close()
		}
	}()
	for range preview.MaxConnections {
		resp, err := f.client.Do(f.request("GET", "3000-here.localhost", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, resp)
	}
	if resp, body := f.get("3000-here.localhost"); resp.StatusCode != 503 || !strings.Contains(body, "TOO_MANY_CONNECTIONS") {
		t.Errorf("one more: %d %s", resp.StatusCode, body)
	}
	if resp, body := f.get("3000-there.localhost"); resp.StatusCode != 200 {
		t.Errorf("another sandbox: %d %s", resp.StatusCode, body)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]preview.Config{
		"no boxes":  {Listen: "127.0.0.1:1"},
		"no listen": {Boxes: &boxes{}},
		"scheme":    {Boxes: &boxes{}, Listen: ":1", Scheme: "ftp"},
		"domain":    {Boxes: &boxes{}, Listen: ":1", Domain: "*.example.com"},
	} {
		_, err := preview.New(cfg)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != sandbox.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}
