package drivertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
)

// scratch is a directory for what all tests of a process share; Main removes it.
var scratch = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tongs-drivertest-")
	scratchDir = dir
	return dir, err
})

var scratchDir string

var buildGuest = sync.OnceValues(func() (string, error) {
	if p := os.Getenv(driver.GuestEnv); p != "" {
		return p, nil
	}
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	p := filepath.Join(dir, "tongs-guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p, "github.com/tongs-dev/tongs/cmd/tongs-guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tongs-guest: %w\n%s", err, out)
	}
	return p, nil
})

// GuestBinary builds the guest, once in each process, the way it is released. TONGS_GUEST names one to
// use instead.
func GuestBinary(t testing.TB) driver.Guest {
	t.Helper()
	p, err := buildGuest()
	if err != nil {
		t.Fatal(err)
	}
	return driver.Guest{Path: p}
}
