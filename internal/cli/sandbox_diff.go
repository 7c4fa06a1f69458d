package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// OutFlags are those of the commands that bring work out.
type OutFlags struct {
	OutsideLinks bool `name:"outside-links" help:"Let symbolic links through that lead out of the project."`
}

type sandboxDiffCommand struct {
	OutFlags
	Name string `arg:"" help:"The sandbox."`
}

// Help is the long help text.
func (sandboxDiffCommand) Help() string {
	return `Prints what is not as it was when the project was taken in, committed in the sandbox or not:

  tongs sandbox diff web | git apply           in the project's directory

The patch has new, removed, renamed and binary files, links and rights. Files that git ignores in the sandbox are
not in it, nor is what changed in submodules. Nothing is printed when nothing changed.

The sandbox is not believed: what it sends is checked by git before anything is made of it. Names that lead
elsewhere (.git, ..) and links that lead out of the project are refused. What the agent has written is in the
patch as it is, so read it before you run it.

EXIT STATUS
  0  the patch is printed
  1  it could not be made; the message says why and what to do
  2  wrong usage`
}

// Run prints the patch.
func (c *sandboxDiffCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	return c.work(ctx, s, g, a, c.Name, func(_ *remote.Info, w *project.Work) error {
		out := s.stdout
		if isTerminal(out) {
			out = &plainText{w: out}
		}
		return w.Diff(ctx, out)
	})
}

// work runs do with the work of a sandbox.
func (f *OutFlags) work(ctx context.Context, s *streams, g *Globals, a *APIFlags, name string, do func(*remote.Info, *project.Work) error) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	host, box, err := a.open(ctx, g, name)
	if err != nil {
		return err
	}
	defer host.Close()
	defer box.Close()
	info, err := host.Inspect(ctx, name)
	if err != nil {
		return err
	}
	if info.Project == "" {
		return sandbox.Errf(project.CodeNone, "bring out work", "the sandbox "+called(info)+" was not made from a project", "make one that is: tongs sandbox create --project DIR; or copy files: tongs sandbox cp")
	}
	store := project.Open(cfg.Home)
	layer, err := store.Get(info.Project)
	if sandbox.CodeOf(err) == project.CodeGone {
		return &sandbox.Error{Code: project.CodeGone, Op: "bring out work", Message: "what the sandbox was made from is not in " + cfg.Home, Err: err,
			Hint: "run this where `tongs up` runs, with the same home; or copy files: tongs sandbox cp"}
	}
	if err != nil {
		return err
	}
	defer layer.Close()
	work, err := store.Bring(ctx, box, layer, project.BringOptions{OutsideLinks: f.OutsideLinks})
	if err != nil {
		return err
	}
	defer work.Close()
	for _, note := range work.Notes {
		fmt.Fprintln(s.stderr, "tongs:", printable(note))
	}
	return do(info, work)
}

// called is what people call a sandbox.
func called(info *remote.Info) string { return cmp.Or(info.Name, info.Session, info.ID) }

// plainText writes text to a terminal: control characters other than line ends and tabs are shown as '?', not obeyed.
type plainText struct {
	w    io.Writer
	last byte
}

func (p *plainText) Write(data []byte) (int, error) {
	out := make([]byte, len(data))
	for i, b := range data {
		c1 := p.last == 0xc2 && b >= 0x80 && b < 0xa0
		p.last = b
		if b < ' ' && b != '\n' && b != '\t' || b == 0x7f || c1 {
			b = '?'
		}
		out[i] = b
	}
	return p.w.Write(out)
}
