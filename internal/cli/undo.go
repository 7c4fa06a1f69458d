package cli

import (
	"context"
	"maps"
	"net/http"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/undo"
)

// newUndo makes what undoes and forks the work of sessions.
func (s *service) newUndo() *undo.Manager {
	return undo.New(undo.Config{
		Root:    func(ctx context.Context, id string) (string, error) { return s.host.RootSession(ctx, id) },
		Sandbox: s.sessionBox, Exists: func(root string) bool { _, ok := s.fleet.ID(root); return ok }, Fork: s.fleet.Fork,
		OpenCode: roundTrip(func(r *http.Request) (*http.Response, error) { return s.host.Transport().RoundTrip(r) }), URL: openCodeURL,
		Project: projectDir, Home: sandboxHome, Logger: s.log.With("from", "undo"),
	})
}

const (
	// openCodeURL is how requests to OpenCode name it; the transport knows where it is.
	openCodeURL = "http://127.0.0.1:4096"
	// sandboxHome is the home directory in every sandbox.
	sandboxHome = "/home/user"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// step lets undo look at the files of a tool's sandbox before the tool does.
func (s *service) step(ctx context.Context, call opencode.StepCall) (done func()) {
	return s.undo.Step(ctx, call.Root, call.MessageID, call.Tool)
}

// answers are the routes that are answered from sandboxes.
func (s *service) answers() map[string]http.Handler {
	all := s.doors.Answers()
	maps.Copy(all, s.undo.Answers())
	return all
}

// events gives those who have something to tell clients the way to do it.
func (s *service) events(send func(gateway.Event)) {
	s.doors.Events(send)
	s.undo.Events(send)
}
