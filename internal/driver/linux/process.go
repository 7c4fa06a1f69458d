//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// process is a guest, held by a descriptor that means this process for ever.
type process struct {
	pid int
	f   *os.File // pidfd, in the runtime's poller
}

// newProcess takes over a pidfd.
func newProcess(pid, pidfd int) (*process, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &process{pid, os.NewFile(uintptr(pidfd), "pidfd")}, nil
}

// find gives the process of a record, or nil when it is gone. It may be ending; wait tells.
func find(g guestRecord) (*process, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if boot != g.Boot {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(g.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	// The descriptor is there, so whoever has the number now keeps it: if the start time is right, it is
	// the right process.
	start, _, err := startTime(g.PID)
	if err != nil || start != g.Start {
		unix.Close(fd)
		return nil, nil
	}
	return newProcess(g.PID, fd)
}

// alive is find without keeping anything.
func alive(g guestRecord, boot string) bool {
	if g.Boot != boot {
		return false
	}
	start, ended, err := startTime(g.PID)
	return err == nil && !ended && start == g.Start
}

func (p *process) signal(sig unix.Signal) error {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(serr, unix.ESRCH) {
		return nil
	}
	return errors.Join(err, serr)
}

// wait returns when the process has ended, which for the first process of a pid namespace means that
// all of its processes have. If it was a child of this process, it is reaped.
func (p *process) wait(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := p.f.SetReadDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = p.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		if n == 0 || err == unix.EINTR {
			return false
		}
		_ = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG, nil) // ECHILD: somebody else's
		return true
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// end asks the guest to end, and ends it by force after a grace.
func (p *process) end(ctx context.Context, grace time.Duration) error {
	if grace > 0 {
		if err := p.signal(unix.SIGTERM); err != nil {
			return err
		}
		polite, cancel := within(ctx, grace)
		err := p.wait(polite)
		cancel()
		if err == nil {
			return nil
		}
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	// Even a caller that gives up wants no half-ended sandbox: a killed one needs no patience.
	sure, cancel := within(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if err := p.wait(sure); err != nil {
		return fmt.Errorf("process %d did not end within %s after SIGKILL: %w", p.pid, killTimeout, err)
	}
	return nil
}

func (p *process) close() { p.f.Close() }

// watcher waits for the guests that this process has started, reaps them, and keeps what they said.
type watcher struct {
	mu     sync.Mutex
	closed bool
	cancel map[*process]context.CancelFunc
	wg     sync.WaitGroup
}

// add watches a guest until it ends or the watcher is closed; the process and the log are the
// watcher's then.
func (w *watcher) add(log *slog.Logger, id, dir string, p *process, out *os.File) {
	ctx, cancel := context.WithCancel(context.Background())
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		cancel()
		p.close()
		out.Close()
		return
	}
	if w.cancel == nil {
		w.cancel = make(map[*process]context.CancelFunc)
	}
	w.cancel[p] = cancel
	w.wg.Add(1)
	w.mu.Unlock()
	go func() {
		defer w.wg.Done()
		defer out.Close()
		defer p.close()
		defer cancel()
		err := p.wait(ctx)
		w.mu.Lock()
		delete(w.cancel, p)
		w.mu.Unlock()
		if err != nil {
			return
		}
		said := written(out)
		log.Info("guest ended", "sandbox", id, "pid", p.pid, "output_bytes", len(said))
		if len(said) > 0 {
			// The directory may be gone with the sandbox; then nobody wants to know.
			_ = os.WriteFile(dir+"/"+logFile, said, 0o600)
		}
	}()
}

func (w *watcher) close() {
	w.mu.Lock()
	w.closed = true
	for _, cancel := range w.cancel {
		cancel()
	}
	w.mu.Unlock()
	w.wg.Wait()
}
