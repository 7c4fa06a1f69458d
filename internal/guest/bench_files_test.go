package guest_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// beside runs ours and theirs in turn, so that what else the machine does meets
// both, and reports the medians.
func beside(b *testing.B, ours, theirs func() error) {
	b.Helper()
	var times [2][]time.Duration
	for b.Loop() {
		for i, f := range []func() error{ours, theirs} {
			began := time.Now()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			times[i] = append(times[i], time.Since(began))
		}
	}
	var median [2]float64
	for i := range times {
		slices.Sort(times[i])
		median[i] = float64(times[i][len(times[i])/2].Nanoseconds()) / 1e3
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median[0], "µs-ours")
	b.ReportMetric(median[1], "µs-beside")
	b.ReportMetric(median[0]/median[1], "ratio")
	b.ReportMetric(median[0]-median[1], "µs-more")
}

// BenchmarkFile reads and writes files, beside os in this process.
func BenchmarkFile(b *testing.B) {
	x := newBox(b)
	ctx := b.Context()
	for _, c := range []struct {
		name string
		size int
	}{{"4KiB", 4 << 10}, {"64MiB", 64 << 20}} {
		data := bytes.Repeat([]byte("0123456789abcdef"), c.size/16)
		ours, theirs := "f"+c.name, filepath.Join(x.project, "t"+c.name)
		b.Run(c.name+"/write", func(b *testing.B) {
			beside(b, func() error {
				_, err := x.WriteFile(ctx, ours, data, sandbox.WriteOptions{})
				return err
			}, func() error { // as the guest does it: beside, then in place
				if err := os.WriteFile(theirs+".tmp", data, 0o644); err != nil {
					return err
				}
				return os.Rename(theirs+".tmp", theirs)
			})
		})
		b.Run(c.name+"/read", func(b *testing.B) {
			beside(b, func() error {
				_, _, err := x.ReadFile(ctx, ours, sandbox.ReadOptions{})
				return err
			}, func() error {
				_, err := os.ReadFile(theirs)
				return err
			})
		})
		b.Run(c.name+"/stream", func(b *testing.B) {
			buf := make([]byte, 128<<10)
			beside(b, func() error {
				r, err := x.OpenFile(ctx, ours, sandbox.ReadOptions{})
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
				return err
			}, func() error {
				f, err := os.Open(theirs)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
				return err
			})
		})
	}
	b.Run("stat", func(b *testing.B) {
		beside(b, func() error {
			_, err := x.Stat(ctx, "f4KiB")
			return err
		}, func() error {
			_, err := os.Stat(filepath.Join(x.project, "t4KiB"))
			return err
		})
	})
}

// BenchmarkList lists 10,000 entries, beside a program that does the same here.
func BenchmarkList(b *testing.B) {
	x := newBox(b)
	ctx := b.Context()
	dir := x.path("many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%05d", dir, i), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	theirs := func() error {
		all, err := os.ReadDir(dir)
		for _, e := range all {
			if _, ierr := e.Info(); ierr != nil {
				return ierr
			}
		}
		return err
	}
	for _, limit := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("pages-of-%d", limit), func(b *testing.B) {
			beside(b, func() error {
				seen, opts := 0, sandbox.ListOptions{Limit: limit}
				for {
					res, err := x.ListFiles(ctx, "many", opts)
					if err != nil {
						return err
					}
					seen += len(res.Entries)
					if opts.Cursor = res.Next; res.Next == "" {
						break
					}
				}
				if seen != 10_000 {
					return fmt.Errorf("%d entries", seen)
				}
				return nil
			}, theirs)
		})
	}
}

// BenchmarkGrep searches 20,000 files, beside rg.
func BenchmarkGrep(b *testing.B) {
	rg, err := exec.LookPath("rg")
	if err != nil {
		b.Skip("there is no rg to run beside")
	}
	x := newBox(b)
	ctx := b.Context()
	text := strings.Repeat("some words on a line of a file like any other\n", 40)
	for i := range 20_000 {
		dir := x.path(fmt.Sprintf("src/d%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				b.Fatal(err)
			}
		}
		body := text
		if i%500 == 0 {
			body += "a needle here\n"
		}
		if err := os.WriteFile(fmt.Sprintf("%s/f%05d.txt", dir, i), []byte(body), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, pattern := range []string{"needle", `need\w+ h`, "(?i)NEEDLE"} {
		b.Run(pattern, func(b *testing.B) {
			beside(b, func() error {
				res, err := x.Grep(ctx, pattern, sandbox.GrepOptions{Scope: sandbox.Scope{Path: "src"}})
				if err == nil && len(res.Matches) != 40 {
					err = fmt.Errorf("%d matches, %s", len(res.Matches), res.Truncated)
				}
				return err
			}, func() error {
				cmd := exec.Command(rg, "--no-config", "-n", "--sort=path", "--", pattern, ".")
				cmd.Dir = x.path("src")
				out, err := cmd.Output()
				if n := bytes.Count(out, []byte{'\n'}); err == nil && n != 40 {
					err = fmt.Errorf("%d matches", n)
				}
				return err
			})
		})
	}
}
