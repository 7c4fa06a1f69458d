package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRemovedDirectory removes the directory of a running sandbox by hand: the next start ends what is
// left of it, and serves.
func TestRemovedDirectory(t *testing.T) {
	needSandboxes(t)
	if os.Geteuid() != 0 {
		t.Skip("needs control groups, which root has: nothing else leads to a sandbox without a directory")
	}
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	session := s.session()
	s.bash(session, "setsid sleep 541 >/dev/null 2>&1 &")
	for _, file := range sandboxes(t, home) {
		dir := filepath.Dir(file)
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(session)) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.done
	again := up(t, home)
	await(t, "the removed sandbox to end", func() bool { return !running("sleep 541") })
	again.bash(again.session(), "true")
}
