//go:build !linux

package cli

import (
	"log/slog"
	"runtime"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

func linuxDriver(*Config, *slog.Logger) (driver.Driver, error) {
	return nil, &sandbox.Error{Code: driver.CodeUnsupported, Op: "make sandboxes", Message: "sandboxes need Linux, this is " + runtime.GOOS,
		Hint: "run tongs in a Linux virtual machine and attach to it from here"}
}
