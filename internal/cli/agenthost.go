package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/shell"
	"github.com/tongs-dev/tongs/sandbox"
)

// agentHostWeight is the agent host's part of busy processors, beside 100 of each sandbox: what all sessions wait for
// goes on while the commands of some fill the machine.
const agentHostWeight = 1000

// agentHostName is the agent host among the fleet's sandboxes.
const agentHostName = "agent-host"

// Where things are in the agent host.
const (
	agentHostOpenCode = "/opt/tongs/opencode" // the folder of OpenCode versions, read-only
	agentHostShell    = "/opt/tongs/bin/tongs-shell"
	modelListener     = "127.0.0.1:4100" // baseURL of every provider that OpenCode is given
)

// agentHost is the sandbox in which OpenCode runs, with the listener that leads from it to the models.
type agentHost struct {
	fleet  *fleet.Fleet
	spec   driver.Spec
	models http.Handler
	shells func(net.Listener) error // serves the shells that OpenCode starts until the listener is closed
	log    *slog.Logger

	mu       sync.Mutex
	serving  *sandbox.Client // the connection whose listeners are served
	server   *http.Server
	shell    net.Listener
	finished bool
}

// agentHostSpec says how the agent host is made. opencodeDir is the folder of OpenCode versions. The guest binary is also its shell: under that name
// it runs nothing there, and leads to the session's sandbox.
func agentHostSpec(opencodeDir string, root image.Root, limits Limits, lease Duration) (driver.Spec, error) {
	guest, err := driver.GuestBinary()
	if err != nil {
		return driver.Spec{}, err
	}
	binary, err := guest.Open()
	if err != nil {
		return driver.Spec{}, err
	}
	defer binary.Close()
	shell, err := io.ReadAll(io.LimitReader(binary, driver.MaxFileBytes))
	if err != nil {
		return driver.Spec{}, driver.Wrap("read guest binary", err)
	}
	if limits.Pids == 0 {
		limits.Pids = 1024
	}
	bounds := limits.driver()
	bounds.CPUWeight = agentHostWeight
	spec := driver.Spec{
		Image:    root,
		Driver:   driver.Linux,
		Binds:    []driver.Bind{{Source: opencodeDir, Target: agentHostOpenCode}},
		Files:    []driver.File{{Path: agentHostShell, Data: shell, Mode: 0o755}},
		Limits:   bounds,
		Hostname: agentHostName,
		Lease:    lease.std(),
	}
	return spec, nil
}

// machine is the connection to the agent host, made if need be, with the models' listener served.
func (a *agentHost) machine(ctx context.Context) (opencode.Machine, error) {
	s, err := a.fleet.Named(ctx, agentHostName, a.spec)
	if err != nil {
		return nil, err
	}
	if err := a.serve(ctx, s.Client); err != nil {
		return nil, err
	}
	return s.Client, nil
}

// serve accepts what comes in on the models' port of this connection's agent host. The guest keeps a
// duplicate of the listener, so requests made while no host runs wait for the next one.
func (a *agentHost) serve(ctx context.Context, client *sandbox.Client) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving == client {
		return nil
	}
	if a.finished {
		return net.ErrClosed
	}
	listener, err := client.Listen(ctx, "models", modelListener)
	if err != nil {
		return err
	}
	shell, err := client.Listen(ctx, "shell", shell.Address)
	if err != nil {
		listener.Close()
		return err
	}
	if a.server != nil {
		a.server.Close()
		a.shell.Close()
	}
	a.shell = shell
	go func() {
		if err := a.shells(shell); !errors.Is(err, net.ErrClosed) {
			a.log.Error("the shells' listener ended", "error", err)
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.serving == client {
				a.serving = nil // the next call serves again
			}
		}
	}()
	a.server = &http.Server{Handler: a.models, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn), ReadHeaderTimeout: headerTimeout}
	a.serving = client
	go func(server *http.Server) {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("the models' listener ended", "error", err)
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.serving == client {
				a.serving = nil // the next call serves again
			}
		}
	}(a.server)
	return nil
}

// close stops serving models and shells.
func (a *agentHost) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finished = true
	if a.server != nil {
		a.server.Close()
		a.shell.Close()
	}
}
