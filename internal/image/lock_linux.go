package image

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	shared    = unix.LOCK_SH
	exclusive = unix.LOCK_EX
)

// lockPoll is how often a lock is tried for: flock(2) has no deadline.
const lockPoll = 25 * time.Millisecond

// lockFile locks a file, which is made if need be, and waits for it until ctx ends. The kernel gives the
// lock back when the file is closed or the process ends.
func lockFile(ctx context.Context, op, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, sandbox.FileError(op, err)
	}
	if err := waitLock(ctx, op, f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func waitLock(ctx context.Context, op string, f *os.File, how int) error {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		got, err := tryLock(f, how)
		if got || err != nil {
			return sandbox.FileError(op, err)
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return sandbox.Errf(sandbox.CodeImageInUse, op, "another process is at work on the images", "wait until it is done: a pull, an import or a sandbox that is being made")
			}
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// tryLock says whether it could lock the file at once.
func tryLock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch err {
		case nil:
			return true, nil
		case unix.EWOULDBLOCK:
			return false, nil
		case unix.EINTR:
			continue
		}
		return false, os.NewSyscallError("flock", err)
	}
}

// syncTree waits until everything below a directory is on the disk.
func syncTree(dir *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(dir.Fd()))) }
