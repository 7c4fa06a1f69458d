package cli

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"

	"github.com/tongs-dev/tongs/internal/egress"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/webfetch"
	"github.com/tongs-dev/tongs/sandbox"
)

// webfetch fetches a page for a root session, over connections that its sandbox could make.
func (s *service) webfetch(ctx context.Context, root string, args map[string]any, ask func(context.Context, sandbox.AskRequest) error) (*sandbox.ToolResult, error) {
	box, err := s.fleet.Session(ctx, root)
	if err != nil {
		return nil, err
	}
	return webfetch.Fetch(ctx, webfetch.Config{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			var gate *egress.Gate
			if s.egress != nil {
				gate = s.egress.Gate(box.ID)
			}
			return dialAs(ctx, box, gate, network, address)
		},
		Ask: ask,
		Keep: func(ctx context.Context, text string) (string, error) {
			path := "/tmp/opencode/output/tool_webfetch_" + rand.Text() + ".txt" // beside what tools in the sandbox keep
			_, err := box.WriteFile(ctx, path, []byte(text), sandbox.WriteOptions{Parents: true, Exclusive: true, Mode: 0o600})
			return path, err
		},
	}, args)
}

// dialAs connects as a program in a sandbox would be connected: its loopback is the sandbox's, and all else
// goes through its gate, which a sandbox without a network has none of.
func dialAs(ctx context.Context, box fleet.Sandbox, gate *egress.Gate, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if addr, err := netip.ParseAddr(host); host == "localhost" || err == nil && addr.Unmap().IsLoopback() {
		return box.Dial(ctx, network, address)
	}
	if gate == nil {
		return nil, sandbox.Errf(sandbox.CodePermissionDenied, "connect to "+address, "the sandbox has no network", `set mode = "egress" under [network] in the configuration of Tongs`)
	}
	return gate.DialContext(ctx, network, address)
}
