package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
)

// downTimeout bounds how long a running service may take to end.
const downTimeout = 45 * time.Second

type downCommand struct {
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Help is the long help text.
func (downCommand) Help() string {
	return `Ends the service that uses this home, if one runs, and then every sandbox and its processes. Sandboxes
keep their files: the next "tongs up" goes on with them.

EXIT STATUS
  0  nothing of this home runs any more
  1  something could not be ended; it is named
  2  wrong usage`
}

// Run ends everything.
func (c *downCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	answer := struct {
		Service   bool     `json:"service"`   // a service was running
		Sandboxes []string `json:"sandboxes"` // ended now
	}{Sandboxes: []string{}}
	if _, err := os.Stat(cfg.Home); errors.Is(err, os.ErrNotExist) {
		return c.print(s, answer.Service, answer.Sandboxes, answer)
	}
	h, err := openHome(cfg.Home)
	if err != nil {
		return err
	}
	defer h.release()
	if answer.Service, err = h.evict(ctx, downTimeout); err != nil {
		return err
	}
	d, err := newDriver(cfg, cfg.logger(s.stderr))
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := d.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, status := range all {
		if !status.Running {
			continue
		}
		if err := stopOne(ctx, d, status.ID); err != nil {
			errs = append(errs, fmt.Errorf("sandbox %s: %w", status.ID, err))
			continue
		}
		answer.Sandboxes = append(answer.Sandboxes, status.ID)
	}
	if err := errors.Join(append(errs, detach(ctx, d))...); err != nil {
		return err
	}
	return c.print(s, answer.Service, answer.Sandboxes, answer)
}

func stopOne(ctx context.Context, d driver.Driver, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.Stop(ctx, id)
}

func (c *downCommand) print(s *streams, service bool, ended []string, answer any) error {
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(answer)
	}
	switch {
	case service:
		fmt.Fprintln(s.stdout, "stopped the service; files are kept")
	case len(ended) > 0:
		fmt.Fprintf(s.stdout, "no service was running; ended what an earlier one had left (sandboxes: %d); files are kept\n", len(ended))
	default:
		fmt.Fprintln(s.stdout, "nothing was running")
	}
	return nil
}
