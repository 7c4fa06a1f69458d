package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEnterGroup opens groups that are some and that are none.
func TestEnterGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making mounts needs root")
	}
	root := ""
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			root = dir
		}
	}
	if root == "" {
		t.Skip("no cgroup 2 hierarchy is mounted")
	}
	const at, procs = maxLateFD, maxLateFD - 1
	if err := reserve(at, procs); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	defer unix.Close(procs)
	for name, c := range map[string]struct {
		group Group
		want  string
	}{
		"none of version 2":    {Group{Dir: t.TempDir(), FD: at}, "none of version 2"},
		"not there":            {Group{Dir: root + "/no-such-group", FD: at}, "no such file"},
		"a relative path":      {Group{Dir: "sys/fs/cgroup", FD: at}, "no clean absolute path"},
		"standard error":       {Group{Dir: root, FD: 2}, "no clean absolute path"},
		"too high a number":    {Group{Dir: root, FD: maxLateFD + 1}, "no clean absolute path"},
		"no number for a file": {Group{Dir: root, FD: at, Files: map[string]int{"cgroup.procs": 2}}, "no number"},
	} {
		if err := enterGroup(c.group); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// The control.
	if err := enterGroup(Group{Dir: root, FD: at, Files: map[string]int{"cgroup.procs": procs, "no.events": procs}}); err != nil {
		t.Fatal(err)
	}
	var top, up unix.Stat_t
	if err := unix.Fstat(at, &top); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatat(at, "..", &up, 0); err != nil || up.Ino != top.Ino || up.Dev != top.Dev {
		t.Errorf("there is a way up: %v", err)
	}
	if fd, err := unix.Openat(at, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0); err != unix.EROFS {
		t.Errorf("write to a group: %d, %v", fd, err)
	}
	var text [16]byte
	if n, err := unix.Pread(procs, text[:], 0); n <= 0 || err != nil {
		t.Errorf("read a file of it: %d, %v", n, err)
	}
}
