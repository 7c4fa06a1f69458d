package boot

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// interpret runs a filter as the kernel would, on one call.
func interpret(t failer, p program, arch, call uint32, args ...uint64) uint32 {
	t.Helper()
	got, _ := count(t, p, arch, call, args...)
	return got
}

// count is interpret, and says how many instructions it took.
func count(t failer, p program, arch, call uint32, args ...uint64) (got uint32, steps int) {
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
		steps++
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
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps
		default:
			t.Fatalf("instruction %d is %#x", pc, in.Code)
		}
	}
	t.Fatalf("the filter ends without an answer")
	return 0, 0
}

func says(e syscall.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func TestFilter(t *testing.T) {
	t.Parallel()
	if auditArch == 0 {
		t.Skip("no filter for this architecture")
	}
	const high = 7 << 32 // nobody looks at the upper half of 32 bits
	const signal = uint64(unix.SIGCHLD)
	p := filter(auditArch, false)
	if len(p) > 300 {
		t.Errorf("%d instructions", len(p))
	}
	for _, c := range []struct {
		call uint32
		args []uint64
		want uint32
	}{
		{unix.SYS_READ, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_PTRACE, nil, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_SECCOMP, nil, unix.SECCOMP_RET_ALLOW},
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
		{unix.SYS_CLONE, []uint64{signal}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND | unix.CLONE_PIDFD}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_CLONE, []uint64{signal | unix.CLONE_NEWUSER}, says(unix.EPERM)},
		{unix.SYS_CLONE, []uint64{signal | unix.CLONE_NEWNS}, says(unix.EPERM)},
		{unix.SYS_CLONE, []uint64{signal | high | unix.CLONE_NEWNET}, says(unix.EPERM)},
		{unix.SYS_CLONE, []uint64{signal | unix.CLONE_NEWCGROUP}, says(unix.EPERM)},
		{unix.SYS_CLONE3, nil, says(unix.ENOSYS)},
		{unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWUSER}, says(unix.EPERM)},
		{unix.SYS_SETNS, nil, says(unix.EPERM)},
		{unix.SYS_MOUNT, nil, says(unix.EPERM)},
		{unix.SYS_OPEN_TREE, nil, says(unix.EPERM)},
		{unix.SYS_FSOPEN, nil, says(unix.EPERM)},
		{unix.SYS_PIVOT_ROOT, nil, says(unix.EPERM)},
		{unix.SYS_CHROOT, nil, says(unix.EPERM)},
		{unix.SYS_PERSONALITY, []uint64{0xffffffff}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_PERSONALITY, []uint64{8}, unix.SECCOMP_RET_ALLOW},
		{unix.SYS_PERSONALITY, []uint64{0x400000}, says(unix.EPERM)}, // READ_IMPLIES_EXEC
		{unix.SYS_IO_URING_SETUP, nil, says(unix.ENOSYS)},
		{unix.SYS_USERFAULTFD, nil, says(unix.ENOSYS)},
		{unix.SYS_KEYCTL, nil, says(unix.ENOSYS)},
		{unix.SYS_BPF, nil, says(unix.EPERM)},
		{unix.SYS_PERF_EVENT_OPEN, nil, says(unix.EPERM)},
		{unix.SYS_OPEN_BY_HANDLE_AT, nil, says(unix.EPERM)},
		{unix.SYS_DELETE_MODULE, nil, says(unix.EPERM)},
		{unix.SYS_KEXEC_LOAD, nil, says(unix.EPERM)},
		{unix.SYS_CLOCK_SETTIME, nil, says(unix.EPERM)},
		{unix.SYS_SYSLOG, nil, says(unix.EPERM)},
		{unix.SYS_FILE_GETATTR, nil, says(unix.ENOSYS)}, // newer than the profile
		{4000, nil, says(unix.ENOSYS)},
		{math.MaxUint32, nil, says(unix.ENOSYS)},
	} {
		t.Run(fmt.Sprint(c.call, c.args), func(t *testing.T) {
			if got := interpret(t, p, auditArch, c.call, c.args...); got != c.want {
				t.Errorf("answer %#x, want %#x", got, c.want)
			}
			if got := interpret(t, p, unix.AUDIT_ARCH_I386, c.call, c.args...); got != unix.SECCOMP_RET_KILL_PROCESS {
				t.Errorf("by another architecture: answer %#x", got)
			}
			if got := interpret(t, p, auditArch, c.call|1<<30, c.args...); got != says(unix.ENOSYS) {
				t.Errorf("by another convention: answer %#x", got)
			}
		})
	}
	if got := interpret(t, filter(auditArch, true), auditArch, unix.SYS_CLONE3); got != unix.SECCOMP_RET_ALLOW {
		t.Errorf("clone3 for a guest that needs it: %#x", got)
	}
	for _, c := range []uint32{unix.SYS_READ, unix.SYS_WRITE, unix.SYS_OPENAT, unix.SYS_MMAP, unix.SYS_FUTEX, unix.SYS_EXECVE, unix.SYS_IOCTL, unix.SYS_CLONE} {
		if _, steps := count(t, p, auditArch, c, 0, unix.TCGETS); steps > 16 {
			t.Errorf("call %d takes %d instructions", c, steps)
		}
	}
}

// docker gives what Docker's profile says of a call, one rule after the other.
func docker(call uint32, args []uint64) uint32 {
	for _, s := range profileAllowed {
		if s.first <= call && call <= s.last {
			return unix.SECCOMP_RET_ALLOW
		}
	}
	for _, c := range profileConditions {
		if a := uint32(args[c.arg]); c.call == call && (c.test == isEqual && a == c.value || c.test == isLess && a < c.value || c.test == isMasked && a&c.value == c.two) {
			return unix.SECCOMP_RET_ALLOW
		}
	}
	if e, ok := profileAnswers[call]; ok {
		return says(syscall.Errno(e))
	}
	if call > profileLast {
		return says(unix.ENOSYS)
	}
	return says(unix.EPERM)
}

// TestFilterProperty holds the filter to what it is written from, for any call.
func TestFilterProperty(t *testing.T) {
	t.Parallel()
	if auditArch == 0 {
		t.Skip("no filter for this architecture")
	}
	p := filter(auditArch, false)
	special := []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_IOCTL, unix.SYS_CLONE, unix.SYS_PERSONALITY, profileLast, profileLast + 1}
	rapid.Check(t, func(t *rapid.T) {
		call := rapid.OneOf(rapid.Uint32Range(0, profileLast+40), rapid.SampledFrom(special), rapid.Uint32()).Draw(t, "call")
		args := rapid.SliceOfN(rapid.OneOf(rapid.Uint64Range(0, 50), rapid.SampledFrom([]uint64{unix.TIOCSTI, unix.CLONE_NEWUSER, 0x20008}), rapid.Uint64()), 6, 6).Draw(t, "args")
		profile := docker(call, args)
		want := profile
		switch {
		case slices.Contains(missing, call) || slices.Contains(missingHere, call):
			want = says(unix.ENOSYS)
		case call == unix.SYS_IOCTL && (uint32(args[1]) == unix.TIOCSTI || uint32(args[1]) == unix.TIOCLINUX):
			want = says(unix.EPERM)
		case call == unix.SYS_SOCKET || call == unix.SYS_SOCKETPAIR:
			want = unix.SECCOMP_RET_ALLOW
			switch domain, protocol := uint32(args[0]), uint32(args[2]); {
			case domain == unix.AF_NETLINK && protocol != unix.NETLINK_ROUTE && protocol != unix.NETLINK_SOCK_DIAG:
				want = says(unix.EPROTONOSUPPORT)
			case !slices.Contains([]uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}, domain):
				want = says(unix.EAFNOSUPPORT)
			}
		}
		got := interpret(t, p, auditArch, call, args...)
		if got != want {
			t.Fatalf("answer %#x, want %#x", got, want)
		}
		if got == unix.SECCOMP_RET_ALLOW && profile != got {
			t.Fatalf("allowed, and Docker's profile answers %#x", profile)
		}
	})
}

// filtered runs f on a thread of its own under a filter; the thread is thrown away.
func filtered(t testing.TB, p program, f func()) {
	t.Helper()
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); e != 0 {
			done <- e
			return
		}
		var e syscall.Errno
		if p != nil {
			_, e = setFilter(p, 0)
		}
		if e == 0 {
			f()
		}
		done <- e
	}()
	if e := <-done; e != 0 {
		t.Fatal(e)
	}
}

// TestFilterInKernel lets the kernel answer what the interpreter answers above.
func TestFilterInKernel(t *testing.T) {
	t.Parallel()
	if auditArch == 0 {
		t.Skip("no filter for this architecture")
	}
	ask := func() (all []syscall.Errno) {
		for _, c := range [][3]uintptr{
			{unix.SYS_GETPPID}, {unix.SYS_CLONE3}, {unix.SYS_UNSHARE, unix.CLONE_FILES}, {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM},
			{unix.SYS_PERSONALITY, 0xffffffff}, {unix.SYS_FILE_GETATTR}, {unix.SYS_KEYCTL, 0, 0},
		} {
			r, _, e := unix.RawSyscall(c[0], c[1], c[2], 0)
			if e == 0 && c[0] == unix.SYS_SOCKET {
				unix.Close(int(r))
			}
			all = append(all, e)
		}
		return all
	}
	var without, with []syscall.Errno
	filtered(t, nil, func() { without = ask() })
	filtered(t, filter(auditArch, false), func() { with = ask() })
	if want := []syscall.Errno{0, unix.ENOSYS, unix.EPERM, unix.EAFNOSUPPORT, 0, unix.ENOSYS, unix.ENOSYS}; !slices.Equal(with, want) {
		t.Errorf("the kernel answers %v, want %v", with, want)
	}
	if without[1] == unix.ENOSYS || without[2] != 0 {
		t.Errorf("control: without the filter it answers %v", without)
	}
}

// TestProfileIsGenerated sees that the tables are what the generator makes of the profile.
func TestProfileIsGenerated(t *testing.T) {
	if os.Getenv("TONGS_TEST_LONG") == "" {
		t.Skip("it needs the module proxy: TONGS_TEST_LONG=1")
	}
	if out, err := exec.CommandContext(t.Context(), "go", "run", "-C", "profile", ".", "-check").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// BenchmarkFilter measures what starting a sandbox and what each call of its commands pays for the filter.
func BenchmarkFilter(b *testing.B) {
	p := filter(auditArch, false)
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			filter(auditArch, false)
		}
		b.ReportMetric(float64(len(p)), "instructions")
	})
	b.Run("load", func(b *testing.B) {
		var took time.Duration
		for b.Loop() {
			began := time.Now()
			filtered(b, p, func() { took += time.Since(began) })
		}
		var bare time.Duration
		for range b.N {
			began := time.Now()
			filtered(b, nil, func() { bare += time.Since(began) })
		}
		b.ReportMetric(float64((took-bare).Nanoseconds())/float64(b.N)/1e3, "µs-load")
	})
	for name, call := range map[string][3]uintptr{"getppid": {unix.SYS_GETPPID}, "ioctl": {unix.SYS_IOCTL, 1 << 20, unix.TCGETS}, "unshare": {unix.SYS_UNSHARE, 0}} {
		for filter, p := range map[string]program{"without": nil, "with": p} {
			b.Run("call/"+name+"/"+filter, func(b *testing.B) {
				filtered(b, p, func() {
					for b.Loop() {
						unix.RawSyscall(call[0], call[1], call[2], 0)
					}
				})
			})
		}
	}
}
