package guest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// BenchmarkOutput passes a command's output to a reader, beside what nothing between
// the two can beat by much: a process that copies a pipe into a unix socket, and a
// read here. MiB-guest is the guest's memory afterwards, MiB-most the most that its
// process ever had, the test's own program included.
func BenchmarkOutput(b *testing.B) {
	for _, size := range []int64{1 << 20, 16 << 20, 64 << 20, 1 << 30} {
		// Not head, which writes 4 KiB at a time: that would measure its switches.
		argv := []string{"dd", "if=/dev/zero", "bs=64k", fmt.Sprint("count=", size>>16), "status=none"}
		name := fmt.Sprintf("%dMiB", size>>20)
		b.Run(name+"/pipe-and-socket", func(b *testing.B) {
			r := newRelay(b, argv)
			b.SetBytes(size)
			for b.Loop() {
				if err := r.pass(size); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/guest", func(b *testing.B) {
			x := newBox(b)
			b.SetBytes(size)
			ctx := b.Context()
			for b.Loop() {
				var n countWriter
				exit, err := x.Run(ctx, sandbox.ProcessSpec{Argv: argv}, nil, &n, nil)
				if err != nil || int64(n) != size || !exit.Success() {
					b.Fatalf("%d bytes, %+v, %v", n, exit, err)
				}
			}
			x.reportMemory(b)
		})
	}
}

// reportMemory reports what the guest has, and the most that its process had.
func (x *box) reportMemory(b *testing.B) {
	if in, err := x.Info(b.Context()); err == nil {
		b.ReportMetric(float64(in.MemoryBytes)/(1<<20), "MiB-guest")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			b.ReportMetric(kib/1024, "MiB-most")
		}
	}
}

// BenchmarkTerminal starts a shell on a terminal and waits for its first prompt,
// beside the same without a guest.
func BenchmarkTerminal(b *testing.B) {
	argv := []string{"bash", "--norc", "-i"}
	prompt := []byte("prompt> ")
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			if err := firstPrompt(argv, prompt); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("guest", func(b *testing.B) {
		x := newBox(b)
		ctx := b.Context()
		for b.Loop() {
			in, err := x.Start(ctx, sandbox.ProcessSpec{Argv: argv, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}, Env: map[string]string{"PS1": string(prompt)}})
			if err != nil {
				b.Fatal(err)
			}
			v, err := x.OpenTerminal(ctx, in.ID, 0)
			if err != nil {
				b.Fatal(err)
			}
			var seen []byte
			for buf := make([]byte, 4096); !bytes.Contains(seen, prompt); {
				n, err := v.Read(buf)
				if err != nil {
					b.Fatal(err)
				}
				seen = append(seen, buf[:n]...)
			}
			b.StopTimer()
			_ = v.Close()
			_ = x.Signal(ctx, in.ID, "KILL")
			_ = x.Remove(ctx, in.ID)
			b.StartTimer()
		}
	})
}

// firstPrompt runs a program on a terminal of its own until it shows the prompt.
func firstPrompt(argv []string, prompt []byte) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	runtime.KeepAlive(master)
	if errno != 0 {
		return errno
	}
	slave := os.NewFile(fd, "terminal")
	defer slave.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PS1="+string(prompt))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var seen []byte
	for buf := make([]byte, 4096); !bytes.Contains(seen, prompt); {
		n, err := master.Read(buf)
		if err != nil {
			return err
		}
		seen = append(seen, buf[:n]...)
	}
	return nil
}

// relay is another process, beRelay, that runs a command again and again.
type relay struct {
	ask  io.Writer
	from net.Conn
}

func newRelay(b *testing.B, argv []string) *relay {
	b.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	theirs, mine := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	defer mine.Close()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, argv...)
	cmd.Env = append(os.Environ(), playRelay+"=1")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, os.Stderr
	ask, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c, err := net.FileConn(mine)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ask.Close()
		c.Close()
		_ = cmd.Wait()
	})
	return &relay{ask, c}
}

// pass has the command run once, and reads what it writes.
func (r *relay) pass(size int64) error {
	if _, err := io.WriteString(r.ask, "\n"); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(r.from, size)}, make([]byte, 64<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// beRelay runs the command that the arguments name for each line of its input, and
// copies its output to descriptor 3.
func beRelay() int {
	f := os.NewFile(3, "socket")
	c, err := net.FileConn(f)
	if err != nil {
		return 1
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		out, err := cmd.StdoutPipe()
		if err != nil || cmd.Start() != nil {
			return 1
		}
		// Not io.Copy of the two, which would splice within the kernel.
		if _, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{out}, make([]byte, 64<<10)); err != nil {
			return 1
		}
		if cmd.Wait() != nil {
			return 1
		}
	}
	return 0
}
