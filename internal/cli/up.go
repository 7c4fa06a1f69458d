package cli

import (
	"context"
	"fmt"
	"strings"
	"time"
)

type upCommand struct {
	ServiceFlags
}

// ServiceFlags are the flags of the commands that run the service.
type ServiceFlags struct {
	Listen         string   `placeholder:"ADDR" env:"TONGS_LISTEN" help:"Address of the HTTP front. Default: 127.0.0.1:8787. One that is not loopback needs a password."`
	Hosts          []string `name:"host" placeholder:"NAME" env:"TONGS_HOSTS" help:"A further name under which the front is reached (repeatable)."`
	Password       string   `placeholder:"TEXT" env:"TONGS_PASSWORD" help:"What clients must give; prefer the variable, a flag is seen by others."`
	APIListen      *string  `name:"api-listen" placeholder:"ADDR" env:"TONGS_API_LISTEN" help:"Address of the sandboxes' endpoint, for programs and for tongs sandbox. Default: 127.0.0.1:8788; empty is none."`
	OpenCodeBinary string   `name:"opencode-binary" placeholder:"FILE" env:"TONGS_OPENCODE_BINARY" help:"An own OpenCode instead of the pinned one."`
	OpenCodeConfig string   `name:"opencode-config" placeholder:"FILE" env:"TONGS_OPENCODE_CONFIG" help:"An opencode.json, merged under what Tongs enforces."`
	Driver         string   `placeholder:"NAME" env:"TONGS_DRIVER" help:"What runs sandboxes: linux (the default), gvisor (a kernel of its own for each), runc or crun."`
	SandboxRoot    bool     `env:"TONGS_SANDBOX_ROOT" help:"Commands may also run as the root of their sandbox (tongs sandbox exec --user root). Off by default."`
	Project        string   `placeholder:"DIR" env:"TONGS_PROJECT" help:"Each new session's sandbox starts with this directory's files, as they are then. The directory is only read."`
	ProjectIgnored bool     `name:"project-ignored" env:"TONGS_PROJECT_IGNORED" help:"Take what the project's git ignores, too."`
	Storage        string   `placeholder:"SIZE" env:"TONGS_STORAGE" help:"Give sandboxes a file system of their own of this size, such as 50GiB, in a file of the home. It needs root. Default: they are on the disk of the home."`
	Image          string   `placeholder:"IMAGE" env:"TONGS_IMAGE" help:"What sandboxes are made from: an image such as debian:12, pulled when it is not there. Default: host, this machine's own toolchain."`
	Scripted       bool     `env:"TONGS_SCRIPTED" help:"Offer tongs/scripted, a model that follows a script (for trying things out without a key)."`
}

// apply puts the flags over the configuration.
func (f *ServiceFlags) apply(cfg *Config) error {
	override(&cfg.Listen, f.Listen)
	override(&cfg.Password, f.Password)
	if f.APIListen != nil {
		cfg.APIListen = f.APIListen
	}
	override(&cfg.OpenCodeBinary, f.OpenCodeBinary)
	override(&cfg.OpenCodeConfig, f.OpenCodeConfig)
	override(&cfg.Image, f.Image)
	if f.Storage != "" {
		if err := cfg.Storage.Size.UnmarshalText([]byte(f.Storage)); err != nil {
			return usageError{fmt.Errorf("--storage: %w", err)}
		}
	}
	if len(f.Hosts) > 0 {
		cfg.Hosts = f.Hosts
	}
	cfg.Sandbox.Root = cfg.Sandbox.Root || f.SandboxRoot
	override(&cfg.Driver, f.Driver)
	override(&cfg.Project, f.Project)
	cfg.ProjectIgnored = cfg.ProjectIgnored || f.ProjectIgnored
	cfg.Scripted = cfg.Scripted || f.Scripted
	if err := cfg.validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// Help is the long help text.
func (upCommand) Help() string {
	return `Fetches OpenCode when it is not there yet, starts it in a sandbox of its own, checks that every tool it
offers runs in the sandboxes of its sessions, and opens the front. It runs until it is told to end.

Ctrl-C ends everything and keeps the files. When this process is killed, sandboxes and what runs in them go
on; the next "tongs up" takes them over. "tongs down" ends them.

With --project DIR each new session's sandbox starts with the files of that directory: uncommitted changes and
untracked files with them, what git ignores without. "tongs sandbox diff" and "tongs sandbox pull" bring the work
back.

Keys of language models come from the usual variables (ANTHROPIC_API_KEY, OPENAI_API_KEY …) or from [keys] in
the configuration file. Neither OpenCode nor a sandbox ever has one.

EXIT STATUS
  0  it was told to end, and ended everything
  1  it could not start, or had to end; the message says why and what to do
  2  wrong usage or configuration`
}

// Run serves until ctx is done.
func (c *upCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	if err := c.apply(cfg); err != nil {
		return err
	}
	log := cfg.logger(s.stderr)
	running, err := start(ctx, cfg, log, startOptions{status: s.stderr})
	if err != nil {
		return err
	}
	for _, note := range running.notes {
		fmt.Fprintln(s.stdout, note)
	}
	fmt.Fprintf(s.stdout, "ready: %s  (%.1f s)\n", running.url, running.took.Seconds())
	fmt.Fprintf(s.stdout, "  opencode attach %s\n", running.url)
	if running.api != nil {
		fmt.Fprintf(s.stdout, "sandboxes: %s/rpc  (tongs sandbox …; token in %s)\n", running.api.url, running.tokenPath())
	}

	var cause error
	select {
	case <-ctx.Done():
		fmt.Fprintln(s.stderr, strings.TrimSpace("stopping; files are kept (once more to leave at once)"))
	case cause = <-running.failed:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	began := time.Now()
	if err := running.stop(stop); err != nil {
		return fmt.Errorf("not everything could be ended: %w", err)
	}
	log.Info("stopped", "took", time.Since(began))
	return cause
}
