package guest_test

import (
	"context"
	"fmt"
	"os/exec"
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

type countWriter int64

func (c *countWriter) Write(b []byte) (int, error) { *c += countWriter(len(b)); return len(b), nil }
