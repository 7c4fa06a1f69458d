package guest

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// pump moves what a process writes from one pipe (or terminal) into its log. It
// holds no buffer while there is nothing to read.
//
// It outlives the process: a background child that inherited the pipe must not
// die of SIGPIPE because the command that started it has ended. What comes after
// the end is read slowly and thrown away.
type pump struct {
	p        *process
	f        *os.File
	stream   sandbox.Stream
	terminal bool

	// Guarded by the log's lock, and written by the pump's goroutine only.
	got     int64
	target  int64 // drained when got reaches it; -1: not known yet
	drained bool

	done chan struct{} // closed when drained
}

// A command that has written busyBytes gets a pipe of busyPipe bytes: fewer
// switches between it and the guest.
const (
	busyBytes = 1 << 20
	busyPipe  = 256 << 10
)

func newPump(p *process, f *os.File, stream sandbox.Stream) *pump {
	return &pump{p: p, f: f, stream: stream, target: -1, done: make(chan struct{})}
}

// run is the pump's goroutine; it ends at end-of-file or when f is closed.
func (m *pump) run() {
	defer m.f.Close()
	defer m.settle(true)
	rc, err := m.f.SyscallConn()
	if err != nil {
		return
	}
	grown := m.terminal
	for {
		var n int
		var full, drained bool
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			n, full, rerr = m.p.log.fill(m.stream, func(b []byte) (int, error) {
				if m.drained {
					drained = true
					return 0, nil
				}
				n, err := readFD(int(fd), b)
				m.got += int64(max(n, 0))
				return n, err
			})
			return full || drained || !errors.Is(rerr, unix.EAGAIN)
		})
		switch {
		case err != nil: // closed
			return
		case drained:
			m.discard(rc)
			return
		case full:
			if !m.waitSpace() {
				return
			}
		case rerr != nil || n <= 0: // end-of-file; EIO from a terminal
			return
		default:
			m.settle(false)
			m.p.log.flush()
			if m.got > busyBytes && !grown {
				grown = true // or refused, which is as good
				_ = rc.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, busyPipe) })
			}
		}
	}
}

func readFD(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// waitSpace waits for room in a full log; false when the guest ends.
func (m *pump) waitSpace() bool {
	orphan := m.p.g.orphan
	t := time.NewTimer(m.p.log.orphaned(orphan))
	defer t.Stop()
	for {
		select {
		case <-m.p.log.waitSpace():
			return true
		case <-t.C:
			t.Reset(max(m.p.log.orphaned(orphan), time.Millisecond))
		case <-m.p.g.closing:
			return false
		}
	}
}

// exited is called once the process has ended: the pump is drained when it has
// read what is in the pipe now, or sooner at end-of-file. What the process wrote
// is in there; what others write later isn't its output.
func (m *pump) exited() {
	rc, err := m.f.SyscallConn()
	if err != nil {
		m.settle(true)
		return
	}
	if m.terminal {
		// A terminal's bytes arrive by way of a kernel worker, so that
		// their number can't be asked for. It ends by itself unless a
		// background child has it.
		t := time.AfterFunc(100*time.Millisecond, func() { m.settle(true) })
		<-m.done
		t.Stop()
		return
	}
	m.p.log.mu.Lock()
	avail := 0
	if rc.Control(func(fd uintptr) { avail, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) == nil {
		m.target = m.got + int64(avail)
	} else {
		m.target = m.got
	}
	m.p.log.mu.Unlock()
	m.settle(false)
}

// settle closes done when the target is reached, or at once.
func (m *pump) settle(force bool) {
	m.p.log.mu.Lock()
	defer m.p.log.mu.Unlock()
	if !m.drained && (force || m.target >= 0 && m.got >= m.target) {
		m.drained = true
		close(m.done)
	}
}

// discard reads on without keeping anything, at most some megabytes a second so
// that a noisy background child can't keep the guest busy.
func (m *pump) discard(rc syscall.RawConn) {
	pause := time.NewTimer(0)
	<-pause.C
	for {
		var n int
		var rerr error
		err := rc.Read(func(fd uintptr) bool {
			var b [4096]byte
			for range 16 {
				if n, rerr = readFD(int(fd), b[:]); n < len(b) {
					break
				}
			}
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err != nil || rerr != nil && !errors.Is(rerr, unix.EAGAIN) || n == 0 && rerr == nil {
			return
		}
		pause.Reset(5 * time.Millisecond)
		select {
		case <-pause.C:
		case <-m.p.g.closing:
			pause.Stop()
			return
		}
	}
}
