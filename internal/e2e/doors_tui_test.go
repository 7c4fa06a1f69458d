package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestDoorsInTheTerminalClient uses what a person types into two stock clients on one machine: commands
// with !, completion of @ and files by it. Each sees the files of its own session.
func TestDoorsInTheTerminalClient(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	binary := filepath.Join(home, "opencode", "1.18.33", "opencode")
	open := func() *terminal {
		t.Helper()
		term := openTerminal(t, append(environ(home), "HOME="+t.TempDir(), "OPENCODE_DISABLE_AUTOUPDATE=1"), binary, "attach", s.url)
		term.await("Ask anything")
		return term
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
	})
	one, two := open(), open()
	// A command of the person's, typed at once: it makes the session.
	shell := func(term *terminal, command string, want ...string) {
		t.Helper()
		term.typeText("!")
		term.await("Shell")
		term.typeText(command, "Enter")
		term.await(want...)
	}
	// The files' names are not to be read in the commands, which stay on the screen.
	shell(one, "echo one-$((40+2)) | tee zebra-$((10+1)).txt; id -un", "one-42", "user")
	shell(two, "echo two-$((40+3)) | tee zebra-$((20+2)).txt; id -un", "two-43", "user")
	plant(t, home, "zebra-host.txt", doorCanary)

	complete := func(term *terminal, want, not string) {
		t.Helper()
		term.typeText("@zebra")
		seen := term.await(want)
		if strings.Contains(seen, not) || strings.Contains(seen, "zebra-host") {
			t.Errorf("completion shows more than %s:\n%s", want, seen)
		}
		term.typeText("", "Enter") // takes the name
		term.typeText("what is in it?", "Enter")
	}
	complete(one, "zebra-11.txt", "zebra-22")
	complete(two, "zebra-22.txt", "zebra-11")

	// The prompts carried the files of the sandboxes.
	for _, want := range []string{"1: one-42", "1: two-43"} {
		await(t, "a prompt with "+want, func() bool {
			_, list := s.call("GET", "/session", nil)
			for _, part := range strings.Split(string(list), `"id":"`)[1:] {
				id, _, _ := strings.Cut(part, `"`)
				if !strings.HasPrefix(id, "ses_") {
					continue
				}
				if _, history := s.call("GET", "/session/"+id+"/message", nil); strings.Contains(string(history), want) {
					return !strings.Contains(string(history), "canary")
				}
			}
			return false
		})
	}
}
