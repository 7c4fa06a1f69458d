package doors

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/sandbox"
)

// Config says whose sandboxes answer. Root and Sandbox are needed.
type Config struct {
	// Root returns the root of a session, or an error when there is no such session.
	Root func(ctx context.Context, sessionID string) (string, error)
	// Sandbox returns the sandbox of a root session, and makes or starts it if need be.
	Sandbox func(ctx context.Context, root string) (*sandbox.Client, error)
	// Directory is the project's directory in every sandbox. Default /home/user/project.
	Directory string
	// Home is the home directory in every sandbox. Default /home/user.
	Home string
	// Timeout bounds one answer. Default 30 s.
	Timeout time.Duration
	// Logger gets terminals and commands that come and go. Default: none.
	Logger *slog.Logger
}

// Doors answers routes from sandboxes. It is safe for use by many goroutines.
type Doors struct {
	cfg       Config
	log       *slog.Logger
	clients   *clients
	terminals *terminals
	commands  commands
	send      atomic.Pointer[func(gateway.Event)]
}

// New prepares the doors. Close ends what they hold open.
func New(cfg Config) *Doors {
	if cfg.Directory == "" {
		cfg.Directory = "/home/user/project"
	}
	if cfg.Home == "" {
		cfg.Home = "/home/user"
	}
	cfg.Directory = path.Clean(cfg.Directory)
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Doors{cfg: cfg, log: cfg.Logger, clients: newClients(), terminals: newTerminals(), commands: commands{open: map[*command]struct{}{}}}
}

// Answers are the handlers, by the rows of the gateway's table that they answer.
func (d *Doors) Answers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /file":         d.answer(d.listDirectory),
		"GET /file/content": d.answer(d.readContent),
		"GET /find":         d.answer(d.findText),
		"GET /find/file":    d.answer(d.findFile),
		"GET /api/fs/find":  d.answer(d.findLocated),

		"GET /vcs":          d.answer(d.vcs),
		"GET /vcs/status":   d.answer(d.vcsStatus),
		"GET /vcs/diff":     d.answer(d.vcsDiff),
		"GET /vcs/diff/raw": d.answer(d.vcsDiffRaw),
		"POST /vcs/apply":   d.answer(d.vcsApply),

		"GET /pty/shells":                 d.answer(d.shells),
		"GET /pty":                        d.answer(d.listTerminals),
		"POST /pty":                       d.answer(d.createTerminal),
		"GET /pty/{ptyID}":                d.answer(d.getTerminal),
		"PUT /pty/{ptyID}":                d.answer(d.updateTerminal),
		"DELETE /pty/{ptyID}":             d.answer(d.removeTerminal),
		"POST /pty/{ptyID}/connect-token": d.answer(d.issueTicket),
		"GET /pty/{ptyID}/connect":        http.HandlerFunc(d.connectTerminal),
	}
}

// Events takes the function that sends events to clients: terminals come and go.
func (d *Doors) Events(send func(gateway.Event)) { d.send.Store(&send) }

func (d *Doors) tell(kind string, properties map[string]any) {
	if send := d.send.Load(); send != nil {
		(*send)(gateway.Event{Type: kind, Properties: properties})
	}
}

// Close ends the connections to terminals; the terminals stay in their sandboxes.
func (d *Doors) Close() { d.terminals.close() }

// asked is one request and the sandbox that answers it.
type asked struct {
	*http.Request
	ctx     context.Context
	box     *sandbox.Client // nil: no session, the empty project answers
	session string          // the root session; empty without box
	header  http.Header     // of the response
}

// patch is an answer that is no JSON.
type patch []byte

// answer makes a handler of a function. What the function returns is written as JSON.
func (d *Doors) answer(f func(*asked) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), d.cfg.Timeout)
		defer cancel()
		a := &asked{Request: r, ctx: ctx, header: w.Header()}
		var v any
		var err error
		if a.box, a.session, err = d.which(ctx, r); err == nil {
			v, err = f(a)
		}
		if err != nil {
			d.refuse(w, r, err)
			return
		}
		var body bytes.Buffer
		kind := "application/json"
		if raw, ok := v.(patch); ok {
			kind = "text/x-diff; charset=utf-8"
			body.Write(raw)
		} else {
			enc := json.NewEncoder(&body)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				d.refuse(w, r, err)
				return
			}
			body.Truncate(body.Len() - 1)
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(body.Bytes()) // the client may be gone
	})
}

// truncated tells that an answer is not all there is. OpenCode's shapes have no place for it.
func (a *asked) truncated() { a.header.Set("X-Tongs-Truncated", "true") }

// need refuses a request that has no session.
func (a *asked) need(what string) error {
	if a.box != nil {
		return nil
	}
	return &gateway.Error{Status: http.StatusConflict, Code: "NO_SESSION", Message: what + " belongs to a session's sandbox, and this client has not worked with a session yet",
		Hint: "open a session first, or name one in the header X-Tongs-Session"}
}

// refuse writes an error.
func (d *Doors) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := refusal(err)
	facts := []any{"method", r.Method, "path", r.URL.Path, "status", e.Status, "code", e.Code}
	if e.Err != nil {
		facts = append(facts, "cause", e.Err)
	}
	d.log.InfoContext(r.Context(), "request not answered", facts...)
	gateway.WriteError(w, e)
}

// refusal is the error that a client is told.
func refusal(err error) *gateway.Error {
	var g *gateway.Error
	var s *sandbox.Error
	switch {
	case errors.As(err, &g):
		return g
	case errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &s):
		return &gateway.Error{Status: http.StatusGatewayTimeout, Code: "SANDBOX_SLOW", Message: "the sandbox did not answer in time", Hint: "try again", Err: err}
	case errors.As(err, &s):
		e := &gateway.Error{Status: s.Code.HTTPStatus(), Code: string(s.Code), Message: clip(s.Message, maxMessage), Hint: clip(s.Hint, maxMessage), Err: err}
		if !s.Code.Known() {
			e.Status = http.StatusBadGateway
		}
		if s.Code == "SESSION_NOT_FOUND" {
			e.Status = http.StatusNotFound
		}
		return e
	}
	return &gateway.Error{Status: http.StatusBadGateway, Code: "SANDBOX_FAILED", Message: "the sandbox gave no usable answer", Hint: "try again, or look at the server's log", Err: err}
}

// maxMessage bounds a text of a sandbox that becomes a message.
const maxMessage = 2000

func badInput(message, hint string) error {
	return &gateway.Error{Status: http.StatusBadRequest, Code: "BAD_INPUT", Message: message, Hint: hint}
}
