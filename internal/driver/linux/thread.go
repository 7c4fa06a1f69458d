//go:build linux

package linux

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onThread runs f on an operating system thread of its own that ends with it, so that f may change what
// belongs to a thread: its user ids, its mount namespace, its working directory, its keyring, its table
// of descriptors.
func onThread(f func() error) error { return <-startThread(f) }

// startThread is onThread that doesn't wait for the end.
func startThread(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if unix.Gettid() != os.Getpid() {
			done <- f()
			return
		}
		// The first thread can't end, and /proc/self shows what it has. Keep it here, as it is, until
		// another has done the work.
		inner := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			inner <- f()
		}()
		err := <-inner
		runtime.UnlockOSThread()
		done <- err
	}()
	return done
}

// ownDescriptors gives the calling thread a table of descriptors of its own, in which each closes when a
// program is run. Whatever this process has open, and whoever opened it without a thought to children, a
// guest gets what it is given and nothing else; and what this process means others to inherit stays so.
func ownDescriptors() error {
	return os.NewSyscallError("close_range", unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC))
}

// newKeyring gives the calling thread a session keyring of its own; else a sandbox would possess the one of
// this session.
func newKeyring() error {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM { // no keyrings, or none for containers
		return os.NewSyscallError("keyctl", errno)
	}
	return nil
}

// sharedKeyring is newKeyring for an ordinary user, who may have 200 keys (kernel.keys.maxkeys) for more
// sandboxes than that: all of them have one session keyring, empty, and nobody may put anything into it.
// (Nor could they: the calls for keys are refused inside.) It is found by its name.
func sharedKeyring() error {
	name, err := unix.BytePtrFromString("tongs-sandboxes")
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, uintptr(unsafe.Pointer(name)), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		return nil
	}
	if errno != 0 {
		return os.NewSyscallError("keyctl", errno)
	}
	// keyctl(2): view and search, for who has it and for its owner. It stays as it is when another thread has
	// said so already, which takes away the right to.
	const perm = (keyView|keySearch)<<24 | (keyView|keySearch)<<16
	_ = unix.KeyctlSetperm(unix.KEY_SPEC_SESSION_KEYRING, perm)
	return nil
}

// Rights to a key, KEY_USR_VIEW and so on in linux/key.h without the byte that says whose.
const (
	keyView   = 0x01
	keySearch = 0x08
)

// becomeOwner makes the calling thread act as a user id that has all rights of root: what it creates
// next, a user namespace above all, belongs to that id, and the kernel charges that id for it. A program
// that it starts there finds itself to be that id and nobody else, with no further groups.
func becomeOwner(id uint32) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setgroups", errno)
	}
	// The saved id stays root's, or the rights would be gone.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(id), uintptr(id), 0); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(id), uintptr(id), 0); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return raiseCapabilities()
}

// raiseCapabilities makes every capability effective that the thread may have.
func raiseCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
