package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
)

type driverCommand struct {
	List    driverListCommand    `cmd:"" help:"List what can run sandboxes here."`
	Install driverInstallCommand `cmd:"" help:"Get what runs sandboxes into the home: gvisor."`
}

type driverListCommand struct {
	JSON bool `name:"json" help:"Print one JSON array."`
}

// Help is the long help text.
func (driverListCommand) Help() string {
	return `Tells which of them "tongs up --driver NAME" and "tongs sandbox create --driver NAME" can use, and how to get the
others. "tongs doctor" says what the machine itself can do.

EXIT STATUS
  0  they are listed
  1  they could not be listed
  2  wrong usage`
}

type driverLine struct {
	Name   string `json:"name"`
	Usable bool   `json:"usable"`
	Used   bool   `json:"used"` // it is the configured one
	Detail string `json:"detail"`
}

// Run lists the drivers.
func (c *driverListCommand) Run(s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	lines := []driverLine{{Name: driver.Linux, Usable: true, Used: cfg.Driver == "" || cfg.Driver == driver.Linux, Detail: "built in: namespaces of this machine's kernel"}}
	for _, f := range checkRuntimes(cfg) {
		name := strings.TrimPrefix(f.Name, "driver ")
		lines = append(lines, driverLine{Name: name, Usable: needDriver(cfg, name) == nil, Used: cfg.Driver == name, Detail: f.Detail})
	}
	if c.JSON {
		return json.NewEncoder(s.stdout).Encode(lines)
	}
	table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		mark, state := "", "missing"
		if l.Used {
			mark = "*"
		}
		if l.Usable {
			state = "usable"
		}
		fmt.Fprintf(table, "%s%s\t%s\t%s\n", l.Name, mark, state, l.Detail)
	}
	return table.Flush()
}

type driverInstallCommand struct {
	Name string `arg:"" enum:"gvisor" help:"What to install: gvisor."`
}

// Help is the long help text.
func (driverInstallCommand) Help() string {
	return `Builds gVisor's runsc from source into the home, in the version that this Tongs was tested with. It needs the go
command and its module proxy (GOPROXY), some minutes and 2 GiB for the go command's cache; the hash of every module
is checked. Cut short, it goes on where it was the next time. An installed runsc on PATH does as well.

EXIT STATUS
  0  it is there
  1  it could not be built; the message says why
  2  wrong usage`
}

// progressEvery is how often people are told how far it is where there is no terminal.
const progressEvery = 10 * time.Second

// Run installs it.
func (c *driverInstallCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if _, err := openHome(cfg.Home); err != nil {
		return err
	}
	began := time.Now()
	path, err := installDriver(ctx, cfg, progressTo(s.stderr))
	if isTerminal(s.stderr) {
		fmt.Fprint(s.stderr, "\r\x1b[K")
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return errors.New("it was cut short; the next time it goes on from there")
		}
		return err
	}
	fmt.Fprintf(s.stdout, "%s  (%s)\n  tongs up --driver %s\n", path, time.Since(began).Round(time.Second), c.Name)
	return nil
}

// progressTo shows how many packages of how many are compiled: on a terminal as it goes, else now and then.
func progressTo(w io.Writer) func(done, of int) {
	terminal := isTerminal(w)
	var last time.Time
	return func(done, of int) {
		switch {
		case terminal:
			fmt.Fprintf(w, "\rbuilding gVisor: %d of %d packages\x1b[K", done, of)
		case time.Since(last) > progressEvery:
			last = time.Now()
			fmt.Fprintf(w, "building gVisor: %d of %d packages\n", done, of)
		}
	}
}
