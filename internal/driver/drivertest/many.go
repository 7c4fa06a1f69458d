package drivertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/sandbox"
)

// manyAtOnce is how many calls are under way at the same time.
const manyAtOnce = 32

// testMany makes a hundred sandboxes (a thousand with TONGS_TEST_LONG), which are all there at once, has each run a
// command, and destroys them. What that takes is logged; that nothing is left is looked at when the bed is torn down.
func testMany(t *testing.T, s Suite) {
	n := 100
	if os.Getenv("TONGS_TEST_LONG") != "" {
		n = 1000
	}
	b := newBed(t, s)
	id := func(i int) string { return fmt.Sprintf("many-%d", i) }
	clients := make([]*sandbox.Client, n)
	each := func(what string, do func(ctx context.Context, i int) error) {
		t.Helper()
		began := time.Now()
		g, ctx := errgroup.WithContext(t.Context())
		g.SetLimit(manyAtOnce)
		for i := range n {
			g.Go(func() error {
				if err := do(ctx, i); err != nil {
					return fmt.Errorf("%s %d: %w", what, i, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("%s: %d in %.2f s, %.0f a second", what, n, took.Seconds(), float64(n)/took.Seconds())
	}
	before, descriptors := availableMiB(), openFiles()
	each("create", func(ctx context.Context, i int) error { return b.Create(ctx, b.spec(id(i))) })
	each("connect", func(ctx context.Context, i int) (err error) {
		clients[i], err = sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return b.Dial(ctx, id(i)) })
		return err
	})
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.Close()
			}
		}
	}()
	run := func(ctx context.Context, i int) error {
		res, err := clients[i].Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", "echo " + id(i) + " > me && cat me"}}})
		if err == nil && string(res.Stdout) != id(i)+"\n" {
			err = fmt.Errorf("%+v: %q", res.Exit, res.Stdout)
		}
		return err
	}
	each("first command", run)
	each("second command", run)
	all, err := b.List(t.Context())
	if err != nil || len(all) != n {
		t.Fatalf("there are %d sandboxes, %v", len(all), err)
	}
	for _, st := range all {
		if !st.Running {
			t.Errorf("%+v", st)
		}
	}
	t.Logf("each takes %.2f MiB of the machine's memory, and %.1f descriptors of this process with its connection",
		(before-availableMiB())/float64(n), float64(openFiles()-descriptors)/float64(n))
	for i, c := range clients {
		c.Close()
		clients[i] = nil
	}
	each("destroy", func(ctx context.Context, i int) error { return b.Destroy(ctx, id(i)) })
	if all, err := b.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("after all were destroyed: %v, %v", all, err)
	}
}

// availableMiB is what memory this machine has for new things; 0 where that isn't told.
func availableMiB() (n float64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	if _, rest, ok := strings.Cut(string(text), "MemAvailable:"); ok {
		_, _ = fmt.Sscan(rest, &n)
	}
	return n / 1024
}

// openFiles is how many descriptors this process has; 0 where that isn't told.
func openFiles() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}
