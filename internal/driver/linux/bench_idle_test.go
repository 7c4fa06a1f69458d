//go:build linux

package linux_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/sandbox"
)

// BenchmarkIdle makes many sandboxes, each of which runs one command, leaves them alone, and reports what one
// of them takes on average: MiB-pss is the guest's proportional share of memory, MiB-rss its resident set, and
// MiB-machine what the machine has less of, kernel objects included (which is only as good as the machine is
// quiet). Beside each other: a command while there is one sandbox, and while there are all of them.
//
// 50 are looked at after ten seconds; with TONGS_TEST_LONG=1 it is 500 after a minute.
func BenchmarkIdle(b *testing.B) {
	many, quiet := 50, 10*time.Second
	if os.Getenv("TONGS_TEST_LONG") != "" {
		many, quiet = 500, time.Minute
	}
	var home string
	d := newDriver(b, func(c *linux.Config) {
		guest := drivertest.GuestBinary(b)
		home, c.Guest = c.Home, &guest
	})
	ctx := b.Context()
	// run has a sandbox run a command n times, and gives the median of the times.
	run := func(id string, n int) time.Duration {
		c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, id) })
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		spec := sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"/bin/true"}}}
		var times []time.Duration
		for range n {
			began := time.Now()
			if res, err := c.Exec(ctx, spec); err != nil || !res.Exit.Success() {
				b.Fatalf("%+v, %v", res, err)
			}
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		return times[len(times)/2]
	}
	for i := 0; b.Loop(); i++ {
		id := func(k int) string { return fmt.Sprintf("idle-%d-%d", i, k) }
		create(b, d, driver.Spec{ID: id(0)})
		alone := run(id(0), 101)
		before := available(b)
		for k := 1; k <= many; k++ {
			create(b, d, driver.Spec{ID: id(k)})
			run(id(k), 1)
		}
		select { // what is measured is what they take after that time
		case <-time.After(quiet):
		case <-ctx.Done():
			b.Fatal(ctx.Err())
		}
		taken := before - available(b)
		var rss, pss float64
		for k := 1; k <= many; k++ {
			r, p := guestMemory(b, filepath.Join(home, "sandboxes", id(k), "guest.json"))
			rss, pss = rss+r, pss+p
		}
		among := run(id(0), 101)
		for k := range many + 1 {
			if err := d.Destroy(ctx, id(k)); err != nil {
				b.Fatal(err)
			}
		}
		n := float64(many)
		b.ReportMetric(n, "sandboxes")
		b.ReportMetric(rss/n, "MiB-rss")
		b.ReportMetric(pss/n, "MiB-pss")
		b.ReportMetric(taken/n, "MiB-machine")
		b.ReportMetric(float64(alone.Microseconds()), "µs-command-alone")
		b.ReportMetric(float64(among.Microseconds()), "µs-command-among")
	}
	b.ReportMetric(0, "ns/op")
}

// available is the machine's free memory, in MiB.
func available(b *testing.B) float64 {
	b.Helper()
	return kilobytes(b, "/proc/meminfo", "MemAvailable:") / 1024
}

// guestMemory gives the resident set and the proportional share of the guest whose record the file is, in MiB.
func guestMemory(b *testing.B, record string) (rss, pss float64) {
	b.Helper()
	data, err := os.ReadFile(record)
	if err != nil {
		b.Fatal(err)
	}
	var guest struct{ PID int }
	if err := json.Unmarshal(data, &guest); err != nil {
		b.Fatal(err)
	}
	file := fmt.Sprintf("/proc/%d/smaps_rollup", guest.PID)
	return kilobytes(b, file, "Rss:") / 1024, kilobytes(b, file, "Pss:") / 1024
}

// kilobytes reads a figure of a file of /proc.
func kilobytes(b *testing.B, file, name string) (n float64) {
	b.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				b.Fatalf("%s: %q: %v", file, line, err)
			}
			return n
		}
	}
	b.Fatalf("%s has no %s", file, name)
	return 0
}
