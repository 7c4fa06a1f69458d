package httprpc_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// TestOtherLibraryAsClient: another implementation of WebSocket talks to the handler.
func TestOtherLibraryAsClient(t *testing.T) {
	t.Parallel()
	url := serve(t, &httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }, MaxMessageBytes: 3 << 20})
	ctx := testContext(t)
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(4 << 20)
	for i, n := range []int{0, 1, 100, 125, 126, 127, 65_400, 65_535, 65_536, 70_000, 2 << 20} {
		text := strings.Repeat("x", n)
		w, err := c.Writer(ctx, websocket.MessageText) // in fragments
		if err != nil {
			t.Fatal(err)
		}
		msg := `["push",["pipeline",0,["echo"],["` + text + `"]]]`
		for len(msg) > 0 {
			k := min(len(msg), 40_000)
			if _, err := io.WriteString(w, msg[:k]); err != nil {
				t.Fatal(err)
			}
			msg = msg[k:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		pull := `["pull",` + string(rune('0'+(i+1)/10)) + string(rune('0'+(i+1)%10)) + `]`
		pull = strings.Replace(pull, ",0", ",", 1)
		if err := c.Write(ctx, websocket.MessageText, []byte(pull)); err != nil {
			t.Fatal(err)
		}
		kind, b, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageText {
			t.Fatal(n, err)
		}
		if !strings.HasSuffix(string(b), `,"`+text+`"]`) {
			t.Fatalf("%d: %.100s", n, b)
		}
	}
	pinged := make(chan error, 1)
	go func() { pinged <- c.Ping(ctx) }()
	rctx, stop := context.WithCancel(ctx)
	go func() { <-pinged; stop() }()
	_, _, _ = c.Read(rctx) // answers are only noticed while reading
	if rctx.Err() == nil {
		t.Fatal("no pong")
	}
	stop()
}

// TestCloses: how a session ends is told in the close frame.
func TestCloses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, send string
		kind       websocket.MessageType
		code       websocket.StatusCode
		reason     string
	}{
		{"protocol error", `["bogus"]`, websocket.MessageText, 3000, `bad RPC message: ["bogus"]`},
		{"long reason", `["bogus","` + strings.Repeat("é", 100) + `"]`, websocket.MessageText, 3000, `bad RPC message: ["bogus","` + strings.Repeat("é", 48)},
		{"binary", `[]`, websocket.MessageBinary, 3000, "Received unexpected message type from WebSocket."},
		{"too big", strings.Repeat("x", 20_000), websocket.MessageText, 3000, "Incoming message exceeds maximum size of 10000 bytes."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, &httprpc.Handler{Main: func(*http.Request) (any, error) { return target(), nil }, MaxMessageBytes: 10_000})
			ctx := testContext(t)
			ws, _, err := websocket.Dial(ctx, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			if err := ws.Write(ctx, c.kind, []byte(c.send)); err != nil {
				t.Fatal(err)
			}
			for {
				_, b, err := ws.Read(ctx)
				if err == nil {
					if !strings.HasPrefix(string(b), `["abort",`) {
						t.Fatalf("%s", b)
					}
					continue
				}
				var ce websocket.CloseError
				if !errors.As(err, &ce) || ce.Code != c.code || !strings.HasPrefix(ce.Reason, strings.TrimSuffix(c.reason, "é")) {
					t.Fatal(err)
				}
				return
			}
		})
	}
}

// TestOtherLibraryAsServer: our client talks to another implementation.
func TestOtherLibraryAsServer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		for i := 0; ; i++ {
			_, b, err := ws.Read(r.Context())
			if err != nil {
				return
			}
			if strings.HasPrefix(string(b), `["pull",1]`) {
				_ = ws.Write(r.Context(), websocket.MessageText, []byte(`["resolve",1,"hi"]`))
				ws.Close(4321, "had enough")
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	s := dial(t, srv.URL, nil)
	p := s.Main().Call("x", strings.Repeat("y", 200_000))
	defer p.Close()
	var text string
	if err := p.Await(testContext(t), &text); err != nil || text != "hi" {
		t.Fatal(text, err)
	}
	<-s.Done()
	if !strings.Contains(s.Err().Error(), "Peer closed WebSocket: 4321 had enough") {
		t.Fatal(s.Err())
	}
}

func TestHandshakeRefusals(t *testing.T) {
	t.Parallel()
	url := batchServer(t, &httprpc.Handler{})
	base := map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
	}
	for _, c := range []struct {
		header, value string
		status        int
	}{
		{"Sec-WebSocket-Version", "8", 426}, {"Sec-WebSocket-Key", "x", 400}, {"Connection", "close", 400}, {"Origin", "http://evil.example", 403}, {"", "", 101},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		for k, v := range base {
			req.Header.Set(k, v)
		}
		if c.header != "" {
			req.Header.Set(c.header, c.value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(c, err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %s: %s", c.header, c.value, resp.Status)
		}
	}
	// A server that does not prove that it speaks WebSocket.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answers := []string{
		"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 100_000),
		"garbage",
		"",
	}
	go func() {
		for _, a := range answers {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, a)
			_ = c.Close()
		}
	}()
	for _, a := range answers {
		if s, err := httprpc.Dial(testContext(t), "ws://"+l.Addr().String(), nil); err == nil {
			s.Close(nil)
			t.Errorf("%.60q was accepted", a)
		}
	}
	for _, bad := range []string{"ftp://x", "::", "ws://127.0.0.1:1"} {
		if _, err := httprpc.Dial(testContext(t), bad, nil); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestDialContextEnds: a server that does not answer is given up.
func TestDialContextEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := httprpc.Dial(ctx, "ws://"+l.Addr().String(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := httprpc.Dial(t.Context(), "ws://"+l.Addr().String(), &httprpc.DialOptions{HandshakeTimeout: 50 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// TestPingBurst: of pings that come faster than answers can be written, the last is
// answered in any case, and those that were overtaken cost nothing.
func TestPingBurst(t *testing.T) {
	t.Parallel()
	var in []byte
	for i := range 40 {
		in = append(in, 0x89, 0x80|2, 0, 0, 0, 0, byte('0'+i/10), byte('0'+i%10))
	}
	in = append(in, "\x81\x82\x00\x00\x00\x00[]"...)
	mine, theirs := net.Pipe()
	tr := httprpc.NewSocket(theirs, bufio.NewReader(bytes.NewReader(in)), false, 1000)
	if m, err := tr.ReadMessage(); err != nil || string(m) != "[]" { // all pings were read before it
		t.Fatalf("%q, %v", m, err)
	}
	_ = mine.SetReadDeadline(time.Now().Add(10 * time.Second))
	for n := 1; ; n++ {
		pong := make([]byte, 4)
		if _, err := io.ReadFull(mine, pong); err != nil {
			t.Fatalf("the last ping was not answered: %v", err)
		}
		if pong[0] != 0x8a || pong[1] != 2 || n > 2 {
			t.Fatalf("answer %d: %q", n, pong)
		}
		if string(pong[2:]) == "39" {
			break
		}
	}
	_ = mine.Close()
	_ = tr.Close(nil)
}

// FuzzFrames feeds bytes to the reading side of a WebSocket.
func FuzzFrames(f *testing.F) {
	for _, s := range []string{
		"\x81\x82\x00\x00\x00\x00[]", "\x01\x81\x00\x00\x00\x00[\x80\x81\x00\x00\x00\x00]", "\x89\x80\x00\x00\x00\x00", "\x88\x82\x00\x00\x00\x00\x03\xe8",
		"\x81\xfe\x00\x02\x00\x00\x00\x00[]", "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00[]", "\x82\x80\x00\x00\x00\x00", "\xc1\x80\x00\x00\x00\x00", "\x81\x02[]",
		"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, client bool) {
		mine, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, mine) }()
		tr := httprpc.NewSocket(theirs, bufio.NewReader(bytes.NewReader(data)), client, 1000)
		total := 0
		for {
			m, err := tr.ReadMessage()
			if err != nil {
				break
			}
			if total += len(m); total > len(data) || len(m) > 1000 {
				t.Fatalf("%d bytes of messages from %d", total, len(data))
			}
		}
		_ = tr.Close(nil)
		_ = mine.Close()
	})
}

// FuzzFrameRoundTrip writes a message and reads it back.
func FuzzFrameRoundTrip(f *testing.F) {
	f.Add([]byte("[]"), true)
	for _, n := range []int{30_000, 32 << 10, 70_000, 256<<10 - 3, 300_001, 9 << 20} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i % 251)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, client bool) {
		a, b := net.Pipe()
		w := httprpc.NewSocket(a, bufio.NewReader(a), client, 16<<20)
		r := httprpc.NewSocket(b, bufio.NewReader(b), !client, 16<<20)
		go func() { _ = w.WriteMessages([][]byte{msg, msg}) }()
		for range 2 {
			got, err := r.ReadMessage()
			if err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("%v: %d bytes, want %d", err, len(got), len(msg))
			}
		}
		_ = a.Close()
		_ = b.Close()
	})
}
