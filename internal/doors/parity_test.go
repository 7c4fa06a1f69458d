package doors_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newProject makes a git repository with changes of every kind.
func newProject(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "project")
	put := func(name, content string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	put("a.txt", "alpha\nneedle one\nomega\n")
	put("src/main.go", "package main\n\nfunc main() { println(\"needle\") }\n")
	put("src/deep/er/x.ts", "export const needle = 1\n")
	put("B.md", "\ufeff\n  # Title\n\ntext  \n\n")
	put("_under", "u")
	put("1st", "1")
	put("a-b", "x")
	put("a_b", "x")
	put("Zeta", "z")
	put("zeta", "z")
	put("ünï.txt", "umlaut needle ü\n")
	put(".gitignore", "*.log\n/build/\n!keep.log\nnode_modules/\n# comment\n{x}\n")
	put(".ignore", "secret*\n")
	put("x.log", "needle ignored")
	put("keep.log", "kept")
	put("build/out.o", "needle")
	put("node_modules/m/index.js", "needle")
	put("secret.txt", "s")
	put("{x}", "brace")
	put(".hidden/file", "needle hidden\n")
	put("empty", "")
	put("nul.bin", "a\x00b needle")
	put("latin.txt", "caf\xe9\n")
	put("pic.png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
	put("space name.txt", "needle here\n")
	put("gone.txt", "will go\n")
	put("long.txt", strings.Repeat("needle ", 600)+"\n")
	if err := os.Symlink("a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main")
	git("add", "-A")
	git("commit", "-q", "-m", "one")
	git("checkout", "-q", "-b", "topic")
	put("committed.txt", "on the branch\n")
	git("add", "-A")
	git("commit", "-q", "-m", "two")
	put("a.txt", "alpha\nneedle two\nomega\nmore\n")
	put("new/untracked.txt", "one\ntwo\n")
	put("staged.txt", "s\n")
	git("add", "staged.txt")
	if err := os.Remove(filepath.Join(dir, "gone.txt")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSameAsOpenCode asks the real OpenCode and the doors the same about the same files.
func TestSameAsOpenCode(t *testing.T) {
	t.Parallel()
	project := newProject(t)
	w := newWorld(t, project)
	w.session("ses_a", newBox(t, project))
	p := w.person("X-Tongs-Session", "ses_a")
	real := &person{t: t, url: startOpenCode(t, project), client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}, header: http.Header{}}

	decode := func(s string) any {
		var v any
		if json.Unmarshal([]byte(s), &v) != nil {
			return s
		}
		return v
	}
	q := url.QueryEscape
	for _, path := range []string{
		"/file?path=", "/file?path=.", "/file?path=src", "/file?path=src/", "/file?path=src/deep/er", "/file?path=" + q(project), "/file?path=" + q("./src/../.hidden"),
		"/file/content?path=a.txt", "/file/content?path=B.md", "/file/content?path=empty", "/file/content?path=nul.bin",
		"/file/content?path=pic.png", "/file/content?path=missing.txt", "/file/content?path=link", "/file/content?path=" + q("ünï.txt"), "/file/content?path=" + q(project+"/a.txt"),
		"/file/content?path=src/main.go", "/file/content?path=%7Bx%7D",
		"/file/status", "/find/symbol?query=main",
		"/vcs", "/vcs/status", "/vcs/diff?mode=git", "/vcs/diff?mode=branch", "/vcs/diff?mode=git&context=1", "/vcs/diff/raw",
		"/pty",
	} {
		wantStatus, wantBody, wantHeader := real.do("GET", path, "")
		gotStatus, gotBody, gotHeader := p.do("GET", path, "")
		if d := cmp.Diff(decode(wantBody), decode(gotBody)); gotStatus != wantStatus || d != "" {
			t.Errorf("GET %s: %d, OpenCode %d\n(-OpenCode +here) %s", path, gotStatus, wantStatus, d)
		}
		if want, got := wantHeader.Get("Content-Type"), gotHeader.Get("Content-Type"); strings.Split(want, ";")[0] != strings.Split(got, ";")[0] {
			t.Errorf("GET %s: type %q, OpenCode %q", path, got, want)
		}
	}
	// OpenCode fails on a text that is not UTF-8.
	if status, body, _ := p.do("GET", "/file/content?path=latin.txt", ""); status != 200 || !strings.Contains(body, `"binary"`) {
		t.Errorf("a text in another encoding: %d %s", status, body)
	}
	// Searches come in the order in which ripgrep's threads find them.
	for _, pattern := range []string{"needle one", "needle two", "umlaut", `needle\s+h`, "nothing at all", "-e", "needle", "^text"} {
		var want, got []map[string]any
		real.get("/find?pattern="+q(pattern), &want)
		p.get("/find?pattern="+q(pattern), &got)
		byPath := func(x, y map[string]any) int {
			a, _ := json.Marshal(x)
			b, _ := json.Marshal(y)
			return strings.Compare(string(a), string(b))
		}
		slices.SortFunc(want, byPath)
		slices.SortFunc(got, byPath)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("GET /find?pattern=%s\n(-OpenCode +here) %s", pattern, d)
		}
	}
	// Names are scored by another method, so the best has to be the same and no more.
	for _, query := range []string{"query=main", "query=x.ts", "query=untracked", "query=a.txt&type=file", "query=hidden&type=directory", "query=main&dirs=false", "query=staged&limit=1"} {
		var want, got []string
		real.get("/find/file?"+query, &want)
		p.get("/find/file?"+query, &got)
		if len(want) == 0 || len(got) == 0 || got[0] != want[0] {
			t.Errorf("GET /find/file?%s: %q, OpenCode %q", query, got, want)
		}
		var wantAPI, gotAPI struct {
			Location struct{ Directory string }
			Data     []map[string]any
		}
		query = strings.TrimSuffix(query, "&dirs=false")
		real.get("/api/fs/find?"+query, &wantAPI)
		p.get("/api/fs/find?"+query, &gotAPI)
		if len(gotAPI.Data) == 0 || cmp.Diff(gotAPI.Data[0], wantAPI.Data[0]) != "" || gotAPI.Location != wantAPI.Location {
			t.Errorf("GET /api/fs/find?%s: %v, OpenCode %v", query, gotAPI, wantAPI)
		}
	}
	// Refusals: the status may be another (OpenCode says 500 to much), success may not.
	for _, path := range []string{
		"/file", "/file?path=missing", "/file?path=a.txt", "/file?path=..", "/file?path=/etc", "/file/content", "/file/content?path=src", "/file/content?path=../x",
		"/file/content?path=/etc/passwd", "/find", "/find?pattern=(", "/find/file", "/find/file?query=a&limit=0", "/find/file?query=a&limit=201", "/find/file?query=a&type=x",
		"/vcs/diff", "/vcs/diff?mode=x", "/vcs/diff?mode=git&context=-1", "/pty/pty_none",
	} {
		want, wantBody, _ := real.do("GET", path, "")
		got, body, _ := p.do("GET", path, "")
		if want < 400 || got < 400 || got >= 500 {
			t.Errorf("GET %s: %d %.200s, OpenCode %d %.200s", path, got, body, want, wantBody)
		}
	}
	_, want, _ := real.do("GET", "/pty/pty_none", "")
	_, got, _ := p.do("GET", "/pty/pty_none", "")
	if d := cmp.Diff(decode(want), decode(got)); d != "" {
		t.Errorf("an unknown terminal (-OpenCode +here) %s", d)
	}
	for _, patch := range []string{`{"patch":"nonsense"}`, `{"patch":"--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n-never\n+x\n needle two\n"}`} {
		wantStatus, want, _ := real.do("POST", "/vcs/apply", patch)
		gotStatus, got, _ := p.do("POST", "/vcs/apply", patch)
		if d := cmp.Diff(decode(want), decode(got)); d != "" || wantStatus != gotStatus {
			t.Errorf("apply: %d, OpenCode %d (-OpenCode +here) %s", gotStatus, wantStatus, d)
		}
	}
	patch, _ := json.Marshal(map[string]string{"patch": "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n-alpha\n+ALPHA\n needle two\n"})
	if status, body, _ := p.do("POST", "/vcs/apply", string(patch)); status != 200 || body != `{"applied":true}` {
		t.Errorf("apply: %d %s", status, body)
	}
	if b, err := os.ReadFile(filepath.Join(project, "a.txt")); err != nil || !strings.HasPrefix(string(b), "ALPHA") {
		t.Errorf("the patch was not applied: %q %v", b, err)
	}
}
