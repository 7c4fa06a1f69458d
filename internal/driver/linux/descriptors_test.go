//go:build linux

package linux_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

// TestGuestDescriptors looks from the host at what a guest has open: no directory of a mount of the host's,
// from which there would be a way up, and nothing that the driver's process had open by accident.
func TestGuestDescriptors(t *testing.T) {
	t.Parallel()
	needRoot(t)
	// A directory and a file that are meant for children, like those that a shell hands to its programs.
	dir := t.TempDir()
	for _, p := range []string{dir, "/etc/passwd"} {
		drivertest.LeaveOpen(t, p)
	}
	if bad := openToHost(t, os.Getpid(), "/etc/passwd"); len(bad) < 2 {
		t.Fatalf("the control finds only %q", bad)
	}
	guest := drivertest.GuestBinary(t)
	for name, change := range map[string]func(*linux.Config){
		"as found":  func(*linux.Config) {},
		"cgroup 2":  func(c *linux.Config) { c.CgroupV2 = cgroup2Root() },
		"no cgroup": func(c *linux.Config) { c.NoCgroups = true },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "cgroup 2" && cgroup2Root() == "" {
				t.Skip("no cgroup 2 hierarchy is mounted")
			}
			var home string
			d := newDriver(t, func(c *linux.Config) { change(c); c.Guest, home = &guest, c.Home })
			create(t, d, driver.Spec{ID: "open"})
			data, err := os.ReadFile(filepath.Join(home, "sandboxes", "open", "guest.json"))
			must(t, err)
			var g struct{ PID int }
			must(t, json.Unmarshal(data, &g))
			for _, bad := range openToHost(t, g.PID, "/etc/passwd") {
				t.Errorf("the guest has %s", bad)
			}
		})
	}
}

// openToHost lists the directories that a process has open on mounts of this process's namespace, and the
// descriptors of one file.
func openToHost(t *testing.T, pid int, file string) (bad []string) {
	t.Helper()
	mounts := mountIDs(t)
	var want, st unix.Stat_t
	must(t, unix.Stat(file, &want))
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, err := os.ReadDir(dir)
	must(t, err)
	if len(all) < 4 {
		t.Fatalf("process %d has %d descriptors only", pid, len(all))
	}
	for _, e := range all {
		if unix.Stat(filepath.Join(dir, e.Name()), &st) != nil {
			continue // closed since, or nothing that can be looked at
		}
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, e.Name()))
		if err != nil {
			continue
		}
		_, id, _ := strings.Cut(string(info), "mnt_id:\t")
		id, _, _ = strings.Cut(id, "\n")
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && slices.Contains(mounts, id) || st.Dev == want.Dev && st.Ino == want.Ino {
			name, _ := os.Readlink(filepath.Join(dir, e.Name()))
			bad = append(bad, e.Name()+" → "+name)
		}
	}
	return bad
}

func mountIDs(t *testing.T) (ids []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(line, " ")
		ids = append(ids, id)
	}
	return ids
}

// cgroup2Root is where a version 2 hierarchy is mounted, or "".
func cgroup2Root() (root string) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			root = dir
		}
	}
	return root
}
