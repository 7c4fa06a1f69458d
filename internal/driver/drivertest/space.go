package drivertest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// smallHome gives a bed whose home is a file system of its own, and what changes that one's options.
func smallHome(t *testing.T, s Suite, options string) (*bed, func(options string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can change the size of the home's file system")
	}
	home := t.TempDir()
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", append(args, home)...).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
	}
	mount("-t", "tmpfs", "-o", "size=16m,mode=0700", "tongs-test")
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", home).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	b := bedIn(t, s, home)
	change := func(options string) { t.Helper(); mount("-o", "remount,"+options) }
	if options != "" {
		change(options)
	}
	return b, change
}

// bedIn is newBed with a given home.
func bedIn(t *testing.T, s Suite, home string) *bed {
	t.Helper()
	d, err := s.New(home, GuestBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: imageDir(home)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Driver: d, s: s, home: home, image: root}
	t.Cleanup(func() { b.tearDown(t) })
	return b
}

// FullEnv names a directory on a file system of a few MiB of its own that the user who runs the tests may fill: root
// makes one for itself.
const FullEnv = "TONGS_DRIVERTEST_FULL"

// testFullDisk lets the disk be full at every step of making a sandbox.
func testFullDisk(t *testing.T, s Suite) {
	b, change := smallHome(t, s, "")
	base := 0
	if s.KeepsGuest {
		guest, err := os.Stat(GuestBinary(t).Path)
		must(t, err)
		base = int(guest.Size() / 4096)
		b.create(t, b.spec("first"))
		must(t, b.Destroy(t.Context(), "first"))
	}
	testFull(t, b, change, func(n int) string { return fmt.Sprintf("size=%dk", 4*(base+n)) }, "size=16m", 2) // a file for each record
}

// testNoInodes lets the inodes run out at every step of making a sandbox.
func testNoInodes(t *testing.T, s Suite) {
	b, change := smallHome(t, s, "")
	testFull(t, b, change, func(n int) string { return fmt.Sprintf("nr_inodes=%d", n) }, "nr_inodes=100000", 5)
}

// testFull makes a sandbox with more and more room until that succeeds, which takes some steps at least. Each time before it is refused for want of
// space, nothing is left, and with space it can be made.
func testFull(t *testing.T, b *bed, change func(string), options func(int) string, enough string, steps int) {
	const most = 3500 // 4 KiB each is less than the file system is mounted with
	refused := 0
	for n := 1; n < most; n += 1 + n/16 {
		small := options(n)
		if out, err := exec.Command("mount", "-o", "remount,"+small, b.home).CombinedOutput(); err != nil {
			t.Logf("%s: less than is used already: %v: %s", small, err, out)
			continue
		}
		err := b.Create(t.Context(), b.spec("one"))
		if err == nil {
			if refused < steps {
				t.Errorf("only %d creations were refused", refused)
			}
			t.Logf("%d creations were refused; %s is enough", refused, small)
			// There is no room for anything more, and yet it runs, and can be removed.
			c := b.connect(t, "one")
			if got := output(t, c, "echo fine"); got != "fine" {
				t.Errorf("%q", got)
			}
			if err := b.Destroy(t.Context(), "one"); err != nil {
				t.Errorf("destroy on a full disk: %v", err)
			}
			change(enough)
			b.create(t, b.spec("one"))
			return
		}
		refused++
		wantCode(t, err, sandbox.CodeNoSpace)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%s: no cure in %v", small, err)
		}
		if all, err := b.List(t.Context()); err != nil || len(all) > 0 {
			t.Fatalf("%s: there is %v, %v", small, all, err)
		}
		if left := b.leaks(t); len(left) > 0 {
			t.Fatalf("%s: left over: %q", small, left)
		}
	}
	t.Errorf("no creation succeeded, up to %s", options(most-1))
}

// testFullLater fills the disk when a sandbox is there: its guest and the next command go on, it can be stopped, a
// start says what is missing or works, and it can be removed.
func testFullLater(t *testing.T, s Suite) {
	var b *bed
	if small := os.Getenv(FullEnv); small != "" {
		b = bedIn(t, s, filepath.Join(small, "home"))
	} else {
		b, _ = smallHome(t, s, "")
	}
	ballast := filepath.Join(b.home, "ballast") // to be removed when room is needed
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	res := bash(t, c, "cat /dev/zero > big")
	if res.Exit.Success() || !strings.Contains(string(res.Stderr), "No space") {
		t.Errorf("a full disk: %+v %s", res.Exit, res.Stderr)
	}
	if got := output(t, c, "echo fine"); got != "fine" {
		t.Errorf("a command on a full disk: %q", got)
	}
	_, err := c.WriteFile(t.Context(), "/home/user/project/more", make([]byte, 1<<20), sandbox.WriteOptions{})
	wantCode(t, err, sandbox.CodeNoSpace)
	err = b.Create(t.Context(), b.spec("two"))
	wantCode(t, err, sandbox.CodeNoSpace)
	if err := b.Stop(t.Context(), "one"); err != nil {
		t.Errorf("stop on a full disk: %v", err)
	}
	if err := b.Start(t.Context(), "one"); err != nil {
		wantCode(t, err, sandbox.CodeNoSpace)
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
	}
	if got := output(t, b.connect(t, "one"), "rm big; echo room > small; cat small"); got != "room" {
		t.Errorf("after making room: %q", got)
	}
	output(t, b.connect(t, "one"), "cat /dev/zero > big 2>/dev/null || true")
	if err := b.Destroy(t.Context(), "one"); err != nil {
		t.Errorf("destroy on a full disk: %v", err)
	}
	b.create(t, driver.Spec{ID: "one", Image: b.image})
}
