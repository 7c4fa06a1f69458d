package opencode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// errStopped is the state's error after Stop and Detach.
var errStopped = errors.New("OpenCode was stopped")

// connectionTries is how often a first start is tried when the connection to
// the agent host breaks under it.
const connectionTries = 3

// supervise runs one supervisor: it starts OpenCode, watches it, and starts it
// again, until it is told to end or a first start fails.
func (h *Host) supervise(ctx context.Context, r *run) {
	bridgeCtx, endBridge := context.WithCancel(ctx)
	bridgeDone := make(chan struct{})
	go func() {
		defer close(bridgeDone)
		h.bridge.Run(bridgeCtx)
	}()
	final := h.keepRunning(ctx)

	h.mu.Lock()
	leave := r.leave
	h.mu.Unlock()
	endBridge()
	<-bridgeDone
	if !leave {
		if err := h.stopProcess(); err != nil && errors.Is(final, errStopped) {
			final = err
		}
	}
	h.raw.CloseIdleConnections()
	h.ready.CloseIdleConnections()

	h.mu.Lock()
	state := StateFailed
	if errors.Is(final, errStopped) {
		state = StateStopped
	} else {
		h.failures++
		h.failure = final
	}
	h.run = nil
	h.set(state, nil, final)
	h.mu.Unlock()
	r.cancel()
	close(r.done)
}

// keepRunning returns errStopped when ctx has ended, or why a first start failed.
func (h *Host) keepRunning(ctx context.Context) error {
	pause := newBackoff(h.cfg.RestartDelay, h.cfg.MaxRestartDelay)
	wasReady := false
	for try := 1; ; try++ {
		began := time.Now()
		current, err := h.bring(ctx)
		if ctx.Err() != nil {
			current.drop()
			return errStopped
		}
		if err != nil {
			current.drop()
			h.logger.Error("OpenCode did not become ready", "error", err)
			if !wasReady && (sandbox.CodeOf(err) != sandbox.CodeConnectionLost || try >= connectionTries) {
				return err
			}
			h.mu.Lock()
			if wasReady {
				h.failures++
				h.failure = err
			}
			h.set(h.state, nil, err)
			h.mu.Unlock()
			// It may run and not be fit to serve, so it must not stay.
			if err := h.stopProcess(); err != nil {
				h.logger.Warn("OpenCode cannot be stopped", "error", err)
			}
			if !pause.wait(ctx) {
				return errStopped
			}
			continue
		}
		wasReady = true
		h.logger.Info("OpenCode is ready", "pid", current.server.Process.PID, "fresh", current.server.Fresh, "took", time.Since(began))
		h.mu.Lock()
		h.set(StateReady, current.server, nil)
		h.mu.Unlock()

		ready := time.Now()
		reason := h.watch(ctx, current)
		current.drop()
		if ctx.Err() != nil {
			return errStopped
		}
		h.raw.CloseIdleConnections()
		h.ready.CloseIdleConnections()
		h.logger.Error("OpenCode has ended", "reason", reason, "after", time.Since(ready))
		h.mu.Lock()
		h.restarts++
		h.set(StateRestarting, nil, fmt.Errorf("OpenCode has ended: %s", reason))
		h.mu.Unlock()
		if time.Since(ready) >= h.cfg.StableAfter {
			pause.reset()
		}
		if !pause.wait(ctx) {
			return errStopped
		}
	}
}

// probeMisses is the number of failed probes in a row after which OpenCode
// counts as hung.
const probeMisses = 4

// watch returns why OpenCode is no longer fit, or when ctx ends.
func (h *Host) watch(ctx context.Context, current *launched) string {
	ended := make(chan string, 1)
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		exit, err := h.waitProcess(waitCtx, current.server.Process.PID)
		if err != nil {
			ended <- err.Error()
			return
		}
		ended <- describeExit(exit)
	}()
	ticker := time.NewTicker(h.cfg.ProbeInterval)
	defer ticker.Stop()
	misses := 0
	for {
		select {
		case <-ctx.Done():
			cancel()
			<-ended
			return "stopped"
		case reason := <-ended:
			return reason
		case <-ticker.C:
			if err := h.probe(ctx, h.cfg.ProbeTimeout); err == nil {
				misses = 0
				continue
			} else if _, alive := h.running(ctx); !alive {
				continue // The wait, or a new connection, tells what happened.
			} else if misses++; misses < probeMisses {
				h.logger.Warn("OpenCode does not answer", "error", err, "misses", misses)
				continue
			}
			if err := h.stopProcess(); err != nil {
				h.logger.Warn("OpenCode cannot be stopped", "error", err)
			}
			cancel()
			<-ended
			return fmt.Sprintf("it did not answer %d times in a row and was killed", probeMisses)
		}
	}
}

func describeExit(exit sandbox.Exit) string {
	switch {
	case exit.OutOfMemory:
		return "it was killed because the agent host's memory limit was reached"
	case exit.Signal != "":
		return "killed by " + exit.Signal
	default:
		return fmt.Sprintf("exit status %d", exit.Code)
	}
}

// waitProcess waits for the end of the OpenCode with this pid, over as many
// connections to the agent host as it takes.
func (h *Host) waitProcess(ctx context.Context, pid int) (sandbox.Exit, error) {
	gone := &sandbox.Error{Code: sandbox.CodeProcessNotFound, Op: "wait for OpenCode", Message: "the process is gone"}
	pause := newBackoff(50*time.Millisecond, 2*time.Second)
	for {
		info, err := func() (*sandbox.ProcessInfo, error) {
			m, err := h.cfg.Machine(ctx)
			if err != nil {
				return nil, err
			}
			if info, err := m.Get(ctx, processID); err != nil || info.PID != pid {
				if err == nil {
					err = gone
				}
				return nil, err
			}
			return m.Wait(ctx, processID)
		}()
		switch {
		case err == nil && info.PID == pid && info.Exit != nil:
			return *info.Exit, nil
		case err == nil:
			return sandbox.Exit{}, gone
		case ctx.Err() != nil:
			return sandbox.Exit{}, context.Cause(ctx)
		case sandbox.CodeOf(err) == sandbox.CodeProcessNotFound:
			return sandbox.Exit{}, err
		}
		pause.wait(ctx)
	}
}

// running asks for the process. alive is false also when it cannot be asked for.
func (h *Host) running(ctx context.Context) (info *sandbox.ProcessInfo, alive bool) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ProbeTimeout)
	defer cancel()
	m, err := h.cfg.Machine(ctx)
	if err != nil {
		return nil, false
	}
	info, err = m.Get(ctx, processID)
	if err != nil {
		return nil, false
	}
	return info, info.Running
}

// stopProcess ends OpenCode: SIGTERM, then SIGKILL after StopTimeout. It has
// its own deadline, since it works when everything else has been told to end.
func (h *Host) stopProcess() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.cfg.StopTimeout+20*time.Second)
	defer cancel()
	fail := func(err error) error {
		return &sandbox.Error{Code: CodeStartup, Op: "stop OpenCode", Message: err.Error(),
			Hint: "the agent host itself can be destroyed, which ends everything in it", Err: err}
	}
	m, err := h.cfg.Machine(ctx)
	if err != nil {
		return fail(err)
	}
	info, err := m.Get(ctx, processID)
	if sandbox.CodeOf(err) == sandbox.CodeProcessNotFound {
		return nil
	}
	if err != nil {
		return fail(err)
	}
	if !info.Running {
		return nil
	}
	for _, signal := range []string{"SIGTERM", "SIGKILL"} {
		if err := m.Signal(ctx, processID, signal); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessExited && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			return fail(err)
		}
		waitCtx, cancel := context.WithTimeout(ctx, h.cfg.StopTimeout)
		_, err := h.waitProcess(waitCtx, info.PID)
		cancel()
		if err == nil || sandbox.CodeOf(err) == sandbox.CodeProcessNotFound {
			return nil
		}
	}
	return fail(errors.New("it does not end, not even by SIGKILL"))
}
