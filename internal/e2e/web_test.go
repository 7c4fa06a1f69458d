package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed web/*.mjs web/package.json web/package-lock.json
var webScripts embed.FS

// missing skips a test for want of a program or a network, or fails it where CI is to have installed them.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// noRegistry matches what npm prints when it cannot reach its registry.
var noRegistry = regexp.MustCompile(`\b(ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ENOTCACHED|ERR_SOCKET_TIMEOUT)\b`)

// webDir returns a folder with the scripts and what they need from npm, which is installed once into the
// user's cache.
func webDir(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, "needs %s", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lockFile, err := webScripts.ReadFile("web/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lockFile)
	root := filepath.Join(cache, "tongs-test")
	dir := filepath.Join(root, "web-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	await(t, "another test's npm", func() bool { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		fresh, err := os.MkdirTemp(root, "install-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(fresh)
		writeWebScripts(t, fresh)
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		npm := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
		npm.Dir, npm.WaitDelay = fresh, 5*time.Second
		if out, err := npm.CombinedOutput(); err != nil && (ctx.Err() != nil || noRegistry.Match(out)) {
			missing(t, "needs packages from npm: %s", bytes.TrimSpace(out))
		} else if err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
		if err := os.Rename(fresh, dir); err != nil {
			t.Fatal(err)
		}
	}
	work := t.TempDir()
	writeWebScripts(t, work)
	if err := os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(work, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return work
}

func writeWebScripts(t *testing.T, dir string) {
	t.Helper()
	entries, err := webScripts.ReadDir("web")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := webScripts.ReadFile("web/" + e.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// report is one line that a script prints.
type report struct {
	Name    string   `json:"name"`
	Error   string   `json:"error"`
	Refused []string `json:"refused"`
	Errors  []string `json:"errors"`
}

// node runs a script and makes a test of each step that it reports. It returns the last line, if that is no step.
func node(t *testing.T, dir string, steps int, args ...string) report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("node %s: %v\n%s", args[0], err, stderr.String())
	}
	var last report
	ran := 0
	for line := range strings.Lines(string(out)) {
		last = report{}
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Errorf("node %s printed %s", args[0], line)
			continue
		}
		if last.Name == "" {
			continue
		}
		ran++
		t.Run(last.Name, func(t *testing.T) {
			if last.Error != "" {
				t.Error(last.Error)
			}
		})
	}
	if ran != steps {
		t.Errorf("%d of %d steps were done\n%s", ran, steps, stderr.String())
	}
	return last
}

// TestWebPage uses the page that OpenCode brings along in a browser, as a person does.
func TestWebPage(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	chromium := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && chromium == "" {
			chromium = path
		}
	}
	if chromium == "" {
		missing(t, "needs chromium")
	}
	dir := webDir(t)
	s := up(t, newHome(t))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
	})
	shots := filepath.Join("..", "..", "artifacts", "web")
	if given := os.Getenv("TONGS_TEST_ARTIFACTS"); given != "" {
		shots = filepath.Join(given, "web")
	}
	shots, err := filepath.Abs(shots)
	if err != nil {
		t.Fatal(err)
	}
	done := node(t, dir, 10, "page.mjs", s.url, chromium, shots)
	// The project is a repository already, and where OpenCode lives none is made.
	known := []string{"403 POST /project/git/init"}
	for _, refused := range done.Refused {
		if !slices.Contains(known, refused) {
			t.Errorf("a request of the page's was answered with %s", refused)
		}
	}
	for _, text := range done.Errors {
		t.Errorf("the page's console has an error: %s", text)
	}
}

// TestSDK uses the front by the JavaScript SDK of the pinned OpenCode, and by `opencode run --attach`, which has
// to print its answer each time.
func TestSDK(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	s := up(t, newHome(t))
	t.Run("SDK", func(t *testing.T) { node(t, webDir(t), 5, "sdk.mjs", s.url) })
	t.Run("run prints its answer", func(t *testing.T) {
		s := s.in(t)
		for i := range 10 {
			text := fmt.Sprintf("The answer is %d.", i*i)
			out, err := s.client("run", "--attach", s.url, "--model", "tongs/scripted", `[{"text":"`+text+`"}]`)
			if err != nil || !strings.Contains(out, text) {
				t.Fatalf("round %d: %v\n%s", i, err, out)
			}
		}
	})
	t.Run("run prints JSON", func(t *testing.T) {
		s := s.in(t)
		out, err := s.client("run", "--attach", s.url, "--model", "tongs/scripted", "--format", "json",
			`[{"tool":"bash","args":{"command":"echo in-$((40+2))"}},{"text":"told"}]`)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var kinds []string
		for line := range strings.Lines(out) {
			var event struct {
				Type string `json:"type"`
				Part part   `json:"part"`
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatalf("not JSON: %q", line)
			}
			kinds = append(kinds, event.Type)
			if event.Type == "tool_use" && event.Part.State.Output != "in-42\n" {
				t.Errorf("the command gave %q", event.Part.State.Output)
			}
			if event.Type == "text" && event.Part.Text != "told" {
				t.Errorf("the answer is %q", event.Part.Text)
			}
		}
		want := []string{"step_start", "tool_use", "step_finish", "step_start", "text", "step_finish"}
		if !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
	})
}
