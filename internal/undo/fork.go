package undo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// forkRequest is the body of POST /session/{id}/fork.
type forkRequest struct {
	MessageID string `json:"messageID,omitempty"`
}

// Fork copies a session, up to a message if one is named, and its sandbox's files, as they were before that message.
// While it copies, tools of the session that change files wait with their beginning; commands that run go on,
// and files that they write meanwhile are copied as they are found. Processes are not copied. When anything fails
// there is no new session.
func (m *Manager) Fork(ctx context.Context, id string, req forkRequest) ([]byte, error) {
	root, err := m.cfg.Root(ctx, id)
	if err != nil {
		return nil, err
	}
	w, err := m.enter(ctx, root)
	if err != nil {
		return nil, err
	}
	defer m.leave(w)
	began := time.Now()
	var info session
	if err := m.get(ctx, "/session/"+id, &info); err != nil {
		return nil, err
	}
	all, err := m.messages(ctx, id)
	if err != nil {
		return nil, err
	}
	at := len(all)
	if req.MessageID != "" {
		if found := target(all, req.MessageID, ""); found >= 0 {
			at = found // else OpenCode copies all
		}
	}
	steps, err := m.steps(ctx, all[at:])
	if err != nil {
		return nil, err
	}
	files := m.cfg.Exists(root)
	back := files && (info.Revert != nil || touched(steps)) // the copy is not to be as the files are now
	if files {
		// Without git there is nothing to keep, and a fork of it all needs nothing of the kind.
		if _, err := m.settle(ctx, w, root, ""); err != nil && (back || sandbox.CodeOf(err) != sandbox.CodeNotSupported) {
			return nil, err
		}
	}
	var answer []byte
	fork, err := m.cfg.Fork(ctx, root, func(ctx context.Context) (string, error) {
		var made session
		var err error
		if answer, err = m.post(ctx, "/session/"+id+"/fork", req); err != nil {
			return "", err
		}
		if err = json.Unmarshal(answer, &made); err == nil && !validSession.MatchString(made.ID) {
			err = errors.New("OpenCode's answer has no session")
		}
		return made.ID, err
	})
	if err == nil && files {
		err = m.continueIn(ctx, fork, id, all[:at], steps, info.Revert != nil)
	}
	if err != nil {
		if fork != "" {
			m.drop(ctx, fork)
		}
		return nil, err
	}
	m.log.Info("session forked", "session", id, "fork", fork, "message", req.MessageID, "took", time.Since(began))
	return answer, nil
}

// continueIn makes a fork's sandbox, which is a copy, what the fork begins with: its messages have their steps' states,
// and the files are as they were before steps that were not copied.
func (m *Manager) continueIn(ctx context.Context, fork, source string, copied []message, undo []step, reverted bool) error {
	w, err := m.enter(ctx, fork)
	if err != nil {
		return err
	}
	defer m.leave(w)
	s, err := m.store(ctx, fork)
	if err != nil {
		return err
	}
	kept, err := s.Kept(ctx, "steps")
	if err != nil {
		return err
	}
	theirs, err := m.messages(ctx, fork)
	if err != nil {
		return err
	}
	if len(theirs) < len(copied) {
		return fmt.Errorf("OpenCode copied %d messages of %d", len(theirs), len(copied))
	}
	names := map[string]snapshot.Tree{}
	for i, msg := range copied {
		of := theirs[i].Info.ID
		if !validMessage.MatchString(of) {
			continue
		}
		if tree := kept[msg.Info.ID+"/before"]; tree != "" {
			names[beforeName(of)] = tree
		}
		if tree := kept[msg.Info.ID+"/after"]; tree != "" {
			names[afterName(of)] = tree
		}
	}
	if err := s.Keep(ctx, names); err != nil {
		return err
	}
	if !reverted && !touched(undo) {
		return nil
	}
	now, err := s.Take(ctx, snapshot.Refs{})
	if err != nil {
		return err
	}
	to := now
	if reverted {
		if to, err = m.redone(ctx, s, source, now); err != nil {
			return err
		}
	}
	did, err := spans(undo, kept, now)
	if err != nil {
		return err
	}
	plan, err := s.Undo(ctx, did)
	if err != nil {
		return err
	}
	if to, err = s.Compose(ctx, to, plan); err != nil {
		return err
	}
	return s.Switch(ctx, now, to)
}

// drop deletes a session whose fork has failed; its sandbox goes with it.
func (m *Manager) drop(ctx context.Context, fork string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiTimeout)
	defer cancel()
	status, _, err := m.ask(ctx, http.MethodDelete, "/session/"+fork, nil)
	if err == nil && status != http.StatusOK {
		err = &passed{status: status}
	}
	if err != nil {
		m.log.Warn("a session whose fork failed could not be deleted", "session", fork, "error", err)
	}
}
