package tool_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/internal/tool"
)

// hostShell runs commands with os/exec, as the Shell contract says.
type hostShell struct{}

var _ tool.Shell = hostShell{}

func (hostShell) Run(ctx context.Context, c tool.Command, onOutput func([]byte)) (tool.Exit, error) {
	in, out, err := os.Pipe()
	if err != nil {
		return tool.Exit{}, err
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.Dir, c.Env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return tool.Exit{}, err
	}
	out.Close()
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	ended := make(chan struct{})
	var watching sync.WaitGroup
	timedOut := false
	watching.Go(func() {
		var late <-chan time.Time
		if c.Timeout > 0 {
			timer := time.NewTimer(c.Timeout)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-late:
			timedOut = true
			kill()
		case <-ctx.Done():
			kill()
		case <-ended:
		}
	})
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := in.Read(buf)
			if n > 0 {
				onOutput(buf[:n])
			}
			if err != nil {
				return
			}
		}
	})
	err = cmd.Wait()
	close(ended)
	watching.Wait()
	// What it left behind may hold the pipe: take what is there, no more.
	_ = in.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	reading.Wait()
	in.Close()
	if ctx.Err() != nil {
		return tool.Exit{}, ctx.Err()
	}
	exit := tool.Exit{TimedOut: timedOut}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) && !errors.Is(err, io.EOF) {
		return exit, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		exit.Signal = map[syscall.Signal]string{syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM"}[ws.Signal()]
	} else {
		code := ws.ExitStatus()
		exit.Code = &code
	}
	return exit, nil
}
