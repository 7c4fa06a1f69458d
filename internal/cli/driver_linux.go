package cli

import (
	"log/slog"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

func linuxDriver(home string, log *slog.Logger) (driver.Driver, error) {
	d, err := linux.New(linux.Config{Home: home, Logger: log})
	if err != nil {
		return nil, err // not d: a nil *linux.Driver is not a nil Driver
	}
	return d, nil
}
