package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"text/tabwriter"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/sandbox"
)

type doctorCommand struct {
	JSON  bool `name:"json" help:"Print one JSON array; with --leaks one JSON object."`
	Leaks bool `help:"Look for one thing only: what is left on this machine of sandboxes that don't exist."`
	Fix   bool `help:"With --leaks: remove it."`
}

// Help is the long help text.
func (doctorCommand) Help() string {
	return `Looks at everything that "tongs up" needs, makes one sandbox, and leaves nothing behind.

With --leaks it lists instead what is left of sandboxes of this home that don't exist: directories, sockets,
cgroups, processes, mounts, user ids, limits of disk. It may run beside a service; what that is at work on is none.
--fix removes what it finds, as each start of a service does.

EXIT STATUS
  0  sandboxes work here; warnings say what could be better. --leaks: nothing is left
  1  something that is needed is missing; the cure is printed. --leaks: something is left
  2  wrong usage`
}

// Run prints the findings.
func (c *doctorCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	switch {
	case c.Leaks:
		return c.leaks(ctx, s, cfg)
	case c.Fix:
		return usageError{errors.New("--fix belongs to --leaks: tongs doctor --leaks --fix")}
	}
	findings := examine(ctx, cfg)
	failed := false
	for _, f := range findings {
		failed = failed || f.Level == driver.Failure
	}
	if c.JSON {
		if err := json.NewEncoder(s.stdout).Encode(findings); err != nil {
			return err
		}
	} else {
		table := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
		for _, f := range findings {
			fmt.Fprintf(table, "%s\t%s\t%s\n", f.Level, f.Name, f.Detail)
			if f.Cure != "" {
				fmt.Fprintf(table, "\t\t→ %s\n", f.Cure)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if failed {
		return errReported
	}
	return nil
}

// leaks lists what is left of sandboxes that don't exist, or removes it.
func (c *doctorCommand) leaks(ctx context.Context, s *streams, cfg *Config) (err error) {
	answer := struct {
		Left    []string `json:"left"`
		Removed []string `json:"removed"` // with --fix
	}{Left: []string{}, Removed: []string{}}
	if _, serr := os.Stat(cfg.Home); !errors.Is(serr, fs.ErrNotExist) { // where there is no home, there is nothing
		d, err := newDriver(cfg, cfg.logger(s.stderr))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, detach(ctx, d), d.Close()) }()
		looker, ok := d.(interface {
			Leaks(context.Context) ([]string, error)
		})
		if !ok {
			return sandbox.Errf(sandbox.CodeNotSupported, "look for leaks", "the driver "+d.Name()+" can't look for leaks", "look with the tools of its runtime")
		}
		if c.Fix {
			removed, err := d.Recover(ctx)
			if err != nil {
				return err
			}
			answer.Removed = append(answer.Removed, removed...)
		}
		left, err := looker.Leaks(ctx)
		if err != nil {
			return err
		}
		answer.Left = append(answer.Left, left...)
	}
	if c.JSON {
		if err := json.NewEncoder(s.stdout).Encode(answer); err != nil {
			return err
		}
	} else {
		for _, what := range answer.Removed {
			fmt.Fprintln(s.stdout, what)
		}
		for _, what := range answer.Left {
			fmt.Fprintln(s.stdout, "left:", what)
		}
		switch {
		case len(answer.Left) == 0:
			fmt.Fprintln(s.stdout, "nothing is left of sandboxes that don't exist")
		case !c.Fix:
			fmt.Fprintln(s.stdout, "→ tongs doctor --leaks --fix")
		}
	}
	if len(answer.Left) > 0 {
		return errReported
	}
	return nil
}

func examine(ctx context.Context, cfg *Config) []driver.Finding {
	var findings []driver.Finding
	add := func(name string, level driver.Level, detail, cure string) {
		findings = append(findings, driver.Finding{Name: name, Level: level, Detail: detail, Cure: cure})
	}
	if _, err := openHome(cfg.Home); err != nil {
		add("home", driver.Failure, err.Error(), "name a directory that can be written with --home or TONGS_HOME")
		return findings
	}
	add("home", driver.OK, cfg.Home, "")

	d, err := newDriver(cfg, slog.New(slog.DiscardHandler)) // the findings say it all
	if err != nil {
		add("sandboxes", driver.Failure, err.Error(), "")
	} else {
		findings = append(findings, d.Check(ctx)...)
		findings = append(findings, checkRuntimes(cfg)...)
		if err := detach(ctx, d); err != nil {
			add("storage", driver.Warning, err.Error(), "")
		}
		d.Close()
	}

	if pkg, err := opencode.PackageFor(opencode.HostPlatform()); err != nil {
		add("opencode", driver.Failure, err.Error(), "name an own binary with --opencode-binary")
	} else {
		add("opencode", driver.OK, "version "+pkg.Version+", package "+pkg.Name, "")
	}
	if _, err := exec.LookPath("git"); err != nil {
		add("git", driver.Warning, "not found: projects in sandboxes start without a repository", "install git")
	}
	if listener, err := net.Listen("tcp", cfg.Listen); err != nil {
		add("listen", driver.Warning, cfg.Listen+" is in use: "+err.Error(), "stop what uses it, or choose another address with --listen")
	} else {
		listener.Close()
		add("listen", driver.OK, cfg.Listen+" is free", "")
	}
	return findings
}
