//go:build linux

package linux

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// keyedLocks makes calls about one sandbox wait for each other within this process.
type keyedLocks struct {
	mu   sync.Mutex
	held map[string]*keyedLock
}

type keyedLock struct {
	slot  chan struct{}
	users int
}

// lock waits until nobody else holds the key, and gives what ends the hold.
func (l *keyedLocks) lock(ctx context.Context, key string) (func(), error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[string]*keyedLock)
	}
	k := l.held[key]
	if k == nil {
		k = &keyedLock{slot: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, key)
		}
	}
	select {
	case k.slot <- struct{}{}:
		return func() { <-k.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// dirLock is a lock on a directory that other processes see. The kernel drops it when its holder dies.
type dirLock struct{ f *os.File }

// tryDirLock takes the lock, or says that it is held.
func tryDirLock(dir string) (*dirLock, bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return &dirLock{f}, true, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, false, nil
	}
	return nil, false, err
}

// lockDir takes the lock, waiting for another process for at most patience. The kernel tells nobody
// when such a lock is free, so this asks again, more and more rarely.
func lockDir(ctx context.Context, op, dir string, patience time.Duration) (*dirLock, error) {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		l, ok, err := tryDirLock(dir)
		if ok || err != nil {
			return l, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, &sandbox.Error{Code: driver.CodeBusy, Op: op, Message: "another process is working on this sandbox",
				Hint: "try again; if nothing ends it, look for another `tongs` on the same TONGS_HOME"}
		}
	}
}

// still checks that what was locked still has that name: while this waited for the lock, the directory
// may have been renamed. If it has, the lock is let go, and the error is fs.ErrNotExist.
func (l *dirLock) still(dir string) error {
	held, err := l.f.Stat()
	if err == nil {
		var now fs.FileInfo
		if now, err = os.Lstat(dir); err == nil && !os.SameFile(held, now) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		l.unlock()
	}
	return err
}

// unlock ends the lock, also where a process that was just forked has a copy of the descriptor.
func (l *dirLock) unlock() {
	_ = unix.Flock(int(l.f.Fd()), unix.LOCK_UN)
	l.f.Close()
}
