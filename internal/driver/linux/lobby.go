//go:build linux

package linux

import (
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
)

// lobby is a mount namespace in which guests of root's sandboxes are born. A new mount namespace is a copy of its maker's
// with all its mounts, of which a machine with containers has hundreds, and a guest lets go of each of them again. Here are
// only a /proc and a /sys, which the kernel wants to see whole before it lets a user namespace mount its own
// (mount_too_revealing in the kernel's fs/namespace.c): so the host's may be partly masked.
type lobby struct {
	once sync.Once
	ns   *os.File // nil: there is none
}

// open gives the namespace, made when it is first asked for. Where there can't be one, guests are born among the host's
// mounts: nil.
func (l *lobby) open(log *slog.Logger) *os.File {
	l.once.Do(func() {
		if err := onThread(l.furnish); err != nil {
			log.Info("guests are born among the host's mounts, which takes longer", "reason", err)
		}
	})
	return l.ns
}

// close lets go of the namespace; there won't be another.
func (l *lobby) close() {
	l.once.Do(func() {})
	if l.ns != nil {
		l.ns.Close()
	}
}

// enterLobby takes the calling thread into a lobby, and its root and working directory with it.
func enterLobby(ns *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS))
}

// furnish makes the namespace out of the calling thread's.
func (l *lobby) furnish() error {
	if err := privateMounts(); err != nil {
		return err
	}
	const strict = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	root, err := newMount("tmpfs", strict, "source", "lobby", "mode", "0755", "size", "64k", "nr_inodes", "8")
	if err != nil {
		return err
	}
	defer root.Close()
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer unix.Close(old)
	if err := unix.MoveMount(int(root.Fd()), "", old, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	for name, kind := range map[string]string{"proc": "proc", "sys": "sysfs"} {
		if err := unix.Mkdir(name, 0o555); err != nil {
			return &os.PathError{Op: "mkdir", Path: "/" + name, Err: err}
		}
		m, err := newMount(kind, strict, "source", kind)
		if err != nil {
			return err
		}
		err = boot.Attach(int(m.Fd()), int(root.Fd()), name)
		m.Close()
		if err != nil {
			return err
		}
	}
	if err := boot.LeaveRoot(old); err != nil {
		return err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
	if err != nil {
		return err
	}
	l.ns = ns
	return nil
}
