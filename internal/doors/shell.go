package doors

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/internal/shell"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of the shells that OpenCode starts.
const (
	maxShells      = 256              // at a time, of all sessions
	requestTimeout = 10 * time.Second // for a shell to say what it wants
	frameTimeout   = 2 * time.Minute  // for OpenCode to read what a command prints
	expanding      = 30 * time.Second // in which the template of a slash command starts its commands
)

// commands are the slash commands under way. OpenCode runs the commands in a template
// without saying for which session, just after it has been asked for the slash command.
type commands struct {
	mu   sync.Mutex
	open map[*command]struct{}
}

type command struct {
	session string
	began   time.Time
}

// Command says that a session is about to run a slash command, until done is called.
func (d *Doors) Command(sessionID string) (done func()) {
	one := &command{session: sessionID, began: time.Now()}
	d.commands.mu.Lock()
	defer d.commands.mu.Unlock()
	d.commands.open[one] = struct{}{}
	return func() {
		d.commands.mu.Lock()
		defer d.commands.mu.Unlock()
		delete(d.commands.open, one)
	}
}

// only returns the session of the slash commands that may be running the commands of
// their templates now, if it is one session.
func (c *commands) only() (session string, several bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.open {
		if time.Since(one.began) > expanding {
			continue
		}
		if session != "" && session != one.session {
			return "", true
		}
		session = one.session
	}
	return session, false
}

// ServeShells runs the commands of the shells that come in on l, each in the sandbox of
// its session, until l is closed. A shell whose connection ends takes its command with it.
func (d *Doors) ServeShells(l net.Listener) error {
	slots := make(chan struct{}, maxShells)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.SetDeadline(time.Now().Add(requestTimeout))
			_ = sandbox.NewFrameWriter(conn).WriteError(sandbox.Errf(sandbox.CodeTooManyProcesses, "run a command", "too many commands run at once", "wait for some to end"))
			conn.Close()
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			d.serveShell(ctx, conn)
		})
	}
}

// serveShell runs one command.
func (d *Doors) serveShell(ctx context.Context, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(requestTimeout))
	r := bufio.NewReader(conn)
	req, err := shell.ReadRequest(r)
	if err != nil {
		d.log.Info("a shell was refused", "error", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		_, _ = io.Copy(io.Discard, r) // the shell says nothing more: this ends with its connection
		cancel()
	})
	out := &shellOutput{conn: conn, w: sandbox.NewFrameWriter(conn)}
	exit, err := d.runShell(ctx, req, out)
	out.deadline()
	if err != nil {
		var e *sandbox.Error
		if !errors.As(err, &e) {
			e = &sandbox.Error{Code: sandbox.CodeCommandExecutionError, Op: "run a command", Message: "the command was not run, or its end is not known: " + refusal(err).Message, Err: err}
		}
		d.log.Info("a shell's command was not run", "session", req.Session, "error", err)
		_ = out.w.WriteError(e) // the shell may be gone
		return
	}
	_ = out.w.WriteJSON(sandbox.FrameEnd, shell.Result{Code: exit.ShellCode()})
}

// runShell finds the sandbox and runs the command in it.
func (d *Doors) runShell(ctx context.Context, req shell.Request, out *shellOutput) (sandbox.Exit, error) {
	session := req.Session
	if session == "" {
		only, several := d.commands.only()
		switch {
		case several:
			return sandbox.Exit{}, sandbox.Errf("NO_SESSION", "run a command", "two slash commands run at the same time, and OpenCode does not say to which this one belongs", "run it again")
		case only == "":
			return sandbox.Exit{}, sandbox.Errf("NO_SESSION", "run a command", "a shell without a session is refused, for it would have no sandbox", "run it in a session")
		}
		session = only
	}
	find, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	box, root, err := d.reach(find, session)
	if err != nil {
		return sandbox.Exit{}, err
	}
	spec := sandbox.ProcessSpec{Argv: []string{"bash", "-c", req.Command}, Dir: d.cfg.Directory, Env: map[string]string{"TERM": "dumb"}, Merge: true, Mode: sandbox.Lossless}
	if dir := path.Clean(req.Dir); strings.HasPrefix(dir, d.cfg.Directory+"/") {
		spec.Dir = dir
	}
	d.log.Debug("a person's command runs in its sandbox", "session", session, "root", root)
	exit, err := box.Run(ctx, spec, nil, out, nil)
	if sandbox.CodeOf(err) == sandbox.CodeCommandNotFound {
		spec.Argv[0] = "sh"
		exit, err = box.Run(ctx, spec, nil, out, nil)
	}
	return exit, err
}

// shellOutput sends what a command prints to its shell. A shell that does not read
// makes the command wait, and in the end loses it.
type shellOutput struct {
	conn net.Conn
	w    *sandbox.FrameWriter
}

func (o *shellOutput) deadline() { _ = o.conn.SetWriteDeadline(time.Now().Add(frameTimeout)) }

func (o *shellOutput) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), 256<<10)
		o.deadline()
		if err := o.w.Write(sandbox.FrameStdout, p[:n]); err != nil {
			return 0, err
		}
		p = p[n:]
	}
	return total, nil
}
