package drivertest

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// callEscapes are attempts at single system calls that no namespace covers, by perl, which git needs anyway.
var callEscapes = []escape{
	{name: "reach the hypervisor", attempt: "perl -e 'socket(S, 40, 1, 0) or die $!'", onHost: true, kernel: true},
	{name: "reach the kernel's ciphers", attempt: "perl -e 'socket(S, 38, 5, 0) or die $!'", onHost: true, kernel: true},
	{name: "speak to the packet filter", attempt: "perl -e 'socket(S, 16, 3, 12) or die $!'", onHost: true, kernel: true},
	{name: "pair sockets of another family", attempt: "perl -e 'socketpair(A, B, 30, 5, 0) or die $!'", onHost: true, kernel: true},
	{name: "make an io_uring", attempt: "perl -e '$p = chr(0) x 120; syscall(%IO_URING_SETUP%, 4, $p) >= 0 or die $!'", onHost: true, kernel: true},
	{name: "handle page faults", attempt: "perl -e 'syscall(%USERFAULTFD%, 1) >= 0 or die $!'", onHost: true, kernel: true},
	{name: "keep keys", attempt: "perl -e '($t, $d, $p) = qw(user tongs x); syscall(%ADD_KEY%, $t, $d, $p, 1, -2) >= 0 or die $!'", onHost: true, kernel: true},
	{name: "load a program into the kernel", attempt: "perl -e '$a = pack q(L4x56), 2, 4, 4, 1; syscall(%BPF%, 0, $a, length $a) >= 0 or die $!'", onHost: true, root: true, kernel: true},
	{name: "measure the machine", attempt: "perl -e '$a = pack q(LLQx96), 1, 112, 0; syscall(%PERF_EVENT_OPEN%, $a, 0, -1, -1, 0) >= 0 or die $!'", onHost: true, root: true, kernel: true},
	{name: "type into the terminal", attempt: `p=$(mktemp) && echo '$c = "x"; exit !ioctl(STDIN, 0x5412, $c)' > $p && script -qec "perl $p" /dev/null </dev/null; r=$?; rm $p; exit $r`, onHost: true, root: true, kernel: true},
	{name: "run a program for 32 bits", attempt: "p=$(mktemp -p ~) && echo %ELF32% | base64 -d > $p && chmod +x $p && $p; r=$?; rm $p; exit $r", onHost: true, kernel: true},
}

// callNumbers are for strings.NewReplacer.
var callNumbers = func() []string {
	all := []string{"%ELF32%", base64.StdEncoding.EncodeToString(elf32())}
	for name, n := range map[string]int{
		"IO_URING_SETUP": unix.SYS_IO_URING_SETUP, "USERFAULTFD": unix.SYS_USERFAULTFD, "ADD_KEY": unix.SYS_ADD_KEY,
		"BPF": unix.SYS_BPF, "PERF_EVENT_OPEN": unix.SYS_PERF_EVENT_OPEN,
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
