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

// BenchmarkOutput passes 64 MiB of a command's output, beside the same bytes from
// a pipe, through a unix socket, to a reader here.
func BenchmarkOutput(b *testing.B) {
	const size = 64 << 20
	argv := []string{"head", "-c", fmt.Sprint(size), "/dev/zero"}
	b.Run("pipe-and-socket", func(b *testing.B) {
		b.SetBytes(size)
		dir := b.TempDir()
		for b.Loop() {
			if n, err := relayed(filepath.Join(dir, "s"), argv); err != nil || n != size {
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

// relayed is what nothing between a command and its reader can beat by much: a
// pipe, a process's copy into a unix socket, a read.
func relayed(path string, argv []string) (int64, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		c, err := net.Dial("unix", path)
		if err != nil {
			sent <- err
			return
		}
		defer c.Close()
		// Not io.Copy of the two, which would splice within the kernel.
		_, err = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{out}, make([]byte, 64<<10))
		sent <- err
	}()
	c, err := ln.Accept()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10))
	return n, errors.Join(err, <-sent, cmd.Wait())
}
