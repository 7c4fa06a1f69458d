//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/sandbox"
)

// spawn starts a guest with these files from the calling thread, which is thrown away afterwards: it has
// rights, a keyring and a table of descriptors of its own then. The new process has all namespaces of
// its own and waits on its channel. lobby is nil where there is none.
func spawn(program *memfd, files []*os.File, g *group, r record, lobby *os.File) (pid int, err error) {
	if err := ownDescriptors(); err != nil {
		return 0, driver.Wrap("keep this process's descriptors", err)
	}
	keyring := newKeyring
	if r.rootless() {
		keyring = sharedKeyring
	}
	if err := keyring(); err != nil {
		return 0, driver.Wrap("make session keyring", err)
	}
	if !r.rootless() {
		if err := becomeOwner(r.Base); err != nil {
			return 0, refusal("become owner of the user namespace", makingNamespaces, err)
		}
	}
	if lobby != nil {
		if err := enterLobby(lobby); err != nil {
			return 0, refusal("enter the mount namespace that guests begin with", makingNamespaces, err)
		}
	}
	// Nothing that descends from this thread gains privileges by running a program, the guest included.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	if err := showProcessors(r.Spec.Limits.CPUs); err != nil {
		return 0, err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(guestSlack), 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	n := &newborn{bits: boot.SecureBits(r.Spec.Root), clone: cloneArgs{
		flags: unix.CLONE_VM | unix.CLONE_VFORK |
			unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		exitSignal: uint64(unix.SIGCHLD),
	}}
	if g != nil && g.guest != nil {
		// A cgroup namespace would begin at the guest's own group, and the kernel would then keep the
		// guest from cloning commands into the group beside it.
		n.clone.flags |= unix.CLONE_INTO_CGROUP
		n.clone.cgroup = uint64(g.guest.Fd())
	} else {
		n.clone.flags |= unix.CLONE_NEWCGROUP
	}
	for _, f := range files {
		// Out of the way of the numbers that they get. This thread's table ends with it.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
		if err != nil {
			return 0, os.NewSyscallError("fcntl", err)
		}
		n.files = append(n.files, fd)
	}
	if err := n.program(fmt.Sprintf("/self/fd/%d", program.f.Fd()), []string{"tongs-guest"}, append([]string{fmt.Sprintf("TONGS_BOOT_FD=%d", bootFD)}, boot.Environ...)); err != nil {
		return 0, driver.Wrap("start guest", err)
	}
	if pid, err = n.start(); err != nil {
		return 0, spawnError(err)
	}
	if err := mapIDs(pid, r); err != nil {
		return 0, errors.Join(refusal("map user ids", makingNamespaces, err), unix.Kill(pid, unix.SIGKILL), reap(pid))
	}
	return pid, nil
}

// guestSlack is by how much a guest's timers may be late (prctl(2), PR_SET_TIMERSLACK): what it inherits is what
// its threads have. Go's runtime has one that sleeps for 20 µs at a time while anything runs, and so
// interrupted each command ten times. Commands get the usual slack again (package guest, forker).
const guestSlack = 500 * time.Microsecond

// mapIDs gives a new guest its ids (user_namespaces(7)). A sandbox with a range that newuidmap maps gets them later.
func mapIDs(pid int, r record) error {
	if r.mapped() {
		return nil
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	uids, gids := fmt.Sprintf("0 %d %d", r.Base, rangeSize), fmt.Sprintf("0 %d %d", r.Base, rangeSize)
	if r.rootless() {
		// All that an ordinary user can give without: its own id, which is the sandbox's user then. An overlay
		// goes on acting with the rights of whoever mounted it.
		uids, gids = fmt.Sprintf("%d %d 1", userID, os.Geteuid()), fmt.Sprintf("%d %d 1", userID, os.Getegid())
		if err := put(proc+"setgroups", "deny"); err != nil {
			return err
		}
	}
	if err := put(proc+"gid_map", gids); err != nil {
		return err
	}
	return put(proc+"uid_map", uids)
}

// put writes a file of /proc in one call.
func put(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

// reap takes what is left of a child that was killed.
func reap(pid int) error {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return err
		}
	}
}

// adopt takes hold of a child that spawn has started. Its number can't mean another process yet, since nobody
// has waited for it. (A descriptor from its birth would be in the table of spawn's thread.)
func adopt(pid int) (*process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("pidfd_open", err), unix.Kill(pid, unix.SIGKILL))
	}
	return newProcess(pid, pidfd)
}

// spawnError says why namespaces couldn't be made, and what helps.
func spawnError(err error) error {
	e := &sandbox.Error{Code: driver.CodeUnsupported, Op: "make namespaces", Message: err.Error(), Err: err}
	if refused(err) {
		if why, cure := lookAround().explain(makingNamespaces, err); why != "" {
			e.Message, e.Hint = why+": "+err.Error(), cure
			return e
		}
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		e.Message = "the kernel allows no more namespaces: " + err.Error()
		e.Hint = "sysctl -w user.max_user_namespaces=65536, and the like for mnt, pid, net, ipc, uts and cgroup"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Message = "the kernel refuses namespaces or programs in memory: " + err.Error()
		e.Hint = "in a container, give it --privileged; else see `sysctl kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns vm.memfd_noexec`; `tongs doctor` tells more"
	case errors.Is(err, unix.EINVAL):
		e.Hint = "this kernel lacks a kind of namespace; `tongs doctor` says which"
	case errors.Is(err, unix.ENOENT): // there is nothing but /proc, and so no loader
		e.Code, e.Op, e.Message = driver.CodeGuestFailed, "start guest", "the guest binary isn't static, or is the text of a program: "+err.Error()
		e.Hint = "build it as one file: CGO_ENABLED=0 go build ./cmd/tongs-guest"
	case errors.Is(err, unix.ENOEXEC):
		e.Code, e.Op, e.Message = driver.CodeGuestFailed, "start guest", "the guest binary is no program for this machine: "+err.Error()
		e.Hint = "build it for this machine: CGO_ENABLED=0 go build ./cmd/tongs-guest"
	default:
		return driver.Wrap("start guest", err)
	}
	return e
}
