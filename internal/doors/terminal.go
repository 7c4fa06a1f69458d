package doors

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
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
