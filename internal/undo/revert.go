package undo

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tongs-dev/tongs/internal/snapshot"
)

// revertRequest is the body of POST /session/{id}/revert.
type revertRequest struct {
	MessageID string `json:"messageID"`
	PartID    string `json:"partID,omitempty"`
}

// What is kept of an undo, so that it can be done again: the state that redo goes back to and the one that undo went to.
func redoName(session string) string   { return "reverts/" + session + "/redo" }
func undoneName(session string) string { return "reverts/" + session + "/undone" }

// Revert undoes what a session did from a message, or a part of one, on: OpenCode marks the messages, and the files
// get what they had before. It returns OpenCode's answer, the session, with the difference in its member
// revert. Either both happen or neither. A person's own changes of other files stay.
func (m *Manager) Revert(ctx context.Context, id string, req revertRequest) ([]byte, error) {
	root, err := m.cfg.Root(ctx, id)
	if err != nil {
		return nil, err
	}
	w, err := m.enter(ctx, root)
	if err != nil {
		return nil, err
	}
	defer m.leave(w)
	if err := m.idle(ctx, id, root); err != nil {
		return nil, err
	}
	path := "/session/" + id + "/revert"
	all, err := m.messages(ctx, id)
	if err != nil {
		return nil, err
	}
	at := target(all, req.MessageID, req.PartID)
	if at < 0 || !m.cfg.Exists(root) {
		return m.post(ctx, path, req)
	}
	steps, err := m.steps(ctx, all[at:])
	if err != nil {
		return nil, err
	}
	var info session
	if err := m.get(ctx, "/session/"+id, &info); err != nil {
		return nil, err
	}
	s, err := m.store(ctx, root)
	if err != nil {
		return nil, err
	}
	if info.Revert == nil && !touched(steps) { // words alone
		if err := s.Drop(ctx, "reverts/"+id); err != nil {
			return nil, err
		}
		return m.post(ctx, path, req)
	}
	began := time.Now()
	now, err := m.settle(ctx, w, root, "")
	if err != nil {
		return nil, err
	}
	kept, err := s.Kept(ctx, "steps")
	if err != nil {
		return nil, err
	}
	undone, err := spans(steps, kept, now)
	if err != nil {
		return nil, err
	}
	redo := now
	if info.Revert != nil { // an undo beyond an undo: both start from the state before the first
		if redo, err = m.redone(ctx, s, id, now); err != nil {
			return nil, err
		}
	}
	plan, err := s.Undo(ctx, undone)
	if err != nil {
		return nil, err
	}
	to, err := s.Compose(ctx, redo, plan)
	if err != nil {
		return nil, err
	}
	if err := s.Keep(ctx, map[string]snapshot.Tree{redoName(id): redo, undoneName(id): to}); err != nil {
		return nil, err
	}
	answer, err := m.together(ctx, s, now, to, func() ([]byte, error) { return m.post(ctx, path, req) })
	if err != nil {
		return nil, err
	}
	m.log.Info("files of a session were put back", "session", id, "root", root, "message", req.MessageID, "files", plan.Len(), "took", time.Since(began))
	return m.show(ctx, s, id, answer, snapshot.Span{From: redo, To: to}), nil
}

// Unrevert does again what the last undo of a session has undone.
func (m *Manager) Unrevert(ctx context.Context, id string) ([]byte, error) {
	root, err := m.cfg.Root(ctx, id)
	if err != nil {
		return nil, err
	}
	w, err := m.enter(ctx, root)
	if err != nil {
		return nil, err
	}
	defer m.leave(w)
	if err := m.idle(ctx, id, root); err != nil {
		return nil, err
	}
	path := "/session/" + id + "/unrevert"
	var info session
	if err := m.get(ctx, "/session/"+id, &info); err != nil {
		return nil, err
	}
	if info.Revert == nil || !m.cfg.Exists(root) {
		return m.post(ctx, path, nil)
	}
	s, err := m.store(ctx, root)
	if err != nil {
		return nil, err
	}
	now, err := m.settle(ctx, w, root, "")
	if err != nil {
		return nil, err
	}
	to, err := m.redone(ctx, s, id, now)
	if err != nil {
		return nil, err
	}
	answer, err := m.together(ctx, s, now, to, func() ([]byte, error) { return m.post(ctx, path, nil) })
	if err != nil {
		return nil, err
	}
	m.log.Info("files of a session were brought forward again", "session", id, "root", root)
	return answer, nil
}

// redone is the state in which what the last undo changed is as it was before, and all else as it is now.
func (m *Manager) redone(ctx context.Context, s *snapshot.Store, id string, now snapshot.Tree) (snapshot.Tree, error) {
	kept, err := s.Kept(ctx, "reverts/"+id)
	if err != nil {
		return "", err
	}
	redo, undone := kept["redo"], kept["undone"]
	if redo == "" || undone == "" {
		return now, nil // that undo changed no file
	}
	plan, err := s.Undo(ctx, []snapshot.Span{{From: redo, To: undone}})
	if err != nil {
		return "", err
	}
	return s.Compose(ctx, now, plan)
}

// together puts the files into another state and has OpenCode do its part; when that fails the files are put back.
func (m *Manager) together(ctx context.Context, s *snapshot.Store, now, to snapshot.Tree, do func() ([]byte, error)) ([]byte, error) {
	if err := s.Switch(ctx, now, to); err != nil {
		return nil, err
	}
	answer, err := do()
	if err == nil {
		return answer, nil
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateTimeout)
	defer cancel()
	if failed := s.Switch(back, to, now); failed != nil {
		m.log.Error("files that were put back by an undo that OpenCode refused are still so", "snapshot", string(now), "error", failed)
	}
	return nil, err
}

// post has OpenCode do something. An answer that is not 200 is a *passed.
func (m *Manager) post(ctx context.Context, path string, body any) ([]byte, error) {
	if body == nil {
		body = struct{}{}
	}
	status, answer, err := m.ask(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &passed{status, answer}
	}
	return answer, nil
}

// show adds to a session what its undo did to files, and tells clients of it, as OpenCode does where it knows the files.
func (m *Manager) show(ctx context.Context, s *snapshot.Store, id string, answer []byte, undo snapshot.Span) []byte {
	shown, info, files := m.shown(ctx, s, answer, undo)
	if info != nil {
		m.tell("session.diff", map[string]any{"sessionID": id, "diff": files})
		m.tell("session.updated", map[string]any{"sessionID": id, "info": info})
	}
	return shown
}

// shown is a session with the differences of its undo in the members revert and summary, and what those are made of.
// Without an undo, and when the differences can't be found, it is the session as it is, and nothing else.
func (m *Manager) shown(ctx context.Context, s *snapshot.Store, answer []byte, undo snapshot.Span) ([]byte, map[string]any, []snapshot.FileDiff) {
	var info map[string]any
	if json.Unmarshal(answer, &info) != nil {
		return answer, nil, nil
	}
	revert, ok := info["revert"].(map[string]any)
	if !ok {
		return answer, nil, nil
	}
	text, err := s.Text(ctx, undo)
	var files []snapshot.FileDiff
	if err == nil {
		files, err = s.Diff(ctx, snapshot.Span{From: undo.To, To: undo.From}) // what was done, and is not any more
	}
	if err != nil {
		m.log.Warn("the differences of an undo can't be shown", "session", info["id"], "error", err)
		return answer, nil, nil
	}
	revert["snapshot"] = string(undo.From)
	if text != "" {
		revert["diff"] = text
	}
	added, deleted := 0, 0
	for _, f := range files {
		added += f.Additions
		deleted += f.Deletions
	}
	info["summary"] = map[string]any{"additions": added, "deletions": deleted, "files": len(files)}
	shown, err := json.Marshal(info)
	if err != nil {
		return answer, nil, nil
	}
	return shown, info, files
}
