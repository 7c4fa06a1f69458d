package idmaptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/idmap"
)

// User is an ordinary user. Without ranges it has no line in /etc/subuid and /etc/subgid.
type User struct {
	Name       string
	ID         int // of the user and of its group
	UIDs, GIDs []idmap.Range
}

// Alice has as many ids as a sandbox can have, in two pieces, and her groups' ids are others.
var Alice = User{Name: "alice", ID: 42425,
	UIDs: []idmap.Range{{First: 2_000_000_000, Size: 40_000}, {First: 2_000_200_000, Size: 30_000}},
	GIDs: []idmap.Range{{First: 2_111_000_000, Size: 65_536}},
}

// CombinedOutput runs a command as the user, and is like exec.Cmd's. It needs root, and newuidmap for ranges.
// before are called as root in the mount namespace of the command, by the thread that starts it; what they
// change of that thread holds for the command.
func (u User) CombinedOutput(t testing.TB, cmd *exec.Cmd, before ...func() error) ([]byte, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	for _, p := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(p); err != nil && u.UIDs != nil {
			t.Skipf("there is no %s: install Debian's uidmap, or the like", p)
		}
	}
	dir := t.TempDir()
	files := map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0::/root:/bin/sh\n%s:x:%d:%d::%s:/bin/sh\n", u.Name, u.ID, u.ID, "/nonexistent"),
		"group":  fmt.Sprintf("root:x:0:\n%s:x:%d:\n", u.Name, u.ID),
		"subuid": lines(u.Name, u.UIDs), "subgid": lines(u.Name, u.GIDs),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.ID), Gid: uint32(u.ID)}

	var out []byte
	done := make(chan error, 1)
	var onThread func()
	onThread = func() {
		runtime.LockOSThread() // never unlocked: the thread, and what is mounted for it, ends with this
		if unix.Gettid() == os.Getpid() {
			// The first thread can't end, and /proc/self would show its mounts from now on. While it is held
			// here, another goroutine gets another thread.
			inner := make(chan struct{})
			go func() { defer close(inner); onThread() }()
			<-inner
			runtime.UnlockOSThread()
			return
		}
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			for name := range files {
				if err := show(filepath.Join(dir, name), "/etc/"+name); err != nil {
					return err
				}
			}
			for _, f := range before {
				if err := f(); err != nil {
					return err
				}
			}
			var err error
			out, err = cmd.CombinedOutput()
			return err
		}()
	}
	go onThread()
	err := <-done
	return out, err
}

// show mounts one file over another. Where that isn't there, a machine without it is as good as any: it
// is made, empty, and stays.
func show(file, at string) error {
	f, err := os.OpenFile(at, os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	f.Close()
	return os.NewSyscallError("mount "+at, unix.Mount(file, at, "", unix.MS_BIND, ""))
}

func lines(name string, all []idmap.Range) (text string) {
	for _, r := range all {
		text += fmt.Sprintf("%s:%d:%d\n", name, r.First, r.Size)
	}
	return text
}
