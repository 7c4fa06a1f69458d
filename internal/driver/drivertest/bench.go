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
	res, err := c.Exec(b.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"/bin/true"}}})
	if err != nil {
		b.Fatal(err)
	}
	if !res.Exit.Success() {
		b.Fatalf("%+v", res.Exit)
	}
}
