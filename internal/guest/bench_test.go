package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

// BenchmarkExec runs `true` through the guest, beside os/exec in this process.
func BenchmarkExec(b *testing.B) {
	path, err := exec.LookPath("true")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command(path).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	x := newBox(b)
	spec := sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{path}}}
	one := func(ctx context.Context, b *testing.B) {
		if res, err := x.Exec(ctx, spec); err != nil || !res.Exit.Success() {
			b.Fatalf("%+v, %v", res, err)
		}
	}
	b.Run("guest", func(b *testing.B) {
		for b.Loop() {
			one(b.Context(), b)
		}
	})
	for _, n := range []int{8, 32} {
		b.Run(fmt.Sprintf("os-exec-%d-parallel", n), func(b *testing.B) {
			b.SetParallelism(n)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := exec.Command(path).Run(); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(fmt.Sprintf("guest-%d-parallel", n), func(b *testing.B) {
			b.SetParallelism(n)
			ctx := b.Context()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := x.Exec(ctx, spec); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkFile reads and writes 4 KiB and 64 MiB, beside os in this process.
func BenchmarkFile(b *testing.B) {
	x := newBox(b)
	for _, size := range []int{4 << 10, 64 << 20} {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		name := filepath.Join(x.project, "f")
		unit := "4KiB"
		if size > 4<<10 {
			unit = "64MiB"
		}
		run := func(what string, f func() error) {
			b.Run(unit+"/"+what, func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		ctx := b.Context()
		run("write-os", func() error { // as the guest does it: beside, then in place
			if err := os.WriteFile(name+".tmp", data, 0o644); err != nil {
				return err
			}
			return os.Rename(name+".tmp", name)
		})
		run("write-guest", func() error {
			_, err := x.WriteFile(ctx, "f", data, sandbox.WriteOptions{})
			return err
		})
		run("read-os", func() error {
			_, err := os.ReadFile(name)
			return err
		})
		run("read-guest", func() error {
			_, _, err := x.ReadFile(ctx, "f", sandbox.ReadOptions{})
			return err
		})
		run("read-guest-stream", func() error {
			r, err := x.OpenFile(ctx, "f", sandbox.ReadOptions{})
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		})
		run("stat-guest", func() error {
			_, err := x.Stat(ctx, "f")
			return err
		})
	}
}

// BenchmarkOutput passes 64 MiB of a command's output, beside what nothing between
// a command and its reader can beat by much: a process that copies a pipe into a
// unix socket, and a read here.
func BenchmarkOutput(b *testing.B) {
	const size = 64 << 20
	// Not head, which writes 4 KiB at a time: that would measure its switches.
	argv := []string{"dd", "if=/dev/zero", "bs=64k", fmt.Sprint("count=", size>>16), "status=none"}
	b.Run("pipe-and-socket", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if n, err := relayed(argv); err != nil || n != size {
				b.Fatalf("%d bytes, %v", n, err)
			}
		}
	})
	x := newBox(b)
	b.Run("guest", func(b *testing.B) {
		b.SetBytes(size)
		ctx := b.Context()
		for b.Loop() {
			var n countWriter
			exit, err := x.Run(ctx, sandbox.ProcessSpec{Argv: argv}, nil, &n, nil)
			if err != nil || n != size || !exit.Success() {
				b.Fatalf("%d bytes, %+v, %v", n, exit, err)
			}
		}
		if in, err := x.Info(ctx); err == nil {
			b.ReportMetric(float64(in.MemoryBytes)/(1<<20), "MiB-guest")
		}
	})
}

type countWriter int64

func (c *countWriter) Write(b []byte) (int, error) { *c += countWriter(len(b)); return len(b), nil }

// relayed counts the bytes that come through beRelay, in another process.
func relayed(argv []string) (int64, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	theirs, mine := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	defer mine.Close()
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, argv...)
	cmd.Env = append(os.Environ(), playRelay+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return 0, err
	}
	c, err := net.FileConn(mine)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10))
	return n, errors.Join(err, cmd.Wait())
}

// beRelay runs the command that the arguments name, and copies its output to
// descriptor 3.
func beRelay() int {
	f := os.NewFile(3, "socket")
	c, err := net.FileConn(f)
	if err != nil {
		return 1
	}
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
	return 0
}
