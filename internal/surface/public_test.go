package surface_test

import (
	"context"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox"
)

// guests is a driver whose sandboxes are plain guests, children of the test.
type guests struct {
	driver.Driver // what is not overridden must not be called

	mu    sync.Mutex
	boxes map[string]*box
	specs map[string]driver.Spec
}

func (g *guests) Name() string { return "guests" }

func (g *guests) Create(_ context.Context, spec driver.Spec) error {
	b, err := startBox()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.boxes[spec.ID], g.specs[spec.ID] = b, spec
	return nil
}

func (g *guests) get(id string) (*box, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.boxes[id]; b != nil {
		return b, nil
	}
	return nil, driver.NotFound("find", id)
}

func (g *guests) Dial(ctx context.Context, id string) (net.Conn, error) {
	b, err := g.get(id)
	if err != nil {
		return nil, err
	}
	return b.dial(ctx)
}

func (g *guests) Destroy(_ context.Context, id string) error {
	b, err := g.get(id)
	if err != nil {
		return err
	}
	g.mu.Lock()
	delete(g.boxes, id)
	g.mu.Unlock()
	return b.end()
}

func (g *guests) List(context.Context) ([]driver.Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []driver.Status
	for id := range g.boxes {
		all = append(all, driver.Status{ID: id, Labels: g.specs[id].Labels, Running: true, Created: time.Now()})
	}
	return all, nil
}

// servePublic serves the public endpoint over plain guests.
func servePublic(t *testing.T) (url, token string) {
	t.Helper()
	home := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	boxes := fleet.New(fleet.Config{Driver: &guests{boxes: map[string]*box{}, specs: map[string]driver.Spec{}}, Logger: quiet})
	tokens, err := api.OpenTokens(home)
	if err != nil {
		t.Fatal(err)
	}
	var states surface.States
	var exposed sync.Map
	endpoint := api.New(api.Config{
		Fleet: boxes, Tokens: tokens, Logger: quiet, Version: "test",
		Surface: func(e fleet.Entry, client *sandbox.Client, destroy func(context.Context) error) *capnweb.Target {
			p, _ := exposed.LoadOrStore(e.ID, &previews{ports: map[int]preview{}})
			return surface.New(client, surface.Options{Name: e.String(), State: states.Of(e.ID, client.Incarnation()), Destroy: destroy, Previews: p.(*previews)})
		},
		Forget: func(e fleet.Entry) { states.Forget(e.ID) },
	})
	server := httptest.NewServer(endpoint)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		endpoint.Close()
		server.Close()
		tokens.Close()
		if err := boxes.DestroyAll(ctx); err != nil {
			t.Error(err)
		}
	})
	if token, err = api.ReadToken(filepath.Join(home, api.TokenFile)); err != nil {
		t.Fatal(err)
	}
	return server.URL, token
}
