package egress_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com", "192.0.2.9:443"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	w.names["other.example"] = []string{"192.0.2.1"}
	s := serve(t, w, "192.0.2.1:443", http.HandlerFunc(hello), true)
	w.servers["192.0.2.9:443"] = s.Listener.Addr().String()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())

	resp, err := w.client(roots).Get("https://example.com/a")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "HTTP/2.0 example.com /a" {
		t.Errorf("got %q", body)
	}
	if _, err := w.client(roots).Get("https://other.example/"); err == nil || !isReset(err) {
		t.Errorf("a name that is not allowed: %v", err)
	}
	// The address of an allowed name, and another name inside.
	at := w.address("example.com") + ":443"
	for _, c := range []struct {
		dst, sni string
		ok       bool
	}{
		{at, "example.com", true}, {at, "other.example", false}, {at, "", true},
		{"203.0.113.5:443", "example.com", true}, // an address that nobody asked for gives way to the name inside
		{"203.0.113.5:443", "other.example", false}, {"203.0.113.5:443", "", false}, {"192.0.2.9:443", "", true},
		{"198.18.77.77:443", "example.com", false}, // of no name
	} {
		conn, err := w.connect(c.dst)
		if err == nil { // else it was reset before we knew that we were connected
			err = tls.Client(conn, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true}).Handshake()
			conn.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s with %q inside: %v", c.dst, c.sni, err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.dialed {
		if d != "192.0.2.1:443" && d != "192.0.2.9:443" {
			t.Errorf("dialled %s", d)
		}
	}
	for _, a := range w.asked {
		if a != "example.com." {
			t.Errorf("asked a name server for %q", a)
		}
	}
	if !strings.Contains(w.log.String(), "egress refused") || !strings.Contains(w.log.String(), "host=other.example") {
		t.Errorf("the log: %s", w.log)
	}
}

func isReset(err error) bool {
	return errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "EOF")
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com", "rebound.example", "metadata.example", "192.0.2.9", "missing.example"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	w.names["rebound.example"] = []string{"10.0.0.1", "127.0.0.1"}
	w.names["metadata.example"] = []string{"169.254.169.254"}
	serve(t, w, "192.0.2.1:80", http.HandlerFunc(hello), false)
	serve(t, w, "192.0.2.9:80", http.HandlerFunc(hello), false)
	serve(t, w, "10.0.0.1:80", http.HandlerFunc(hello), false)
	serve(t, w, "169.254.169.254:80", http.HandlerFunc(hello), false)
	client := w.client(nil)
	for _, c := range []struct {
		url    string
		status int
		want   string
	}{
		{"http://example.com/x", 200, "HTTP/1.1 example.com /x"},
		{"http://192.0.2.9/y", 200, "HTTP/1.1 192.0.2.9 /y"},
		{"http://other.example/", 403, "no rule allows it on port 80"},
		{"http://example.com:8080/", 403, "no rule allows it on port 8080"},
		{"http://192.0.2.10/", 403, "no rule allows it"},
		{"http://169.254.169.254/latest/meta-data/", 403, "metadata"},
		{"http://rebound.example/", 403, "resolves to a"},
		{"http://metadata.example/", 403, "resolves to a special address"},
	} {
		resp, err := client.Get(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %d %s", c.url, resp.StatusCode, body)
		}
		if c.status == 403 {
			var said struct{ Code, Message, Host, Hint string }
			if err := json.Unmarshal(body, &said); err != nil || said.Code != "EGRESS_DENIED" || said.Host == "" || said.Hint == "" {
				t.Errorf("%s: %s", c.url, body)
			}
		}
	}
	// Each request of one connection is judged: fronting by Host.
	conn, err := w.connect(w.address("example.com") + ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, c := range []struct {
		request string
		status  int
	}{
		{"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 200},
		{"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\nhi", 200},
		{"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 403},
	} {
		if _, err := io.WriteString(conn, c.request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != c.status {
			t.Errorf("%.40q: %d", c.request, resp.StatusCode)
		}
	}
	for _, request := range []string{
		"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
		"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: example.com:81\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
	} {
		conn, err := w.connect(w.address("example.com") + ":80")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, request)
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode/100 != 4 {
			t.Errorf("%.40q: %v %v", request, resp, err)
		}
		conn.Close()
	}
	if s := w.gate.Stats(); s.Refused == 0 || s.Connections == 0 || s.BytesDown == 0 || s.Queries == 0 {
		t.Errorf("%+v", s)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.dialed {
		if !strings.HasPrefix(d, "192.0.2.") {
			t.Errorf("dialled %s", d)
		}
	}
}

// TestUpgrade passes a WebSocket-like upgrade, bytes both ways.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	serve(t, w, "192.0.2.1:80", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buf.ReadString('\n')
		_, _ = io.WriteString(c, "echo "+line)
	}), false)
	conn, err := w.connect(w.address("example.com") + ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := in.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// TestServerFirst: a protocol in which the server begins, and the ends of both directions.
func TestServerFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com:25"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.servers["192.0.2.1:25"] = l.Addr().String()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "220 ready\n")
		all, _ := io.ReadAll(c) // to the end of the client's bytes
		fmt.Fprintf(c, "got %d\n", len(all))
	}()
	conn, err := w.connect(w.address("example.com") + ":25")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); line != "220 ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := conn.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if line, err := in.ReadString('\n'); line != fmt.Sprintf("got %d\n", 1<<20) {
		t.Errorf("%q, %v", line, err)
	}
}

func TestDNS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com", "missing.example"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	first := w.address("example.com")
	if !strings.HasPrefix(first, "198.18.") || w.address("EXAMPLE.com") != first {
		t.Errorf("got %s", first)
	}
	if second := w.address("secret-data.other.example"); second == first {
		t.Error("two names with one address")
	}
	if code, _ := w.resolve("missing.example.", dnsmessage.TypeA); code != dnsmessage.RCodeNameError {
		t.Errorf("an allowed name that doesn't exist: %v", code)
	}
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeTXT, dnsmessage.TypeMX, dnsmessage.Type(65)} {
		if code, answers := w.resolve("example.com.", kind); code != dnsmessage.RCodeSuccess || len(answers) != 0 {
			t.Errorf("%v: %v %v", kind, code, answers)
		}
	}
	var b [4]byte
	copy(b[:], netip.MustParseAddr(first).AsSlice())
	code, answers := w.resolve(fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", b[3], b[2], b[1], b[0]), dnsmessage.TypePTR)
	if code != dnsmessage.RCodeSuccess || len(answers) != 1 || answers[0].Body.(*dnsmessage.PTRResource).PTR.String() != "example.com." {
		t.Errorf("back: %v %v", code, answers)
	}
	if code, _ := w.resolve("1.0.0.127.in-addr.arpa.", dnsmessage.TypePTR); code != dnsmessage.RCodeNameError {
		t.Errorf("back of a foreign address: %v", code)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.asked {
		if strings.Contains(a, "secret-data") {
			t.Error("a name that is not allowed went to a name server")
		}
	}
}

// TestPolicyChanges: what is asked after a change is judged by the new policy.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	serve(t, w, "192.0.2.1:80", http.HandlerFunc(hello), false)
	client := w.client(nil)
	for i, want := range []int{403, 200, 403} {
		if i == 1 {
			w.gate.SetPolicy(policy(t, []string{"example.com"}, nil))
		} else if i == 2 {
			w.gate.SetPolicy(policy(t, []string{"*"}, []string{"example.com"}))
		}
		resp, err := client.Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d: %d", i, resp.StatusCode)
		}
	}
}

// TestBounds: more connections than allowed are reset, and their places come back.
func TestBounds(t *testing.T) {
	t.Parallel()
	shared := make(chan struct{}, 8)
	w := newWorld(t, []string{"example.com"}, nil, func(c *egress.Config) { c.Conns, c.Shared = 2, shared })
	w.names["example.com"] = []string{"192.0.2.1"}
	serve(t, w, "192.0.2.1:80", http.HandlerFunc(hello), false)
	at := w.address("example.com") + ":80"
	var held []net.Conn
	for range 2 {
		c, err := w.connect(at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET"); err != nil { // a request that doesn't end
			t.Fatal(err)
		}
		held = append(held, c)
	}
	third, err := w.connect(at)
	if err == nil {
		_, err = third.Read(make([]byte, 1))
		third.Close()
	}
	if err == nil || !isReset(err) {
		t.Errorf("the third: %v", err)
	}
	for _, c := range held {
		c.Close()
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := w.client(nil).Get("http://example.com/")
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestDialContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, []string{"example.com"}, nil, nil)
	w.names["example.com"] = []string{"192.0.2.1"}
	serve(t, w, "192.0.2.1:80", http.HandlerFunc(hello), false)
	client := &http.Client{Transport: &http.Transport{DialContext: w.gate.DialContext, DisableKeepAlives: true}}
	resp, err := client.Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, to := range []string{"other.example:80", "127.0.0.1:80", "[::1]:80", "localhost:80"} {
		if _, err := w.gate.DialContext(t.Context(), "tcp", to); sandbox.CodeOf(err) != sandbox.CodePermissionDenied {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// FuzzDNS: no query ends the gate.
func FuzzDNS(f *testing.F) {
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packed, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xc0}, 40))
	g := egress.New(egress.Config{Policy: policy(f, nil, nil), Logger: slog.New(slog.DiscardHandler)})
	f.Cleanup(g.Close)
	f.Fuzz(func(t *testing.T, query []byte) {
		if reply := egress.Reply(g, query); reply != nil {
			var m dnsmessage.Message
			if err := m.Unpack(reply); err != nil {
				t.Errorf("a reply that can't be read: %v", err)
			}
		}
	})
}
