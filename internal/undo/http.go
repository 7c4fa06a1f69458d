package undo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	answerTimeout = 6 * time.Minute // the copy of a large sandbox takes minutes
	maxBody       = 64 << 10
)

// Answers are the handlers, by the rows of the gateway's table that they answer.
func (m *Manager) Answers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /session/{sessionID}": m.answer(func(ctx context.Context, id string, r *http.Request) (any, error) { return m.raw(m.Session(ctx, id)) }),
		"GET /session/{sessionID}/diff": m.answer(func(ctx context.Context, id string, r *http.Request) (any, error) {
			return m.Diff(ctx, id, r.URL.Query().Get("messageID"))
		}),
		"POST /session/{sessionID}/revert": m.answer(func(ctx context.Context, id string, r *http.Request) (any, error) {
			var req revertRequest
			if err := decode(r, &req); err != nil {
				return nil, err
			}
			if req.MessageID == "" {
				return nil, badBody("messageID is missing")
			}
			return m.raw(m.Revert(ctx, id, req))
		}),
		"POST /session/{sessionID}/unrevert": m.answer(func(ctx context.Context, id string, r *http.Request) (any, error) { return m.raw(m.Unrevert(ctx, id)) }),
		"POST /session/{sessionID}/fork": m.answer(func(ctx context.Context, id string, r *http.Request) (any, error) {
			var req forkRequest
			if err := decode(r, &req); err != nil {
				return nil, err
			}
			return m.raw(m.Fork(ctx, id, req))
		}),
	}
}

func (m *Manager) raw(body []byte, err error) (any, error) { return json.RawMessage(body), err }

// answer makes a handler of a function. A person who goes away does not end what has begun: files and conversation
// belong together.
func (m *Manager) answer(f func(ctx context.Context, id string, r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("sessionID")
		ctx := r.Context()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			ctx = context.WithoutCancel(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		stop := context.AfterFunc(m.ctx, cancel)
		defer stop()
		var v any
		err := error(&gateway.Error{Status: http.StatusNotFound, Code: "SESSION_NOT_FOUND", Message: "there is no such session", Hint: "GET /session lists them"})
		if validSession.MatchString(id) {
			v, err = f(ctx, id, r)
		}
		var body []byte
		if err == nil {
			body, err = json.Marshal(v)
		}
		if p := (*passed)(nil); errors.As(err, &p) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(p.status)
			_, _ = w.Write(p.body) // the client may be gone
			return
		}
		if err != nil {
			e := refusal(err)
			m.log.InfoContext(ctx, "request not answered", "method", r.Method, "path", r.URL.Path, "status", e.Status, "code", e.Code, "cause", err)
			gateway.WriteError(w, e)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(body) // the client may be gone
	})
}

// decode reads a body, which may be missing.
func decode(r *http.Request, v any) error {
	if r.Body == nil {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return badBody("the body could not be read")
	case len(body) > maxBody:
		return badBody("the body is too long")
	case len(body) == 0:
		return nil
	}
	if json.Unmarshal(body, v) != nil {
		return badBody("the body is not the JSON object that this route takes")
	}
	return nil
}

func badBody(message string) error {
	return &gateway.Error{Status: http.StatusBadRequest, Code: "BAD_BODY", Message: message, Hint: "see GET /doc"}
}

// refusal is the error that a client is told.
func refusal(err error) *gateway.Error {
	var g *gateway.Error
	if errors.As(err, &g) {
		return g
	}
	var s *sandbox.Error
	if errors.As(err, &s) {
		e := &gateway.Error{Status: s.Code.HTTPStatus(), Code: string(s.Code), Message: s.Message, Hint: s.Hint, Err: err}
		switch {
		case s.Code == "SESSION_NOT_FOUND":
			e.Status = http.StatusNotFound
		case s.Code == "SNAPSHOT_CONFLICT":
			e.Status = http.StatusConflict
		case !s.Code.Known():
			e.Status = http.StatusBadGateway
		}
		e.Message, e.Hint = e.Message[:min(len(e.Message), 2000)], e.Hint[:min(len(e.Hint), 2000)]
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &gateway.Error{Status: http.StatusGatewayTimeout, Code: "SANDBOX_SLOW", Message: "the sandbox did not answer in time", Hint: "try again", Err: err}
	}
	return &gateway.Error{Status: http.StatusBadGateway, Code: "UNDO_FAILED", Message: "that did not work: " + err.Error()[:min(len(err.Error()), 1000)], Hint: "try again, or look at the server's log", Err: err}
}
