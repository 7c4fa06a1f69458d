package doors

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

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
