package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxWatchCommand struct {
	Include   []string `sep:"none" placeholder:"PATTERN" help:"Only paths that match, as in a .gitignore (repeatable)."`
	Exclude   []string `sep:"none" placeholder:"PATTERN" help:"Not what matches; such directories are not watched at all (repeatable)."`
	Recursive bool     `short:"r" default:"true" negatable:"" help:"Directories below, too. Default: yes."`
	JSON      bool     `name:"json" help:"Print JSON objects, one a line."`
	Place     []string `arg:"" name:"place" help:"NAME:PATH, or NAME PATH; without a path, the project directory."`
}

// Help is the long help text.
func (sandboxWatchCommand) Help() string {
	return `Prints what is made, changed, moved and removed, until Ctrl-C or until the watched thing itself is gone.
"overflow" says that events were lost: look at what is there anew.

EXIT STATUS
  0  it was told to end, or what was watched is gone
  1  it cannot be watched, or the sandbox was lost
  2  wrong usage`
}

// Run prints events.
func (c *sandboxWatchCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	name, paths, err := inBox(c.Place)
	if err != nil {
		return err
	}
	if len(paths) > 1 {
		return usageError{errors.New("one path can be watched at a time")}
	}
	path := "."
	if len(paths) == 1 && paths[0] != "" {
		path = paths[0]
	}
	return a.with(ctx, g, name, func(box *sandbox.Client) error {
		watch, err := box.Watch(ctx, path, sandbox.WatchOptions{Recursive: c.Recursive, Include: c.Include, Exclude: c.Exclude})
		if err != nil {
			return err
		}
		defer watch.Close()
		if !c.JSON {
			fmt.Fprintf(s.stderr, "watching %s\n", printable(path))
		}
		for {
			e, err := watch.Next(ctx)
			switch {
			case errors.Is(err, io.EOF) || ctx.Err() != nil:
				return nil
			case err != nil:
				return err
			case c.JSON:
				err = json.NewEncoder(s.stdout).Encode(e)
			default:
				_, err = fmt.Fprintln(s.stdout, eventText(e))
			}
			if err != nil {
				return err
			}
		}
	})
}

func eventText(e sandbox.FileEvent) string {
	text := fmt.Sprintf("%-9s  %s", e.Type, printable(e.Path))
	if e.Directory {
		text += "/"
	}
	if e.From != "" {
		text += "  (from " + printable(e.From) + ")"
	}
	if e.Reason != "" {
		text += "  (" + printable(e.Reason) + ")"
	}
	return text
}
