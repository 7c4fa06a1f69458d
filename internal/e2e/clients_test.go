package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// attach opens the stock terminal client.
func (s *service) attach(t *testing.T) *terminal {
	t.Helper()
	binary := filepath.Join(s.home, "opencode", "1.18.33", "opencode")
	term := openTerminal(t, append(environ(s.home), "HOME="+t.TempDir(), "OPENCODE_DISABLE_AUTOUPDATE=1"), binary, "attach", s.url)
	term.await("Ask anything")
	return term
}

// TestTerminalClient sees the output of a command while it runs, stops one, and answers a tool that asks.
// The words that are waited for are made by the commands: no command line has them.
func TestTerminalClient(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	config := filepath.Join(t.TempDir(), "opencode.json")
	if err := os.WriteFile(config, []byte(`{"permission":{"bash":{"*":"allow","touch *":"ask"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := up(t, newHome(t), withArgs("--opencode-config", config))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
	})
	term := s.attach(t)

	term.typeText(`[{"tool":"bash","args":{"command":"echo live-$((40+2)); exec sleep 318"}},{"text":"not said"}]`, "Enter")
	term.await("live-42", "esc interrupt")
	if !running("sleep 318") {
		t.Error("the command does not run, so its output was not live")
	}
	term.typeText("", "Escape")
	term.await("esc again to interrupt")
	term.typeText("", "Escape")
	await(t, "the command to end", func() bool { return !running("sleep 318") })
	term.await("interrupted")

	ask := func(word string) {
		term.typeText(`[{"tool":"bash","args":{"command":"touch `+word+`; echo `+word+`-$((50+3))"}},{"text":"`+word+` was tried"}]`, "Enter")
		term.await("Permission required", "Allow once", "Reject")
	}
	ask("first")
	term.typeText("", "Enter") // allow once
	term.await("first-53", "first was tried")
	ask("second")
	term.typeText("", "Escape") // reject
	session := s.sessions()[0]
	await(t, "the rejected command to end", func() bool {
		_, history := s.call("GET", "/session/"+session+"/message", nil)
		return strings.Contains(string(history), "user rejected permission")
	})
	await(t, "the question to go", func() bool { return !strings.Contains(term.screen(), "Permission required") })
	if seen := term.screen(); strings.Contains(seen, "second-53") {
		t.Errorf("the rejected command ran:\n%s", seen)
	}
	if got := s.bash(session, "ls"); !strings.Contains(got, "first") || strings.Contains(got, "second") {
		t.Errorf("the sandbox has %q", got)
	}
}

// sessions lists the ids of the sessions, the latest first.
func (s *service) sessions() []string {
	s.t.Helper()
	_, body := s.call("GET", "/session", nil)
	var list []struct{ ID string }
	if err := json.Unmarshal(body, &list); err != nil || len(list) == 0 {
		s.t.Fatalf("GET /session: %s", body)
	}
	var ids []string
	for _, one := range list {
		ids = append(ids, one.ID)
	}
	return ids
}
