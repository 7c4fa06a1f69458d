//go:build !linux

package cli

import (
	"context"
	"log/slog"
	"runtime"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

func newDriver(*Config, *slog.Logger) (driver.Driver, error) { return nil, noLinux("make sandboxes") }

func needDriver(*Config, string) error { return noLinux("make sandboxes") }

func checkRuntimes(*Config) []driver.Finding { return nil }

func installDriver(context.Context, *Config, func(done, of int)) (string, error) {
	return "", noLinux("install driver")
}

func noLinux(op string) error {
	return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "sandboxes need Linux, this is " + runtime.GOOS,
		Hint: "run tongs in a Linux virtual machine and attach to it from here"}
}
