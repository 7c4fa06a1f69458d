package boot

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// interpret runs a filter as the kernel would, on one call.
func interpret(t interface {
	Helper()
	Fatalf(string, ...any)
}, p program, arch, call uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, argsAt+6*8)
	binary.LittleEndian.PutUint32(data[callAt:], call)
	binary.LittleEndian.PutUint32(data[archAt:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[argsAt+8*i:], a)
	}
	var a uint32
	for pc := 0; pc < len(p); pc++ {
		in := p[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || int(in.K) > len(data)-4 {
				t.Fatalf("instruction %d loads from %d", pc, in.K)
			}
			a = binary.LittleEndian.Uint32(data[in.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K
		default:
			t.Fatalf("instruction %d is %#x", pc, in.Code)
		}
	}
	t.Fatalf("the filter ends without an answer")
	return 0
}

func says(e syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func TestFilter(t *testing.T) {
	t.Parallel()
	if auditArch == 0 {
		t.Skip("no filter for this architecture")
	}
	const high = 7 << 32 // nobody looks at the upper half of an int
	p := filter(auditArch, firstForeignCall)
	for _, c := range []struct {
		call uint32
		args []uint64
		want uint32
	}{
		{unix.SYS_READ, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE3, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_PTRACE, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CONNECT, []uint64{unix.AF_VSOCK}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{high | unix.AF_INET, unix.SOCK_STREAM, 6}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM, 17}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, high | unix.NETLINK_SOCK_DIAG}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, says(unix.EPROTONOSUPPORT)},
		{unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_SOCKET, []uint64{high | unix.AF_VSOCK, unix.SOCK_STREAM}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_SOCKET, []uint64{unix.AF_ALG}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_SOCKET, []uint64{unix.AF_PACKET}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_SOCKET, []uint64{math.MaxUint64}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_SOCKETPAIR, []uint64{unix.AF_UNIX}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SOCKETPAIR, []uint64{unix.AF_TIPC}, says(unix.EAFNOSUPPORT)},
		{unix.SYS_IOCTL, []uint64{0, unix.TIOCGWINSZ}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, says(unix.EPERM)},
		{unix.SYS_IOCTL, []uint64{0, high | unix.TIOCSTI}, says(unix.EPERM)},
		{unix.SYS_IOCTL, []uint64{0, unix.TIOCLINUX}, says(unix.EPERM)},
		{unix.SYS_IO_URING_SETUP, nil, says(unix.ENOSYS)},
		{unix.SYS_USERFAULTFD, nil, says(unix.ENOSYS)},
		{unix.SYS_KEYCTL, nil, says(unix.ENOSYS)},
		{unix.SYS_BPF, nil, says(unix.EPERM)},
		{unix.SYS_OPEN_BY_HANDLE_AT, nil, says(unix.EPERM)},
		{unix.SYS_DELETE_MODULE, nil, says(unix.EPERM)},
	} {
		t.Run(fmt.Sprint(c.call, c.args), func(t *testing.T) {
			if got := interpret(t, p, auditArch, c.call, c.args...); got != c.want {
				t.Errorf("answer %#x, want %#x", got, c.want)
			}
			if got := interpret(t, p, unix.AUDIT_ARCH_I386, c.call, c.args...); got != unix.SECCOMP_RET_KILL_PROCESS {
				t.Errorf("by another architecture: answer %#x", got)
			}
			if firstForeignCall == 0 {
				return
			}
			if got := interpret(t, p, auditArch, c.call|firstForeignCall, c.args...); got != says(unix.ENOSYS) {
				t.Errorf("by another convention: answer %#x", got)
			}
		})
	}
}

// TestFilterProperty holds the filter to what it is written from, for any call.
func TestFilterProperty(t *testing.T) {
	t.Parallel()
	if auditArch == 0 {
		t.Skip("no filter for this architecture")
	}
	p := filter(auditArch, firstForeignCall)
	special := []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_IOCTL}
	rapid.Check(t, func(t *rapid.T) {
		call := rapid.OneOf(rapid.Uint32Range(0, 600), rapid.SampledFrom(special), rapid.Uint32()).Draw(t, "call")
		args := rapid.SliceOfN(rapid.OneOf(rapid.Uint64Range(0, 50), rapid.Uint64()), 6, 6).Draw(t, "args")
		want := uint32(unix.SECCOMP_RET_ALLOW)
		for _, r := range refused {
			if slices.Contains(r.calls, call) {
				want = says(r.answer)
			}
		}
		switch {
		case firstForeignCall != 0 && call >= firstForeignCall:
			want = says(unix.ENOSYS)
		case call == unix.SYS_IOCTL && (uint32(args[1]) == unix.TIOCSTI || uint32(args[1]) == unix.TIOCLINUX):
			want = says(unix.EPERM)
		case call == unix.SYS_SOCKET || call == unix.SYS_SOCKETPAIR:
			switch domain, protocol := uint32(args[0]), uint32(args[2]); {
			case domain == unix.AF_NETLINK && protocol != unix.NETLINK_ROUTE && protocol != unix.NETLINK_SOCK_DIAG:
				want = says(unix.EPROTONOSUPPORT)
			case !slices.Contains([]uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}, domain):
				want = says(unix.EAFNOSUPPORT)
			}
		}
		if got := interpret(t, p, auditArch, call, args...); got != want {
			t.Fatalf("answer %#x, want %#x", got, want)
		}
	})
}
