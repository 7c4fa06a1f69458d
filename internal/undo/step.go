package undo

import (
	"context"

	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// reading are the tools that change nothing. All others may.
var reading = map[string]bool{"read": true, "glob": true, "grep": true, "list": true, "webfetch": true}

// Step keeps the state of a root session's files before a tool begins that may change them, and, when the
// function that it returns is called and no other tool of the same message runs, the state behind it, in the
// background. A tool whose state can't be kept goes on all the same: what it did can't be undone then, which is
// said when somebody wants to.
func (m *Manager) Step(ctx context.Context, root, message, tool string) (done func()) {
	if reading[tool] || !validMessage.MatchString(message) {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	w, err := m.enter(ctx, root)
	if err != nil {
		m.failed(nil, root, err)
		return func() {}
	}
	defer m.leave(w)
	w.mu.Lock()
	w.running[message]++
	delete(w.ended, message)
	w.mu.Unlock()
	if err := m.begin(ctx, w, root, message); err != nil {
		m.failed(w, root, err)
	}
	return func() { m.ended(w, root, message) }
}

// Prepare keeps the state before a message of an agent in the background, while the model still thinks, so that the
// first tool of the message need not wait for it. It does nothing for a session without a sandbox.
func (m *Manager) Prepare(session, message string) {
	if !validMessage.MatchString(message) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil || m.preparing >= maxPreparing {
		return // the first tool does it
	}
	m.preparing++
	m.wg.Go(func() {
		defer func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.preparing--
		}()
		ctx, cancel := context.WithTimeout(m.ctx, stateTimeout)
		defer cancel()
		root, err := m.cfg.Root(ctx, session)
		if err != nil || !m.cfg.Exists(root) {
			return
		}
		w, err := m.enter(ctx, root)
		if err != nil {
			return
		}
		defer m.leave(w)
		if m.ctx.Err() == nil {
			_ = m.begin(ctx, w, root, message) // the first tool tries again, and says so
		}
	})
}

// begin keeps the state before a message, if that is not kept yet. The turn is the caller's.
func (m *Manager) begin(ctx context.Context, w *world, root, message string) error {
	w.mu.Lock()
	known := w.marked[message]
	w.mu.Unlock()
	if known {
		return nil
	}
	if _, err := m.settle(ctx, w, root, message); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.marked) >= maxMarked {
		clear(w.marked) // what is kept already is not kept anew
	}
	w.marked[message] = true
	w.failing = false
	return nil
}

// settle takes the state now, and keeps it as the end of the steps that have ended and as the beginning of another
// one, if that is given. The turn is the caller's.
func (m *Manager) settle(ctx context.Context, w *world, root, begins string) (snapshot.Tree, error) {
	store, err := m.store(ctx, root)
	if err != nil {
		return "", err
	}
	var refs snapshot.Refs
	if begins != "" {
		refs.New = []string{beforeName(begins)}
	}
	w.mu.Lock()
	var ended []string
	for message := range w.ended {
		ended = append(ended, message)
		refs.Set = append(refs.Set, afterName(message))
	}
	w.mu.Unlock()
	tree, err := store.Take(ctx, refs)
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	for _, message := range ended {
		delete(w.ended, message)
	}
	w.mu.Unlock()
	return tree, nil
}

// ended is the end of one tool.
func (m *Manager) ended(w *world, root, message string) {
	w.mu.Lock()
	if w.running[message]--; w.running[message] > 0 {
		w.mu.Unlock()
		return
	}
	delete(w.running, message)
	w.ended[message] = true
	w.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, stateTimeout)
		defer cancel()
		w, err := m.enter(ctx, root)
		if err != nil {
			return // the next look at the files does it
		}
		defer m.leave(w)
		w.mu.Lock()
		idle := len(w.ended) == 0
		w.mu.Unlock()
		if idle {
			return // somebody else has done it
		}
		if _, err := m.settle(ctx, w, root, ""); err != nil && m.ctx.Err() == nil {
			m.failed(w, root, err)
		}
	})
}

// failed says once that states can't be kept.
func (m *Manager) failed(w *world, root string, err error) {
	if w != nil {
		w.mu.Lock()
		said := w.failing
		w.failing = true
		w.mu.Unlock()
		if said {
			return
		}
	}
	m.log.Warn("the state of a session's files is not kept: what it does now can't be undone", "session", root, "code", sandbox.CodeOf(err), "error", err)
}
