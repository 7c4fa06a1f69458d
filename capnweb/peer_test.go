package capnweb_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// rawPeer is the other end of a session, spoken by hand.
type rawPeer struct {
	t  *testing.T
	tr capnweb.Transport
	in chan string
	s  *capnweb.Session
}

// newRawPeer begins a session with main and returns its other end.
func newRawPeer(t *testing.T, main any, opts ...capnweb.Option) *rawPeer {
	t.Helper()
	mine, theirs := capnweb.Pipe()
	p := &rawPeer{t: t, tr: mine, in: make(chan string, 1024)}
	p.s = capnweb.NewSession(theirs, main, opts...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(p.in)
		for {
			m, err := mine.ReadMessage()
			if err != nil {
				return
			}
			p.in <- string(m)
		}
	}()
	t.Cleanup(func() {
		_ = mine.Close(nil)
		_ = p.s.Close(nil)
		<-p.s.Done()
		<-done
	})
	return p
}

func (p *rawPeer) send(lines ...string) {
	p.t.Helper()
	for _, l := range lines {
		if err := p.tr.WriteMessages([][]byte{[]byte(l)}); err != nil && err != io.ErrClosedPipe {
			p.t.Fatalf("write %s: %v", l, err)
		}
	}
}

// expect reads messages and compares them, in order.
func (p *rawPeer) expect(lines ...string) {
	p.t.Helper()
	for _, want := range lines {
		select {
		case got, ok := <-p.in:
			if !ok {
				p.t.Fatalf("connection ended, want %s", want)
			}
			if got != want {
				p.t.Fatalf("got  %s\nwant %s", got, want)
			}
		case <-time.After(10 * time.Second):
			p.t.Fatalf("nothing came, want %s", want)
		}
	}
}

// expectAny reads as many messages as there are lines, in any order.
func (p *rawPeer) expectAny(lines ...string) {
	p.t.Helper()
	left := append([]string(nil), lines...)
	for len(left) > 0 {
		select {
		case got, ok := <-p.in:
			if !ok {
				p.t.Fatalf("connection ended, want %s", strings.Join(left, " "))
			}
			found := false
			for i, l := range left {
				if l == got {
					left = append(left[:i], left[i+1:]...)
					found = true
					break
				}
			}
			if !found {
				p.t.Fatalf("got %s\nwant one of %s", got, strings.Join(left, " "))
			}
		case <-time.After(10 * time.Second):
			p.t.Fatalf("nothing came, want %s", strings.Join(left, " "))
		}
	}
}

// ended waits for the end of the session.
func (p *rawPeer) ended() error {
	p.t.Helper()
	select {
	case <-p.s.Done():
		return p.s.Err()
	case <-time.After(10 * time.Second):
		p.t.Fatal("the session did not end")
		return nil
	}
}

func (p *rawPeer) stats(imports, exports int) {
	p.t.Helper()
	waitStats(p.t, p.s, imports, exports)
}

// waitStats waits until the tables have the given sizes.
func waitStats(t *testing.T, s *capnweb.Session, imports, exports int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		st := s.Stats()
		if st.Imports == imports && st.Exports == exports {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("tables: %d imports, %d exports; want %d, %d", st.Imports, st.Exports, imports, exports)
		}
		time.Sleep(time.Millisecond)
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect makes two sessions that are each other's peers.
func connect(t *testing.T, a, b any, opts ...capnweb.Option) (*capnweb.Session, *capnweb.Session) {
	t.Helper()
	ta, tb := capnweb.Pipe()
	sa, sb := capnweb.NewSession(ta, a, opts...), capnweb.NewSession(tb, b, opts...)
	t.Cleanup(func() {
		_ = sa.Close(nil)
		_ = sb.Close(nil)
		<-sa.Done()
		<-sb.Done()
	})
	return sa, sb
}
