package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tongs-dev/tongs/sandbox/remote"
)

type sandboxCreateCommand struct {
	Name           string            `arg:"" optional:"" help:"1 to 40 of a-z, 0-9 and '-'. Default: made up."`
	Reuse          bool              `help:"Take the sandbox of that name if there is one."`
	Image          string            `placeholder:"IMAGE" help:"What it is made from: an image such as debian:12, pulled when it is not there, or host. Default: as configured."`
	Project        string            `placeholder:"DIR" help:"Start with this directory's files, as they are now. The directory is only read."`
	ProjectIgnored bool              `name:"project-ignored" help:"Take what the project's git ignores, too."`
	Label          map[string]string `short:"l" placeholder:"KEY=VALUE" help:"A label (repeatable)."`
	Env            []string          `short:"e" sep:"none" placeholder:"KEY=VALUE" help:"A variable of its commands (repeatable)."`
	Driver         string            `placeholder:"NAME" help:"What runs it: linux, gvisor (a kernel of its own), runc or crun. Default: as configured."`
	Root           bool              `help:"Its commands may also run as its root (exec --user root), to install software."`
	Memory         string            `placeholder:"SIZE" help:"What its commands may use together, such as 512MiB."`
	Pids           int64             `help:"How many processes and threads."`
	CPUs           float64           `name:"cpus" help:"How many CPUs."`
	Tmp            string            `placeholder:"SIZE" help:"Size of /tmp."`
	Disk           string            `placeholder:"SIZE" help:"What it may keep on disk, such as 2GiB, where the machine can hold it to that (tongs doctor says)."`
	Files          int64             `name:"disk-files" help:"How many files, directories and links it may keep there."`
	JSON           bool              `name:"json" help:"Print one JSON object."`
}

// Help is the long help text.
func (sandboxCreateCommand) Help() string {
	return `Prints the name of the new sandbox, and nothing else, so that scripts can use it:

  box=$(tongs sandbox create) && tongs sandbox exec "$box" -- uname -a

EXIT STATUS
  0  it is there and runs
  1  it could not be made
  2  wrong usage`
}

// Run makes a sandbox.
func (c *sandboxCreateCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	opts := remote.CreateOptions{Name: c.Name, Reuse: c.Reuse, Image: c.Image, Labels: c.Label, Root: c.Root, Driver: c.Driver, Pids: c.Pids, CPUs: c.CPUs, DiskFiles: c.Files}
	env, err := variables(c.Env)
	if err != nil {
		return err
	}
	opts.Env = env
	for _, size := range []struct {
		flag, text string
		bytes      *int64
	}{{"--memory", c.Memory, &opts.MemoryBytes}, {"--tmp", c.Tmp, &opts.TmpBytes}, {"--disk", c.Disk, &opts.DiskBytes}} {
		if size.text == "" {
			continue
		}
		var b Bytes
		if err := b.UnmarshalText([]byte(size.text)); err != nil {
			return usageError{fmt.Errorf("%s: %w", size.flag, err)}
		}
		*size.bytes = int64(b)
	}
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := a.pullFor(ctx, s, g, c.Image); err != nil {
		return err
	}
	if c.Project != "" {
		layer, err := takeFor(ctx, s, g, c.Project, c.ProjectIgnored)
		if err != nil {
			return err
		}
		defer layer.Close() // no earlier: nobody removes it before the sandbox has it
		opts.Project = layer.ID
	}
	info, err := host.Create(ctx, opts)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(info)
	}
	_, err = fmt.Fprintln(s.stdout, info.Name)
	return err
}

// variables reads KEY=VALUE.
func variables(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	env := make(map[string]string, len(list))
	for _, text := range list {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("-e %s: write KEY=VALUE", text)}
		}
		env[name] = value
	}
	return env, nil
}

type sandboxListCommand struct {
	Label map[string]string `short:"l" placeholder:"KEY=VALUE" help:"Only those with this label (repeatable)."`
	Quiet bool              `short:"q" help:"Only names (ids of those that have none), one a line."`
	JSON  bool              `name:"json" help:"Print one JSON array."`
}

// Help is the long help text.
func (sandboxListCommand) Help() string {
	return `EXIT STATUS
  0  they are listed
  1  they could not be listed
  2  wrong usage`
}

// Run lists the sandboxes.
func (c *sandboxListCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	all := []remote.Info{}
	for info, err := range host.All(ctx, remote.ListOptions{Limit: 1000, Labels: c.Label}) {
		if err != nil {
			return err
		}
		all = append(all, info)
	}
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(all)
	}
	if c.Quiet {
		for _, info := range all {
			fmt.Fprintln(s.stdout, cmp.Or(info.Name, info.ID))
		}
		return nil
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(s.stderr, "there are no sandboxes: `tongs sandbox create` makes one, and each OpenCode session gets one")
		return err
	}
	return table(s.stdout, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tID\tSESSION\tSTATE\tCREATED\tIMAGE\tTITLE")
		for _, i := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(i.Name, "-"), i.ID, cmp.Or(i.Session, "-"), stateOf(&i), ago(i.Created), i.Image,
				cmp.Or(shorten(printable(i.Title), 40), "-"))
		}
	})
}

// stateOf says whether a sandbox runs, and whether it goes on from a checkpoint when it is used.
func stateOf(i *remote.Info) string {
	if i.Checkpoint.IsZero() {
		return i.State
	}
	return i.State + ", checkpoint"
}

// table prints lines with columns between tabs.
func table(w io.Writer, lines func(io.Writer)) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	lines(t)
	return t.Flush()
}

type sandboxInspectCommand struct {
	Name []string `arg:"" help:"The sandboxes."`
	JSON bool     `name:"json" help:"Print one JSON object for each, one a line."`
}

// Help is the long help text.
func (sandboxInspectCommand) Help() string {
	return `Does not start a sandbox that is stopped.

EXIT STATUS
  0  it is there
  1  it is not, or cannot be asked
  2  wrong usage`
}

// Run describes sandboxes.
func (c *sandboxInspectCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	for n, name := range c.Name {
		info, err := host.Inspect(ctx, name)
		if err != nil {
			return err
		}
		if c.JSON {
			if err := json.NewEncoder(s.stdout).Encode(info); err != nil {
				return err
			}
			continue
		}
		if n > 0 {
			fmt.Fprintln(s.stdout)
		}
		if err := table(s.stdout, func(w io.Writer) { describe(w, info) }); err != nil {
			return err
		}
	}
	return nil
}

func describe(w io.Writer, i *remote.Info) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s:\t%s\n", name, printable(value))
		}
	}
	row("name", i.Name)
	row("id", i.ID)
	row("session", i.Session)
	row("title", i.Title)
	row("state", i.State)
	row("damage", i.Damage)
	row("created", i.Created.Local().Format(time.DateTime)+" ("+ago(i.Created)+")")
	row("image", i.Image)
	row("driver", i.Driver)
	if !i.Checkpoint.IsZero() {
		row("checkpoint", i.Checkpoint.Local().Format(time.DateTime)+" ("+ago(i.Checkpoint)+")")
	}
	for _, key := range slices.Sorted(maps.Keys(i.Labels)) {
		row("label", key+"="+i.Labels[key])
	}
	if guest := i.Guest; guest != nil {
		row("up for", (time.Duration(guest.UptimeMS) * time.Millisecond).Round(time.Second).String())
		row("processes", fmt.Sprint(guest.Processes))
		row("project", guest.Project)
		row("user", guest.User)
		row("guest", fmt.Sprintf("%s, %s of memory", guest.Version, size(guest.MemoryBytes)))
	}
}

type sandboxRmCommand struct {
	Name  []string `arg:"" optional:"" help:"The sandboxes."`
	All   bool     `help:"All that were made with create; those of OpenCode sessions stay."`
	Force bool     `short:"f" help:"One that is not there is no error."`
	JSON  bool     `name:"json" help:"Print one JSON object for each, one a line."`
}

// Help is the long help text.
func (sandboxRmCommand) Help() string {
	return `Ends everything in them and removes their files, for good and without asking. The calls that a session
makes after its sandbox was removed are refused.

EXIT STATUS
  0  they are gone
  1  one could not be removed; the others are gone
  2  wrong usage`
}

// Run destroys sandboxes.
func (c *sandboxRmCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	switch {
	case len(c.Name) == 0 && !c.All:
		return usageError{fmt.Errorf("no sandbox is named: write tongs sandbox rm NAME…, or --all")}
	case len(c.Name) > 0 && c.All:
		return usageError{fmt.Errorf("either names or --all, not both")}
	}
	host, err := a.connect(ctx, g)
	if err != nil {
		return err
	}
	defer host.Close()
	names := c.Name
	if c.All {
		for info, err := range host.All(ctx, remote.ListOptions{Limit: 1000}) {
			if err != nil {
				return err
			}
			if info.Session == "" {
				names = append(names, info.ID)
			}
		}
	}
	failed := false
	for _, name := range names {
		info, err := host.Destroy(ctx, name)
		if err != nil {
			if c.Force && isNotFound(err) {
				continue
			}
			failed = true
			fmt.Fprintf(s.stderr, "tongs: %v\n", err)
			continue
		}
		if c.JSON {
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
