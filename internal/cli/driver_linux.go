package cli

import (
	"context"
	"log/slog"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/driver/oci"
)

func linuxDriver(cfg *Config, log *slog.Logger) (driver.Driver, error) {
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
		if rt.Name() == name {
			_, err := rt.Program()
			return err
		}
	}
	return nil
}

// checkRuntimes examines what can run sandboxes besides the driver itself. What isn't there is a failure only
// if it was asked for.
func checkRuntimes(cfg *Config) []driver.Finding {
	var all []driver.Finding
	for _, rt := range runtimes(cfg) {
		for _, f := range rt.Check() {
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
