package opencode

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of the way from a session to its root.
const (
	maxSessionDepth = 32   // sessions between a session and its root
	maxRootCache    = 4096 // sessions whose root is remembered, twice
	sessionTimeout  = 10 * time.Second
)

// sessionPattern is what OpenCode's session ids look like. It keeps anything
// else out of the paths that are asked for.
var sessionPattern = regexp.MustCompile(`^ses_[A-Za-z0-9]{1,64}$`)

// RootSession returns the session that a person started and from which this one
// comes; a session without a parent is its own root. The answer is remembered,
// since a session's parent never changes.
//
// It fails with [CodeSessionNotFound] when OpenCode knows no such session.
func (h *Host) RootSession(ctx context.Context, sessionID string) (string, error) {
	const op = "find the root of a session"
	ctx, cancel := context.WithTimeoutCause(ctx, sessionTimeout, fmt.Errorf("no answer within %v", sessionTimeout))
	defer cancel()
	id := sessionID
	var seen []string
	for range maxSessionDepth {
		if root, ok := h.roots.get(id); ok {
			h.roots.put(root, seen...)
			return root, nil
		}
		if !sessionPattern.MatchString(id) {
			return "", sandbox.Errf(CodeSessionNotFound, op, fmt.Sprintf("%.80q is not a session id", id), "")
		}
		var session struct {
			ID       string `json:"id"`
			ParentID string `json:"parentID"`
		}
		if err := h.getJSON(ctx, "/session/"+id, nil, &session); err != nil {
			if isNotFound(err) {
				return "", &sandbox.Error{Code: CodeSessionNotFound, Op: op, Message: "there is no session " + id, Err: err}
			}
			return "", err
		}
		if session.ID != id {
			return "", sandbox.Errf(CodeOpenCodeAPI, op, "OpenCode gave another session than the one asked for", "")
		}
		seen = append(seen, id)
		if session.ParentID == "" {
			h.roots.put(id, seen...)
			return id, nil
		}
		id = session.ParentID
	}
	return "", sandbox.Errf(CodeOpenCodeAPI, op, fmt.Sprintf("session %s has more than %d ancestors", sessionID, maxSessionDepth), "start a new session")
}

// rootCache remembers roots. It holds two generations, and drops the older one
// when the newer is full.
type rootCache struct {
	mu       sync.Mutex
	new, old map[string]string
}

func newRootCache() *rootCache {
	return &rootCache{new: map[string]string{}, old: map[string]string{}}
}

func (c *rootCache) get(id string) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root, ok := c.new[id]
	if !ok {
		if root, ok = c.old[id]; ok {
			c.add(id, root)
		}
	}
	return root, ok
}

func (c *rootCache) put(root string, ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.add(id, root)
	}
}

func (c *rootCache) add(id, root string) {
	if len(c.new) >= maxRootCache {
		c.old, c.new = c.new, map[string]string{}
	}
	c.new[id] = root
}
