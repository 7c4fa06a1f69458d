package undo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/snapshot"
)

// Bounds of what OpenCode is asked.
const (
	apiTimeout   = 30 * time.Second
	maxAPIBytes  = 64 << 20 // one answer of OpenCode's
	maxSubagents = 256      // sessions of subagents that one undo looks at
)

// message is the part of a message of OpenCode's that matters here.
type message struct {
	Info struct {
		ID       string `json:"id"`
		Role     string `json:"role"`
		ParentID string `json:"parentID"`
		Time     struct {
			Created float64 `json:"created"` // ms
		} `json:"time"`
	} `json:"info"`
	Parts []struct {
		ID    string `json:"id"`
		Type  string `json:"type"`
		Tool  string `json:"tool"`
		State struct {
			Status   string `json:"status"`
			Metadata struct {
				SessionID string `json:"sessionId"` // of a subagent
			} `json:"metadata"`
			Time struct {
				Start float64 `json:"start"` // ms
			} `json:"time"`
		} `json:"state"`
	} `json:"parts"`
}

// session is the part of a session that matters here.
type session struct {
	ID       string `json:"id"`
	ParentID string `json:"parentID"`
	Revert   *struct {
		MessageID string `json:"messageID"`
		PartID    string `json:"partID"`
	} `json:"revert"`
}

// ask sends a request to OpenCode and returns what it answers, whatever that is.
func (m *Manager) ask(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.cfg.URL+path+"?directory="+url.QueryEscape(m.cfg.Project), in)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.cfg.OpenCode.RoundTrip(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask OpenCode: %s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAPIBytes+1))
	if err == nil && len(answer) > maxAPIBytes {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAPIBytes)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("ask OpenCode: %s %s: %w", method, path, err)
	}
	return resp.StatusCode, answer, nil
}

// passed is an answer of OpenCode's that is passed on as it is: it refused.
type passed struct {
	status int
	body   []byte
}

func (p *passed) Error() string { return fmt.Sprintf("OpenCode answered %d", p.status) }

// get asks OpenCode and decodes its answer. One that is not 200 is a *passed.
func (m *Manager) get(ctx context.Context, path string, v any) error {
	status, body, err := m.ask(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return &passed{status, body}
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("ask OpenCode: GET %s: the answer is not what was expected: %w", path, err)
	}
	return nil
}

func (m *Manager) messages(ctx context.Context, id string) ([]message, error) {
	var all []message
	err := m.get(ctx, "/session/"+id+"/message", &all)
	return all, err
}

// idle refuses when one of the sessions has something under way, as OpenCode itself does.
func (m *Manager) idle(ctx context.Context, sessions ...string) error {
	var states map[string]struct {
		Type string `json:"type"`
	}
	if err := m.get(ctx, "/session/status", &states); err != nil {
		return err
	}
	for _, id := range sessions {
		if state := states[id].Type; state != "" && state != "idle" {
			return &gateway.Error{Status: http.StatusConflict, Code: "SESSION_BUSY", Message: "Session is busy: " + id, Hint: "wait for its end, or stop it, and try again"}
		}
	}
	return nil
}

// touched says whether any of the steps may have changed files.
func touched(steps []step) bool {
	return slices.ContainsFunc(steps, func(one step) bool { return one.touched })
}

// target finds the message that is named, or has the part that is named; -1 when there is none.
func target(all []message, messageID, partID string) int {
	for i, msg := range all {
		if msg.Info.ID == messageID && partID == "" {
			return i
		}
		for _, part := range msg.Parts {
			if partID != "" && part.ID == partID {
				return i
			}
		}
	}
	return -1
}

// step is what one message of an agent may have changed.
type step struct {
	message string
	created float64
	touched bool // it has called tools that may change files
	changed bool // and some have ended well
}

// steps are those of messages and of the subagents that they started, in the order of time.
func (m *Manager) steps(ctx context.Context, all []message) ([]step, error) {
	var out []step
	seen := map[string]bool{}
	subagents := 0
	var walk func(all []message) error
	walk = func(all []message) error {
		for _, msg := range all {
			if msg.Info.Role != "assistant" || seen[msg.Info.ID] {
				continue
			}
			seen[msg.Info.ID] = true
			one := step{message: msg.Info.ID, created: msg.Info.Time.Created}
			for _, part := range msg.Parts {
				if part.Type != "tool" {
					continue
				}
				child := part.State.Metadata.SessionID
				if part.Tool != "task" || child == "" {
					one.touched = one.touched || changing[part.Tool]
					one.changed = one.changed || part.State.Status == "completed" && changing[part.Tool]
					continue
				}
				if subagents++; subagents > maxSubagents {
					return &gateway.Error{Status: http.StatusUnprocessableEntity, Code: "TOO_MANY_SUBAGENTS", Message: fmt.Sprintf("more than %d subagents worked in what is to be undone", maxSubagents),
						Hint: "undo less at once"}
				}
				if !validSession.MatchString(child) {
					continue
				}
				theirs, err := m.messages(ctx, child)
				if p := (*passed)(nil); errors.As(err, &p) && p.status == http.StatusNotFound {
					continue // deleted
				}
				if err != nil {
					return err
				}
				// A subagent that is told more later has a history already, which is not this part's.
				theirs = slices.DeleteFunc(theirs, func(t message) bool { return t.Info.Time.Created < part.State.Time.Start })
				if err := walk(theirs); err != nil {
					return err
				}
			}
			out = append(out, one)
		}
		return nil
	}
	err := walk(all)
	slices.SortStableFunc(out, func(a, b step) int { return cmp.Compare(a.created, b.created) })
	return out, err
}

// changing are the tools of OpenCode's that change files in the sandbox.
var changing = map[string]bool{"bash": true, "edit": true, "write": true, "apply_patch": true}

// spans finds the states before and behind each step. A step whose end was not kept, because the host was killed,
// ends where the next one begins, or now.
func spans(steps []step, kept map[string]snapshot.Tree, now snapshot.Tree) ([]snapshot.Span, error) {
	var out []snapshot.Span
	end := now
	for _, one := range slices.Backward(steps) {
		before, ok := kept[one.message+"/before"]
		if !ok {
			if one.changed {
				return nil, &gateway.Error{Status: http.StatusConflict, Code: "NO_SNAPSHOT", Message: "the files as they were before the message " + one.message + " are not known",
					Hint: "it was before states were kept, or the project could not be read then; undo less, or ask the agent to undo it"}
			}
			continue
		}
		after, ok := kept[one.message+"/after"]
		if !ok {
			after = end
		}
		out = append(out, snapshot.Span{From: before, To: after})
		end = before
	}
	slices.Reverse(out)
	return out, nil
}
