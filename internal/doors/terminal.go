package doors

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of terminals.
const (
	maxTerminals = 256     // known at a time, of all sessions
	maxOfSession = 32      // running at a time, of one
	maxReplay    = 2 << 20 // bytes that a viewer who comes late is shown, as in OpenCode
	maxArgs      = 1000
	maxEnv       = 1000
	maxTitle     = 1000
	defaultRows  = 24
	defaultCols  = 80
)

// The labels by which a terminal is known again among the processes of its sandbox.
const (
	labelTerminal = "tongs.terminal"
	labelTitle    = "tongs.title"
)

// info is OpenCode's Pty.
type info struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Command string   `json:"command"`
	Args    []string `json:"args"`
	Cwd     string   `json:"cwd"`
	Status  string   `json:"status"` // "running" or "exited"
	PID     int      `json:"pid"`
}

// terminals are those that this process knows. A terminal is a process of its sandbox
// and outlives this one; it is found again by its label.
type terminals struct {
	mu      sync.Mutex
	all     map[string]*terminal
	tickets map[string]ticket
	closed  bool
}

// terminal is one of them, with what it has printed.
type terminal struct {
	id, session string
	box         *sandbox.Client
	stop        context.CancelFunc
	done        chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	info    info
	buffer  []byte // the newest of what it printed, whole characters only
	gone    int64  // UTF-16 units that stood before buffer
	units   int64  // UTF-16 units in all: OpenCode's cursors count those
	changed chan struct{}
	lost    bool // the connection to the sandbox broke: it may still run

	life     context.Context // ends with the terminal
	typing   chan struct{}   // held by who types
	input    io.Writer       // what follows belongs to the holder
	endInput context.CancelFunc
}

func newTerminals() *terminals {
	return &terminals{all: map[string]*terminal{}, tickets: map[string]ticket{}}
}

func (ts *terminals) close() {
	ts.mu.Lock()
	ts.closed = true
	var all []*terminal
	for _, t := range ts.all {
		all = append(all, t)
	}
	clear(ts.all)
	ts.mu.Unlock()
	for _, t := range all {
		t.stop()
		<-t.done
	}
}

func notFound(id string) error {
	return &gateway.Error{Status: http.StatusNotFound, Tag: "PtyNotFoundError", Message: "PTY session not found: " + clip(id, 100), Data: map[string]any{"ptyID": clip(id, 100)}}
}

// shells answers GET /pty/shells: those that the sandbox lists.
func (d *Doors) shells(a *asked) (any, error) {
	type shellInfo struct {
		Path       string `json:"path"`
		Name       string `json:"name"`
		Acceptable bool   `json:"acceptable"`
	}
	out := []shellInfo{}
	if a.box == nil {
		return out, nil
	}
	data, _, err := d.read(a.ctx, a.box, "/etc/shells", 64<<10)
	if err != nil {
		if a.ctx.Err() != nil {
			return nil, a.ctx.Err()
		}
		data = []byte("/bin/bash\n/bin/sh\n")
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "/") || seen[line] || len(seen) >= 32 || !utf8.ValidString(line) {
			continue
		}
		seen[line] = true
		if file, err := a.box.Stat(a.ctx, line); err != nil || file.Type != sandbox.TypeFile {
			if a.ctx.Err() != nil {
				return nil, a.ctx.Err()
			}
			continue
		}
		name := line[strings.LastIndexByte(line, '/')+1:]
		out = append(out, shellInfo{Path: line, Name: name, Acceptable: name != "fish" && name != "nu"})
	}
	return out, nil
}

// listTerminals answers GET /pty: the running ones of the session.
func (d *Doors) listTerminals(a *asked) (any, error) {
	out := []info{}
	if a.box == nil {
		return out, nil
	}
	if err := d.recover(a); err != nil {
		return nil, err
	}
	d.terminals.mu.Lock()
	var own []*terminal
	for _, t := range d.terminals.all {
		if t.session == a.session {
			own = append(own, t)
		}
	}
	d.terminals.mu.Unlock()
	for _, t := range own {
		if i := t.state(); i.Status == "running" {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(x, y info) int { return strings.Compare(x.ID, y.ID) })
	return out, nil
}

// createTerminal answers POST /pty.
func (d *Doors) createTerminal(a *asked) (any, error) {
	if err := a.need("a terminal"); err != nil {
		return nil, err
	}
	var in struct {
		Command, Cwd, Title string
		Args                []string
		Env                 map[string]string
	}
	if err := body(a.Request, &in); err != nil {
		return nil, err
	}
	if len(in.Args) > maxArgs || len(in.Env) > maxEnv || len(in.Title) > maxTitle {
		return nil, badInput("a terminal may have 1,000 arguments and variables, and a title of 1,000 bytes", "send less")
	}
	if in.Command == "" {
		in.Command = "/bin/bash"
	}
	if name := in.Command[strings.LastIndexByte(in.Command, '/')+1:]; slices.Contains([]string{"bash", "dash", "fish", "ksh", "sh", "zsh"}, name) {
		in.Args = append(in.Args, "-l")
	}
	if in.Cwd == "" {
		in.Cwd = d.cfg.Directory
	}
	id := "pty_" + newID()
	if in.Title == "" {
		in.Title = "Terminal " + id[len(id)-4:]
	}
	env := map[string]string{}
	for k, v := range in.Env {
		env[k] = v
	}
	env["TERM"], env["OPENCODE_TERMINAL"] = "xterm-256color", "1"
	if err := d.room(a); err != nil {
		return nil, err
	}
	started, err := a.box.Start(a.ctx, sandbox.ProcessSpec{
		ID: id, Argv: append([]string{in.Command}, in.Args...), Dir: in.Cwd, Env: env, Mode: sandbox.Follow, LogBytes: maxReplay,
		Terminal: &sandbox.TerminalSize{Columns: defaultCols, Rows: defaultRows},
		Labels:   map[string]string{labelTerminal: id, labelTitle: in.Title},
	})
	if err != nil {
		if code := sandbox.CodeOf(err); code.HTTPStatus() < 500 && code != "" {
			return nil, badInput("the terminal cannot be started: "+refusal(err).Message, "choose one of GET /pty/shells, and a directory of the sandbox")
		}
		return nil, err
	}
	t, err := d.follow(a, *started)
	if err != nil {
		return nil, err
	}
	d.log.Info("terminal opened", "terminal", id, "session", a.session)
	d.tell("pty.created", map[string]any{"info": t.state()})
	return t.state(), nil
}

// newID is 80 random bits.
func newID() string {
	var b [10]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// room refuses a terminal too many.
func (d *Doors) room(a *asked) error {
	if err := d.recover(a); err != nil {
		return err
	}
	ts := d.terminals
	ts.mu.Lock()
	defer ts.mu.Unlock()
	own := 0
	for id, t := range ts.all {
		switch {
		case t.ended() && len(ts.all) >= maxTerminals:
			delete(ts.all, id)
		case t.session == a.session && !t.ended():
			own++
		}
	}
	if own >= maxOfSession || len(ts.all) >= maxTerminals {
		return &gateway.Error{Status: http.StatusTooManyRequests, Code: "TOO_MANY_TERMINALS", Message: "too many terminals are open", Hint: "close some"}
	}
	return nil
}

// recover finds the terminals of the session that an earlier host has opened.
func (d *Doors) recover(a *asked) error {
	all, err := a.box.List(a.ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		if id := p.Labels[labelTerminal]; p.Running && p.Terminal != nil && id == p.ID && strings.HasPrefix(id, "pty_") && len(id) <= maxID {
			if _, err := d.follow(a, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow begins to read a terminal, unless it is being read.
func (d *Doors) follow(a *asked, p sandbox.ProcessInfo) (*terminal, error) {
	ts := d.terminals
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return nil, &gateway.Error{Status: http.StatusServiceUnavailable, Code: "SHUTTING_DOWN", Message: "the server ends", Hint: "try again soon", Retry: 5 * time.Second}
	}
	if t, ok := ts.all[p.ID]; ok {
		if t.session != a.session {
			return nil, notFound(p.ID) // a sandbox claims another's terminal
		}
		if !t.ended() {
			return t, nil
		}
	}
	if len(ts.all) >= maxTerminals {
		return nil, &gateway.Error{Status: http.StatusTooManyRequests, Code: "TOO_MANY_TERMINALS", Message: "too many terminals are open", Hint: "close some"}
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &terminal{id: p.ID, session: a.session, box: a.box, stop: cancel, done: make(chan struct{}), changed: make(chan struct{}), life: ctx, typing: make(chan struct{}, 1), gone: p.LogStart, units: p.LogStart}
	t.info = info{ID: p.ID, Title: clip(p.Labels[labelTitle], maxTitle), Cwd: clip(p.Dir, maxPath), Status: "running", PID: p.PID, Args: []string{}}
	if len(p.Argv) > 0 {
		t.info.Command = clip(p.Argv[0], maxPath)
		for _, arg := range p.Argv[1:min(len(p.Argv), maxArgs)] {
			t.info.Args = append(t.info.Args, clip(arg, maxPath))
		}
	}
	ts.all[p.ID] = t
	go func() {
		select {
		case <-t.box.Done(): // with the session, what is typed is lost too
			cancel()
		case <-t.done:
		}
	}()
	go func() {
		defer close(t.done)
		defer cancel()
		exit, err := t.read(ctx, p.LogStart)
		t.end(exit == nil)
		if exit != nil {
			d.tell("pty.exited", map[string]any{"id": t.id, "exitCode": exit.ShellCode()})
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			d.log.Info("terminal lost", "terminal", t.id, "session", t.session, "error", err)
		}
	}()
	return t, nil
}

// find returns a running terminal by its id, of whichever session.
func (d *Doors) find(a *asked, id string) (*terminal, error) {
	look := func() *terminal {
		d.terminals.mu.Lock()
		defer d.terminals.mu.Unlock()
		t := d.terminals.all[id]
		if t == nil || t.ended() {
			return nil
		}
		return t
	}
	t := look()
	if t == nil { // after a restart it may be one of the client's session
		if session, lost := d.terminals.lost(id); lost {
			box, err := d.cfg.Sandbox(a.ctx, session)
			if err != nil {
				return nil, err
			}
			again := *a
			again.box, again.session = box, session
			a = &again
		}
		if a.box != nil {
			if err := d.recover(a); err != nil {
				return nil, err
			}
			t = look()
		}
	}
	if t == nil {
		return nil, notFound(id)
	}
	return t, nil
}

// lost returns the session of a terminal whose sandbox has to be reached anew.
func (ts *terminals) lost(id string) (session string, lost bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t, ok := ts.all[id]
	if !ok {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session, t.lost
}

// getTerminal answers GET /pty/{ptyID}.
func (d *Doors) getTerminal(a *asked) (any, error) {
	t, err := d.find(a, a.PathValue("ptyID"))
	if err != nil {
		return nil, err
	}
	return t.state(), nil
}

// updateTerminal answers PUT /pty/{ptyID}: title and size.
func (d *Doors) updateTerminal(a *asked) (any, error) {
	t, err := d.find(a, a.PathValue("ptyID"))
	if err != nil {
		return nil, err
	}
	var in struct {
		Title string
		Size  *struct{ Rows, Cols int }
	}
	if err := body(a.Request, &in); err != nil {
		return nil, err
	}
	if in.Size != nil && (in.Size.Rows < 1 || in.Size.Cols < 1 || in.Size.Rows > 65535 || in.Size.Cols > 65535) || len(in.Title) > maxTitle {
		return nil, badInput("a size has 1 to 65,535 rows and cols, a title at most 1,000 bytes", "send such a one")
	}
	if in.Size != nil {
		if err := t.box.Resize(a.ctx, t.id, sandbox.TerminalSize{Columns: in.Size.Cols, Rows: in.Size.Rows}); err != nil {
			return nil, err
		}
	}
	if in.Title != "" {
		t.mu.Lock()
		t.info.Title = in.Title
		t.mu.Unlock()
	}
	d.tell("pty.updated", map[string]any{"info": t.state()})
	return t.state(), nil
}

// removeTerminal answers DELETE /pty/{ptyID}: it ends what runs in the terminal.
func (d *Doors) removeTerminal(a *asked) (any, error) {
	t, err := d.find(a, a.PathValue("ptyID"))
	if err != nil {
		return nil, err
	}
	if err := t.box.Remove(a.ctx, t.id); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
		return nil, err
	}
	d.terminals.mu.Lock()
	delete(d.terminals.all, t.id)
	d.terminals.mu.Unlock()
	t.stop()
	d.log.Info("terminal closed", "terminal", t.id, "session", t.session)
	d.tell("pty.deleted", map[string]any{"id": t.id})
	return true, nil
}
