package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// home is an opened $TONGS_HOME. At most one process holds it locked: the one that serves it.
type home struct {
	dir  string
	lock *os.File
}

// openHome makes the directory (0700) when it is not there.
func openHome(dir string) (*home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, homeError(dir, err)
	}
	// Written through a probe: root may "write" where a read-only mount refuses it.
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return nil, homeError(dir, err)
	}
	probe.Close()
	os.Remove(probe.Name())
	return &home{dir: dir}, nil
}

func homeError(dir string, err error) error {
	hint := "make it writable, or name another one with --home or TONGS_HOME"
	if errors.Is(err, unix.ENOSPC) {
		hint = "free some space there, or name another place with --home or TONGS_HOME"
	}
	return &sandbox.Error{Code: "HOME_UNWRITABLE", Op: "open home " + dir, Hint: hint, Err: err, Message: "the home directory cannot be used: " + err.Error()}
}

// acquire takes the lock without waiting. The kernel drops it when the holder ends, however it ends.
func (h *home) acquire() error {
	file, err := os.OpenFile(h.lockPath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return homeError(h.dir, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return homeError(h.dir, err)
		}
		who := "another tongs"
		if pid := h.holder(); pid > 0 {
			who = fmt.Sprintf("another tongs (process %d)", pid)
		}
		return &sandbox.Error{Code: "HOME_IN_USE", Op: "open home " + h.dir, Message: who + " is serving this home",
			Hint: "stop it with `tongs down`, or give this one a home of its own with --home and a port of its own with --listen"}
	}
	if err := file.Truncate(0); err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			file.Close()
			return homeError(h.dir, err)
		}
	}
	h.lock = file
	return nil
}

func (h *home) lockPath() string { return filepath.Join(h.dir, "lock") }

// holder is the process that last took the lock, 0 when unknown.
func (h *home) holder() int {
	text, err := os.ReadFile(h.lockPath())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	return pid
}

// evict asks the holder of the lock to end and waits until it has. It reports whether there was one.
func (h *home) evict(ctx context.Context, wait time.Duration) (bool, error) {
	err := h.acquire()
	if err == nil {
		return false, nil
	}
	var coded *sandbox.Error
	if !errors.As(err, &coded) || coded.Code != "HOME_IN_USE" {
		return false, err
	}
	pid := h.holder()
	if pid == 0 {
		return true, err
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return true, fmt.Errorf("process %d serves this home and cannot be stopped: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // flock has no wait with a deadline
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("process %d still serves this home after %s: end it with kill -9 %d and run this again", pid, wait, pid)
		case <-tick.C:
			if h.acquire() == nil {
				return true, nil
			}
		}
	}
}

// release gives the lock back.
func (h *home) release() {
	if h.lock != nil {
		h.lock.Close()
		h.lock = nil
	}
}
