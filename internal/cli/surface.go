package cli

import (
	"context"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox"
)

// surface makes the object that programs get for a sandbox. Objects of the same sandbox share a state.
func (s *service) surface(e fleet.Entry, client *sandbox.Client, destroy func(context.Context) error) *capnweb.Target {
	return surface.New(client, surface.Options{
		Name: e.String(), State: s.states.Of(e.ID, client.Incarnation()), Destroy: destroy, Previews: exposed{s.preview, e.ID, e.String()},
	})
}

// agentSurface is what OpenCode's plugin sees of a root session's sandbox besides its tools. The sandbox
// cannot be destroyed through it: it belongs to the session.
func (s *service) agentSurface(ctx context.Context, root string) (*capnweb.Target, error) {
	box, err := s.fleet.Session(ctx, root)
	if err != nil {
		return nil, err
	}
	return s.surface(fleet.Entry{ID: box.ID, Session: root}, box.Client, nil), nil
}
