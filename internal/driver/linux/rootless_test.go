//go:build linux

package linux_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
)

// ordinary is a user id that nobody has.
const ordinary = 42424

// TestRootless runs the whole suite as an ordinary user, in a process of its own.
func TestRootless(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestDriver is rootless already")
	}
	dir, err := os.MkdirTemp("", "tongs-rootless-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o700))
	must(t, os.Chown(tmp, ordinary, ordinary))
	self, err := os.Executable()
	must(t, err)
	binary, guest := filepath.Join(dir, "test"), filepath.Join(dir, "tongs-guest")
	copyProgram(t, self, binary)
	copyProgram(t, drivertest.GuestBinary(t).Path, guest)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^TestDriver$", "-test.v", "-test.timeout", "10m")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, driver.GuestEnv + "=" + guest}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	passed := strings.Count(string(out), "--- PASS")
	if err != nil || passed < 20 {
		t.Fatalf("%v, %d tests passed:\n%s", err, passed, out)
	}
	t.Logf("%d tests passed, %d were skipped", passed, strings.Count(string(out), "--- SKIP"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	r, err := os.Open(from)
	must(t, err)
	defer r.Close()
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	must(t, err)
	_, err = io.Copy(w, r)
	must(t, err)
	must(t, w.Close())
}
