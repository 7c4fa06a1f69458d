//go:build linux

package oci_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/internal/driver/oci"
)

// buildPatience is how long tests wait for gVisor to be built. What was compiled by then is in the go
// command's cache the next time.
const buildPatience = 8 * time.Minute

// runtimesDir is where tests install gVisor: the user's cache, so that it is built once on each machine.
func runtimesDir() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "tongs", "runtimes"), err
}

// gvisor finds gVisor or builds it, once in each process, and gives the reason why there is none.
var gvisor = sync.OnceValue(func() string {
	dir, err := runtimesDir()
	if err != nil {
		return "nowhere to install gVisor: " + err.Error()
	}
	if _, err := oci.FindGVisor(dir); err == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildPatience)
	defer cancel()
	if _, err := oci.Install(ctx, dir, nil); err != nil {
		return fmt.Sprintf("gVisor can't be built within %s here: %v", buildPatience, err)
	}
	return ""
})

// needed gives the reason why a runtime can't be tested here.
func needed(runtime string) string {
	if os.Geteuid() != 0 {
		return "this driver needs root"
	}
	if runtime == oci.GVisor {
		return gvisor()
	}
	if _, err := exec.LookPath(runtime); err != nil {
		return runtime + " is not installed"
	}
	return ""
}

// runtimeEnv and platformEnv tell a test binary that plays the host which runtime its test is about.
const (
	runtimeEnv  = "TONGS_OCI_TEST_RUNTIME"
	platformEnv = "TONGS_OCI_TEST_PLATFORM"
)

func suite(runtime string, platform oci.Platform) drivertest.Suite {
	return drivertest.Suite{
		New: func(home string, guest driver.Guest) (driver.Driver, error) {
			dir, err := runtimesDir()
			if err != nil {
				return nil, err
			}
			return oci.New(oci.Config{Home: home, Guest: &guest, Runtime: runtime, Platform: platform, Dir: dir})
		},
		Skip:      func() string { return needed(runtime) },
		OwnKernel: runtime == oci.GVisor,
		Brief:     true, KeepsGuest: true,
		NoLimits: func() string { return "" },
		OneUser:  func() bool { return false },
		NoFence:  func() string { return noFence(runtime) },
		Harmless: harmless(runtime),
		HostEnv:  []string{runtimeEnv + "=" + runtime, platformEnv + "=" + string(platform)},
		Leaks: func(home string) ([]string, error) {
			d, err := linux.New(linux.Config{Home: home})
			if err != nil {
				return nil, err
			}
			defer d.Close()
			return d.Leaks(context.Background())
		},
	}
}

// noFence gives the reason why commands have no second fence around them.
func noFence(runtime string) string {
	if runtime == oci.GVisor {
		return "gVisor has no Landlock"
	}
	if weak := boot.LandlockWeakness(boot.LandlockVersion()); weak != "" {
		return "this kernel's Landlock: " + weak
	}
	return ""
}

// harmless are the escapes that a runtime leaves possible.
func harmless(runtime string) map[string]string {
	const own = "the /dev that the runtime makes belongs to the sandbox's root: 64 KiB of memory in which no device can be made"
	all := map[string]string{"root: write to /dev": own, "root: fill memory by files of /dev": own}
	if runtime == oci.GVisor {
		all["root: kill the first process"] = "the root of a sandbox on gVisor can end that sandbox, and nothing else"
		all["root: become a user of the host's"] = "gVisor counts users by itself; to the host they are all within the sandbox's range"
	}
	return all
}

// exitCode is that of a test binary whose goroutines have outlived its tests.
const exitCode = 1

func TestMain(m *testing.M) {
	code := drivertest.Main(m, suite(os.Getenv(runtimeEnv), oci.Platform(os.Getenv(platformEnv))))
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = exitCode
	}
	os.Exit(code)
}

func TestRunc(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, suite(oci.Runc, ""))
}

func TestCrun(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, suite(oci.Crun, ""))
}

func TestGVisor(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, suite(oci.GVisor, oci.Systrap))
}

func TestGVisorPtrace(t *testing.T) {
	if os.Getenv("TONGS_TEST_LONG") == "" {
		t.Skip("takes long; TONGS_TEST_LONG=1 runs it")
	}
	drivertest.Run(t, suite(oci.GVisor, oci.Ptrace))
}

func BenchmarkRunc(b *testing.B)   { drivertest.Bench(b, suite(oci.Runc, "")) }
func BenchmarkCrun(b *testing.B)   { drivertest.Bench(b, suite(oci.Crun, "")) }
func BenchmarkGVisor(b *testing.B) { drivertest.Bench(b, suite(oci.GVisor, oci.Systrap)) }
