//go:build linux

package linux_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

// create makes a sandbox that must come to be.
func create(t testing.TB, d *linux.Driver, spec driver.Spec) {
	t.Helper()
	if spec.Image.ID == "" {
		spec.Image = hostImage(t)
	}
	if err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// TestWays makes the same sandbox in each of the ways that machines force upon the driver.
func TestWays(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name   string
		change func(*linux.Config)
	}{
		{"layers", nil},
		{"copy", func(c *linux.Config) { c.NoIdmap = true }},
		{"no cgroups", func(c *linux.Config) { c.NoCgroups = true }},
		{"long home", func(c *linux.Config) {
			c.Home = filepath.Join(c.Home, strings.Repeat("long/", 40), "home")
			if err := os.MkdirAll(c.Home, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, way.change)
			create(t, d, driver.Spec{ID: "one", Hostname: "here", Files: []driver.File{{Path: "/home/user/a/b", Data: []byte("given"), UID: 1000}}})
			const look = "id -u; pwd; stat -c '%u %a' / /etc/passwd /home/user /tmp; cat ~/a/b; hostname; git log --oneline | wc -l; touch x && stat -c %u x"
			const want = "1000\n/home/user/project\n0 755\n0 644\n1000 755\n0 1777\ngivenhere\n1\n1000"
			if got := sh(t, d, "one", look); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if err := d.Stop(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			if err := d.Start(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			if got := sh(t, d, "one", look+"; ls x"); got != want+"\nx" {
				t.Errorf("again: got  %q\nwant %q", got, want)
			}
		})
	}
}

// TestCgroup2 uses a version 2 hierarchy, whatever controllers it has.
func TestCgroup2(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := cgroup2Root()
	if root == "" {
		t.Skip("no cgroup 2 hierarchy is mounted")
	}
	guest := drivertest.GuestBinary(t)
	d := newDriver(t, func(c *linux.Config) { c.CgroupV2, c.Guest = root, &guest })
	create(t, d, driver.Spec{ID: "two"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "two") })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", "id -G; grep 0:: /proc/self/cgroup"}}})
	if err != nil || !strings.HasPrefix(string(res.Stdout), "1000\n0::/tongs/two.") || !strings.HasSuffix(string(res.Stdout), "/cmd\n") {
		t.Errorf("a command's group: %+v, %v", res, err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "tongs", "two.*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("groups: %v, %v", dirs, err)
	}
	procs, err := os.ReadFile(filepath.Join(dirs[0], "guest", "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(procs)) == "" {
		t.Errorf("the guest isn't in its group: %q, %v", procs, err)
	}
	if err := d.Destroy(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dirs[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the group is left: %v", err)
	}
}

// TestOwnIDs checks that no two sandboxes share a user id, and that what they write is nobody's outside.
func TestOwnIDs(t *testing.T) {
	t.Parallel()
	d := newDriver(t, nil)
	seen := make(map[string]string)
	for _, id := range []string{"a", "b", "c"} {
		create(t, d, driver.Spec{ID: id})
		base := strings.Fields(sh(t, d, id, "cat /proc/self/uid_map"))
		if len(base) != 3 || base[0] != "0" || base[2] != "65536" {
			t.Fatalf("%s: %q", id, base)
		}
		if other, taken := seen[base[1]]; taken {
			t.Errorf("%s and %s share ids from %s", id, other, base[1])
		}
		seen[base[1]] = id
		if got := sh(t, d, id, "cat /proc/self/setgroups; cat /proc/self/gid_map | tr -s ' '"); got != "allow\n 0 "+base[1]+" 65536" {
			t.Errorf("%s: %q", id, got)
		}
	}
}

// TestImageUntouched compares an image before and after a sandbox has changed and removed all it can.
func TestImageUntouched(t *testing.T) {
	t.Parallel()
	d := newDriver(t, nil)
	img := hostImage(t)
	digest := func() string {
		out, err := exec.Command("bash", "-c", "cd "+img.Lower[0]+" && find . -printf '%p %m %U %G %s %T@ %l\n' | sort | sha256sum").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := digest()
	create(t, d, driver.Spec{ID: "vandal", Image: img})
	if got := sh(t, d, "vandal", "rm -rf ~/project ~/.gitconfig; chmod 700 ~; echo x > ~/new; ls -A ~"); got != "new" {
		t.Errorf("got %q", got)
	}
	if after := digest(); after != before {
		t.Error("the image has changed")
	}
	if err := d.Stop(t.Context(), "vandal"); err != nil {
		t.Fatal(err)
	}
	create(t, d, driver.Spec{ID: "other", Image: img})
	if got := sh(t, d, "other", "ls -A ~"); got != ".gitconfig\nproject" {
		t.Errorf("another sandbox of the image: %q", got)
	}
}

// TestHostileDisk starts a sandbox again whose mount points were replaced by links while it was stopped,
// as somebody with root inside could have done.
func TestHostileDisk(t *testing.T) {
	t.Parallel()
	for _, place := range []string{"proc", "tmp", "dev", "usr"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			d := newDriver(t, func(c *linux.Config) { c.Home = home })
			create(t, d, driver.Spec{ID: "bad"})
			if err := d.Stop(t.Context(), "bad"); err != nil {
				t.Fatal(err)
			}
			upper := filepath.Join(home, "sandboxes", "bad", "upper", place)
			if err := os.RemoveAll(upper); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/etc", upper); err != nil {
				t.Fatal(err)
			}
			err := d.Start(t.Context(), "bad")
			if sandbox.CodeOf(err) != driver.CodeGuestFailed || !strings.Contains(err.Error(), "/"+place) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDamaged destroys what can't be started any more.
func TestDamaged(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	d := newDriver(t, func(c *linux.Config) { c.Home = home })
	create(t, d, driver.Spec{ID: "hurt", Labels: map[string]string{"whose": "mine"}})
	if err := d.Stop(t.Context(), "hurt"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "sandboxes", "hurt", "sandbox.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := d.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Damaged == "" || all[0].Labels["whose"] != "mine" {
		t.Errorf("List: %+v, %v", all, err)
	}
	if done, err := d.Recover(t.Context()); err != nil || len(done) != 0 {
		t.Errorf("Recover took files away: %v, %v", done, err)
	}
	if err := d.Start(t.Context(), "hurt"); sandbox.CodeOf(err) != driver.CodeGuestFailed {
		t.Errorf("Start: %v", err)
	}
	if err := d.Destroy(t.Context(), "hurt"); err != nil {
		t.Error(err)
	}
	if done, err := d.Recover(t.Context()); err != nil || len(done) != 1 {
		t.Errorf("Recover gives back the ids: %v, %v", done, err)
	}
	nothingLeft(t, d)
}

// TestFullDisk makes sandboxes on a file system that has no room for them: each attempt fails with a
// code and leaves nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=40"); err != nil {
		t.Skipf("no tmpfs to fill: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	home := filepath.Join(dir, "home")
	d := newDriver(t, func(c *linux.Config) { c.Home = home })
	create(t, d, driver.Spec{ID: "fits"})
	for spare := range 12 {
		fill(t, dir, spare)
		err := d.Create(t.Context(), driver.Spec{ID: "late", Image: hostImage(t)})
		if err == nil {
			if err := d.Destroy(t.Context(), "late"); err != nil {
				t.Fatal(err)
			}
		} else if sandbox.CodeOf(err) != sandbox.CodeNoSpace {
			t.Errorf("%d inodes free: %v", spare, err)
		}
		unfill(t, dir)
		nothingLeft(t, d)
	}
	if got := sh(t, d, "fits", "echo fine"); got != "fine" {
		t.Errorf("the sandbox that was there: %q", got)
	}
}

// fill takes all inodes of a file system but some.
func fill(t *testing.T, dir string, spare int) {
	t.Helper()
	for i := 0; ; i++ {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if st.Ffree <= uint64(spare) {
			return
		}
		f, err := os.CreateTemp(dir, "filler-")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func unfill(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "filler-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoLayers puts a home where neither an overlay nor an idmapped mount is possible: the driver makes
// copies by itself.
func TestNoLayers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	err := unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work")
	if err != nil {
		t.Skipf("no overlay to stand on: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	d := newDriver(t, func(c *linux.Config) { c.Home = filepath.Join(merged, "home") })
	create(t, d, driver.Spec{ID: "one"})
	if got := sh(t, d, "one", "git status --porcelain && touch a && ls"); got != "a" {
		t.Errorf("got %q", got)
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	d := newDriver(t, func(c *linux.Config) { c.Home = home })
	create(t, d, driver.Spec{ID: "one"})
	f, err := os.Open(filepath.Join(home, "sandboxes", "one"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Stop(ctx, "one"); sandbox.CodeOf(err) != driver.CodeBusy {
		t.Errorf("Stop while another process holds the sandbox: %v", err)
	}
}

func TestGuestBinaryMissing(t *testing.T) {
	t.Parallel()
	d := newDriver(t, func(c *linux.Config) { c.Guest = &driver.Guest{Path: "/nonexistent/tongs-guest"} })
	err := d.Create(t.Context(), driver.Spec{ID: "one", Image: hostImage(t)})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/tongs-guest") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, d)
}

// TestGuestDies gives the driver a first process that ends at once, and one that isn't a program.
func TestGuestDies(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"/bin/true", "/bin/cat", text} {
		t.Run(filepath.Base(p), func(t *testing.T) {
			t.Parallel()
			d := newDriver(t, func(c *linux.Config) { c.Guest = &driver.Guest{Path: p} })
			err := d.Create(t.Context(), driver.Spec{ID: "one", Image: hostImage(t)})
			var e *sandbox.Error
			if !errors.As(err, &e) || e.Code != driver.CodeGuestFailed || e.Hint == "" {
				t.Errorf("got %#v", err)
			}
			nothingLeft(t, d)
		})
	}
}

func TestUnwritableHome(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, home := range []string{"/proc/tongs", "relative", ""} {
		_, err := linux.New(linux.Config{Home: home})
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Message == "" {
			t.Errorf("%q: got %v", home, err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	d := newDriver(t, nil)
	names := make(map[string]driver.Level)
	for _, f := range d.Check(t.Context()) {
		names[f.Name] = f.Level
		if f.Level == driver.Failure || f.Detail == "" {
			t.Errorf("%+v", f)
		}
		t.Logf("%-8s %s: %s %s", f.Level, f.Name, f.Detail, f.Cure)
	}
	for _, want := range []string{"kernel", "rights", "namespaces", "overlay", "programs in memory", "cgroups", "swap", "disk", "guest binary", "host image", "sandbox"} {
		if names[want] == "" {
			t.Errorf("nothing about %s", want)
		}
	}
	all, err := d.List(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("Check left %v, %v", all, err)
	}
}

// nothingLeft waits until nothing is left of sandboxes that don't exist. A process that another test is
// just starting has copies of all descriptors for a moment, so that a dead guest's socket listens on.
func nothingLeft(t *testing.T, d *linux.Driver) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		left, err := d.Leaks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left: %v", left)
			return
		}
	}
}
