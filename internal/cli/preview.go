package cli

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/preview"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox"
)

// newPreview makes the handler of preview URLs on the front's address.
func (s *service) newPreview(listen string) (*preview.Handler, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, err
	}
	domain, https := strings.CutPrefix(s.cfg.PreviewDomain, "https://")
	scheme := "http"
	if https {
		scheme = "https"
	}
	return preview.New(preview.Config{
		Boxes: previewBoxes{s.fleet}, Listen: listen, Domain: domain, Scheme: scheme,
		// What is asked for a password may be reached through others' proxies.
		Open: isLoopback(host) && s.cfg.Password == "", Password: s.cfg.Password,
		File: filepath.Join(s.cfg.Home, "previews.json"), Logger: s.log.With("from", "previews"),
		Reserved: []int{sandbox.EgressPort, sandbox.EgressDNSPort},
	})
}

// previewBoxes finds the sandboxes that host names speak of: by id, name, or session. The agent host
// is none of them.
type previewBoxes struct{ fleet *fleet.Fleet }

func (b previewBoxes) Dial(ctx context.Context, label string, port int) (net.Conn, error) {
	box, err := b.fleet.Running(ctx, func(e fleet.Entry) bool {
		if e.Name == agentHostName {
			return false
		}
		return e.ID == label || e.Name == label || e.Session != "" && preview.Label(e.Session) == label
	})
	if err != nil {
		return nil, err
	}
	return box.DialPort(ctx, port)
}

// exposed is what programs may do about the URLs of one sandbox's ports.
type exposed struct {
	previews *preview.Handler
	id       string
	name     string // or session, or the id again
}

var _ surface.Previews = exposed{}

func (x exposed) Expose(_ context.Context, port int, opts surface.PreviewOptions) (surface.Preview, error) {
	e, err := x.previews.Expose(x.id, port, preview.ExposeOptions{Name: opts.Name, Token: opts.Token})
	return surface.Preview{URL: e.URL, Port: e.Port, Name: e.Name}, err
}

func (x exposed) Unexpose(_ context.Context, port int) error { return x.previews.Unexpose(x.id, port) }

func (x exposed) List(context.Context) ([]surface.Preview, error) {
	all := x.previews.List(x.id)
	out := make([]surface.Preview, len(all))
	for i, e := range all {
		out[i] = surface.Preview{URL: e.URL, Port: e.Port, Name: e.Name}
	}
	return out, nil
}

func (x exposed) URL(port int) string {
	all := x.previews.List(x.id)
	if i := slices.IndexFunc(all, func(e preview.Exposed) bool { return e.Port == port }); i >= 0 {
		return all[i].URL
	}
	return x.previews.PlainURL(x.name, port)
}

func (x exposed) ValidToken(_ context.Context, port int, token string) (bool, error) {
	return x.previews.Valid(x.id, port, token), nil
}

// forgotten revokes the URLs of a sandbox that is no more, and drops what programs have set in it.
func (s *service) forgotten(e fleet.Entry) {
	s.states.Forget(e.ID)
	for _, name := range []string{e.ID, e.Name, e.Session} {
		if err := s.preview.Forget(name); err != nil {
			s.log.Warn("the URLs of a sandbox's ports could not be revoked", "sandbox", e.ID, "error", err)
		}
	}
}
