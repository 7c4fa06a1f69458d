package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

type sandboxPullCommand struct {
	OutFlags
	Branch string `placeholder:"NAME" help:"The new branch. Default: tongs/ and the sandbox's name, with a number if there is one already."`
	Into   string `placeholder:"DIR" help:"The project's directory, if it was moved, or another clone of it."`
	JSON   bool   `name:"json" help:"Print one JSON object."`
	Name   string `arg:"" help:"The sandbox."`
}

// Help is the long help text.
func (sandboxPullCommand) Help() string {
	return `Makes a new branch in the project's repository. It has the commits that were made in the sandbox and, as a last
one, what is not committed there, together with what had not been committed in the project when it was taken in.
Branches that are there, the work tree and the index stay as they are: look at the branch, and merge it, when
you want to.

  tongs sandbox pull web
  git diff main...tongs/web

What the sandbox is not believed in, and what is not brought back, is the same as with tongs sandbox diff. Hooks and
settings of the sandbox's repository stay there, and no hook of the project's runs.

EXIT STATUS
  0  the branch is there, or there was nothing to bring back
  1  it could not be made, and nothing was; the message says why and what to do
  2  wrong usage`
}

// Run makes the branch.
func (c *sandboxPullCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	return c.work(ctx, s, g, a, c.Name, func(info *remote.Info, w *project.Work) error {
		pulled, err := w.Pull(ctx, project.PullOptions{Name: called(info), Branch: c.Branch, Dir: c.Into})
		if err != nil {
			return err
		}
		if c.JSON {
			return json.NewEncoder(s.stdout).Encode(pulled)
		}
		if pulled.Branch == "" {
			_, err := fmt.Fprintln(s.stderr, "nothing changed in the sandbox; no branch was made")
			return err
		}
		last := ""
		if pulled.Uncommitted {
			last = ", the last one of uncommitted work"
		}
		_, err = fmt.Fprintf(s.stdout, "%s in %s (new commits: %d%s; files changed: %d)\n", pulled.Branch, printable(pulled.Dir), pulled.Commits, last, pulled.Files)
		return err
	})
}
