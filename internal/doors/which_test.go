package doors_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// mark makes a project with one file that says whose it is.
func mark(t testing.TB, who string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "who"), []byte(who), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// twoSessions is a world with two sessions, each with a sandbox, and a subagent's of the first.
// Whose sandbox answers is seen by the terminals that are opened in it.
func twoSessions(t testing.TB) *world {
	t.Helper()
	project := t.TempDir()
	w := newWorld(t, project)
	for _, id := range []string{"ses_a", "ses_b"} {
		w.session(id, newBox(t, mark(t, id)))
	}
	w.mu.Lock()
	w.roots["ses_child"] = "ses_a"
	w.mu.Unlock()
	return w
}

// who says whose sandbox answers: the id of the session, or "" for none.
func (p *person) who(header ...string) string {
	p.t.Helper()
	status, body, _ := p.do("POST", "/pty", `{"command":"cat"}`, header...)
	switch status {
	case 409:
		return ""
	case 200:
	default:
		return fmt.Sprint(status)
	}
	id := strings.Split(body, `"`)[3]
	for _, session := range []string{"ses_a", "ses_b"} {
		if _, list, _ := p.do("GET", "/pty", "", "X-Tongs-Session", session); strings.Contains(list, id) {
			p.do("DELETE", "/pty/"+id, "")
			return session
		}
	}
	return "nobody's"
}

func (p *person) works(session string) {
	p.t.Helper()
	if status, body, _ := p.do("POST", "/session/"+session+"/message", `{"parts":[{"type":"text","text":"hi"}]}`); status != 200 {
		p.t.Fatalf("%d %s", status, body)
	}
}

// watches opens the stream of events that each program has, until the function is called.
func (p *person) watches() (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", p.url+"/global/event", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = p.header.Clone()
	resp, err := (&http.Client{Transport: p.client.Transport}).Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			resp.Body.Close()
		})
	}
	p.t.Cleanup(stop)
	return stop
}

func (p *person) want(session string, header ...string) {
	p.t.Helper()
	if got := p.who(header...); got != session {
		p.t.Errorf("the sandbox of %q answers, want that of %q", got, session)
	}
}

// eventually waits for what the front learns when a connection has ended.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestTwoClientsAtOnce(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	one, two := w.person("User-Agent", "one"), w.person("User-Agent", "two")
	one.want("")
	one.works("ses_a")
	two.want("")
	two.works("ses_b")
	var all sync.WaitGroup
	for _, c := range []struct {
		p       *person
		session string
	}{{one, "ses_a"}, {two, "ses_b"}} {
		all.Go(func() {
			for range 20 {
				c.p.want(c.session)
			}
		})
	}
	all.Wait()
	// A subagent's session is in its root's sandbox.
	two.works("ses_child")
	two.want("ses_a")
	one.works("ses_b")
	one.want("ses_b")
	// To open a session is to work with it; to list them is not.
	one.do("GET", "/session/ses_a/message", "")
	one.want("ses_a")
	one.do("GET", "/session", "")
	one.do("GET", "/session/ses_b/todo", "")
	one.want("ses_a")
}

func TestUsersAreTold(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	for user, session := range map[string]string{"YTp4": "ses_a", "Yjp4": "ses_b"} { // a:x, b:x
		w.person("User-Agent", "same", "Authorization", "Basic "+user).works(session)
	}
	for user, session := range map[string]string{"YTp4": "ses_a", "Yjp4": "ses_b", "Yzp4": ""} {
		w.person("User-Agent", "same", "Authorization", "Basic "+user).want(session)
	}
}

// TestProgramsThatLookTheSame: two terminal clients of one person on one machine.
func TestProgramsThatLookTheSame(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	one, two := w.person("User-Agent", "tui"), w.person("User-Agent", "tui")
	stopOne, stopTwo := one.watches(), two.watches()
	one.works("ses_a")
	two.works("ses_b")
	// Connections belong to one program each.
	one.want("ses_a")
	two.want("ses_b")
	// A new connection may be either's.
	fresh := w.person("User-Agent", "tui")
	fresh.want("")
	// Both in one session: nothing to decide.
	one.works("ses_b")
	two.works("ses_child")
	two.works("ses_a")
	fresh = w.person("User-Agent", "tui")
	fresh.want("")
	// The other one has ended: the one that goes on working decides.
	stopTwo()
	eventually(t, "the ambiguity to end", func() bool {
		one.works("ses_a")
		return w.person("User-Agent", "tui").who() == "ses_a"
	})
	stopOne()
}

// TestBehindAProxy: its connections carry the requests of several people.
func TestBehindAProxy(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	proxy := w.person("User-Agent", "same")
	as := func(address string) []string { return []string{"X-Forwarded-For", address} }
	for address, session := range map[string]string{"10.0.0.1": "ses_a", "10.0.0.2": "ses_b"} {
		if status, body, _ := proxy.do("POST", "/session/"+session+"/message", `{"parts":[]}`, as(address)...); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	proxy.want("ses_a", as("10.0.0.1")...)
	proxy.want("ses_b", as("10.0.0.2")...)
	proxy.want("", as("10.0.0.3")...)
	// One that says nothing of whom it speaks for, by programs that say something else of themselves.
	silent := w.person()
	for agent, session := range map[string]string{"x": "ses_a", "y": "ses_b"} {
		silent.do("POST", "/session/"+session+"/message", `{"parts":[]}`, "User-Agent", agent)
	}
	silent.want("ses_a", "User-Agent", "x")
	silent.want("ses_b", "User-Agent", "y")
	silent.want("", "User-Agent", "z")
}

func TestNamedSession(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	p := w.person()
	p.works("ses_a")
	p.want("ses_b", "X-Tongs-Session", "ses_b")
	p.want("ses_a", "X-Tongs-Session", "ses_child")
	p.want("404", "X-Tongs-Session", "ses_unknown")
	p.want("400", "X-Tongs-Session", strings.Repeat("x", 200))
	// The web page says which session it shows.
	host := strings.TrimPrefix(w.url, "http://")
	p.want("ses_b", "Referer", w.url+"/L2hvbWU/session/ses_b")
	p.want("ses_b", "Referer", "http://"+host+"/L2hvbWU/session/ses_b?x=y")
	p.want("", "Referer", w.url+"/")
	p.want("", "Referer", w.url+"/L2hvbWU/session")
	p.want("404", "Referer", w.url+"/x/session/ses_unknown")
	p.want("ses_a", "Referer", "https://evil.example/x/session/ses_b") // a link from elsewhere means nothing
	// Sessions that are gone mean nothing.
	p.works("ses_gone")
	p.want("")
}

func TestWorkspacesAreRefused(t *testing.T) {
	t.Parallel()
	w := twoSessions(t)
	p := w.person()
	p.works("ses_a")
	for _, c := range [][]string{
		{"/vcs?directory=/workspaces/x"}, {"/api/fs/find?query=a&location%5Bdirectory%5D=/workspaces/x"}, {"/vcs", "X-Opencode-Directory", "%2Fworkspaces%2Fx"},
	} {
		if status, body, _ := p.do("GET", c[0], "", c[1:]...); status != 400 || !strings.Contains(body, "NO_WORKSPACES") {
			t.Errorf("%v: %d %s", c, status, body)
		}
	}
	for _, dir := range []string{"/etc", "/home/user/project", "/"} {
		p.want("ses_a", "X-Opencode-Directory", dir)
	}
}
