package guest

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A program can't be started while the commands' memory limit is reached: its arguments find no page.
// The kernel then says ENOMEM, or E2BIG as if they were too long, or ENFILE when there is none for the
// pipe on which the child would report. Right after a command was killed for
// its memory that passes within milliseconds, since what it had is given back late.
const (
	starvedTimeout = 2 * time.Second
	starvedPause   = 20 * time.Millisecond
	smallArgs      = 100 << 10 // bytes that are never too long by themselves: the kernel takes 128 KiB in one
)

// starved tells a lack of memory from arguments that are really too long.
func starved(err error, argv, env []string) bool {
	if !errors.Is(err, unix.E2BIG) {
		return errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENFILE)
	}
	n := 0
	for _, list := range [][]string{argv, env} {
		for _, s := range list {
			n += len(s) + 1
		}
	}
	return n < smallArgs
}

// spawnFed is spawn, and waits for memory when there is none.
func (g *engine) spawnFed(path string, argv []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (*child, error) {
	deadline := time.Now().Add(starvedTimeout)
	for {
		ch, err := g.spawn(path, argv, attr, ended)
		if !starved(err, argv, attr.Env) {
			return ch, err
		}
		if time.Now().After(deadline) {
			return nil, unix.ENOMEM
		}
		time.Sleep(starvedPause)
	}
}
