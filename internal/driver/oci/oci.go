//go:build linux

package oci

import (
	"cmp"
	"log/slog"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

// Config says where a driver keeps things and which runtime is its own.
type Config struct {
	Home     string // $TONGS_HOME, shared with the driver linux
	Runtime  string // GVisor, Runc or Crun
	Platform Platform
	Dir      string // where runtimes are installed; default InstalledDir(Home)
	Logger   *slog.Logger
	Guest    *driver.Guest
}

// New makes a driver whose sandboxes run by one runtime unless they name another.
func New(cfg Config) (*linux.Driver, error) {
	return linux.New(linux.Config{Home: cfg.Home, Logger: cfg.Logger, Guest: cfg.Guest, Default: cfg.Runtime, Runtimes: Runtimes(cmp.Or(cfg.Dir, InstalledDir(cfg.Home)), cfg.Platform)})
}

// Runtimes are all that there can be. dir is where gVisor is installed.
func Runtimes(dir string, platform Platform) []linux.Runtime {
	return []linux.Runtime{NewGVisor(dir, platform), NewNative(Runc), NewNative(Crun)}
}
