package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bench measures a driver beside what the same work costs without one.
func Bench(b *testing.B, s Suite) {
	if reason := s.Skip(); reason != "" {
		b.Skip(reason)
	}
	// What is compared is done in turn, so that a machine that slows down slows all of it: p50s, and their ratios.
	b.Run("command in a running sandbox", func(b *testing.B) {
		bed := newBed(b, s)
		bed.create(b, bed.spec("one"))
		c := bed.connect(b, "one")
		var bare, captured, ours times
		for b.Loop() {
			bare.add(b, bareTrue)
			captured.add(b, capturedTrue)
			ours.add(b, func() error { return execTrue(b.Context(), c) })
		}
		report(b, map[string]times{"bare": bare, "bare-captured": captured, "ours": ours}, "ours", "bare", "bare-captured")
	})
	b.Run("create and first command", func(b *testing.B) {
		bed := newBed(b, s)
		bwrap, _ := exec.LookPath("bwrap")
		var bare, bubble, ours times
		i := 0
		for b.Loop() {
			bare.add(b, bareTrue)
			if bwrap != "" {
				bubble.add(b, func() error { return exec.Command(bwrap, bubblewrapped...).Run() })
			}
			id := fmt.Sprintf("b%d", i)
			i++
			var c *sandbox.Client
			ours.add(b, func() (err error) {
				if err = bed.Create(b.Context(), bed.spec(id)); err != nil {
					return err
				}
				c, err = sandbox.Connect(b.Context(), func(ctx context.Context) (net.Conn, error) { return bed.Dial(ctx, id) })
				if err != nil {
					return err
				}
				return execTrue(b.Context(), c)
			})
			c.Close()
			must(b, bed.Destroy(b.Context(), id))
		}
		report(b, map[string]times{"bare": bare, "bubblewrap": bubble, "ours": ours}, "ours", "bare", "bubblewrap")
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
	b.Run("egress", func(b *testing.B) { benchEgress(b, s) })
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

// bubblewrapped is a sandbox of bubblewrap's that is as much like ours as its options give.
var bubblewrapped = []string{"--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
	"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/usr/bin/true"}

func bareTrue() error { return exec.Command("/bin/true").Run() }

// capturedTrue keeps what the command writes, both streams, as Exec does.
func capturedTrue() error {
	cmd := exec.Command("/bin/true")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	return cmd.Run()
}

func execTrue(ctx context.Context, c *sandbox.Client) error {
	res, err := c.Exec(ctx, trueSpec)
	if err == nil && !res.Exit.Success() {
		err = fmt.Errorf("true ended with %+v", res.Exit)
	}
	return err
}

// times are those that one thing took.
type times []time.Duration

func (t *times) add(b *testing.B, f func() error) {
	b.Helper()
	began := time.Now()
	err := f()
	*t = append(*t, time.Since(began))
	if err != nil {
		b.Fatal(err)
	}
}

func (t times) p50() time.Duration {
	sorted := slices.Sorted(slices.Values(t))
	return sorted[len(sorted)/2]
}

// report gives each p50, in microseconds, and the ratio of one to each of the others.
func report(b *testing.B, all map[string]times, one string, others ...string) {
	for name, t := range all {
		if len(t) > 0 {
			b.ReportMetric(float64(t.p50())/1e3, name+"-µs")
		}
	}
	for _, other := range others {
		if len(all[other]) > 0 {
			b.ReportMetric(float64(all[one].p50())/float64(all[other].p50()), "×"+other)
		}
	}
	b.ReportMetric(0, "ns/op") // of all together; means nothing
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
