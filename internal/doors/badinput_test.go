package doors_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/doors"
	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestHostilePaths asks every door for what is no file of the project.
func TestHostilePaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, target := range map[string]string{"root": "/proc/1/root", "loop": "loop", "zero": "/dev/zero", "fd": "/proc/self/fd/0"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	p := w.person("X-Tongs-Session", "ses_a")
	long := strings.Repeat("x", 900)
	for _, path := range []string{
		"..", "../..", "/", "/etc/passwd", "/proc/1/root/etc/passwd", "a/../../x", "a\x00b", strings.Repeat("a/", 3000), strings.Repeat("x", 300), "root", "root/etc", "loop", "zero", "fd", "who/x",
		dir + "x", dir + "/../x", "~", "file:///etc/passwd",
	} {
		for _, route := range []string{"/file", "/file/content"} {
			status, body, _ := p.do("GET", route+"?path="+url.QueryEscape(path), "")
			empty := status == 200 && route == "/file/content" && body == `{"type":"text","content":""}` // a file that is not there
			if !empty && (status < 400 || status >= 500) || strings.Contains(body, "root:x:") {
				t.Errorf("GET %s?path=%.60q: %d %.200s", route, path, status, body)
			}
		}
	}
	for _, path := range []string{
		"/find?pattern=%00", "/find?pattern=" + strings.Repeat("(", 500), "/find/file?query=" + strings.Repeat(long, 2), "/find/file?query=a&query=b", "/find?pattern=a&pattern=b",
		"/find/file?query=a&limit=1e3", "/find/file?query=a&limit=-1", "/vcs/diff?mode=git&mode=branch", "/vcs/diff?mode=git&context=9999999999999999999",
	} {
		if status, body, _ := p.do("GET", path, ""); status != 400 {
			t.Errorf("GET %.60s: %d %.200s", path, status, body)
		}
	}
	for _, query := range []string{"%00", "%ff", "-v", "--pre=sh", "'; touch x; '", "$(touch x)", "../", "*"} {
		if status, body, _ := p.do("GET", "/find/file?query="+url.QueryEscape(query), ""); status != 200 {
			t.Errorf("query %q: %d %s", query, status, body)
		}
		if query == "%00" {
			continue
		}
		if status, body, _ := p.do("GET", "/find?pattern="+url.QueryEscape(query), ""); status != 200 && status != 400 {
			t.Errorf("pattern %q: %d %s", query, status, body)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a query ran a command")
	}
	for _, body := range []string{"", "7", "[]", `{"patch":7}`, `{"patch":null}`, "{", `{"patch":"` + strings.Repeat("x", 2<<20) + `"}`} {
		if status, text, _ := p.do("POST", "/vcs/apply", body); status < 400 || status >= 500 {
			t.Errorf("apply %.40q: %d %s", body, status, text)
		}
	}
	// The next one works.
	if status, body, _ := p.do("GET", "/file?path=", ""); status != 200 || body != "[]" { // links are not listed, as OpenCode does not
		t.Errorf("%d %s", status, body)
	}
}

// TestHostilePatch applies patches that lead out of the project.
func TestHostilePatch(t *testing.T) {
	t.Parallel()
	project := newProject(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(project, "out")); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, project)
	w.session("ses_a", newBox(t, project))
	p := w.person("X-Tongs-Session", "ses_a")
	for _, name := range []string{"../escaped", "/tmp/escaped", "out/escaped", ".git/hooks/pre-commit", "a/../../escaped"} {
		body, err := json.Marshal(map[string]string{"patch": fmt.Sprintf("--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+x\n", name)})
		if err != nil {
			t.Fatal(err)
		}
		if status, text, _ := p.do("POST", "/vcs/apply", string(body)); status != 400 || !strings.Contains(text, "not-clean") {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for _, file := range []string{filepath.Join(project, "../escaped"), filepath.Join(outside, "escaped"), "/tmp/escaped"} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s was made", file)
		}
	}
}

// TestLargeProject has more files than an answer may name, and a file that is too large for one.
func TestLargeProject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 10_050 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%05d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	big, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(10 << 30); err != nil {
		t.Fatal(err)
	}
	big.Close()
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	p := w.person("X-Tongs-Session", "ses_a")
	status, body, header := p.do("GET", "/file?path=", "")
	var nodes []any
	if err := json.Unmarshal([]byte(body), &nodes); err != nil || status != 200 || len(nodes) != 10_000 || header.Get("X-Tongs-Truncated") != "true" {
		t.Errorf("%d, %d entries, %v", status, len(nodes), header)
	}
	if status, body, _ := p.do("GET", "/file/content?path=sparse", ""); status != 413 {
		t.Errorf("%d %.200s", status, body)
	}
	if status, body, _ := p.do("GET", "/find/file?query=09999", ""); status != 200 || !strings.Contains(body, "file-09999") {
		t.Errorf("%d %s", status, body)
	}
}

// liar is a guest that answers as a test wants.
func liar(t *testing.T, methods capnweb.Methods) *sandbox.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	box, err := sandbox.Connect(ctx, func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			if _, err := sandbox.ReadGreetingLine(theirs); err != nil {
				return
			}
			if _, err := theirs.Write([]byte("OK 1 lies\n")); err != nil {
				return
			}
			s := capnweb.NewSession(capnweb.NewStreamTransport(theirs, 0), capnweb.NewTarget(methods, capnweb.Concurrent()))
			<-s.Done()
		}()
		return ours, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	return box
}

// TestGuestThatLies: what it says of names, types and sizes is checked or bounded.
func TestGuestThatLies(t *testing.T) {
	t.Parallel()
	var pages atomic.Int64
	w := newWorld(t, "/home/user/project")
	w.session("ses_a", liar(t, capnweb.Methods{
		"list": func(context.Context, string, sandbox.ListOptions) (*sandbox.ListResult, error) {
			n := pages.Add(1)
			return &sandbox.ListResult{Next: "again", Entries: []sandbox.FileInfo{
				{Name: "../../etc/passwd", Type: "file"}, {Name: "..", Type: "directory"}, {Name: "", Type: "file"}, {Name: "a\x00b", Type: "file"},
				{Name: strings.Repeat("n", 5000), Type: "file"}, {Name: "link", Type: "symlink"}, {Name: "odd", Type: "<script>"},
				{Name: fmt.Sprintf("fine-%d", n), Type: "file", Size: -1, Path: "/etc/shadow"},
			}}, nil
		},
		"readFile": func(_ context.Context, p string, _ sandbox.ReadOptions) (*sandbox.ReadReply, error) {
			switch filepath.Base(p) {
			case "huge":
				return &sandbox.ReadReply{Data: make([]byte, 20<<20)}, nil
			case "error":
				return nil, sandbox.Errf("NO_SUCH_CODE", "x", strings.Repeat("long", 10_000)+"\xff", "")
			}
			return nil, sandbox.Errf(sandbox.CodeFileNotFound, "read", "no", "")
		},
		"exec": func(context.Context, sandbox.StartRequest) (*sandbox.ExecReply, error) {
			return &sandbox.ExecReply{Stdout: []byte("\x00\x00\xff\t-5\tx\x00?? \x00M")}, nil // and no exit status
		},
		"start": func(context.Context, sandbox.StartRequest) (*sandbox.ProcessInfo, error) {
			return &sandbox.ProcessInfo{ID: "another", PID: -1}, nil
		},
		"processes": func(context.Context) ([]sandbox.ProcessInfo, error) {
			return []sandbox.ProcessInfo{{ID: "pty_x", Running: true, Labels: map[string]string{"tongs.terminal": "pty_y"}, Terminal: &sandbox.TerminalSize{}}}, nil
		},
		"tool": func(context.Context, map[string]any) (*sandbox.ToolResult, error) {
			return &sandbox.ToolResult{Output: "x", Attachments: []sandbox.Attachment{{Mime: "text/html", URL: "http://127.0.0.1/"}}}, nil
		},
		"stat": func(context.Context, string) (*sandbox.FileInfo, error) { return nil, nil },
	}))
	p := w.person("X-Tongs-Session", "ses_a")
	status, body, header := p.do("GET", "/file?path=", "")
	if status != 200 || strings.Contains(body, "etc") || strings.Contains(body, "script") || strings.Contains(body, "nnnn") || !strings.Contains(body, `"fine-1"`) || header.Get("X-Tongs-Truncated") == "" {
		t.Errorf("%d %.300s %v", status, body, header)
	}
	if n := pages.Load(); n > 2000 {
		t.Errorf("it was asked for %d pages", n)
	}
	if status, body, _ := p.do("GET", "/file/content?path=huge", ""); status < 400 {
		t.Errorf("%d %.100s", status, body)
	}
	if status, body, _ := p.do("GET", "/file/content?path=error", ""); status != 502 || len(body) > 4000 {
		t.Errorf("%d, %d bytes: %.100s", status, len(body), body)
	}
	for _, path := range []string{"/vcs", "/vcs/status", "/vcs/diff?mode=git", "/vcs/diff/raw", "/find/file?query=a", "/find?pattern=a"} {
		if status, body, _ := p.do("GET", path, ""); status < 400 {
			t.Errorf("GET %s: %d %.200s", path, status, body)
		}
	}
	if status, body, _ := p.do("GET", "/pty", ""); status != 200 || body != "[]" {
		t.Errorf("%d %s", status, body)
	}
	part := `{"parts":[{"type":"file","mime":"image/png","url":"file:///home/user/project/x.png"}]}`
	if status, body, _ := p.do("POST", "/session/ses_a/message", part); status < 400 {
		t.Errorf("%d %s %s", status, body, w.up.last())
	}
}

// TestGuestThatIsSlow: a deadline ends the wait, and the front goes on.
func TestGuestThatIsSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "/home/user/project", func(_ *gateway.Config, d *doors.Config) { d.Timeout = 200 * time.Millisecond })
	stuck := make(chan struct{})
	t.Cleanup(func() { close(stuck) })
	w.session("ses_a", liar(t, capnweb.Methods{
		"list": func(context.Context, string, sandbox.ListOptions) (*sandbox.ListResult, error) {
			<-stuck
			return nil, nil
		},
		"readFile": func(context.Context, string, sandbox.ReadOptions) (*sandbox.ReadReply, error) {
			<-stuck
			return nil, nil
		},
		"exec": func(context.Context, sandbox.StartRequest) (*sandbox.ExecReply, error) { <-stuck; return nil, nil },
	}))
	p := w.person("X-Tongs-Session", "ses_a")
	for _, path := range []string{"/file?path=", "/file/content?path=x", "/vcs", "/pty/shells"} {
		if status, body, _ := p.do("GET", path, ""); status < 500 {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	if status, _, _ := p.do("GET", "/find/symbol?query=x", ""); status != 200 {
		t.Error("the front does not answer")
	}
}

func FuzzIgnoredListing(f *testing.F) {
	f.Add("*.log\n!keep.log\n/build/\n")
	f.Add("[a-\n{x\n\\\n!\n/\n**\n")
	f.Add("a/**/b\n#\n \\ \n")
	f.Fuzz(func(t *testing.T, rules string) {
		own := liar(t, capnweb.Methods{
			"list": func(context.Context, string, sandbox.ListOptions) (*sandbox.ListResult, error) {
				return &sandbox.ListResult{Entries: []sandbox.FileInfo{{Name: "x.log", Type: "file"}, {Name: "build", Type: "directory"}}}, nil
			},
			"readFile": func(context.Context, string, sandbox.ReadOptions) (*sandbox.ReadReply, error) {
				return &sandbox.ReadReply{Data: []byte(rules)}, nil
			},
		})
		w := newWorld(t, "/home/user/project")
		w.session("ses_a", own)
		if status, body, _ := w.person("X-Tongs-Session", "ses_a").do("GET", "/file?path=", ""); status != 200 || !strings.Contains(body, "x.log") {
			t.Errorf("%d %s", status, body)
		}
	})
}
