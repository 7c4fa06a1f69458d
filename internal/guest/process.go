package guest

import (
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// killGrace is how long a command has between SIGTERM and SIGKILL.
const killGrace = 2 * time.Second

// process is a command that was started: running, or ended and remembered.
type process struct {
	g        *engine
	id       string
	own      bool // the caller gave the id
	child    *child
	argv     []string
	dir      string
	mode     sandbox.Mode
	labels   map[string]string
	terminal *sandbox.TerminalSize
	started  time.Time
	log      *outputLog
	pumps    []*pump

	exited chan struct{} // the status is known
	done   chan struct{} // and the log is at its end

	mu       sync.Mutex
	exit     *sandbox.Exit
	ended    time.Time
	killed   bool // Kill, Remove, an Exec that was given up
	timedOut bool
	deadline *time.Timer
	killer   *time.Timer
	stdin    *stdin
}

// over reports whether it has ended.
func (p *process) over() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// reaped is told by the reaper how the process ended.
func (p *process) reaped(st unix.WaitStatus) {
	p.g.wg.Go(func() { p.finish(st) })
}

func (p *process) finish(st unix.WaitStatus) {
	oom := p.g.oom.grew()
	e := &sandbox.Exit{Code: -1}
	if st.Exited() {
		e.Code = st.ExitStatus()
	} else {
		e.Signal = sandbox.SignalName(st.Signal())
	}
	p.mu.Lock()
	if p.deadline != nil {
		p.deadline.Stop()
	}
	e.TimedOut, e.Killed = p.timedOut, p.killed && !p.timedOut
	e.OutOfMemory = oom && !e.TimedOut && !e.Killed && e.ShellCode() == 128+int(unix.SIGKILL)
	p.exit, p.ended = e, time.Now()
	ran := p.ended.Sub(p.started)
	in := p.stdin
	p.mu.Unlock()
	p.g.meminfo.ended(ran)
	close(p.exited)
	if in != nil {
		in.close()
	}
	for _, m := range p.pumps {
		m.exited()
	}
	for _, m := range p.pumps {
		<-m.done
	}
	p.log.finish()
	close(p.done)
	p.g.finished(p)
	p.g.look()
}

// kill ends the process group: SIGTERM now, SIGKILL for whatever is left of the
// session after the grace. Again while it is under way changes nothing.
func (p *process) kill(timedOut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit != nil || p.killer != nil {
		return
	}
	p.timedOut = p.timedOut || timedOut
	p.killed = true
	p.g.children.signal(p.child, unix.SIGTERM)
	p.g.children.signal(p.child, unix.SIGCONT) // a stopped one must hear it
	p.killer = p.g.later(killGrace, func() { p.g.children.killSession(p.child) })
}

// killNow is kill without the grace.
func (p *process) killNow() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	p.g.children.killSession(p.child)
}

// signal sends one signal to the group.
func (p *process) signal(sig syscall.Signal) error {
	if !p.g.children.signal(p.child, sig) {
		return sandbox.Errf(sandbox.CodeProcessExited, "signal", "process "+p.id+" has ended", "")
	}
	return nil
}

func (p *process) info() sandbox.ProcessInfo {
	start, end, _ := p.log.span()
	p.mu.Lock()
	defer p.mu.Unlock()
	in := sandbox.ProcessInfo{
		ID: p.id, PID: p.child.pid, Argv: slices.Clone(p.argv), Dir: p.dir, Mode: p.mode,
		Labels: maps.Clone(p.labels), Started: p.started, Running: p.exit == nil, Ended: p.ended,
		LogStart: start, LogEnd: end, Viewers: p.log.viewers(),
	}
	if p.exit != nil {
		e := *p.exit
		in.Exit = &e
	}
	if p.terminal != nil {
		t := *p.terminal
		in.Terminal = &t
	}
	return in
}

// stdin is the writing end of a command's standard input.
type stdin struct {
	f        *os.File
	terminal bool

	mu      sync.Mutex
	closed  bool
	writers int          // that have asked for it
	writer  *inputWriter // who has it now, or had it last
}

// inputWriter is one connection that writes standard input.
type inputWriter struct {
	turn  int // in the order in which they have asked
	conn  *net.UnixConn
	taken atomic.Bool   // by another one: it writes no more
	left  chan struct{} // closed when it is through
}

// ask makes a writer, which has asked later than all before it.
func (s *stdin) ask() *inputWriter {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers++
	return &inputWriter{turn: s.writers, left: make(chan struct{})}
}

func (s *stdin) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.f.Close()
	}
}

func (s *stdin) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// take makes w the one writer, unless one that has asked later has it. The one
// before it is interrupted, also in the middle of a write that the command doesn't
// read, and has left when take returns.
func (s *stdin) take(p *process, w *inputWriter) error {
	s.mu.Lock()
	former := s.writer
	late := former != nil && former.turn > w.turn
	if !s.closed && !late {
		s.writer = w
	}
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return stdinClosed(p)
	case late:
		return stdinTaken(p)
	case former == nil:
		return nil
	}
	former.taken.Store(true)
	_ = former.conn.CloseRead()
	for {
		// Again and again, since a third one may be lifting the deadline that
		// it has set for the first.
		_ = s.f.SetWriteDeadline(time.Unix(1, 0))
		select {
		case <-former.left:
			_ = s.f.SetWriteDeadline(time.Time{})
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end gives the command its end-of-file: by closing the pipe, or on a terminal by
// the character that means it.
func (s *stdin) end() {
	if s.terminal {
		_, _ = s.f.Write([]byte{4})
		return
	}
	s.close()
}
