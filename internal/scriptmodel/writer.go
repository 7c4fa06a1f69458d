package scriptmodel

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// writer writes one answer in one of the protocols.
type writer struct {
	ctx  context.Context
	w    http.ResponseWriter
	c    *conversation
	a    answer
	now  time.Time
	seq  int // responses: number of the event
	sent int // bytes of text and arguments
}

// id makes an identifier with the prefix that the protocol uses.
func id(prefix string) string { return prefix + strings.ToLower(rand.Text()[:20]) }

// stream starts a stream of events.
func (w *writer) stream() {
	h := w.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	w.w.WriteHeader(http.StatusOK)
	w.flush()
}

// event writes one event; name may be empty. It returns false when the client is gone.
func (w *writer) event(name string, v any) bool {
	data, err := encode(v)
	if err != nil {
		return false
	}
	var b []byte
	if name != "" {
		b = append(b, "event: "+name+"\n"...)
	}
	b = append(b, "data: "...)
	b = append(b, data...)
	b = append(b, "\n\n"...)
	if _, err := w.w.Write(b); err != nil {
		return false
	}
	return w.flush() && w.ctx.Err() == nil
}

func (w *writer) flush() bool { return http.NewResponseController(w.w).Flush() == nil }

// text waits out the delays and returns the whole text; ok is false when the client
// went away.
func (w *writer) text() (string, bool) {
	var b strings.Builder
	for _, p := range w.a.pieces {
		if !wait(w.ctx, p.delay) {
			return "", false
		}
		b.WriteString(p.text)
	}
	return b.String(), true
}

// parts cuts s into at most 64 parts of at least 24 bytes, at runes' borders, as a
// model's tokens come in parts.
func parts(s string) []string {
	size := max(24, (len(s)+63)/64)
	var out []string
	for len(s) > size {
		n := size
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		if n == 0 {
			n = size
		}
		out, s = append(out, s[:n]), s[n:]
	}
	if s != "" {
		out = append(out, s)
	}
	return out
}

// tokens are made-up counts: a quarter of the bytes, and never so many that a client
// takes its context for full and starts to shorten it.
func (w *writer) tokens() (in, out int) {
	return min(w.c.size/4+1, 8192), min(w.sent/4+1, 4096)
}

// contentText returns the text of a message's content: a string, or a list of parts
// whose "text" is joined by line breaks.
func contentText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var list []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(raw, &list) // other content has no text for a script
	var texts []string
	for _, p := range list {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}
