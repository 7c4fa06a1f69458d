//go:build linux

package linux_test

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

var suite = drivertest.Suite{
	New: func(home string, guest driver.Guest) (driver.Driver, error) {
		return linux.New(linux.Config{Home: home, Guest: &guest})
	},
	Skip: func() string {
		if os.Geteuid() != 0 {
			return "making namespaces needs root"
		}
		return ""
	},
	Leaks: func(home string) ([]string, error) {
		d, err := linux.New(linux.Config{Home: home})
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.Leaks(context.Background())
	},
}

// exitCode is that of a test binary whose goroutines have outlived its tests.
const exitCode = 1

func TestMain(m *testing.M) {
	code := drivertest.Main(m, suite)
	if dir, err := images(); err == nil {
		os.RemoveAll(dir)
	}
	if p, err := initBinary(); err == nil {
		os.RemoveAll(p)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = exitCode
	}
	os.Exit(code)
}

func TestDriver(t *testing.T) { drivertest.Run(t, suite) }

func BenchmarkDriver(b *testing.B) { drivertest.Bench(b, suite) }
