package drivertest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bench measures a driver beside what the same work costs without one.
func Bench(b *testing.B, s Suite) {
	if reason := s.Skip(); reason != "" {
		b.Skip(reason)
	}
	b.Run("bare exec", func(b *testing.B) {
		for b.Loop() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bubblewrap", func(b *testing.B) {
		bwrap, err := exec.LookPath("bwrap")
		if err != nil {
			b.Skip("bwrap is not installed")
		}
		for b.Loop() {
			if err := exec.Command(bwrap, "--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
				"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/usr/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("create and first command", func(b *testing.B) {
		bed := newBed(b, s)
		i := 0
		for b.Loop() {
			id := fmt.Sprintf("b%d", i)
			i++
			bed.create(b, bed.spec(id))
			c, err := sandbox.Connect(b.Context(), func(ctx context.Context) (net.Conn, error) { return bed.Dial(ctx, id) })
			if err != nil {
				b.Fatal(err)
			}
			execTrue(b, c)
			b.StopTimer()
			c.Close()
			must(b, bed.Destroy(b.Context(), id))
			b.StartTimer()
		}
	})
	b.Run("command in a running sandbox", func(b *testing.B) {
		bed := newBed(b, s)
		bed.create(b, bed.spec("one"))
		c := bed.connect(b, "one")
		for b.Loop() {
			execTrue(b, c)
		}
	})
	for _, n := range []int{8, 32} {
		b.Run(fmt.Sprintf("bare exec, %d at once", n), func(b *testing.B) {
			b.SetParallelism(n)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := exec.Command("/bin/true").Run(); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(fmt.Sprintf("command in a running sandbox, %d at once", n), func(b *testing.B) {
			bed := newBed(b, s)
			bed.create(b, bed.spec("one"))
			c := bed.connect(b, "one")
			b.SetParallelism(n)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if res, err := c.Exec(b.Context(), trueSpec); err != nil || !res.Exit.Success() {
						b.Errorf("%+v, %v", res, err)
					}
				}
			})
		})
	}
	b.Run("1 GiB of output", func(b *testing.B) {
		bed := newBed(b, s)
		bed.create(b, bed.spec("one"))
		c := bed.connect(b, "one")
		const size = 1 << 30
		b.SetBytes(size)
		for b.Loop() {
			var n written
			exit, err := c.Run(b.Context(), sandbox.ProcessSpec{Argv: []string{"dd", "if=/dev/zero", "bs=64k", fmt.Sprint("count=", size>>16), "status=none"}}, nil, &n, nil)
			if err != nil || n != size || !exit.Success() {
				b.Fatalf("%d bytes, %+v, %v", n, exit, err)
			}
		}
		reportGuest(b, c)
	})
	b.Run("first prompt of a terminal", func(b *testing.B) {
		bed := newBed(b, s)
		bed.create(b, bed.spec("one"))
		c := bed.connect(b, "one")
		for b.Loop() {
			in, err := c.Start(b.Context(), sandbox.ProcessSpec{Argv: []string{"bash", "--norc", "-i"}, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}, Env: map[string]string{"PS1": "prompt> "}})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.WaitLog(b.Context(), in.ID, sandbox.LogWait{Text: "prompt> "}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			must(b, c.Signal(b.Context(), in.ID, "KILL"))
			must(b, c.Remove(b.Context(), in.ID))
			b.StartTimer()
		}
	})
	b.Run("destroy", func(b *testing.B) {
		bed := newBed(b, s)
		i := 0
		for b.Loop() {
			b.StopTimer()
			id := fmt.Sprintf("b%d", i)
			i++
			bed.create(b, bed.spec(id))
			b.StartTimer()
			must(b, bed.Destroy(b.Context(), id))
		}
	})
}

func execTrue(b *testing.B, c *sandbox.Client) {
	b.Helper()
	res, err := c.Exec(b.Context(), trueSpec)
	if err != nil {
		b.Fatal(err)
	}
	if !res.Exit.Success() {
		b.Fatalf("%+v", res.Exit)
	}
}

var trueSpec = sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"/bin/true"}}}

// written counts bytes.
type written int64

func (n *written) Write(b []byte) (int, error) { *n += written(len(b)); return len(b), nil }

// reportGuest reports the memory that the guest says it has.
func reportGuest(b *testing.B, c *sandbox.Client) {
	if in, err := c.Info(b.Context()); err == nil {
		b.ReportMetric(float64(in.MemoryBytes)/(1<<20), "MiB-guest")
	}
}
