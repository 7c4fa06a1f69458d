package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/verify"
	"github.com/tongs-dev/tongs/sandbox"
)

type verifyCommand struct {
	Quick          bool   `help:"Only the doors that need no model, as tongs up does at each start."`
	JSON           bool   `name:"json" xor:"form" help:"Print one JSON object."`
	Markdown       bool   `xor:"form" help:"Print the tables of docs/doors.md."`
	OpenCodeBinary string `name:"opencode-binary" placeholder:"FILE" env:"TONGS_OPENCODE_BINARY" help:"An own OpenCode instead of the pinned one."`
	OpenCodeConfig string `name:"opencode-config" placeholder:"FILE" env:"TONGS_OPENCODE_CONFIG" help:"An opencode.json, merged under what Tongs enforces."`
}

// Help is the long help text.
func (verifyCommand) Help() string {
	return `Starts a service of its own with your configuration, on a free port and in a home of its own, and drives
every door by which OpenCode could touch a file, a process or the network, for each kind of model that
OpenCode gives other tools. Canaries in the place where OpenCode runs, on this machine and in another
session's sandbox show where each door leads:

  sandbox   the session's sandbox, whose marker was seen
  refused   nowhere: refused with a reason, or answered with nothing, and without effect
  ESCAPED   a canary was seen, or an effect outside of the sandbox
  broken    it cannot be said

The models follow a script: no key is used and nothing is spent. A service that runs is not touched; it has
driven the quick part itself when it started, and would not have opened its port otherwise.

EXIT STATUS
  0  no door escaped and none was broken
  1  a door escaped, or the service could not be started; the message says which and why
  2  no door escaped, but one was broken; or wrong usage or configuration`
}

// families are the kinds of models to which OpenCode offers different tools. The last one drives what
// is driven once.
var families = []verify.Family{
	{Name: "gpt-5", Model: "gpt-5-scripted"},
	{Name: "gpt-5, responses", Model: "gpt-5-scripted-responses"},
	{Name: "claude", Model: "claude-scripted"},
	{Name: "gpt-4", Model: "gpt-4-scripted"},
	{Name: "gpt-oss", Model: "gpt-oss-scripted"},
	{Name: "other", Model: opencode.ScriptedModel},
}

// verifySlash is the slash command whose template runs a command.
const verifySlash = "tongs-verify-where"

// Run drives the doors.
func (c *verifyCommand) Run(ctx context.Context, s *streams, g *Globals) error {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	override(&cfg.OpenCodeBinary, c.OpenCodeBinary)
	override(&cfg.OpenCodeConfig, c.OpenCodeConfig)
	log := slog.New(slog.DiscardHandler)
	if g.LogLevel != "" {
		log = cfg.logger(s.stderr)
	}
	report, err := c.drive(ctx, s, cfg, log)
	if coded := (*sandbox.Error)(nil); errors.As(err, &coded) && coded.Code == opencode.CodeToolNotOurs {
		return fmt.Errorf("ESCAPED  the tools that OpenCode offers: %w", err)
	}
	if err != nil {
		return err
	}
	switch {
	case c.JSON:
		err = json.NewEncoder(s.stdout).Encode(report)
	case c.Markdown:
		err = report.Markdown(s.stdout)
	default:
		err = report.Text(s.stdout)
	}
	switch {
	case err != nil:
		return err
	case report.Count(verify.Escaped) > 0:
		return errReported
	case report.Count(verify.Broken) > 0:
		return exitStatus(exitUsage)
	}
	return nil
}

// drive starts a service in a home of its own, drives its doors, and removes it.
func (c *verifyCommand) drive(ctx context.Context, s *streams, cfg *Config, log *slog.Logger) (_ *verify.Report, err error) {
	keep, err := openHome(cfg.Home)
	if err != nil {
		return nil, err
	}
	temporary, err := os.MkdirTemp("", "tongs-check-")
	if err != nil {
		return nil, homeError(os.TempDir(), err)
	}
	defer func() {
		if left := idmap.Remove(context.WithoutCancel(ctx), temporary); left != nil {
			err = errors.Join(err, fmt.Errorf("cleaning up %s: %w", temporary, left))
		}
	}()
	cfg.Home, cfg.Listen, cfg.Scripted = temporary, "127.0.0.1:0", true
	cfg.APIListen = new(string) // nobody else has business with it
	fmt.Fprintln(s.stderr, "Starting OpenCode in a sandbox of its own …")
	running, err := start(ctx, cfg, log, startOptions{obtainHome: keep.dir, status: s.stderr, check: newCheck()})
	if err != nil {
		return nil, err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, running.destroy(stop))
	}()
	fmt.Fprintf(s.stderr, "Ready after %.1f s; driving %d doors …\n", running.took.Seconds(), len(verify.Doors()))
	return running.verifyAll(ctx, running.url, c.Quick, nil)
}

// newCheck is what a service offers that is there to be verified.
func newCheck() *check {
	c := &check{canaryKey: "sk-canary-" + rand.Text(), commands: map[string]string{verifySlash: "The file says !`cat where.txt`"}}
	for _, f := range families {
		if f.Model != opencode.ScriptedModel {
			c.models = append(c.models, f.Model)
		}
	}
	return c
}

// verifyTimeout bounds all doors together.
const verifyTimeout = 15 * time.Minute

// verifyAll drives the doors of a service that was started with a check, through a front at url.
func (s *service) verifyAll(ctx context.Context, url string, quick bool, only func(verify.Door) bool) (*verify.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, verifyTimeout, fmt.Errorf("the doors were not all driven in %v", verifyTimeout))
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	target := verify.Target{URL: url, Client: &http.Client{Transport: transport}, Quick: quick, Only: only, Command: verifySlash, CanaryKey: s.canaryKey}
	for _, f := range families {
		f.Provider = opencode.ScriptedProvider
		target.Families = append(target.Families, f)
	}
	return s.verify(ctx, target)
}
