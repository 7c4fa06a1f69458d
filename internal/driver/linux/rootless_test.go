//go:build linux

package linux_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// ordinary is a user id that nobody has.
const ordinary = 42424

// smallEnv names the small guest for tests that run as a user who can't build it.
const smallEnv = "TONGS_LINUX_TEST_INIT"

// TestRootless runs the whole suite as an ordinary user without ranges of ids, in a process of its own.
func TestRootless(t *testing.T) {
	t.Parallel()
	asUser(t, idmaptest.User{Name: "bob", ID: ordinary}, "^TestDriver$", 20)
}

// TestRootlessRanges runs it as a user who has them: everything that root's sandboxes do.
func TestRootlessRanges(t *testing.T) {
	t.Parallel()
	asUser(t, idmaptest.Alice, "^(TestDriver|TestWithRanges)$", 20)
}

// asUser runs tests as an ordinary user, of which so many must pass.
func asUser(t *testing.T, user idmaptest.User, tests string, least int, env ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("TestDriver is rootless already")
	}
	dir := dirFor(t, user)
	full := filepath.Join(dir, "full")
	must(t, os.Mkdir(full, 0o700))
	must(t, unix.Mount("tmpfs", full, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=16m,mode=0700,uid=%d,gid=%d", user.ID, user.ID)))
	t.Cleanup(func() { must(t, unix.Unmount(full, unix.MNT_DETACH)) })

	args := []string{"-test.run", tests}
	if os.Getenv("TONGS_TEST_LONG") == "" && user.UIDs != nil {
		args = append(args, "-test.skip", "^TestDriver$/^Contract$") // the guest's own, and it has shown that with one id
	}
	out, err := runAs(t, user, dir, groupFor(t, user.ID, ""), args, append(env, drivertest.FullEnv+"="+full)...)
	passed := strings.Count(out, "--- PASS")
	if err != nil || passed < least {
		t.Fatalf("%v, %d tests passed:\n%s", err, passed, out)
	}
	t.Logf("%d tests passed, %d were skipped", passed, strings.Count(out, "--- SKIP"))
	if testing.Verbose() {
		for line := range strings.Lines(out) {
			if strings.Contains(line, "--- SKIP") || strings.Contains(line, " rows as ") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

// dirFor makes a directory with what a user needs who can't build it.
func dirFor(t *testing.T, user idmaptest.User) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tongs-rootless-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o700))
	must(t, os.Chown(tmp, user.ID, user.ID))
	self, err := os.Executable()
	must(t, err)
	copyProgram(t, self, filepath.Join(dir, "test"))
	copyProgram(t, drivertest.GuestBinary(t).Path, filepath.Join(dir, "tongs-guest"))
	small, err := initBinary()
	must(t, err)
	copyProgram(t, small, filepath.Join(dir, "init"))
	return dir
}

// runAs runs this program as a user, in a directory made by dirFor and in a control group of version 2, if any.
func runAs(t *testing.T, user idmaptest.User, dir string, group *os.File, args []string, env ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "test"), append(args, "-test.v", "-test.timeout", "10m")...)
	cmd.Dir = dir
	tmp := filepath.Join(dir, "tmp")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, driver.GuestEnv + "=" + filepath.Join(dir, "tongs-guest"), smallEnv + "=" + filepath.Join(dir, "init"), "TONGS_TEST_LONG=" + os.Getenv("TONGS_TEST_LONG")}
	cmd.Env = append(cmd.Env, env...)
	if group != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	}
	out, err := user.CombinedOutput(t, cmd)
	return string(out), err
}

// TestWithRanges is what TestRootlessRanges runs besides the suite.
func TestWithRanges(t *testing.T) {
	if os.Geteuid() == 0 || oneUser() {
		t.Skip("TestRootlessRanges runs it")
	}
	home := filepath.Join(t.TempDir(), "home")
	m, err := idmap.Find()
	must(t, err)
	t.Cleanup(func() { must(t, idmap.RemoveAll(context.WithoutCancel(t.Context()), m, home)) })
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(home, "images")})
	must(t, err)
	small := os.Getenv(smallEnv)
	open := func(t *testing.T, cfg linux.Config) *linux.Driver {
		cfg.Home, cfg.Guest = home, &driver.Guest{Path: small}
		d, err := linux.New(cfg)
		must(t, err)
		t.Cleanup(func() { must(t, d.Close()) })
		return d
	}
	owners := "stat -c %u:%g / /etc/passwd /home/user /srv/mine; touch /srv/x 2>&1 | grep -o denied; touch ~/x && stat -c %u ~/x"
	want := "0:0\n0:0\n1000:1000\n7:7\ndenied\n1000"
	t.Run("Copies", func(t *testing.T) {
		d := open(t, linux.Config{NoIdmap: true})
		must(t, d.Create(t.Context(), driver.Spec{ID: "copy", Image: root, Files: []driver.File{{Path: "/srv/mine", UID: 7}}}))
		must(t, d.Create(t.Context(), driver.Spec{ID: "fork", From: "copy"}))
		for _, id := range []string{"copy", "fork"} {
			if got := sh(t, d, id, owners); got != want {
				t.Errorf("%s: %q", id, got)
			}
			must(t, d.Destroy(t.Context(), id))
		}
	})
	t.Run("CutShort", func(t *testing.T) {
		d := open(t, linux.Config{})
		must(t, d.Create(t.Context(), driver.Spec{ID: "cut", Image: root}))
		sh(t, d, "cut", "mkdir -m 700 ~/private && touch ~/private/file")
		must(t, d.Stop(t.Context(), "cut"))
		// As a process that was killed leaves it before it has written the record.
		sandboxes := filepath.Join(home, "sandboxes")
		must(t, os.Rename(filepath.Join(sandboxes, "cut"), filepath.Join(sandboxes, ".new-cut")))
		must(t, os.Remove(filepath.Join(sandboxes, ".new-cut", "sandbox.json")))
		if _, err := d.Recover(t.Context()); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(sandboxes); err != nil || len(left) > 0 {
			t.Errorf("left over: %v %v", left, err)
		}
	})
	t.Run("OneKey", func(t *testing.T) {
		d := open(t, linux.Config{})
		before := keys(t)
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			must(t, d.Create(t.Context(), driver.Spec{ID: id, Image: root}))
			defer d.Destroy(context.WithoutCancel(t.Context()), id)
		}
		if n := keys(t) - before; n > 2 { // two threads may both be the first
			t.Errorf("six sandboxes took %d of the keys that a user may have", n)
		}
	})
	t.Run("ForeignIDs", func(t *testing.T) {
		d := open(t, linux.Config{})
		other := root
		other.Map.UIDs = []idmap.Extent{{Outside: 100_000, Size: idmap.Full}}
		err := d.Create(t.Context(), driver.Spec{ID: "foreign", Image: other})
		if sandbox.CodeOf(err) != driver.CodeUnsupported || !strings.Contains(err.Error(), "usermod --add-subuids") {
			t.Errorf("ids that aren't this user's: %v", err)
		}
		other.Map.UIDs = []idmap.Extent{{Outside: 0, Size: idmap.Full}}
		if err := d.Create(t.Context(), driver.Spec{ID: "foreign", Image: other}); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("the host's root: %v", err)
		}
	})
}

// keys is how many keys this user has: proc_key_users(5).
func keys(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/key-users")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		var uid, usage, n int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%d: %d %d/", &uid, &usage, &n); err == nil && uid == os.Getuid() {
			return n
		}
	}
	return 0
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
