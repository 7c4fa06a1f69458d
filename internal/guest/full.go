package guest

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fullPause is how soon after a look that the kernel has led to another one may
// follow. A fork that fails is tried again by many a shell, without end by some.
const fullPause = 250 * time.Millisecond

// fullGroup follows the kernel's count of processes that had no place in the
// commands' control group (pids.events).
type fullGroup struct {
	fd    int          // pids.events; -1: there is none, and the count stays 0
	known atomic.Int64 // the count when it was last noted
	poll  *os.File     // an epoll with nothing but that file, which the runtime's poller can wait for; or nil
}

func newFullGroup(fd int) *fullGroup {
	if fd <= 2 {
		fd = -1
	}
	f := &fullGroup{fd: fd}
	f.note()
	return f
}

// count reads the file's line "max N".
func (f *fullGroup) count() int64 {
	if f.fd < 0 {
		return 0
	}
	var buf [64]byte
	n, _ := unix.Pread(f.fd, buf[:], 0)
	if text, ok := bytes.CutPrefix(buf[:max(n, 0)], []byte("max ")); ok {
		text, _, _ = bytes.Cut(text, []byte("\n"))
		if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			return n
		}
	}
	return f.known.Load() // interrupted
}

// grew reports whether the count has grown since it was noted.
func (f *fullGroup) grew() bool { return f.count() > f.known.Load() }

func (f *fullGroup) note() { f.known.Store(f.count()) }

// listen gets ready to wait: each change of the count is told to those who poll
// the file and have read it before (cgroup-v2.rst, "PID"). The kernel does the same
// in version 1, but for those since 6.11 or so, which tell nothing there: 6.18 was
// seen not to.
func (f *fullGroup) listen() error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, f.fd, &unix.EpollEvent{Events: unix.EPOLLPRI, Fd: int32(f.fd)})
	if err == nil {
		err = unix.SetNonblock(poll, true)
	}
	if err != nil {
		unix.Close(poll)
		return os.NewSyscallError("epoll_ctl", err)
	}
	f.poll = os.NewFile(uintptr(poll), "pids.events")
	return nil
}

// wait returns at a change, and with an error after stop.
func (f *fullGroup) wait() error {
	rc, err := f.poll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = rc.Read(func(fd uintptr) bool {
		var event [1]unix.EpollEvent
		n, err := unix.EpollWait(int(fd), event[:], 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			failed = err
		}
		return n > 0 || failed != nil
	})
	f.count() // and with that the change is known
	return errors.Join(err, failed)
}

// stop ends a wait, now or later.
func (f *fullGroup) stop() {
	if f.poll != nil {
		f.poll.Close()
	}
}

// close gives the files back, when nothing waits.
func (f *fullGroup) close() {
	f.stop()
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
}

// watchFull looks for a fork bomb whenever a process has found no place, so that a
// bomb ends also when nobody starts anything.
func (g *engine) watchFull() error {
	if g.full.fd < 0 || !g.children.init {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	if err := g.full.listen(); err != nil {
		return err
	}
	g.wg.Go(func() {
		for g.full.wait() == nil {
			g.looks()
			pause := time.NewTimer(fullPause)
			select {
			case <-pause.C:
			case <-g.closing:
				pause.Stop()
				return
			}
		}
	})
	return nil
}
