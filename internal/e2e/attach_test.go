package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// terminal is a program in a tmux of its own.
type terminal struct {
	t      *testing.T
	socket string
}

// openTerminal runs argv in a terminal of 150 × 45.
func openTerminal(t *testing.T, env []string, argv ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("needs tmux")
	}
	term := &terminal{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	args := append([]string{"-S", term.socket, "-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "45", "--"}, argv...)
	args = append(args, ";", "set", "remain-on-exit", "on")
	cmd := exec.Command("tmux", args...)
	cmd.Env = append(env, "TERM=xterm-256color", "LANG=C.UTF-8")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux: %v %s", err, out)
	}
	t.Cleanup(func() { exec.Command("tmux", "-S", term.socket, "kill-server").Run() })
	return term
}

// screen is the text that is to be seen.
func (term *terminal) screen() string {
	out, _ := exec.Command("tmux", "-S", term.socket, "capture-pane", "-p").Output()
	return string(out)
}

// typeText types text and then the named keys ("Enter", "Escape").
func (term *terminal) typeText(text string, keys ...string) {
	term.t.Helper()
	exec.Command("tmux", "-S", term.socket, "send-keys", "-l", text).Run()
	for _, key := range keys {
		exec.Command("tmux", "-S", term.socket, "send-keys", key).Run()
	}
}

// await waits until the screen shows each of the texts.
func (term *terminal) await(texts ...string) string {
	term.t.Helper()
	deadline := time.After(90 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		seen := term.screen()
		missing := ""
		for _, text := range texts {
			if !strings.Contains(seen, text) {
				missing = text
			}
		}
		if missing == "" {
			return seen
		}
		select {
		case <-tick.C:
		case <-deadline:
			term.t.Fatalf("the screen does not show %q:\n%s", missing, seen)
		}
	}
}

// TestAttach drives the stock terminal client as a person would.
func TestAttach(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	s := up(t, newHome(t))
	binary := filepath.Join(s.home, "opencode", "1.18.33", "opencode")
	term := openTerminal(t, append(environ(s.home), "HOME="+t.TempDir(), "OPENCODE_DISABLE_AUTOUPDATE=1"), binary, "attach", s.url)
	term.await("Ask anything")
	term.typeText("Write a Node.js script random.js that prints a random number between 0 and 100, run it, tell me the number and show me the file.", "Enter")
	seen := term.await("$ node random.js", "printed the random number")
	if dir := os.Getenv("TONGS_TEST_ARTIFACTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "attach.txt"), []byte(seen), 0o644); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/home/user/project/random.js"); err == nil {
		t.Error("random.js is on the host")
	}
}
