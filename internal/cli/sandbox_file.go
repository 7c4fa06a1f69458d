package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxLsCommand struct {
	All       bool     `short:"a" help:"Names that begin with a dot, too."`
	Long      bool     `short:"l" help:"Rights, owner, size and time."`
	Recursive bool     `short:"R" help:"All below, too."`
	JSON      bool     `name:"json" help:"Print JSON objects, one a line."`
	Place     []string `arg:"" name:"place" help:"NAME:PATH…, or NAME PATH…; without a path, the project directory."`
}

// Help is the long help text.
func (sandboxLsCommand) Help() string {
	return `EXIT STATUS
  0  it is listed
  1  it is not there, or could not be listed
  2  wrong usage`
}

// Run lists directories.
func (c *sandboxLsCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	name, paths, err := inBox(c.Place)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	return a.with(ctx, g, name, func(box *sandbox.Client) error {
		for _, path := range paths {
			path = cmp.Or(path, ".")
			info, err := box.Stat(ctx, path)
			if err != nil {
				return err
			}
			if info.Type != sandbox.TypeDirectory {
				if err := c.print(s.stdout, []sandbox.FileInfo{*info}, path); err != nil {
					return err
				}
				continue
			}
			opts := sandbox.ListOptions{Recursive: c.Recursive, Hidden: c.All, Limit: 10_000}
			for {
				page, err := box.ListFiles(ctx, path, opts)
				if err != nil {
					return err
				}
				if err := c.print(s.stdout, page.Entries, info.Path); err != nil {
					return err
				}
				if page.Next == "" {
					break
				}
				opts.Cursor = page.Next
			}
		}
		return nil
	})
}

func (c *sandboxLsCommand) print(w io.Writer, entries []sandbox.FileInfo, base string) error {
	if c.JSON {
		encode := json.NewEncoder(w)
		for _, e := range entries {
			if err := encode.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	show := func(e sandbox.FileInfo) string {
		text := e.Name
		if c.Recursive {
			text = below(base, e.Path)
		}
		text = printable(text)
		switch e.Type {
		case sandbox.TypeDirectory:
			text += "/"
		case sandbox.TypeSymlink:
			text += " -> " + printable(e.Target)
		}
		return text
	}
	if !c.Long {
		for _, e := range entries {
			if _, err := fmt.Fprintln(w, show(e)); err != nil {
				return err
			}
		}
		return nil
	}
	return table(w, func(w io.Writer) {
		for _, e := range entries {
			fmt.Fprintf(w, "%s\t%d:%d\t%d\t%s\t%s\n", modeText(e), e.UID, e.GID, e.Size, e.Modified.Local().Format(time.DateTime), show(e))
		}
	})
}

// below is a path as seen from a directory that it is in.
func below(dir, path string) string {
	if dir != "/" {
		dir += "/"
	}
	if len(path) > len(dir) && path[:len(dir)] == dir {
		return path[len(dir):]
	}
	return path
}

// modeText writes type and rights as ls does.
func modeText(e sandbox.FileInfo) string {
	kind := map[sandbox.FileType]string{sandbox.TypeFile: "-", sandbox.TypeDirectory: "d", sandbox.TypeSymlink: "l"}[e.Type]
	return cmp.Or(kind, "?") + fs.FileMode(e.Mode & 0o777).String()[1:]
}

type sandboxCatCommand struct {
	Place []string `arg:"" name:"file" help:"NAME:FILE…, or NAME FILE…"`
}

// Help is the long help text.
func (sandboxCatCommand) Help() string {
	return `EXIT STATUS
  0  they are printed, byte by byte
  1  one is not there, or could not be read
  2  wrong usage`
}

// Run prints files.
func (c *sandboxCatCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	name, paths, err := inBox(c.Place)
	if err != nil {
		return err
	}
	if len(paths) == 0 || paths[0] == "" {
		return usageError{fmt.Errorf("no file is named: write tongs sandbox cat %s FILE", name)}
	}
	return a.with(ctx, g, name, func(box *sandbox.Client) error {
		for _, path := range paths {
			r, err := box.OpenFile(ctx, path, sandbox.ReadOptions{})
			if err != nil {
				return err
			}
			_, err = io.Copy(s.stdout, r)
			r.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}
