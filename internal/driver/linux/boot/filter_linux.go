package boot

import (
	"errors"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter of system calls holds for the guest and for all that it starts, for good. It refuses what the
// namespaces don't cover and no work in a sandbox needs; everything else is left to the kernel, so
// that tools, compilers and debuggers find what they expect.
//
//   - Addresses that belong to no network namespace, or whose protocols have a long record of faults:
//     AF_VSOCK reaches the machine's hypervisor. What is left is AF_UNIX, AF_INET, AF_INET6, and of AF_NETLINK
//     the families that tell about interfaces and sockets.
//   - io_uring, by which sockets are made without a call of socket, and userfaultfd. They are answered as
//     by a kernel without them, which programs that can use them expect.
//   - Keys: the keyrings of a user id are shared by all namespaces.
//   - What needs a capability that nobody inside has: bpf, performance events, modules, kexec, handles of
//     files. The answer is the one for lack of rights; this is a second lock on the same door.
//   - Typing into the terminal that a command was started from (TIOCSTI, TIOCLINUX).
//
// It is written for the conventions of one architecture. A call by another, as of a program for 32 bits,
// ends its process.

// calls without any use inside, and what they answer.
var refused = []struct {
	answer syscall.Errno
	calls  []uint32
}{
	{unix.ENOSYS, []uint32{
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_USERFAULTFD,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	}},
	{unix.EPERM, []uint32{
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	}},
}

// Places in struct seccomp_data. The architectures that there is a filter for have the low half of an argument
// first; the arguments that are looked at are of type int, so the kernel too looks at that half only.
const (
	callAt = 0
	archAt = 4
	argsAt = 16
)

func argument(n int) uint32 { return uint32(argsAt + 8*n) }

// program is a filter, or a part of one. A part either ends with an answer in all cases or goes on with what
// comes after it.
type program []unix.SockFilter

func join(parts ...program) (all program) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func load(offset uint32) program {
	return program{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}}
}

func answer(k uint32) program { return program{{Code: unix.BPF_RET | unix.BPF_K, K: k}} }

func allow() program { return answer(unix.SECCOMP_RET_ALLOW) }

func refuse(e syscall.Errno) program { return answer(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// The tests of what was loaded last. then must be shorter than 256.
func equal(k uint32, then program) program    { return test(unix.BPF_JEQ, k, 0, len(then), then) }
func notEqual(k uint32, then program) program { return test(unix.BPF_JEQ, k, len(then), 0, then) }
func atLeast(k uint32, then program) program  { return test(unix.BPF_JGE, k, 0, len(then), then) }

func test(jump uint16, k uint32, skipTrue, skipFalse int, then program) program {
	return append(program{{Code: unix.BPF_JMP | jump | unix.BPF_K, Jt: uint8(skipTrue), Jf: uint8(skipFalse), K: k}}, then...)
}

// one allows a value of what was loaded last if it is among these, and else gives the answer e.
func one(e syscall.Errno, values ...uint32) (p program) {
	for _, v := range values {
		p = join(p, equal(v, allow()))
	}
	return join(p, refuse(e))
}

// filter gives the filter for an architecture. Calls from firstForeign on belong to another convention of
// the same architecture; 0 is that there is none.
func filter(arch, firstForeign uint32) program {
	p := join(load(archAt), notEqual(arch, answer(unix.SECCOMP_RET_KILL_PROCESS)), load(callAt))
	if firstForeign != 0 {
		p = join(p, atLeast(firstForeign, refuse(unix.ENOSYS)))
	}
	sockets := join(
		load(argument(0)),
		equal(unix.AF_NETLINK, join(load(argument(2)), one(unix.EPROTONOSUPPORT, unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG))),
		one(unix.EAFNOSUPPORT, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6),
	)
	p = join(p,
		equal(unix.SYS_SOCKET, sockets),
		equal(unix.SYS_SOCKETPAIR, sockets),
		equal(unix.SYS_IOCTL, join(load(argument(1)), equal(unix.TIOCSTI, refuse(unix.EPERM)), equal(unix.TIOCLINUX, refuse(unix.EPERM)), allow())),
	)
	for _, r := range refused {
		for _, call := range r.calls {
			p = join(p, equal(call, refuse(r.answer)))
		}
	}
	return join(p, allow())
}

// loadFilter puts the filter on all threads of this process.
func loadFilter() error {
	const op = "filter system calls"
	if auditArch == 0 {
		return fail(op, errors.New("there is no filter for "+runtime.GOARCH+" yet: run on amd64 or arm64"))
	}
	p := filter(auditArch, firstForeignCall)
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return fail(op, errno)
	}
	if r != 0 {
		return fail(op, errors.New("a thread did not take it"))
	}
	return nil
}
