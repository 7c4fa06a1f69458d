package boot

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities of the guest, over its own user namespace: to become the sandbox's user, to
// signal its processes, and to listen where it is asked to.
const kept = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE

// The arguments of capset, reached by every thread.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	capData   = [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
)

// dropPrivileges gives up, in every thread and for good, what the guest doesn't need.
func dropPrivileges() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fail("turn core dumps off", err)
	}
	for c := 0; c <= unix.CAP_LAST_CAP+16; c++ {
		if uint64(kept)&(1<<c) != 0 {
			continue
		}
		if err := allThreads("drop bounding capability", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
			if c > 0 && err.(*Failure).Errno == unix.EINVAL {
				break // the kernel knows no more
			}
			return err
		}
	}
	if err := allThreads("clear ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return err
	}
	if err := allThreads("drop capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capData[0])), 0); err != nil {
		return err
	}
	runtime.KeepAlive(&capData)
	if err := allThreads("refuse new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail("forbid dumps", err)
	}
	return nil
}

func allThreads(op string, trap, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); errno != 0 {
		return fail(op, errno)
	}
	return nil
}
