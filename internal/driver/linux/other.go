//go:build !linux

package linux

import (
	"log/slog"
	"runtime"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Config says where a Driver keeps things.
type Config struct {
	Home   string
	Logger *slog.Logger
	Guest  *driver.Guest
}

// New needs Linux; elsewhere it says so.
func New(Config) (driver.Driver, error) {
	return nil, &sandbox.Error{Code: driver.CodeUnsupported, Op: "open driver linux",
		Message: "sandboxes are made of what the Linux kernel has, and this is " + runtime.GOOS,
		Hint:    "run tongs in a Linux machine or virtual machine and attach to it from here"}
}
