package surface

import (
	"context"
	"strconv"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// Previews makes a sandbox's ports reachable from outside, by URLs. Errors are *sandbox.Error.
type Previews interface {
	// Expose makes a port reachable and returns its URL. A token that is "" is chosen.
	// Again, with another token, replaces the URL.
	Expose(ctx context.Context, port int, opts PreviewOptions) (Preview, error)
	// Unexpose ends that; the URL is worth nothing afterwards.
	Unexpose(ctx context.Context, port int) error
	// List tells what is exposed, by port.
	List(ctx context.Context) ([]Preview, error)
	// URL gives that of a port which can be opened already: because it is exposed, or because every
	// port can be. Otherwise it is "".
	URL(port int) string
	// ValidToken reports whether a token opens a port, in constant time.
	ValidToken(ctx context.Context, port int, token string) (bool, error)
}

// PreviewOptions are a caller's wishes.
type PreviewOptions struct {
	Name  string `json:"name"`
	Token string `json:"token"`
	// Hostname is what the SDK needs to make URLs. The host here knows its own name.
	Hostname string `json:"hostname"`
}

// Preview is an exposed port.
type Preview struct {
	URL  string `json:"url"`
	Port int    `json:"port"`
	Name string `json:"name,omitempty"`
	// Status is active, or inactive while nothing listens on the port.
	Status string `json:"status,omitempty"`
}

var previewMethods = capnweb.Methods{
	"exposePort":        guarded("port.expose", "", (*box).exposePort),
	"unexposePort":      guarded("port.unexpose", "", (*box).unexposePort),
	"getExposedPorts":   guarded("port.list", "", (*box).getExposedPorts),
	"isPortExposed":     guarded("port.list", "", (*box).isPortExposed),
	"validatePortToken": guarded("port.list", "", (*box).validatePortToken),
}

func (b *box) previews(op string, port int) (Previews, error) {
	if port < 1 || port > 65535 {
		return nil, sandbox.Errf(sandbox.CodeInvalidPort, op, strconv.Itoa(port)+" is not a port", "ports are 1 to 65535")
	}
	if b.opts.Previews == nil {
		return nil, sandbox.Errf(sandbox.CodeNotSupported, op, "no preview URLs can be made through this connection", "containerFetch and wsConnect reach a port without one")
	}
	return b.opts.Previews, nil
}

func (b *box) exposePort(ctx context.Context, port int, o *PreviewOptions) (*Preview, error) {
	if o == nil {
		o = &PreviewOptions{}
	}
	p, err := b.previews("expose port", port)
	if err != nil {
		return nil, err
	}
	made, err := p.Expose(ctx, port, *o)
	if err != nil {
		return nil, err
	}
	return &made, nil
}

func (b *box) unexposePort(ctx context.Context, port int) error {
	p, err := b.previews("unexpose port", port)
	if err != nil {
		return err
	}
	return p.Unexpose(ctx, port)
}

// getExposedPorts takes the SDK's hostname, which is not needed.
func (b *box) getExposedPorts(ctx context.Context, _ any) ([]Preview, error) {
	p, err := b.previews("list exposed ports", 1)
	if err != nil {
		return nil, err
	}
	list, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	listening, err := b.ListPorts(ctx)
	if err != nil {
		return nil, err
	}
	open := make(map[int]bool, len(listening))
	for _, l := range listening {
		open[l.Port] = true
	}
	for i := range list {
		if list[i].Status = "inactive"; open[list[i].Port] {
			list[i].Status = "active"
		}
	}
	return list, nil
}

func (b *box) isPortExposed(ctx context.Context, port int) (bool, error) {
	p, err := b.previews("list exposed ports", port)
	if err != nil {
		return false, err
	}
	list, err := p.List(ctx)
	for _, x := range list {
		if x.Port == port {
			return true, err
		}
	}
	return false, err
}

func (b *box) validatePortToken(ctx context.Context, port int, token string) (bool, error) {
	p, err := b.previews("validate token", port)
	if err != nil {
		return false, err
	}
	return p.ValidToken(ctx, port, token)
}
