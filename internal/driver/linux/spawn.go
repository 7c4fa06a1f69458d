//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// spawn starts a guest with these files from the calling thread, which is thrown away afterwards: it has
// rights, a keyring and a table of descriptors of its own then. The new process has all namespaces of
// its own and waits on its channel.
func spawn(program *memfd, files []*os.File, g *group, r record) (pid int, err error) {
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
	// Nothing that descends from this thread gains privileges by running a program, the guest included.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	attr := &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS,
	}
	switch {
	case r.mapped():
		// The ids are mapped once it is there, by newuidmap. Its rights survive the start of the program as
		// ambient ones until it has become root.
		attr.AmbientCaps = idmap.Capabilities()
	case r.rootless():
		// All that an ordinary user can give without: its own id, which is the sandbox's user then. The rights to
		// set everything up survive the start of the program as ambient ones; an overlay goes on acting with
		// those of whoever mounted it.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: userID, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: userID, HostID: os.Getegid(), Size: 1}}
		attr.AmbientCaps = []uintptr{
			unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE,
			unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_CHOWN, unix.CAP_FSETID,
		}
	default:
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(r.Base), Size: rangeSize}}
		attr.UidMappings, attr.GidMappings, attr.GidMappingsEnableSetgroups = ids, ids, true
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	}
	if g != nil && g.guest != nil {
		// A cgroup namespace would begin at the guest's own group, and the kernel would then keep the
		// guest from cloning commands into the group beside it.
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.guest.Fd())
	} else {
		attr.Cloneflags |= unix.CLONE_NEWCGROUP
	}
	pid, _, err = syscall.StartProcess(fmt.Sprintf("/proc/self/fd/%d", program.f.Fd()), []string{"tongs-guest"}, &syscall.ProcAttr{
		Dir: "/",
		// The fewer threads a guest has when it gives up its rights, in all of them, the sooner it is ready; and it
		// has little to do at once later, too (package guest, processors).
		Env:   []string{fmt.Sprintf("TONGS_BOOT_FD=%d", bootFD), "GOMAXPROCS=1"},
		Files: fds,
		Sys:   attr,
	})
	if err != nil {
		return 0, spawnError(err)
	}
	return pid, nil
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
	case errors.Is(err, unix.ENOEXEC):
		e.Code, e.Op, e.Message = driver.CodeGuestFailed, "start guest", "the guest binary is no program for this machine: "+err.Error()
		e.Hint = "build it for this machine: CGO_ENABLED=0 go build ./cmd/tongs-guest"
	default:
		return driver.Wrap("start guest", err)
	}
	return e
}
