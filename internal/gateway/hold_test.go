package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
)

// live is an upstream whose streams of events and replies the test writes.
type live struct {
	mu      sync.Mutex
	streams []*io.PipeWriter
	turn    *io.PipeWriter
	status  int
}

func (l *live) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	pr, pw := io.Pipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	kind, status := "application/json", 200
	if strings.HasSuffix(r.URL.Path, "event") {
		kind = "text/event-stream"
		l.streams = append(l.streams, pw)
	} else {
		l.turn = pw
		if l.status != 0 {
			status = l.status
		}
	}
	resp := reply(status, kind, pr)
	resp.Request = r
	return resp, nil
}

func (l *live) event(i int, status string) {
	l.mu.Lock()
	pw := l.streams[i]
	l.mu.Unlock()
	e := fmt.Sprintf(`{"id":"evt","type":"session.status","properties":{"sessionID":"ses_1","status":{"type":%q}}}`, status)
	if i%2 == 1 { // as on /global/event
		e = `{"directory":"/d","payload":` + e + `}`
	}
	_, _ = io.WriteString(pw, "data: "+e+"\n\n")
}

func (l *live) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pw := range l.streams {
		_ = pw.Close()
	}
}

// pending is a request under way; done is closed when its reply is complete.
type pending struct {
	w    *httptest.ResponseRecorder
	done chan struct{}
}

func start(h http.Handler, r *http.Request) *pending {
	p := &pending{httptest.NewRecorder(), make(chan struct{})}
	go func() {
		defer close(p.done)
		h.ServeHTTP(p.w, r)
	}()
	return p
}

func (p *pending) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

const hello = `{"parts":[{"type":"text","text":"hi"}]}`

func holdTest(t *testing.T, f func(t *testing.T, l *live, h http.Handler)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &live{}
		h, err := gateway.New(gateway.Config{Upstream: l, Listen: "localhost:8787", Directory: directory})
		if err != nil {
			t.Fatal(err)
		}
		defer l.closeAll()
		f(t, l, h)
	})
}

func TestReplyWaitsForTheIdleEvent(t *testing.T) {
	holdTest(t, func(t *testing.T, l *live, h http.Handler) {
		start(h, request("GET", "/event", ""))
		start(h, request("GET", "/global/event", ""))
		synctest.Wait()
		l.event(0, "idle") // the end of an earlier turn that is still on its way
		prompt := start(h, request("POST", "/session/ses_1/message", hello))
		synctest.Wait()
		l.event(0, "idle")
		l.event(0, "busy")
		l.event(1, "busy")
		_, _ = io.WriteString(l.turn, `{"info":{}}`)
		_ = l.turn.Close()
		synctest.Wait()
		time.Sleep(time.Second)
		if prompt.over() {
			t.Fatal("the reply came before any stream said idle")
		}
		l.event(0, "idle")
		synctest.Wait()
		time.Sleep(time.Second / 2)
		if prompt.over() {
			t.Fatal("the reply came before the second stream said idle")
		}
		begin := time.Now()
		l.event(1, "idle")
		<-prompt.done
		if d := time.Since(begin); d < 10*time.Millisecond || d > 200*time.Millisecond {
			t.Errorf("the reply came %v after the last idle", d)
		}
		if prompt.w.Code != 200 || prompt.w.Body.String() != `{"info":{}}` {
			t.Errorf("reply %d %q", prompt.w.Code, prompt.w.Body)
		}
	})
}

func TestReplyIsHeldForABoundedTime(t *testing.T) {
	holdTest(t, func(t *testing.T, l *live, h http.Handler) {
		start(h, request("GET", "/event", ""))
		synctest.Wait()
		prompt := start(h, request("POST", "/session/ses_1/command", `{"command":"init","arguments":""}`))
		synctest.Wait()
		begin := time.Now()
		go func() {
			_, _ = io.WriteString(l.turn, strings.Repeat("x", 200<<10))
			_ = l.turn.Close()
		}()
		<-prompt.done
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("held for %v", d)
		}
		if prompt.w.Body.Len() != 200<<10 {
			t.Errorf("%d bytes came", prompt.w.Body.Len())
		}
	})
}

func TestRepliesThatAreNotHeld(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*live)
		event  func(*http.Request)
		target string
		body   string
	}{
		"another client's stream": {event: func(r *http.Request) { r.RemoteAddr = "10.0.0.9:1" }},
		"an error":                {change: func(l *live) { l.status = 500 }},
		"no reply wanted":         {body: `{"noReply":true,"parts":[]}`},
		"prompt_async":            {target: "/session/ses_1/prompt_async"},
		"the stream ends":         {change: func(l *live) { go func() { time.Sleep(time.Millisecond); l.closeAll() }() }},
	} {
		t.Run(name, func(t *testing.T) {
			holdTest(t, func(t *testing.T, l *live, h http.Handler) {
				r := request("GET", "/event", "")
				if tc.event != nil {
					tc.event(r)
				}
				start(h, r)
				synctest.Wait()
				if tc.change != nil {
					tc.change(l)
				}
				target, body := "/session/ses_1/message", hello
				if tc.target != "" {
					target = tc.target
				}
				if tc.body != "" {
					body = tc.body
				}
				begin := time.Now()
				prompt := start(h, request("POST", target, body))
				synctest.Wait()
				_, _ = io.WriteString(l.turn, `{}`)
				_ = l.turn.Close()
				<-prompt.done
				if d := time.Since(begin); d > 100*time.Millisecond {
					t.Errorf("held for %v", d)
				}
			})
		})
	}
}

func TestClientThatLeavesIsNotWaitedFor(t *testing.T) {
	holdTest(t, func(t *testing.T, l *live, h http.Handler) {
		start(h, request("GET", "/event", ""))
		synctest.Wait()
		r := request("POST", "/session/ses_1/message", hello)
		ctx, cancel := contextWithCancel(r)
		prompt := start(h, r.WithContext(ctx))
		synctest.Wait()
		_ = l.turn.Close()
		synctest.Wait()
		begin := time.Now()
		cancel()
		<-prompt.done
		if d := time.Since(begin); d > 0 {
			t.Errorf("waited %v", d)
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add("data: {\"type\":\"session.status\",\"properties\":{\"sessionID\":\"s\",\"status\":{\"type\":\"idle\"}}}\n\n")
	f.Add("data: {\"payload\":{\"type\":\"session.status\",\"properties\":3}}\n: x\ndata:\"session.status\"\n")
	f.Add(strings.Repeat("data: x", 20000) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		up := &upstream{answer: func(*http.Request, []byte) *http.Response {
			return reply(200, "text/event-stream", strings.NewReader(text))
		}}
		if w := ask(front(t, up, nil), request("GET", "/event", "")); w.Body.String() != text {
			t.Errorf("%q became %q", text, w.Body)
		}
	})
}
