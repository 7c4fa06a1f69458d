package gateway_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
)

// TestEventsAreSentBetweenOpenCodes puts an event between two of OpenCode's, and never into one.
func TestEventsAreSentBetweenOpenCodes(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/event", "/global/event"} {
		pr, pw := io.Pipe()
		up := &upstream{answer: func(*http.Request, []byte) *http.Response { return reply(200, "text/event-stream", pr) }}
		var send func(gateway.Event)
		srv := httptest.NewServer(front(t, up, func(c *gateway.Config) {
			c.Events = func(s func(gateway.Event)) { send = s }
		}))
		send(gateway.Event{Type: "nobody"}) // nobody listens
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string)
		go func() {
			defer close(lines)
			for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
				lines <- sc.Text()
			}
		}()
		next := func() string {
			t.Helper()
			for {
				select {
				case line, ok := <-lines:
					if !ok {
						t.Fatal("the stream ended")
					}
					if line != "" {
						return line
					}
				case <-time.After(30 * time.Second):
					t.Fatal("nothing comes")
				}
			}
		}
		write := func(s string) {
			t.Helper()
			if _, err := io.WriteString(pw, s); err != nil {
				t.Fatal(err)
			}
		}
		write("data: one\n\n")
		if got := next(); got != "data: one" {
			t.Errorf("%q", got)
		}
		send(gateway.Event{Type: "pty.exited", Properties: map[string]any{"id": "pty_1", "exitCode": 0}})
		got := next()
		if !strings.Contains(got, `"properties":{"exitCode":0,"id":"pty_1"}`) || !strings.Contains(got, `"type":"pty.exited"`) || strings.Contains(got, `"payload"`) != (path == "/global/event") {
			t.Errorf("%q", got)
		}
		write("data: tw")
		send(gateway.Event{Type: "between"})
		write("o\n")
		write("\n")
		if got := next(); got != "data: two" {
			t.Errorf("%q", got)
		}
		if got := next(); !strings.Contains(got, "between") {
			t.Errorf("%q", got)
		}
		for range 1000 { // more than wait for a client
			send(gateway.Event{Type: "many"})
		}
		pw.Close()
		for range lines {
		}
		resp.Body.Close()
		srv.Close()
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
