package cli

import (
	"context"
	"net/http"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/opencode"
)

// weakness switches protections off, for the tests which show that the check of the doors finds that.
// Nothing else sets it: the zero value changes nothing.
type weakness struct {
	agentHost func(*driver.Spec)
	machine   func(opencode.Machine) opencode.Machine
	gateway   func(*gateway.Config)
	front     func(http.Handler) http.Handler
	unchecked bool // no check at start, so that a test can drive the doors itself
}

func (w weakness) spec(spec *driver.Spec) {
	if w.agentHost != nil {
		w.agentHost(spec)
	}
}

func (w weakness) machines(reach func(context.Context) (opencode.Machine, error)) func(context.Context) (opencode.Machine, error) {
	if w.machine == nil {
		return reach
	}
	return func(ctx context.Context) (opencode.Machine, error) {
		m, err := reach(ctx)
		if err != nil {
			return nil, err
		}
		return w.machine(m), nil
	}
}

func (w weakness) config(config *gateway.Config) {
	if w.gateway != nil {
		w.gateway(config)
	}
}

func (w weakness) handler(h http.Handler) http.Handler {
	if w.front == nil {
		return h
	}
	return w.front(h)
}
