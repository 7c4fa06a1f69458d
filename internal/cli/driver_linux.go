package cli

import (
	"log/slog"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
)

func linuxDriver(home string, log *slog.Logger) (driver.Driver, error) {
	return linux.New(linux.Config{Home: home, Logger: log})
}
