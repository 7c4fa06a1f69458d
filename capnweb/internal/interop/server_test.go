package interop_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// goServer serves the suite from this process, and keeps its sessions at hand.
type goServer struct {
	*httptest.Server
	sessions *sessions

	mu     sync.Mutex
	suites []*suite
}

// newMain makes the main object of one session.
func (s *goServer) newMain() *capnweb.Target {
	target, state := newSuite()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suites = append(s.suites, state)
	return target
}

// expectNoneLive waits until every object that was made for the sessions so far is
// closed.
func (s *goServer) expectNoneLive(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(caseTime)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.suites {
		for state.made.Load() != state.disposed.Load() {
			if time.Now().After(deadline) {
				t.Fatalf("%d objects were made, %d closed", state.made.Load(), state.disposed.Load())
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// sessions are those that a server has seen, by the id in their URL.
type sessions struct {
	mu sync.Mutex
	m  map[string]*capnweb.Session
}

// newSessions makes the record of a server's sessions. When the test ends, all of
// them must have.
func newSessions(t *testing.T) *sessions {
	t.Helper()
	ss := &sessions{m: map[string]*capnweb.Session{}}
	t.Cleanup(func() {
		timeout := time.NewTimer(10 * time.Second)
		defer timeout.Stop()
		ss.mu.Lock()
		defer ss.mu.Unlock()
		for name, s := range ss.m {
			select {
			case <-s.Done():
			case <-timeout.C:
				t.Errorf("the session %s has not ended with its client", name)
				return
			}
		}
	})
	return ss
}

func (ss *sessions) add(r *http.Request, s *capnweb.Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.m[r.URL.Path+"?"+r.FormValue("id")] = s
}

func (ss *sessions) len() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.m)
}

func (ss *sessions) get(t *testing.T, path, id string) *capnweb.Session {
	t.Helper()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.m[path+"?"+id]
	if s == nil {
		t.Fatalf("no session %s?id=%s", path, id)
	}
	return s
}

// serveSuite serves peers of a version of the reference.
func serveSuite(t *testing.T, version string) *goServer {
	t.Helper()
	var opts []capnweb.Option
	if version != "0.8.0" {
		opts = append(opts, capnweb.WithNewerEncodings())
	}
	seen := newSessions(t)
	s := &goServer{sessions: seen}
	s.Server = httptest.NewServer(&httprpc.Handler{
		Main:      func(*http.Request) (any, error) { return s.newMain(), nil },
		OnSession: seen.add,
		Session:   opts,
	})
	t.Cleanup(s.Close)
	return s
}

func (s *goServer) url(scheme, id string) string {
	return fmt.Sprintf("%s://%s/?id=%s", scheme, s.Listener.Addr(), id)
}

// expectIdle waits until a session of ours refers to nothing but the main objects.
func expectIdle(t *testing.T, what string, s *capnweb.Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		got := s.Stats()
		if (tables{got.Imports, got.Exports}) == idle {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("%s: the tables after the case: %+v, want one import and one export", what, got)
			return
		}
	}
}
