package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/tongs-dev/tongs/sandbox/remote"
)

type sandboxCheckpointCommand struct {
	Name []string `arg:"" help:"The sandboxes."`
	JSON bool     `name:"json" help:"Print one JSON object for each, one a line."`
}

// Help is the long help text.
func (sandboxCheckpointCommand) Help() string {
	return `Writes the processes of a sandbox, with their memory and /tmp, to the disk of the host and ends them. The next
use of the sandbox, or tongs sandbox restore, has them go on, once, also after the machine was started anew.
Connections are not kept. Only sandboxes that gVisor runs (tongs sandbox create --driver gvisor) can be
checkpointed; docs/drivers.md says what else is in the way. One that could not be goes on.

EXIT STATUS
  0  they are written down and stopped
  1  one could not be, and goes on; the message says why
  2  wrong usage`
}

// Run makes checkpoints.
func (c *sandboxCheckpointCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	return each(ctx, s, g, a, c.Name, c.JSON, (*remote.Host).Checkpoint)
}

type sandboxRestoreCommand struct {
	Name  []string `arg:"" help:"The sandboxes."`
	Fresh bool     `help:"Start from the files alone and remove the checkpoint: what ran, and what was in /tmp, is lost."`
	JSON  bool     `name:"json" help:"Print one JSON object for each, one a line."`
}

// Help is the long help text.
func (sandboxRestoreCommand) Help() string {
	return `Any use of a sandbox that has a checkpoint does the same without being asked. When a checkpoint can't be used,
because there is another version of gVisor now for instance, it is kept, and each use fails with the reason until
that is mended or --fresh gives it up.

EXIT STATUS
  0  they run
  1  one has no checkpoint, or could not go on; the message says why
  2  wrong usage`
}

// Run goes on from checkpoints.
func (c *sandboxRestoreCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	return each(ctx, s, g, a, c.Name, c.JSON, func(h *remote.Host, ctx context.Context, name string) (*remote.Info, error) {
		return h.Restore(ctx, name, c.Fresh)
	})
}

// each does something with sandboxes one after the other, and prints which they are. One that fails doesn't keep
// it from the others.
func each(ctx context.Context, s *streams, g *Globals, a *APIFlags, names []string, asJSON bool, do func(*remote.Host, context.Context, string) (*remote.Info, error)) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	failed := false
	for _, name := range names {
		info, err := do(host, ctx, name)
		if err != nil {
			failed = true
			fmt.Fprintf(s.stderr, "tongs: %v\n", err)
			continue
		}
		if asJSON {
			err = json.NewEncoder(s.stdout).Encode(info)
		} else {
			_, err = fmt.Fprintln(s.stdout, cmp.Or(info.Name, info.Session, info.ID))
		}
		if err != nil {
			return err
		}
	}
	if failed {
		return errReported
	}
	return nil
}
