package drivertest

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// callEscapes are attempts at single system calls that no namespace covers, by perl, which git needs anyway. Where a call
// would do harm on the host, it is made with arguments that are wrong, and what is asked is whether the kernel looked at
// them.
var callEscapes = []escape{
	{name: "reach the hypervisor", attempt: "perl -e 'socket(S, 40, 1, 0) or die $!'", says: "not supported", where: onHost, kernel: true},
	{name: "reach the kernel's ciphers", attempt: "perl -e 'socket(S, 38, 5, 0) or die $!'", says: "not supported", where: onHost, kernel: true},
	{name: "speak to the packet filter", attempt: "perl -e 'socket(S, 16, 3, 12) or die $!'", says: "not supported", where: onHost, kernel: true},
	{name: "listen to the kernel's events", attempt: "perl -e 'socket(S, 16, 3, 15) or die $!'", says: "not supported", where: onHost, kernel: true},
	{name: "make raw packets", attempt: "perl -e 'socket(S, 2, 3, 1) or die $!'", says: denied, where: onHost, root: true},
	{name: "see packets of the link", attempt: "perl -e 'socket(S, 17, 3, 0x0300) or die $!'", says: "not supported", where: onHost, root: true, kernel: true},
	{name: "pair sockets of another family", attempt: "perl -e 'socketpair(A, B, 30, 5, 0) or die $!'", says: "not supported", where: onHost, kernel: true},
	{name: "make an io_uring", attempt: "perl -e '$p = chr(0) x 120; syscall(%IO_URING_SETUP%, 4, $p) >= 0 or die $!'", says: "not implemented", where: onHost, kernel: true},
	{name: "handle page faults", attempt: "perl -e 'syscall(%USERFAULTFD%, 1) >= 0 or die $!'", says: "not implemented", where: onHost, kernel: true},
	{name: "keep keys", attempt: "perl -e '($t, $d, $p) = qw(user tongs x); syscall(%ADD_KEY%, $t, $d, $p, 1, -2) >= 0 or die $!'", says: "not implemented", where: onHost, kernel: true},
	{name: "join a session's keyring", attempt: "perl -e 'syscall(%KEYCTL%, 0, -3, 1) >= 0 or die $!'", says: "not implemented", where: onHost, kernel: true},
	{name: "load a program into the kernel", attempt: "perl -e '$a = pack q(L4x56), 2, 4, 4, 1; syscall(%BPF%, 0, $a, length $a) >= 0 or die $!'", says: denied, where: onHost, root: true, kernel: true},
	{name: "measure the machine", attempt: "perl -e '$a = pack q(LLQx96), 1, 112, 0; syscall(%PERF_EVENT_OPEN%, $a, 0, -1, -1, 0) >= 0 or die $!'", says: denied, where: onHost, root: true, kernel: true},
	{name: "make namespaces by clone", attempt: "perl -e '$r = syscall(%CLONE%, 0x10000011, 0, 0, 0, 0); exit 0 if $r == 0; $r > 0 or die $!; waitpid $r, 0'", says: denied, where: onHost, kernel: true},
	{name: "make namespaces by clone3", attempt: "perl -e '$a = pack q(Q11), 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0; $r = syscall(%CLONE3%, $a, 88); exit 0 if $r == 0; $r > 0 or die $!; waitpid $r, 0'", says: "not implemented|not permitted|No space", where: onHost, kernel: true},
	{name: "make a clock of its own", attempt: "unshare -T true", says: denied, where: onHost, root: true, kernel: true},
	{name: "enter another's namespaces", attempt: "perl -e 'open F, q(<), q(/proc/self/ns/uts) or die $!; syscall(%SETNS%, fileno F, 0) == 0 or die $!'", says: denied, where: onHost, root: true},
	{name: "load a kernel module", attempt: "perl -e 'open F, q(/dev/null); $p = q(); syscall(%FINIT_MODULE%, fileno F, $p, 0); $!{EPERM} || $!{ENOSYS} and die $!'", says: denied, where: onHost, root: true, kernel: true},
	{name: "load another kernel", attempt: "perl -e 'syscall(%KEXEC_LOAD%, 0, 0, 0, 0) == 0 or die $!'", says: denied, where: onHost, root: true, kernel: true},
	{name: "end the machine", attempt: "perl -e 'syscall(%REBOOT%, 1, 2, 3, 0); $!{EINVAL} or die $!'", says: denied, where: onHost, root: true},
	{name: "swap", attempt: "perl -e '$f = q(/dev/null); syscall(%SWAPON%, $f, 0); $!{EINVAL} || $!{ENOTBLK} or die $!'", says: denied, where: onHost, root: true, kernel: true},
	{name: "set quotas", attempt: "perl -e 'syscall(%QUOTACTL%, 0x80000100, 0, 0, 0) == 0 or die $!'", says: denied, where: onHost, kernel: true},
	{name: "set the clock", attempt: "perl -e '$t = pack q(qq), 1, 2000000000; syscall(%CLOCK_SETTIME%, 0, $t); $!{EINVAL} or die $!'", says: denied, control: "perl -e '$t = pack q(qq), 1, 2000000000; syscall(%CLOCK_SETTIME%, 0, $t); $!{EINVAL} or die $!'", where: onHost, root: true},
	{name: "make all memory executable", attempt: "perl -e 'syscall(%PERSONALITY%, 0x0400000) >= 0 or die $!'", says: denied, where: onHost},
	{name: "count as root again", attempt: "perl -e '(syscall(%PRCTL%, 27, 0, 0, 0, 0) & 0xc2) == 0xc2 and die q(locked)'", says: "locked", where: onHost, shared: true},
	{name: "take descriptors out of a process", attempt: "perl -e '$f = syscall(%PIDFD_OPEN%, 0 + $$, 0); $f >= 0 or die $!; syscall(%PIDFD_GETFD%, $f, 0, 0) >= 0 or die $!'", says: denied, where: onHost, kernel: true},
	{name: "type into the terminal", attempt: tiocsti, says: "status 1|not permitted", where: onHost, root: true, kernel: true},
	{name: "run a program for 32 bits", attempt: "p=$(mktemp -p ~) && echo %ELF32% | base64 -d > $p && chmod +x $p && $p; r=$?; rm $p; exit $r", where: onHost, kernel: true},
	{name: "call by another convention", attempt: "perl -e 'syscall(%X32_GETPID%) > 0 or die $!'", says: "not implemented", where: onHost, kernel: true},
}

const tiocsti = `p=$(mktemp) && echo '$c = "x"; ioctl(STDIN, 0x5412, $c) or print("status 1\n"), exit 1' > $p && script -qec "perl $p" /dev/null </dev/null; r=$?; rm $p; exit $r`

// callNumbers are for strings.NewReplacer.
var callNumbers = func() []string {
	all := []string{"%ELF32%", base64.StdEncoding.EncodeToString(elf32())}
	for name, n := range map[string]int{
		"IO_URING_SETUP": unix.SYS_IO_URING_SETUP, "USERFAULTFD": unix.SYS_USERFAULTFD, "ADD_KEY": unix.SYS_ADD_KEY, "KEYCTL": unix.SYS_KEYCTL,
		"BPF": unix.SYS_BPF, "PERF_EVENT_OPEN": unix.SYS_PERF_EVENT_OPEN, "CLONE": unix.SYS_CLONE, "CLONE3": unix.SYS_CLONE3, "SETNS": unix.SYS_SETNS,
		"FINIT_MODULE": unix.SYS_FINIT_MODULE, "KEXEC_LOAD": unix.SYS_KEXEC_LOAD, "REBOOT": unix.SYS_REBOOT, "SWAPON": unix.SYS_SWAPON,
		"QUOTACTL": unix.SYS_QUOTACTL, "CLOCK_SETTIME": unix.SYS_CLOCK_SETTIME, "PERSONALITY": unix.SYS_PERSONALITY, "PIVOT_ROOT": unix.SYS_PIVOT_ROOT,
		"NAME_TO_HANDLE": unix.SYS_NAME_TO_HANDLE_AT, "OPEN_BY_HANDLE": unix.SYS_OPEN_BY_HANDLE_AT, "SETXATTR": unix.SYS_SETXATTR, "PTRACE": unix.SYS_PTRACE,
		"MLOCKALL": unix.SYS_MLOCKALL, "PIDFD_OPEN": unix.SYS_PIDFD_OPEN, "PRCTL": unix.SYS_PRCTL, "PIDFD_GETFD": unix.SYS_PIDFD_GETFD, "X32_GETPID": 1<<30 | unix.SYS_GETPID,
	} {
		all = append(all, "%"+name+"%", fmt.Sprint(n))
	}
	return all
}()

// elf32 is a program for i386 that ends with status 0.
func elf32() []byte {
	const base, header, segment = 0x08048000, 52, 32
	code := []byte{0x31, 0xdb, 0x31, 0xc0, 0x40, 0xcd, 0x80} // ebx = 0; eax = 1, exit; int 0x80
	size := uint32(header + segment + len(code))
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 15: 0}
	le := binary.LittleEndian
	for _, v := range []uint16{2, 3} { // executable, i386
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, base + header + segment, header, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{header, segment, 1, 40, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

// testRuntimes sees that what is refused isn't missed by what people run.
func testRuntimes(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("work"))
	c := b.connect(t, "work")
	for program, script := range map[string]string{
		"node": `node -e '
			const net = require("net"), { Worker } = require("worker_threads"), { execFileSync } = require("child_process");
			if (!require("os").networkInterfaces().lo) throw "no loopback";
			execFileSync("true");
			const server = net.createServer(s => s.end("hello")).listen(0, "127.0.0.1", () =>
				net.connect(server.address().port, "127.0.0.1").on("data", d => {
					require("fs").promises.readFile("/etc/passwd").then(() =>
						new Worker("require(\"worker_threads\").parentPort.postMessage(1)", { eval: true }).on("message", () => {
							console.log(String(d)); server.close();
						}));
				}));'`,
		"python3": `python3 -c '
import asyncio, concurrent.futures, multiprocessing, socket, subprocess
socket.getaddrinfo("localhost", 80)
subprocess.run(["true"], check=True)
multiprocessing.Pool(2).map(len, ["a", "b"])
async def main():
    async def serve(r, w):
        w.write(b"hello"); w.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
    print((await r.read()).decode())
asyncio.run(main())'`,
		"git":    "git init -q /tmp/other && git -C /tmp/other fetch -q ~/project main && git fsck >/dev/null 2>&1 && echo hello",
		"go":     "go version >/dev/null && echo hello",
		"perl":   `perl -e 'socketpair(A, B, 1, 1, 0) or die; if (!fork) { syswrite B, "hello\n"; exit } sysread A, $x, 9; wait; print $x'`,
		"ss":     "ss -ltn >/dev/null && echo hello",
		"strace": "strace -f -o /tmp/trace sh -c 'true; true' && grep -q execve /tmp/trace && echo hello",
		"java": `cat > Hello.java <<'E'
public class Hello { public static void main(String[] a) throws Exception { Thread t = new Thread(() -> System.out.println("hello")); t.start(); t.join(); } }
E
java -XX:+UseSerialGC Hello.java`,
		"gcc": `printf '#include <pthread.h>\n#include <stdio.h>\nvoid *f(void *x) { puts("hello"); return x; }\nint main(void) { pthread_t t; return pthread_create(&t, 0, f, 0) || pthread_join(t, 0); }\n' > t.c && gcc -pthread -o t t.c && ./t`,
		"npm": "npm --version >/dev/null && echo hello",
		"gdb": "gdb -q -batch -ex run -ex 'echo hello' true 2>/dev/null | tail -1",
	} {
		t.Run(program, func(t *testing.T) {
			if !bash(t, c, program+" --version || "+program+" version").Exit.Success() {
				t.Skip("not on this machine")
			}
			if got := strings.TrimSpace(output(t, c, script)); got != "hello" {
				t.Errorf("got %q", got)
			}
		})
	}
}
