package cli

import (
	"context"
	"log/slog"
	"os"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/driver/oci"
	"github.com/tongs-dev/tongs/sandbox"
)

// newDriver makes the driver of all sandboxes, whatever runs each of them.
func newDriver(cfg *Config, log *slog.Logger) (driver.Driver, error) {
	d, err := linux.New(linux.Config{
		Home: cfg.Home, Logger: log, StorageBytes: int64(cfg.Storage.Size), ReserveBytes: int64(cfg.Storage.Reserve),
		Default: cfg.Driver, Runtimes: runtimes(cfg),
	})
	if err != nil {
		return nil, err // not d: a nil *linux.Driver is not a nil Driver
	}
	return d, nil
}

func runtimes(cfg *Config) []linux.Runtime {
	return oci.Runtimes(oci.InstalledDir(cfg.Home), oci.Platform(cfg.Platform))
}

// needDriver says what is missing for a driver, if it is a runtime's.
func needDriver(cfg *Config, name string) error {
	for _, rt := range runtimes(cfg) {
		if rt.Name() != name {
			continue
		}
		if os.Geteuid() != 0 {
			return sandbox.Errf(driver.CodeUnsupported, "find driver", "the driver "+name+" needs root", "run tongs as root, or use the driver "+driver.Linux+", which doesn't")
		}
		_, err := rt.Program()
		return err
	}
	return nil
}

// checkRuntimes examines what can run sandboxes besides the driver itself. What isn't there is a failure only
// if it was asked for.
func checkRuntimes(cfg *Config) []driver.Finding {
	var all []driver.Finding
	for _, rt := range runtimes(cfg) {
		found := rt.Check()
		if err := needDriver(cfg, rt.Name()); err != nil {
			found = []driver.Finding{driver.FindingOf("driver "+rt.Name(), driver.Warning, err)}
		}
		for _, f := range found {
			if f.Level != driver.OK && rt.Name() == cfg.Driver {
				f.Level = driver.Failure
			} else {
				f.Level = driver.OK
			}
			all = append(all, f)
		}
	}
	return all
}

// installDriver gets a runtime into the home.
func installDriver(ctx context.Context, cfg *Config, progress func(done, of int)) (string, error) {
	p, err := oci.Install(ctx, oci.InstalledDir(cfg.Home), progress)
	return p.Path, err
}
