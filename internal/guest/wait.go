package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// waitToken gives out a token whose connection carries a wait: its result or error
// goes out at the end, and the wait is given up when the client closes.
func (m *rpcMain) waitToken(op string, timeoutMS int64, wait func(context.Context) (any, error)) (*sandbox.TokenReply, error) {
	if timeoutMS < 0 {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the timeout is negative", "leave it out for none")
	}
	return m.token(func(conn *net.UnixConn) {
		m.s.serveWait(conn, time.Duration(timeoutMS)*time.Millisecond, wait)
	}, nil)
}

func (s *server) serveWait(conn *net.UnixConn, timeout time.Duration, wait func(context.Context) (any, error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if timeout > 0 {
		t := time.AfterFunc(timeout, func() { cancel(errNotInTime) })
		defer t.Stop()
	}
	gone := make(chan struct{})
	s.wg.Go(func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn) // nothing comes: until the client has closed
		cancel(net.ErrClosed)
	})
	stop := make(chan struct{})
	defer close(stop)
	s.wg.Go(func() {
		select {
		case <-s.stopped:
			cancel(sandbox.Errf(sandbox.CodeShuttingDown, "wait", "the sandbox is shutting down", ""))
		case <-stop:
		}
	})
	defer func() { conn.Close(); <-gone }()
	v, err := wait(ctx)
	w := sandbox.NewFrameWriter(conn)
	_ = conn.SetWriteDeadline(time.Now().Add(s.patience))
	if err != nil {
		err = w.WriteError(err)
	} else {
		err = w.WriteJSON(sandbox.FrameEnd, v)
	}
	s.finishFrames(conn, gone, err)
}

// errNotInTime is the cause of the end of a wait's context when its own timeout
// has passed.
var errNotInTime = errors.New("the timeout has passed")

// unready says why a wait has ended without what was waited for. what completes
// "… was not there in time".
func unready(ctx context.Context, op, what string) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errNotInTime) {
		return sandbox.Errf(sandbox.CodeReadyTimeout, op, what, "look at the process's log, or wait longer")
	}
	return cause
}

// exitedEarly is the end of a wait for something of a process that has ended.
func exitedEarly(op string, p *process, what string) error {
	in := p.info()
	how := fmt.Sprintf("exit code %d", in.Exit.Code)
	if in.Exit.Signal != "" {
		how = in.Exit.Signal
	}
	return sandbox.Errf(sandbox.CodeExitedBeforeReady, op, fmt.Sprintf("process %s has ended (%s) before %s", p.id, how, what), "look at the process's log")
}
