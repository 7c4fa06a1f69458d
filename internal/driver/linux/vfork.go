//go:build linux

package linux

import (
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A guest is started as by vfork(2): until it runs its program it shares this process's memory. The
// standard library does that too, but not with a user namespace, whose ids it maps before the program starts.
// It copies the whole process instead, and throws the copy away again: two milliseconds of the
// four that a new guest took to be there. Here the program starts with ids that are not mapped yet, and with all
// its rights as ambient capabilities (capabilities(7)); the ids are mapped while it starts.

// cloneArgs is struct clone_args of linux/sched.h, as Linux 5.7 has it: blank are pidfd, child_tid and parent_tid,
// then stack, stack_size, tls, set_tid and set_tid_size.
type cloneArgs struct {
	flags      uint64
	_          [3]uint64
	exitSignal uint64
	_          [5]uint64
	cgroup     uint64
}

// newborn is what a child does between its birth and its program. It is made before, since the child may
// neither allocate nor grow its stack.
type newborn struct {
	clone cloneArgs
	files []int // become 0, 1, 2 …; all of them from highFD on
	path  *byte
	argv  []*byte
	env   []*byte
	root  *byte   // becomes the working directory,
	proc  *byte   // and this the root, in which path is
	bits  uintptr // its secure bits
	errno uintptr // why there is no program
	step  uintptr // the number of the call that failed
}

//go:noescape
func cloneShared(args *cloneArgs, size uintptr) (pid, errno uintptr)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// program says what to run, by its path in /proc, which is its root until it changes that. From any other, Go's
// runtime reads at its start which control group limits its processors, and for that the list of all
// mounts: a tenth of a millisecond for thirty, and a machine with a thousand sandboxes has more. Nothing of it is freed before the child has run it, since n holds it.
func (n *newborn) program(path string, argv, env []string) (err error) {
	if n.path, err = unix.BytePtrFromString(path); err != nil {
		return err
	}
	if n.root, err = unix.BytePtrFromString("/"); err != nil {
		return err
	}
	if n.proc, err = unix.BytePtrFromString("/proc"); err != nil {
		return err
	}
	if n.argv, err = texts(argv); err != nil {
		return err
	}
	n.env, err = texts(env)
	return err
}

// start clones and executes from the calling thread, whose table of descriptors must be its own.
func (n *newborn) start() (pid int, err error) {
	runtime.LockOSThread() // it is, and stays so
	defer runtime.UnlockOSThread()
	child, errno := n.bear()
	afterFork()
	if errno != 0 {
		return 0, os.NewSyscallError("clone3", syscall.Errno(errno))
	}
	if n.errno == 0 {
		return int(child), nil
	}
	_ = reap(int(child))
	return 0, os.NewSyscallError(steps[n.step], syscall.Errno(n.errno))
}

// bear returns in the parent alone. The child does everything in this frame, because it must leave those
// above as they are.
//
//go:noinline
//go:norace
func (n *newborn) bear() (pid, errno uintptr) {
	beforeFork()
	pid, errno = cloneShared(&n.clone, unsafe.Sizeof(n.clone))
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	afterForkInChild()
	n.live()
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// live becomes the program, or returns with the reason in n.
//
//go:nosplit
//go:norace
func (n *newborn) live() {
	if n.errno = rawCall(unix.SYS_SETSID, 0, 0, 0); n.errno != 0 {
		n.step = unix.SYS_SETSID
		return
	}
	// It has them all, in its new user namespace. To keep them it makes them inheritable, and ambient.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	data[0].Effective, data[0].Permitted, data[0].Inheritable = ^uint32(0), ^uint32(0), ^uint32(0)
	data[1] = data[0]
	if n.errno = rawCall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); n.errno != 0 {
		n.step = unix.SYS_CAPSET
		return
	}
	for c := uintptr(0); c < 64; c++ {
		n.errno = rawCall(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
		if n.errno == uintptr(unix.EINVAL) && c > unix.CAP_AUDIT_READ { // which kernels with ambient ones all have
			break
		}
		if n.errno != 0 {
			n.step = unix.SYS_PRCTL
			return
		}
	}
	if n.errno = rawCall(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, n.bits, 0); n.errno != 0 {
		n.step = unix.SYS_PRCTL
		return
	}
	if n.errno = rawCall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(n.root)), 0, 0); n.errno != 0 {
		n.step = unix.SYS_CHDIR
		return
	}
	if n.errno = rawCall(unix.SYS_CHROOT, uintptr(unsafe.Pointer(n.proc)), 0, 0); n.errno != 0 {
		n.step = unix.SYS_CHROOT
		return
	}
	for i := 0; i < len(n.files); i++ {
		if n.errno = rawCall(unix.SYS_DUP3, uintptr(n.files[i]), uintptr(i), 0); n.errno != 0 {
			n.step = unix.SYS_DUP3
			return
		}
	}
	n.errno = rawCall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(n.path)), uintptr(unsafe.Pointer(&n.argv[0])), uintptr(unsafe.Pointer(&n.env[0])))
	n.step = unix.SYS_EXECVE
}

//go:nosplit
//go:norace
func rawCall(trap, a1, a2, a3 uintptr) (errno uintptr) {
	_, _, e := syscall.RawSyscall6(trap, a1, a2, a3, 0, 0, 0)
	return uintptr(e)
}

// steps name the calls of live.
var steps = map[uintptr]string{
	unix.SYS_SETSID: "setsid", unix.SYS_CAPSET: "capset", unix.SYS_PRCTL: "prctl", unix.SYS_CHDIR: "chdir", unix.SYS_CHROOT: "chroot", unix.SYS_DUP3: "dup3", unix.SYS_EXECVE: "execve",
}

// texts gives a list of strings as a program gets it, with its end.
func texts(all []string) ([]*byte, error) {
	list := make([]*byte, 0, len(all)+1)
	for _, s := range all {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return append(list, nil), nil
}
