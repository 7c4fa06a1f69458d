package boot

import (
	"errors"
	"maps"
	"math"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter of system calls holds for the guest and for all that it starts, for good. It is Docker's default
// profile for a container without any of the capabilities that open a rule in it, from which there are tables for each
// architecture (profile_linux_*.go). What the profile doesn't allow is refused with EPERM, and calls that it
// doesn't know yet with ENOSYS, so that programs do without them. Beyond that profile are refused:
//
//   - Addresses that belong to no network namespace, or whose protocols have a long record of faults. What is
//     left is AF_UNIX, AF_INET, AF_INET6, and of AF_NETLINK the families that tell about interfaces and sockets.
//   - Typing into the terminal that a command was started from (TIOCSTI, TIOCLINUX).
//   - Tables of segments (modify_ldt), which programs for 32 bits have.
//
// io_uring, userfaultfd and the kernel's keys, which are refused by the profile, are answered as by a kernel without them,
// which programs that can use them expect.
//
// A call by the convention of another architecture, as of a program for 32 bits, ends its process.
//
//go:generate go run -C profile .

// span is a range of calls, condition a comparison of the low half of an argument that allows a call.
type (
	span      struct{ first, last uint32 }
	condition struct {
		call       uint32
		arg        int
		test       comparison
		value, two uint32
	}
)

type comparison int

const (
	isEqual  comparison = iota // the argument is value
	isLess                     // it is less
	isMasked                   // what it has of the bits of value is two
)

// missing are calls that are answered as by a kernel without them.
var missing = []uint32{
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER, unix.SYS_USERFAULTFD,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
}

// filter gives the filter for an architecture. clone3 says that the guest needs that call: its arguments can't
// be looked at, so it is left to the kernel then, which lets nobody inside make namespaces (settings).
func filter(arch uint32, clone3 bool) program {
	return join(load(archAt), notEqual(arch, answer(unix.SECCOMP_RET_KILL_PROCESS)), load(callAt), search(stretches(clone3)))
}

// stretches says what is done with each call.
func stretches(clone3 bool) []stretch {
	special := make(map[uint32]program)
	for c, e := range profileAnswers {
		special[c] = refuse(syscall.Errno(e))
	}
	for i := len(profileConditions) - 1; i >= 0; i-- {
		c := profileConditions[i]
		otherwise, ok := special[c.call]
		if !ok {
			otherwise = refuse(unix.EPERM)
		}
		special[c.call] = append(c.program(), otherwise...)
	}
	sockets := join(
		load(argument(0)),
		equal(unix.AF_NETLINK, join(load(argument(2)), one(unix.EPROTONOSUPPORT, unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG))),
		one(unix.EAFNOSUPPORT, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6),
	)
	special[unix.SYS_SOCKET], special[unix.SYS_SOCKETPAIR] = sockets, sockets
	special[unix.SYS_IOCTL] = join(load(argument(1)), equal(unix.TIOCSTI, refuse(unix.EPERM)), equal(unix.TIOCLINUX, refuse(unix.EPERM)), allow())
	for _, c := range slices.Concat(missing, missingHere) {
		special[c] = refuse(unix.ENOSYS)
	}
	if clone3 {
		special[unix.SYS_CLONE3] = allow()
	}
	odd := slices.Sorted(maps.Keys(special))

	var all []stretch
	next := uint32(0) // the first call that nothing is said about yet
	add := func(from uint32, do program) {
		if n := len(all); n > 0 && slices.Equal(all[n-1].do, do) {
			return
		}
		all = append(all, stretch{from, do})
	}
	upTo := func(end uint32, do program) { // [next, end), but for the odd ones
		for len(odd) > 0 && odd[0] < end {
			if odd[0] > next {
				add(next, do)
			}
			add(odd[0], special[odd[0]])
			next, odd = odd[0]+1, odd[1:]
		}
		if next < end {
			add(next, do)
			next = end
		}
	}
	for _, s := range profileAllowed {
		upTo(s.first, refuse(unix.EPERM))
		upTo(s.last+1, allow())
	}
	upTo(profileLast+1, refuse(unix.EPERM))
	upTo(math.MaxUint32, refuse(unix.ENOSYS)) // another convention's too, on amd64
	return all
}

// program allows a call that meets the condition, and goes on otherwise.
func (c condition) program() program {
	is := load(argument(c.arg))
	switch c.test {
	case isLess:
		return append(is, less(c.value, allow())...)
	case isMasked:
		return join(is, and(c.value), equal(c.two, allow()))
	default:
		return append(is, equal(c.value, allow())...)
	}
}

// loadFilter puts the filter on all threads of this process.
func loadFilter(clone3 bool) error {
	const op = "filter system calls"
	if auditArch == 0 {
		return fail(op, errors.New("there is no filter for "+runtime.GOARCH+" yet: run on amd64 or arm64"))
	}
	p := filter(auditArch, clone3)
	r, errno := setFilter(p, unix.SECCOMP_FILTER_FLAG_TSYNC)
	if errno != 0 {
		return fail(op, errno)
	}
	if r != 0 {
		return fail(op, errors.New("a thread did not take it"))
	}
	return nil
}

func setFilter(p program, flags uintptr) (uintptr, syscall.Errno) {
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(p)
	return r, errno
}
