package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// temporary is a directory for a service's TMPDIR in which the users of sandboxes can make none of that name.
func temporary(t *testing.T) string {
	dir, err := os.MkdirTemp("/srv", "tongs-e2e-")
	if err != nil {
		return os.TempDir() // only root can make one
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestWebfetch holds that the tool reaches what the session's sandbox reaches, and nothing else.
func TestWebfetch(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a canary of the host")) }))
	t.Cleanup(canary.Close)
	s := up(t, newHome(t), withEnv("TMPDIR="+temporary(t)))
	session := s.session()
	s.bash(session, "echo '<h1>Of the sandbox</h1>' > index.html; (python3 -m http.server 8000 >/dev/null 2>&1 &); "+
		"for i in $(seq 300); do (echo > /dev/tcp/127.0.0.1/8000) 2>/dev/null && break; sleep 0.1; done")
	for _, url := range []string{"http://localhost:8000/", "http://127.0.0.1:8000/index.html"} {
		p := s.one(session, "tongs/scripted", "webfetch", map[string]any{"url": url})
		if p.State.Status != "completed" || p.State.Output != "# Of the sandbox" || !strings.HasPrefix(p.State.Title, url+" (text/html") {
			t.Errorf("%s: %+v\n%s", url, p.State, s.output())
		}
	}
	// One from which nothing leads to the other session's sandbox.
	if p := s.one(s.session(), "tongs/scripted", "webfetch", map[string]any{"url": "http://localhost:8000/"}); p.State.Status != "error" {
		t.Errorf("another session fetched %+v", p.State)
	}
	for _, url := range []string{canary.URL, "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]:" + canary.URL[strings.LastIndexByte(canary.URL, ':')+1:],
		"http://nothing.example/", s.url + "/session", "http://0.0.0.0:8787/"} {
		p := s.one(session, "tongs/scripted", "webfetch", map[string]any{"url": url, "timeout": 20})
		if p.State.Status != "error" || p.State.Error == "" || strings.Contains(p.State.Output, "canary") {
			t.Errorf("%s: %+v", url, p.State)
		}
		t.Logf("%s: %s", url, p.State.Error)
	}
}
