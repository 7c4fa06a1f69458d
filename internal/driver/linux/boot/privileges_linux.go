package boot

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kept are the capabilities of the guest, over its own user namespace: to become the sandbox's user, to
// signal its processes, and to listen where it is asked to. Commands get none.
const kept = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE

// rootly are the capabilities of commands that run as root, in a sandbox that lets them: what installing and
// configuring software takes, over the sandbox's own files, users and processes. Without CAP_MKNOD,
// CAP_NET_RAW, CAP_SYS_CHROOT, CAP_SETFCAP, CAP_AUDIT_WRITE and CAP_SETPCAP, which engines for containers
// give as well.
const rootly = kept | 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID

// Secure bits. noRoot are those, locked, with which a program that starts as uid 0 gets no capabilities and
// nobody makes any ambient. They do in one call for all threads what dropping each capability from the
// bounding set does in forty, at a tenth of a millisecond each. Where commands may be root, someRoot locks
// that uid 0 counts as root, and the bounding set has to be dropped.
const (
	noRoot   = secNoRoot | secNoRoot<<1 | secNoAmbientRaise | secNoAmbientRaise<<1
	someRoot = secNoRoot<<1 | secNoAmbientRaise | secNoAmbientRaise<<1
)

// SecureBits are those of a guest, by whether its commands may run as root.
func SecureBits(rooted bool) uintptr {
	if rooted {
		return someRoot
	}
	return noRoot
}

const (
	secNoRoot         = 1 << 0
	secNoAmbientRaise = 1 << 6
)

// lastCapability is the number of the last one that a kernel could have: they are 64 bits.
const lastCapability = 63

// The arguments of capset, reached by every thread.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	capData   = [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
)

// dropPrivileges gives up, in every thread and for good, what the guest doesn't need. That no program
// can gain privileges was already settled by the driver, before this process was. A guest that isn't
// root inside commands nobody else, and keeps nothing. rooted says that commands may run as root; ownKernel,
// that the kernel is one without secure bits.
func dropPrivileges(root, rooted, ownKernel bool) error {
	bits := SecureBits(rooted)
	switch {
	case !root && rooted:
		return fail("give commands a root", errors.New("there is one user id only"))
	case !root:
		capData[0] = unix.CapUserData{}
	case rooted:
		// Permitted, so that a program started as root has them; not effective in the guest itself.
		capData[0].Permitted = rootly
	}
	if nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || nnp != 1 {
		return fail("check no_new_privs", errors.Join(errors.New("it is not set"), err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fail("turn core dumps off", err)
	}
	if rooted || ownKernel {
		if err := bound(uint64(capData[0].Permitted)); err != nil {
			return err
		}
	}
	// The driver may have started this process with them already: a call in all threads takes them from their work.
	if have, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0); !ownKernel && (err != nil || uintptr(have) != bits) {
		if err := allThreads("lock secure bits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, bits, 0); err != nil {
			return err
		}
	}
	if err := allThreads("drop capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&capData[0])), 0); err != nil {
		return err
	}
	runtime.KeepAlive(&capData)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail("forbid dumps", err)
	}
	return nil
}

// bound drops all capabilities but these from the bounding set of every thread.
func bound(these uint64) error {
	for c := uintptr(0); c <= lastCapability; c++ {
		if these&(1<<c) != 0 {
			continue
		}
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			return nil // the kernel has no more
		} else if has == 0 {
			continue
		}
		if err := allThreads("bound capabilities", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); err != nil {
			return err
		}
	}
	return nil
}

func allThreads(op string, trap, a1, a2, a3 uintptr) error {
	switch _, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0); {
	case errno == unix.ENOTSUP: // Go's runtime does not do it for programs with C in them
		return fail(op, errors.New("this guest was built with cgo: build it with CGO_ENABLED=0"))
	case errno != 0:
		return fail(op, errno)
	}
	return nil
}
