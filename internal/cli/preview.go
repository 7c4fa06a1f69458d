package cli

import (
	"context"
	"net"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/preview"
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
