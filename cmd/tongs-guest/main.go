// Command tongs-guest is the first process of a sandbox. A driver starts it with
// one argument, the number of an inherited file descriptor from which it reads
// what to do (package internal/guest, type Boot); the environment variable
// TONGS_BOOT_FD can name the number instead.
//
// Under the name tongs-shell it is the shell of the agent host, which runs nothing
// there: its command runs in the session's sandbox (package internal/shell).
//
// EXIT STATUS: 0 after an orderly end, 1 when it could not begin, 2 when it was
// called in a wrong way.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/tongs-dev/tongs"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/internal/shell"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// Thousands of guests share a machine, each mostly idle: a small heap matters more
// than the time to collect it. The runtime's smallest heap, 4 MiB, shrinks with
// the percentage. The limit is soft; it only makes collecting more eager. Drivers say the
// same in the environment (boot.Environ), since a change stops all that runs.
const (
	gcPercent   = 40
	memoryLimit = 256 << 20
)

func main() {
	if filepath.Base(os.Args[0]) == "tongs-shell" {
		dir, _ := os.Getwd() // without one it is the project's
		os.Exit(shell.Main(os.Args[1:], os.Getenv, dir, os.Stdout, os.Stderr))
	}
	if len(os.Args) == 2 && (os.Args[1] == "version" || os.Args[1] == "--version") {
		fmt.Println("tongs-guest", tongs.Version)
		return
	}
	fd, err := bootFD()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tongs-guest:", err)
		os.Exit(exitUsage)
	}
	if err := run(fd); err != nil {
		fmt.Fprintln(os.Stderr, "tongs-guest:", err)
		os.Exit(exitFailed)
	}
}

func bootFD() (int, error) {
	s := os.Getenv(guest.BootFDEnv)
	switch len(os.Args) {
	case 1:
	case 2:
		s = os.Args[1]
	default:
		return 0, errors.New("there is at most one argument, the number of the boot descriptor")
	}
	if s == "" {
		return 0, errors.New("a driver starts this program; give it the number of the boot descriptor, or set " + guest.BootFDEnv)
	}
	fd, err := strconv.Atoi(s)
	if err != nil || fd < 0 {
		return 0, fmt.Errorf("%q is no file descriptor's number", s)
	}
	return fd, nil
}

func run(fd int) error {
	f := os.NewFile(uintptr(fd), "boot document")
	b, err := guest.ReadBoot(f)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if len(b.Setup) > 0 && string(b.Setup) != "null" {
		ready, err := boot.Run(b.Setup)
		if err != nil {
			return err
		}
		b.Guest.Cgroup.MeminfoFD, b.Guest.Restrict = ready.MeminfoFD, ready.Restrict
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	b.Guest.Exclusive = true
	b.Guest.Version = tongs.Version
	log := slog.New(slog.NewJSONHandler(os.NewFile(uintptr(b.Guest.LogFD), "log"), nil))
	return guest.Run(context.Background(), b.Guest, log)
}
