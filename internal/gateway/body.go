package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"time"
)

// Limits on request bodies.
const (
	maxBody     = 1 << 20          // most routes, bytes
	maxPrompt   = 64 << 20         // prompts, which carry pictures
	maxBodies   = 256 << 20        // all that are being read or sent on at once
	bodyTimeout = 2 * time.Minute  // reading one body
	bodiesWait  = 30 * time.Second // for room among them
)

// limitBody bounds the time in which the body comes. It also bounds how long the
// server waits for the rest of a body that a refusal has left unread, so it is set
// before anything is decided; takeBody lifts it.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a writer in tests has none
	}
}

// bodyCheck looks at a body that has been decoded, and may change it.
type bodyCheck func(c *check, body map[string]any) *Error

// check is one look at a body.
type check struct {
	ctx     context.Context
	session string
	attach  func(ctx context.Context, sessionID string, file File) ([]map[string]any, error)
	notes
}

// notes are what a check found that others need to know.
type notes struct {
	noReply bool // a prompt that is stored and not answered
}

func badBody(message, hint string) *Error {
	return &Error{Status: 400, Code: "BAD_BODY", Message: message, Hint: hint}
}

// takeBody reads the whole body, checks it where the row says so, and returns what is
// to be sent on; nil is no body.
func (g *gateway) takeBody(w http.ResponseWriter, r *http.Request, rt *route) (*reqBody, notes, *Error) {
	var n notes
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Body == nil || r.Body == http.NoBody {
		if rt.body != nil && !rt.bare {
			return nil, n, badBody("the request has no body", "send a JSON object")
		}
		return nil, n, nil
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, n, &Error{Status: 415, Code: "BAD_ENCODING", Message: "request bodies are not taken compressed", Hint: "send it without Content-Encoding"}
	}
	limit := int64(maxBody)
	if rt.body != nil {
		limit = maxPrompt
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return nil, n, &Error{Status: 415, Code: "BAD_CONTENT_TYPE", Message: "the body is not JSON", Hint: "send it with Content-Type: application/json"}
		}
	}
	tooLarge := &Error{Status: 413, Code: "BODY_TOO_LARGE", Message: fmt.Sprintf("the body is larger than %d bytes", limit), Hint: "attach less"}
	if r.ContentLength > limit {
		return nil, n, tooLarge
	}
	size := r.ContentLength
	if size < 0 {
		size = limit
	}
	free, err := g.room(r.Context(), size)
	if err != nil {
		return nil, n, err
	}
	raw, readErr := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if readErr != nil {
		free()
		var over *http.MaxBytesError
		switch {
		case errors.As(readErr, &over):
			return nil, n, tooLarge
		case errors.Is(readErr, os.ErrDeadlineExceeded):
			return nil, n, &Error{Status: 408, Code: "BODY_TIMEOUT", Message: "the body did not come in " + bodyTimeout.String(), Hint: "send it again", Err: readErr}
		}
		return nil, n, badBody("the body could not be read", "send it again")
	}
	// The body is here: the connection may now be silent for as long as a turn takes.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a writer in tests has none
	if rt.body != nil {
		var err *Error
		if raw, n, err = checked(raw, rt.body, &check{ctx: r.Context(), session: r.PathValue("sessionID"), attach: g.cfg.Attach}); err != nil {
			free()
			return nil, n, err
		}
	}
	return newReqBody(raw, free), n, nil
}

// room takes a share of the memory for bodies.
func (g *gateway) room(ctx context.Context, size int64) (free func(), err *Error) {
	ctx, cancel := context.WithTimeout(ctx, bodiesWait)
	defer cancel()
	if g.bodies.Acquire(ctx, size) != nil {
		return nil, &Error{Status: 503, Code: "TOO_MANY_BODIES", Message: "too many large requests at once", Hint: "try again", Retry: 5 * time.Second}
	}
	return func() { g.bodies.Release(size) }, nil
}

// checked decodes a body, checks it and encodes what was checked: two readers of the
// same JSON text may disagree (about a key that comes twice, for one).
func checked(raw []byte, look bodyCheck, c *check) ([]byte, notes, *Error) {
	var n notes
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var body map[string]any
	if err := dec.Decode(&body); err != nil || body == nil {
		return nil, n, badBody("the body is not a JSON object", "see GET /doc")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, n, badBody("something follows the JSON object in the body", "send one object")
	}
	if err := look(c, body); err != nil {
		return nil, n, err
	}
	n = c.notes
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		return nil, n, badBody("the body could not be written anew", "see GET /doc")
	}
	return bytes.TrimRight(out.Bytes(), "\n"), n, nil
}
