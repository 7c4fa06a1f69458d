package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

type countWriter int64

func (c *countWriter) Write(b []byte) (int, error) { *c += countWriter(len(b)); return len(b), nil }
