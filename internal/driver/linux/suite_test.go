//go:build linux

package linux_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/internal/idmap"
)

var suite = drivertest.Suite{
	New: func(home string, guest driver.Guest) (driver.Driver, error) {
		return linux.New(linux.Config{Home: home, Guest: &guest})
	},
	Skip: func() string {
		if n, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); os.Geteuid() != 0 && (err != nil || string(n) == "0\n") {
			return "this machine allows no user namespaces to ordinary users"
		}
		return ""
	},
	NoLimits: func() string {
		if os.Geteuid() != 0 {
			return noLimits()
		}
		return ""
	},
	OneUser: oneUser,
	NoFence: func() string {
		if weak := boot.LandlockWeakness(boot.LandlockVersion()); weak != "" {
			return "this kernel's Landlock: " + weak
		}
		return ""
	},
	NoRoot: func() string {
		if oneUser() {
			return "an ordinary user without a range has one user id"
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

var noLimits = sync.OnceValue(linux.NoLimits)

// oneUser says whether sandboxes have one user id here.
func oneUser() bool {
	_, err := idmap.Find()
	return os.Geteuid() != 0 && err != nil
}

// exitCode is that of a test binary whose goroutines have outlived its tests.
const exitCode = 1

func TestMain(m *testing.M) {
	if home := os.Getenv(storageEnv); home != "" {
		os.Exit(playStorage(home))
	}
	code := drivertest.Main(m, suite)
	if scratchDir != "" {
		os.RemoveAll(scratchDir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = exitCode
	}
	os.Exit(code)
}

func TestDriver(t *testing.T) { drivertest.Run(t, suite) }

func BenchmarkDriver(b *testing.B) { drivertest.Bench(b, suite) }
