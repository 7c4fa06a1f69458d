package surface_test

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox"
)

type preview struct{ name, token string }

// previews is the least that keeps the contract of surface.Previews.
type previews struct {
	mu    sync.Mutex
	ports map[int]preview
}

func (p *previews) url(port int) surface.Preview {
	x := p.ports[port]
	return surface.Preview{URL: fmt.Sprintf("http://%d-box-%s.localhost", port, x.token), Port: port, Name: x.name}
}

func (p *previews) Expose(_ context.Context, port int, o surface.PreviewOptions) (surface.Preview, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.Token == "" {
		o.Token = "t0k3n"
	}
	p.ports[port] = preview{o.Name, o.Token}
	return p.url(port), nil
}

func (p *previews) Unexpose(_ context.Context, port int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.ports[port]; !ok {
		return sandbox.Errf("PORT_NOT_EXPOSED", "unexpose port", "it is not exposed", "")
	}
	delete(p.ports, port)
	return nil
}

func (p *previews) List(context.Context) ([]surface.Preview, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []surface.Preview{}
	for port := range p.ports {
		list = append(list, p.url(port))
	}
	slices.SortFunc(list, func(a, b surface.Preview) int { return a.Port - b.Port })
	return list, nil
}

func (p *previews) URL(port int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.ports[port]; !ok {
		return ""
	}
	return p.url(port).URL
}

func (p *previews) ValidToken(_ context.Context, port int, token string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.ports[port]
	return ok && x.token == token, nil
}
