package cli

import (
	"log/slog"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

func linuxDriver(cfg *Config, log *slog.Logger) (driver.Driver, error) {
	d, err := linux.New(linux.Config{Home: cfg.Home, Logger: log, StorageBytes: int64(cfg.Storage.Size), ReserveBytes: int64(cfg.Storage.Reserve)})
	if err != nil {
		return nil, err // not d: a nil *linux.Driver is not a nil Driver
	}
	return d, nil
}
