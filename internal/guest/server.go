package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	greetingTimeout = 10 * time.Second
	// trimDelay is how long after work the guest gives unused memory back.
	trimDelay = 5 * time.Second
)

// server answers on the guest's socket.
type server struct {
	cfg       *Config
	log       *slog.Logger
	began     time.Time
	patience  time.Duration // with a client that doesn't read
	engine    *engine
	runs      *runs
	tokens    *tokens
	listeners *listeners
	door      door

	stopOnce sync.Once
	stopped  chan struct{}
	reason   string
	wg       sync.WaitGroup // one for each connection, and what it needs

	mu       sync.Mutex
	conns    map[*net.UnixConn]struct{}
	live     map[*capnweb.Session]struct{}
	sessions int
	lease    *time.Timer
	trim     *time.Timer
	closed   bool
}

// stop begins the end of the guest. It returns at once.
func (s *server) stop(reason string) {
	s.stopOnce.Do(func() {
		s.reason = reason
		close(s.stopped)
	})
}

// accept serves connections until the listener is closed.
func (s *server) accept(ln *net.UnixListener) error {
	pause := 5 * time.Millisecond
	for {
		c, err := ln.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			s.log.Error("a connection could not be accepted", "error", err.Error())
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
			case <-s.stopped:
				return nil
			}
			continue
		}
		pause = 5 * time.Millisecond
		if !s.enter(c) {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = c.Write([]byte(sandbox.Refusal(sandbox.Errf(sandbox.CodeTooManyConnections, "", "too many connections are open", "close some"))))
			_ = c.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.leave(c)
			s.serve(c)
		})
	}
}

// ownFDs are descriptors that are kept for other things than connections: files,
// pipes of commands, listeners.
const ownFDs = 256

// connFDs are the descriptors of a dialled connection: its two ends, and a pipe
// for each direction through which the kernel moves the bytes.
const connFDs = 6

// limitConnections lowers the limit on connections to what the process has
// descriptors for. The runtime has raised the soft limit to the hard one, and
// gives commands the old one. The function that it gives says so in the log; nil when nothing was lowered.
func (c *Config) limitConnections() (say func(*slog.Logger)) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return nil
	}
	fit, wanted := (lim.Cur-min(ownFDs, lim.Cur/2))/connFDs, c.Limits.Connections
	if fit >= uint64(wanted) {
		return nil
	}
	c.Limits.Connections = int(fit)
	return func(log *slog.Logger) {
		log.Warn("few connections can be open: the limit on descriptors is low", "connections", fit, "descriptors", lim.Cur, "wanted", wanted)
	}
}

func (s *server) enter(c *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.cfg.Limits.Connections {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *server) leave(c *net.UnixConn) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.worked()
}

// worked arranges for memory to be given back, after something may have used it.
func (s *server) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trim == nil && !s.closed {
		s.trim = time.AfterFunc(trimDelay, func() {
			s.mu.Lock()
			s.trim = nil
			s.mu.Unlock()
			debug.FreeOSMemory()
		})
	}
}

// serve reads the greeting and does what it asks for.
func (s *server) serve(c *net.UnixConn) {
	_ = c.SetDeadline(time.Now().Add(greetingTimeout))
	line, err := sandbox.ReadGreetingLine(c)
	if err != nil {
		return // it went away, or said nothing in time
	}
	g, err := sandbox.ParseGreeting(line)
	var tk *ticket
	if err == nil && g.Token != "" {
		if tk = s.tokens.take(g.Token); tk == nil {
			err = sandbox.Errf(sandbox.CodeInvalidToken, "", "the token is unknown, used or expired", "make the call again")
		}
	}
	if err == nil && tk == nil {
		if err = s.enterSession(); err == nil {
			defer s.leaveSession()
		}
	}
	if err != nil {
		_, _ = c.Write([]byte(sandbox.Refusal(err)))
		return
	}
	if _, err := io.WriteString(c, sandbox.Welcome{Protocol: sandbox.Protocol, Incarnation: s.cfg.Incarnation}.String()); err != nil {
		if tk != nil && tk.drop != nil {
			tk.drop()
		}
		return
	}
	_ = c.SetDeadline(time.Time{})
	if tk != nil {
		tk.serve(c)
		return
	}
	s.session(c)
}

// session serves one RPC session until it ends.
func (s *server) session(c *net.UnixConn) {
	sess := capnweb.NewSession(capnweb.NewStreamTransport(&patientConn{c, capnweb.NewSocketReader(c), s.patience}, sandbox.MaxMessageBytes), mainClass.New(&rpcMain{s}), capnweb.WithLimits(sandbox.SessionLimits))
	s.mu.Lock()
	s.live[sess] = struct{}{}
	closed := s.closed
	s.mu.Unlock()
	if closed {
		_ = sess.Close(nil)
	}
	<-sess.Done()
	s.mu.Lock()
	delete(s.live, sess)
	s.mu.Unlock()
}

func (s *server) enterSession() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions >= s.cfg.Limits.Sessions {
		return sandbox.Errf(sandbox.CodeTooManyConnections, "", fmt.Sprintf("%d sessions are open, and no more are allowed", s.sessions), "use one of them, or close some")
	}
	s.sessions++
	s.lease.Stop()
	return nil
}

func (s *server) leaveSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions--; s.sessions == 0 && s.cfg.LeaseSeconds > 0 && !s.closed {
		s.lease.Reset(seconds(s.cfg.LeaseSeconds))
	}
}

// patientConn gives up on a client that does not read what it is sent.
type patientConn struct {
	*net.UnixConn
	in       *capnweb.SocketReader
	patience time.Duration
}

func (c *patientConn) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	n, err := c.UnixConn.Write(b)
	if err == nil {
		err = c.SetWriteDeadline(time.Time{}) // one that has passed would fail what is later written without waiting
	}
	return n, err
}

// relay joins a raw connection and one that was dialled.
func (s *server) relay(u *net.UnixConn, c net.Conn) {
	end := make(chan struct{})
	s.wg.Go(func() {
		select {
		case <-s.stopped:
			_ = c.Close()
		case <-end:
		}
	})
	relay(u, c)
	close(end)
}

// close ends everything, in an order in which callers learn why: tools and
// commands first, then sessions, then raw connections.
func (s *server) close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.lease.Stop()
	if s.trim != nil {
		s.trim.Stop()
	}
	s.mu.Unlock()
	s.tokens.close()
	var wg sync.WaitGroup
	wg.Go(s.runs.close)
	wg.Go(func() { s.engine.close(killGrace) })
	wait(ctx, &wg)
	s.listeners.close()

	s.closeSessions(ctx, time.Second)
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	wait(ctx, &s.wg)
}

// wait waits for a group, but not past the context.
func wait(ctx context.Context, wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
