package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullGroupHears waits for the kernel's word in a file that changes in the way of pids.events, cgroup.events of
// version 2: that is there also on machines whose pids controller is of version 1, where the newest kernels say nothing.
func TestFullGroupHears(t *testing.T) {
	var dir string
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
			dir = filepath.Join(root, "tongs-test-"+filepath.Base(t.TempDir()))
			break
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Skipf("no group of version 2 can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.Open(filepath.Join(dir, "cgroup.events"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	group, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(group)
	f := newFullGroup(fd)
	defer f.close()
	if err := f.listen(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan error)
	go func() {
		for range 2 { // that there is a process, and that there is none
			heard <- f.wait()
		}
		heard <- f.wait()
	}()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: group}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := <-heard; err != nil {
		t.Error(err)
	}
	f.stop()
	if err := <-heard; err == nil {
		t.Error("a wait goes on after stop")
	}
	if data, err := os.ReadFile(filepath.Join(dir, "cgroup.events")); err != nil || !bytes.Contains(data, []byte("populated 0")) {
		t.Errorf("%q, %v", data, err)
	}
}
