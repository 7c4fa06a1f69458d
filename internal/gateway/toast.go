package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	toastTimeout = time.Second // OpenCode's answer to a toast
	toastEvery   = time.Second // more often than this they are left out
	toastShown   = 8 * time.Second
)

// toast has OpenCode show a refusal in the clients. The terminal client says nothing
// when a request of its own is refused, so that `!ls` would seem to do nothing. It is
// sent only when the client that was refused listens to events, and says only what
// the table says: every client that listens sees it.
func (g *gateway) toast(r *http.Request, e *Error) {
	switch e.Code {
	case "REFUSED", "FILE_REFUSED", "PERMISSION_REFUSED":
	default:
		return
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead || !g.streams.listens(clientOf(r)) {
		return
	}
	now, last := time.Now().UnixNano(), g.toasted.Load()
	if now-last < int64(toastEvery) || !g.toasted.CompareAndSwap(last, now) {
		return
	}
	text := e.Hint
	if e.Code != "REFUSED" {
		text = e.Message + ": " + e.Hint
	}
	body, err := json.Marshal(map[string]any{"title": "Refused", "message": text, "variant": "warning", "duration": toastShown.Milliseconds()})
	if err != nil { // strings and numbers always encode
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), toastTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://opencode/tui/show-toast", bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Host = g.cfg.UpstreamHost
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Opencode-Directory", url.PathEscape(g.cfg.Directory))
	resp, err := g.cfg.Upstream.RoundTrip(req)
	if err != nil {
		g.log.DebugContext(r.Context(), "refusal not shown in clients", "error", err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
}

// listens says whether a client has a stream of events open.
func (s *streams) listens(client string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open {
		if one.client == client {
			return true
		}
	}
	return false
}
