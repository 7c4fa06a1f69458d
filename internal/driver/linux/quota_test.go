//go:build linux

package linux_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

// quotaHome gives a home on a file system with project quotas, made for this test in a file.
func quotaHome(t *testing.T, kind, option string) string {
	t.Helper()
	needStorage(t)
	make := []string{"/usr/sbin/mkfs." + kind, "-q"}
	if kind == "ext4" {
		make = append(make, "-F", "-m", "0", "-O", "quota,project", "-E", "quotatype=prjquota")
	}
	if _, err := os.Stat(make[0]); err != nil {
		t.Skip("there is no " + make[0])
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512*mib))
	must(t, os.Mkdir(at, 0o700))
	if out, err := exec.Command(make[0], append(make[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,"+option, image, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel doesn't mount %s with %s: %s", kind, option, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return filepath.Join(at, "home")
}

// TestQuota holds sandboxes to limits of their disks by project quotas, on file systems made for it, and by the
// storage's own.
func TestQuota(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		home func(*testing.T) string
		size int64 // of the storage
		copy bool
	}{
		{name: "ext4", home: func(t *testing.T) string { return quotaHome(t, "ext4", "prjquota") }},
		{name: "ext4, copied", home: func(t *testing.T) string { return quotaHome(t, "ext4", "prjquota") }, copy: true},
		{name: "xfs", home: func(t *testing.T) string { return quotaHome(t, "xfs", "pquota") }},
		{name: "storage", home: func(t *testing.T) string {
			quotaHome(t, "ext4", "prjquota") // so that it is skipped where that is
			return storageHome(t)
		}, size: 512 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			home := c.home(t)
			p, err := initBinary()
			must(t, err)
			d, err := linux.New(linux.Config{Home: home, Guest: &driver.Guest{Path: p}, StorageBytes: c.size, ReserveBytes: -1, NoIdmap: c.copy})
			must(t, err)
			t.Cleanup(func() { must(t, d.Close()) })
			testQuota(t, d, home)
			must(t, d.Detach(t.Context()))
		})
	}
}

func testQuota(t *testing.T, d *linux.Driver, home string) {
	small := driver.Limits{DiskBytes: 32 * mib, DiskFiles: 1000}
	create(t, d, driver.Spec{ID: "small", Limits: small})
	create(t, d, driver.Spec{ID: "other"})
	const fill = "head -c 20M /dev/zero > a && head -c 40M /dev/zero > b; echo $?; "
	if got := sh(t, d, "small", fill+"rm b; echo again > c && cat c"); !strings.HasSuffix(got, "\n1\nagain") || !strings.Contains(got, "uota") && !strings.Contains(got, "No space") {
		t.Errorf("60 MiB under a limit of 32: %q", got)
	}
	if got := sh(t, d, "other", fill+"rm a b"); got != "0" { // the control
		t.Errorf("60 MiB under the usual limit: %q", got)
	}
	if got := sh(t, d, "small", "mkdir m; cd m; seq -f f%g 2000 | xargs touch 2>/dev/null; n=$(ls | wc -l); test $n -gt 300 -a $n -lt 1000 && echo full || echo $n; cd ..; rm -r m; touch one && echo again"); got != "full\nagain" {
		t.Errorf("2,000 files under a limit of 1,000: %q", got)
	}
	if got := sh(t, d, "small", "df --output=size -m . | tail -1 | tr -d ' '"); got != "32" {
		t.Errorf("df shows %q MiB", got)
	}

	// The sandbox can't leave its project.
	if _, err := os.Stat("/usr/bin/chattr"); err == nil {
		if got := sh(t, d, "small", "mkdir p; chattr -p 0 p 2>/dev/null && echo left; chattr -P p 2>/dev/null && echo left; chattr -p 0 a 2>/dev/null && echo left; cd p; "+fill); !strings.HasSuffix(got, "\n1") || strings.HasPrefix(got, "left") {
			t.Errorf("in a directory that was to leave the project: %q", got)
		}
		sh(t, d, "small", "rm -rf p")
	}

	// Full to the last byte, it can be stopped, started and cleaned up.
	sh(t, d, "small", "cat /dev/zero > all; seq -f f%g 2000 | xargs touch")
	must(t, d.Stop(t.Context(), "small"))
	must(t, d.Start(t.Context(), "small"))
	if got := sh(t, d, "small", "rm -f all f*; echo more > more && cat more"); got != "more" {
		t.Errorf("after a start with a full disk: %q", got)
	}

	// Another made from it has limits of its own.
	create(t, d, driver.Spec{ID: "fork", From: "small", Limits: driver.Limits{DiskBytes: 64 * mib}})
	if got := sh(t, d, "fork", "cat more; head -c 30M /dev/zero > b && echo fits; head -c 30M /dev/zero > c || echo full"); !strings.HasPrefix(got, "more\nfits\n") || !strings.HasSuffix(got, "full") {
		t.Errorf("a fork: %q", got)
	}
	err := d.Create(t.Context(), driver.Spec{ID: "tiny", Image: hostImage(t), From: "small", Limits: driver.Limits{DiskBytes: mib}})
	wantCode(t, err, sandbox.CodeNoSpace)

	for _, id := range []string{"small", "other", "fork"} {
		must(t, d.Destroy(t.Context(), id))
	}
	if left, err := d.Leaks(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("leaks: %q, %v", left, err)
	}
}

// TestNoQuota asks for limits where there can't be any.
func TestNoQuota(t *testing.T) {
	t.Parallel()
	needRoot(t)
	home := t.TempDir()
	must(t, unix.Mount("tmpfs", home, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { must(t, unix.Unmount(home, unix.MNT_DETACH)) })
	d, err := open(t, home, 0)
	must(t, err)
	defer d.Close()
	for _, l := range []driver.Limits{{DiskBytes: mib}, {DiskFiles: 100}} {
		wantCode(t, d.Create(t.Context(), driver.Spec{ID: "one", Image: hostImage(t), Limits: l}), driver.CodeUnsupported)
	}
	for _, l := range []driver.Limits{{}, {DiskBytes: -1, DiskFiles: -1}} {
		create(t, d, driver.Spec{ID: "one", Limits: l})
		must(t, d.Destroy(t.Context(), "one"))
	}
}
