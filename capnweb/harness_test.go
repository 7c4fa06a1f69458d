package capnweb_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// patience bounds waits for what must happen, on a machine with much else to do.
const patience = 30 * time.Second

// harness is a client and a server, with what each of them said. When the test ends, both
// refer to nothing but the main objects, unless it broke the line itself.
type harness struct {
	client, server *capnweb.Session
	api            *capnweb.Stub
	ctx            context.Context
	said           messageLog // by the client
	answered       messageLog // by the server
	broken         bool
}

func newHarness(t *testing.T, main any, opts ...capnweb.Option) *harness {
	t.Helper()
	h := &harness{}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	h.ctx = ctx
	a, b := capnweb.Pipe()
	h.client = capnweb.NewSession(a, nil, append([]capnweb.Option{capnweb.WithObserver(&h.said)}, opts...)...)
	h.server = capnweb.NewSession(b, main, append([]capnweb.Option{capnweb.WithObserver(&h.answered)}, opts...)...)
	h.api = h.client.Main()
	t.Cleanup(func() {
		if !h.broken && !t.Failed() {
			waitStats(t, h.client, 1, 1)
			waitStats(t, h.server, 1, 1)
		}
		cancel()
		_ = h.client.Close(nil)
		<-h.client.Done()
		<-h.server.Done()
	})
	return h
}

// settle returns when each side has handled all that the other had sent when it was called.
// The server must have a method square.
func (h *harness) settle(t *testing.T) {
	t.Helper()
	for range 2 {
		want[int](t, 4)(capnweb.Call[int](h.ctx, h.api, "square", 2))
	}
}

// messageLog observes what a session sends.
type messageLog struct {
	mu   sync.Mutex
	list []string
}

func (l *messageLog) Message(_ *capnweb.Session, sent bool, text []byte) {
	if sent {
		l.mu.Lock()
		l.list = append(l.list, string(text))
		l.mu.Unlock()
	}
}
func (*messageLog) CallEnd(*capnweb.Session, string, error) {}
func (*messageLog) SessionEnd(*capnweb.Session, error)      {}

// count is the number of messages of a kind.
func (l *messageLog) count(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, m := range l.list {
		if strings.HasPrefix(m, `["`+kind+`"`) {
			n++
		}
	}
	return n
}

// spy makes targets and sees them closed.
type spy struct {
	n      atomic.Int64
	closed chan struct{}
}

func newSpy() *spy { return &spy{closed: make(chan struct{}, 64)} }

func (s *spy) target(m capnweb.Methods) *capnweb.Target {
	return capnweb.NewTarget(m, capnweb.OnClose(func() {
		s.n.Add(1)
		s.closed <- struct{}{}
	}))
}

// stub is a stub of a target without methods.
func (s *spy) stub() *capnweb.Stub { return capnweb.NewStub(s.target(capnweb.Methods{})) }

// times waits until targets were closed as often as that.
func (s *spy) times(t *testing.T, n int) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for i := range n {
		select {
		case <-s.closed:
		case <-timeout.C:
			t.Fatalf("closed %d times, want %d", i, n)
		}
	}
	if got := s.n.Load(); got != int64(n) {
		t.Fatalf("closed %d times, want %d", got, n)
	}
}

func (s *spy) notYet(t *testing.T) {
	t.Helper()
	if n := s.n.Load(); n != 0 {
		t.Fatalf("closed too early, %d times", n)
	}
}

// same compares what a call returned.
func same[T any](t *testing.T, wanted T) func(T, error) {
	t.Helper()
	return func(got T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		} else if d := cmp.Diff(wanted, got); d != "" {
			t.Error(d)
		}
	}
}

// fails checks an error's text.
func fails(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want one with %q", err, text)
	}
}

// await waits for a promise's outcome and drops it.
func await(ctx context.Context, p *capnweb.Promise) error {
	defer p.Close()
	return p.Await(ctx, nil)
}

// soon receives what comes on a channel.
func soon[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
