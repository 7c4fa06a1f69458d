package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"text/tabwriter"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/opencode"
)

type doctorCommand struct {
	JSON bool `name:"json" help:"Print one JSON array."`
}

// Help is the long help text.
func (doctorCommand) Help() string {
	return `Looks at everything that "tongs up" needs, makes one sandbox, and leaves nothing behind.

EXIT STATUS
  0  sandboxes work here; warnings say what could be better
  1  something that is needed is missing; the cure is printed
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
