package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// A checkpoint can't hold a socket of the host's, so the guest closes its own before one is made, with every
// connection, and opens it again afterwards: when the host says so by a file beside the socket, and by itself
// when nobody says anything. A host that dies in between locks nobody out.

const (
	// suspendPoll is how often the guest looks for the host's word while it can't be reached.
	suspendPoll = 5 * time.Millisecond
	// suspendDrain bounds how long answers that are owed may take to go out, suspendClose how long connections
	// may take to end.
	suspendDrain = time.Second
	suspendClose = 5 * time.Second
)

// door is the guest's socket, which can be shut for a while.
type door struct {
	mu        sync.Mutex
	ln        *net.UnixListener
	suspended bool
	left      chan struct{}          // closed when nobody accepts on the shut one any more
	again     chan *net.UnixListener // the one that was opened instead
}

// shut closes the socket for good.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.ln.Close()
}

// acceptAll is accept, and goes on with the socket that is opened after a checkpoint.
func (s *server) acceptAll() error {
	for {
		s.door.mu.Lock()
		ln := s.door.ln
		s.door.mu.Unlock()
		err := s.accept(ln)
		s.door.mu.Lock()
		suspended, left, again := s.door.suspended, s.door.left, s.door.again
		s.door.mu.Unlock()
		if err != nil || !suspended {
			return err
		}
		close(left)
		select {
		case ln = <-again:
		case <-s.stopped:
			return nil
		}
		select {
		case <-s.stopped: // and the socket may have been opened too late to be shut
			return ln.Close()
		default:
		}
	}
}

// suspend begins to close what is the host's. The answer goes out before the session it came by is closed.
func (m *rpcMain) suspend(withinMS int64) error {
	const op = "prepare checkpoint"
	s := m.s
	within := time.Duration(withinMS) * time.Millisecond
	if s.cfg.ListenPath == "" {
		return sandbox.Errf(sandbox.CodeNotSupported, op, "this sandbox's socket can't be opened again from inside", "only sandboxes on gVisor can be checkpointed")
	}
	if within <= 0 || within > sandbox.MaxSuspend {
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%d milliseconds", withinMS), fmt.Sprintf("1 to %d", sandbox.MaxSuspend.Milliseconds()))
	}
	d := &s.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.suspended {
		return sandbox.Errf(sandbox.CodeSandboxBusy, op, "a checkpoint is being made already", "wait for it")
	}
	d.suspended, d.left, d.again = true, make(chan struct{}), make(chan *net.UnixListener)
	go s.away(within)
	return nil
}

// away closes the socket and all connections, says so, waits for the host's word, and opens the socket again.
func (s *server) away(within time.Duration) {
	s.door.mu.Lock()
	_ = s.door.ln.Close()
	s.door.mu.Unlock()
	select {
	case <-s.door.left:
	case <-s.stopped:
		return
	}
	err := s.disconnect()
	if err == nil {
		err = s.ownThread(func() error { return s.waitOutside(within) })
	}
	if err != nil {
		s.log.Error("the guest was not ready for a checkpoint", "error", err.Error())
	}
	var ln *net.UnixListener
	for pause := suspendPoll; ; pause = min(2*pause, time.Second) {
		err := s.ownThread(func() (err error) { ln, err = listenAgain(s.cfg.ListenPath); return err })
		if err == nil {
			break
		}
		s.log.Error("the guest's socket can't be opened again", "error", err.Error())
		select {
		case <-time.After(pause):
		case <-s.stopped:
			return
		}
	}
	d := &s.door
	d.mu.Lock()
	d.ln, d.suspended = ln, false
	again := d.again
	d.mu.Unlock()
	select {
	case again <- ln:
	case <-s.stopped:
		_ = ln.Close()
	}
}

// disconnect ends all sessions and connections. What they have begun goes on.
func (s *server) disconnect() error {
	ctx, cancel := context.WithTimeout(context.Background(), suspendClose)
	defer cancel()
	s.closeSessions(ctx, suspendDrain)
	tick := time.NewTicker(suspendPoll)
	defer tick.Stop()
	for {
		s.mu.Lock()
		open := len(s.conns)
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		if open == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d connections did not end", open)
		}
	}
}

// closeSessions ends all sessions, each after the answers that it is owed, which get that long.
func (s *server) closeSessions(ctx context.Context, patience time.Duration) {
	s.mu.Lock()
	live := make([]*capnweb.Session, 0, len(s.live))
	for sess := range s.live {
		live = append(live, sess)
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, sess := range live {
		wg.Go(func() {
			d, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			_ = sess.Drain(d)
			_ = sess.Close(nil)
		})
	}
	wait(ctx, &wg)
}

// waitOutside says that all is closed by removing the socket, and waits for the host's word. It runs on a thread
// of its own, with the rights that the socket's directory takes. It makes no file there itself: whatever gVisor
// knows of in that directory, a checkpoint takes for granted, and after it the directory is a new one.
func (s *server) waitOutside(within time.Duration) error {
	dir := filepath.Dir(s.cfg.ListenPath)
	at := func(name string) string { return filepath.Join(dir, name) }
	gone := func(names ...string) error {
		for _, name := range names {
			if err := unix.Unlink(at(name)); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove %s: %w", at(name), err)
			}
		}
		return nil
	}
	if err := gone(sandbox.ResumedFile, sandbox.RestoredFile, filepath.Base(s.cfg.ListenPath)); err != nil {
		return err
	}
	until := time.Now().Add(within)
	tick := time.NewTicker(suspendPoll)
	defer tick.Stop()
	for {
		there := func(name string) bool { var st unix.Stat_t; return unix.Lstat(at(name), &st) == nil }
		switch {
		case there(sandbox.RestoredFile):
			s.listeners.forgetDatagrams()
			s.log.Info("the guest goes on from a checkpoint")
			return gone(sandbox.RestoredFile)
		case there(sandbox.ResumedFile):
			return gone(sandbox.ResumedFile)
		case time.Now().After(until):
			s.log.Warn("nobody said what became of a checkpoint", "milliseconds", within.Milliseconds())
			return nil
		}
		select {
		case <-tick.C:
		case <-s.stopped:
			return nil
		}
	}
}

// forgetDatagrams drops the listeners for datagrams, which a checkpoint doesn't hold. They are made again by
// whoever asks for them.
func (l *listeners) forgetDatagrams() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.byName {
		if h.network == "udp" {
			h.close()
			delete(l.byName, name)
		}
	}
}

// listenBacklog is how many connections may wait for the guest to take them.
const listenBacklog = 256

// listenAgain makes a socket at a path where an earlier one may have been.
func listenAgain(path string) (*net.UnixListener, error) {
	if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("remove %s: %w", path, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, listenBacklog)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return listener(fd)
}

// ownThread runs f on a thread that ends with it and that has, where the guest is root with an ordinary user's
// rights for files, root's own.
func (s *server) ownThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if unix.Gettid() == unix.Getpid() {
			// The first thread can't end: it is held here, as it is, until another has done the work.
			done <- s.ownThread(f)
			runtime.UnlockOSThread()
			return
		}
		if s.engine.root {
			const keep = ^uintptr(0)
			if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep); errno != 0 {
				done <- fmt.Errorf("take root's rights: %w", errno)
				return
			}
		}
		done <- f()
	}()
	return <-done
}
