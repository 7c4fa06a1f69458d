//go:build linux

package linux_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/image"
)

// scratch is a directory for what all tests share; TestMain removes it.
var scratch = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tongs-linux-")
	scratchDir = dir
	return dir, err
})

var scratchDir string

// initBinary builds the small guest once.
var initBinary = sync.OnceValues(func() (string, error) {
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	p := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p, "./testdata/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return p, nil
})

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making namespaces needs root")
	}
}

// newDriver makes a driver with a home of its own.
func newDriver(t testing.TB, change func(*linux.Config)) *linux.Driver {
	t.Helper()
	needRoot(t)
	p, err := initBinary()
	if err != nil {
		t.Fatal(err)
	}
	cfg := linux.Config{Home: t.TempDir(), Guest: &driver.Guest{Path: p}}
	if change != nil {
		change(&cfg)
	}
	d, err := linux.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		all, err := d.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, s := range all {
			if err := d.Destroy(ctx, s.ID); err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// hostImage gives the one image of all tests: it is never written to.
func hostImage(t testing.TB) image.Root {
	t.Helper()
	dir, err := scratch()
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// sh runs a shell command in a sandbox, as its user.
func sh(t testing.TB, d *linux.Driver, id, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := d.Dial(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(out), "\n")
}
