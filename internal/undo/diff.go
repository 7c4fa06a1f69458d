package undo

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// Diff lists what the turn of a user's message has changed, subagents' work included, from before its first step to
// the end of its last. It is empty where OpenCode's own is: for other messages, and when it is not known.
func (m *Manager) Diff(ctx context.Context, id, messageID string) ([]snapshot.FileDiff, error) {
	none := []snapshot.FileDiff{}
	root, err := m.cfg.Root(ctx, id)
	if err != nil {
		return nil, err
	}
	if messageID == "" || !m.cfg.Exists(root) {
		return none, nil
	}
	all, err := m.messages(ctx, id)
	if err != nil {
		return nil, err
	}
	var turn []message
	for _, msg := range all {
		if msg.Info.Role == "assistant" && msg.Info.ParentID == messageID {
			turn = append(turn, msg)
		}
	}
	steps, err := m.steps(ctx, turn)
	if err != nil {
		return nil, err
	}
	if !touched(steps) {
		return none, nil
	}
	w, err := m.enter(ctx, root)
	if err != nil {
		return nil, err
	}
	defer m.leave(w)
	s, err := m.store(ctx, root)
	if err != nil {
		return nil, err
	}
	now, err := m.settle(ctx, w, root, "")
	if sandbox.CodeOf(err) == sandbox.CodeNotSupported {
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	kept, err := s.Kept(ctx, "steps")
	if err != nil {
		return nil, err
	}
	did, err := spans(steps, kept, now)
	if e := (*gateway.Error)(nil); errors.As(err, &e) || len(did) == 0 && err == nil {
		return none, nil
	}
	if err != nil {
		return nil, err
	}
	return s.Diff(ctx, snapshot.Span{From: did[0].From, To: did[len(did)-1].To})
}

// Session is OpenCode's answer about a session, with what its undo did to files.
func (m *Manager) Session(ctx context.Context, id string) ([]byte, error) {
	var raw json.RawMessage
	if err := m.get(ctx, "/session/"+id, &raw); err != nil {
		return nil, err
	}
	var info session
	if json.Unmarshal(raw, &info) != nil || info.Revert == nil {
		return raw, nil
	}
	root, err := m.cfg.Root(ctx, id)
	if err != nil || !m.cfg.Exists(root) {
		return raw, nil
	}
	s, err := m.store(ctx, root)
	if err != nil {
		return raw, nil // the session can be seen while its sandbox can't
	}
	kept, err := s.Kept(ctx, "reverts/"+id)
	if err != nil || kept["redo"] == "" || kept["undone"] == "" {
		return raw, nil
	}
	shown, _, _ := m.shown(ctx, s, raw, snapshot.Span{From: kept["redo"], To: kept["undone"]})
	return shown, nil
}
