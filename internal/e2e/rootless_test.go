package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
)

// TestOrdinaryUsers runs the demo as ordinary users, with a range of ids and without: OpenCode in its sandbox, a
// session in another, and nothing left of either that the user couldn't remove.
func TestOrdinaryUsers(t *testing.T) {
	t.Parallel()
	needSandboxes(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become other users; the other tests are an ordinary one's already")
	}
	for _, user := range []idmaptest.User{idmaptest.Alice, {Name: "bob", ID: 42424}} {
		t.Run(user.Name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "tongs-user-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			home, tmp := filepath.Join(dir, "home"), filepath.Join(dir, "tmp")
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, at := range []string{home, tmp} {
				if err := os.Mkdir(at, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			giveOpenCode(t, home)
			for _, at := range []string{home, filepath.Join(home, "opencode"), tmp} {
				if err := os.Chown(at, user.ID, user.ID); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"tongs", "tongs-guest"} {
				data, err := os.ReadFile(filepath.Join(bin, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, name), data, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, "tongs"), "demo")
			cmd.Dir, cmd.Env = tmp, environ(home, "TMPDIR="+tmp, "HOME="+tmp)
			out, err := user.CombinedOutput(t, cmd)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"random.js printed the random number", "in the session's sandbox", "on this machine"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if left, err := filepath.Glob(filepath.Join(tmp, "tongs-*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
