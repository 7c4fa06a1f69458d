package scriptmodel

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options of a model. The zero value is ready to use.
type Options struct {
	// Logger gets one record per answer. Nil discards them.
	Logger *slog.Logger
	// MaxBody is the largest request body in bytes. 0 means 64 MiB.
	MaxBody int64
}

// New returns a model as an HTTP handler. It answers
//
//	POST …/chat/completions
//	POST …/responses
//	GET  …/models, …/models/{id}
//
// below any prefix, with or without a key. Errors have OpenAI's shape,
// {"error": {"message", "type", "code", "param"}}: 400 for a request that cannot be
// read, 404 for another path, 405 for another method, 413 for a body that is too large.
func New(opts Options) http.Handler {
	m := &model{log: opts.Logger, maxBody: opts.MaxBody, failed: map[[32]byte]int{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.maxBody <= 0 {
		m.maxBody = 64 << 20
	}
	return m
}

type model struct {
	log     *slog.Logger
	maxBody int64

	mu     sync.Mutex
	failed map[[32]byte]int // how often an error with "times" was given, by request
}

// maxFailed bounds the memory of error steps; beyond it all are forgotten.
const maxFailed = 4096

// codec is one of the two protocols.
type codec struct {
	decode func([]byte) (*conversation, error)
	write  func(*writer)
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimRight(r.URL.Path, "/")
	var k codec
	switch {
	case strings.HasSuffix(path, "/chat/completions"):
		k = codec{decodeChat, (*writer).chat}
	case strings.HasSuffix(path, "/responses"):
		k = codec{decodeResponses, (*writer).responses}
	case strings.HasSuffix(path, "/models"):
		m.list(w, r)
		return
	default:
		if at := strings.LastIndex(path, "/models/"); at >= 0 {
			m.describe(w, r, path[at+len("/models/"):])
			return
		}
		fail(w, http.StatusNotFound, "not_found", "no such route: "+clip(path, 200)+"; use /chat/completions, /responses or /models")
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		fail(w, http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, m.maxBody))
	if err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			fail(w, http.StatusRequestEntityTooLarge, "request_too_large", fmt.Sprintf("the body is larger than %d bytes", m.maxBody))
			return
		}
		fail(w, http.StatusBadRequest, "invalid_request_error", "reading the body: "+err.Error())
		return
	}
	c, err := k.decode(body)
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	c.size = len(body)
	a := c.reply()
	if f := m.refuse(body, a.refusals); f != nil {
		a = answer{fail: f}
	}
	tools := make([]string, len(a.calls))
	for i, k := range a.calls {
		tools[i] = k.Tool
	}
	m.log.DebugContext(r.Context(), "scripted answer", "model", c.model, "position", c.position(), "calls", tools, "error", a.fail != nil)
	m.answer(r.Context(), w, k, c, a)
}

// answer waits as the script says and writes the answer.
func (m *model) answer(ctx context.Context, w http.ResponseWriter, k codec, c *conversation, a answer) {
	hasText := false
	for _, p := range a.pieces {
		hasText = hasText || p.text != ""
	}
	if a.fail != nil && (!hasText || !c.stream) {
		for _, p := range a.pieces {
			if !wait(ctx, p.delay) {
				return
			}
		}
		fail(w, a.fail.Status, "scripted_error", a.fail.Message)
		return
	}
	k.write(&writer{ctx: ctx, w: w, c: c, a: a, now: time.Now()})
}

// refuse returns the refusal that is due for this very request, and counts it.
func (m *model) refuse(body []byte, refusals []failure) *failure {
	if len(refusals) == 0 {
		return nil
	}
	key := sha256.Sum256(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	given := m.failed[key]
	for i := range refusals {
		if given < refusals[i].Times {
			if len(m.failed) >= maxFailed {
				clear(m.failed)
			}
			m.failed[key]++
			return &refusals[i]
		}
		given -= refusals[i].Times
	}
	return nil
}

func (m *model) list(w http.ResponseWriter, r *http.Request) {
	if !reading(w, r) {
		return
	}
	data := make([]any, len(ids))
	for i, id := range ids {
		data[i] = describe(id)
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data})
}

func (m *model) describe(w http.ResponseWriter, r *http.Request, id string) {
	if !reading(w, r) {
		return
	}
	for _, known := range ids {
		if id == known {
			writeJSON(w, http.StatusOK, describe(id))
			return
		}
	}
	fail(w, http.StatusNotFound, "model_not_found", "no such model: "+clip(id, 100))
}

func describe(id string) any {
	return map[string]any{"id": id, "object": "model", "created": 0, "owned_by": "tongs"}
}

func reading(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	fail(w, http.StatusMethodNotAllowed, "method_not_allowed", "use GET")
	return false
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // every v is made of maps, strings and numbers
		status, body = http.StatusInternalServerError, []byte(`{"error":{"message":"encoding the answer failed"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": errorBody(code, message)})
}

func errorBody(code, message string) map[string]any {
	kind := "invalid_request_error"
	if code == "scripted_error" {
		kind = "server_error"
	}
	return map[string]any{"message": message, "type": kind, "code": code, "param": nil}
}

// wait sleeps; it returns false when the client went away first.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
