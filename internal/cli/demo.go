package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// demoPrompt is the task. The scripted model knows it; a real one would do the same.
const demoPrompt = "Please write a small Node.js script called random.js that prints one random number between 0 and 100. " +
	"Run it, tell me which number came out, and show me the script."

const (
	demoModel = "tongs/scripted"
	demoFile  = projectDir + "/random.js"
)

type demoCommand struct {
	Keep           bool   `help:"Leave the demo's home and its sandboxes' files behind, and say where they are."`
	OpenCodeBinary string `name:"opencode-binary" placeholder:"FILE" env:"TONGS_OPENCODE_BINARY" help:"An own OpenCode instead of the pinned one."`
}

// Help is the long help text.
func (demoCommand) Help() string {
	return `Starts a service of its own on a free port, with a home of its own, and sends it one task, as a client
would: write a script, run it, report the number, show the file. The model follows a script; OpenCode, the
sandboxes and the tool calls are real. Then it looks for the file in three places.

Everything is removed afterwards, except OpenCode itself, which stays in the home for the next time.

EXIT STATUS
  0  the task was done, and its file is in the session's sandbox only
  1  something was not as it should be, or could not be started
  2  wrong usage or configuration`
}

// Run does the task.
func (c *demoCommand) Run(ctx context.Context, s *streams, g *Globals) (err error) {
	cfg, err := g.load()
	if err != nil {
		return err
	}
	keep, err := openHome(cfg.Home)
	if err != nil {
		return err
	}
	temporary, err := os.MkdirTemp("", "tongs-demo-")
	if err != nil {
		return homeError(os.TempDir(), err)
	}
	cfg.Home, cfg.Listen, cfg.Scripted, cfg.Password, cfg.OpenCodeBinary = temporary, "127.0.0.1:0", true, "", c.OpenCodeBinary
	cfg.APIListen = new(string) // nobody else has business with it
	log := slog.New(slog.DiscardHandler)
	if g.LogLevel != "" {
		log = cfg.logger(s.stderr)
	}
	fmt.Fprintln(s.stdout, "Starting OpenCode in a sandbox of its own …")
	running, err := start(ctx, cfg, log, startOptions{obtainHome: keep.dir, status: s.stderr})
	if err != nil {
		return errors.Join(err, idmap.Remove(context.WithoutCancel(ctx), temporary))
	}
	defer func() { err = errors.Join(err, c.end(ctx, s.stdout, running)) }()
	fmt.Fprintf(s.stdout, "Ready after %.1f s at %s\n\n", running.took.Seconds(), running.url)
	return c.task(ctx, s.stdout, running)
}

// end stops the service and removes its home, or says where it is.
func (c *demoCommand) end(ctx context.Context, w io.Writer, running *service) error {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if c.Keep {
		err := running.stop(stop)
		fmt.Fprintf(w, "\nKept in %s (look at it with: tongs up --scripted --home %[1]s)\n", running.cfg.Home)
		return err
	}
	if err := errors.Join(running.destroy(stop), idmap.Remove(stop, running.cfg.Home)); err != nil {
		return fmt.Errorf("cleaning up %s: %w", running.cfg.Home, err)
	}
	return nil
}

// task sends the prompt, prints what happens, and looks where the file is.
func (c *demoCommand) task(ctx context.Context, w io.Writer, running *service) error {
	client := newClient(running.url)
	session, err := client.createSession(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Prompt to %s:\n  %s\n\n", demoModel, demoPrompt)
	fmt.Fprintf(w, "  %-12s %-34s %-18s %s\n", "tool", "of", "sandbox", "took")
	var printed string // what the script printed
	calls := make(map[string]int)
	answer, err := client.prompt(ctx, session, demoModel, demoPrompt, func(call toolCall) {
		id, _ := running.fleet.ID(session)
		state := fmt.Sprintf("%.0f ms", call.milliseconds)
		if call.failed != "" {
			state = "failed: " + call.failed
		} else {
			calls[call.tool]++
		}
		if call.tool == "bash" {
			printed = strings.TrimSpace(call.output)
		}
		fmt.Fprintf(w, "  %-12s %-34s %-18s %s\n", call.tool, shorten(call.title, 34), id, state)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nAnswer:\n%s\n\n", indent(answer))

	number := regexp.MustCompile(`\b\d{1,3}(\.\d+)?\b`).FindString(printed)
	switch {
	case calls["write"] == 0 || calls["bash"] == 0 || calls["read"] == 0:
		return fmt.Errorf("the task was not done: %d write, %d bash, %d read calls succeeded", calls["write"], calls["bash"], calls["read"])
	case number == "" || !strings.Contains(answer, number):
		return fmt.Errorf("the script printed %q, and the answer does not say so", printed)
	}
	fmt.Fprintf(w, "The number: %s (as the script printed it)\n\nWhere is %s?\n", number, demoFile)
	return look(ctx, w, running, session)
}

// look checks the three places.
func look(ctx context.Context, w io.Writer, running *service, session string) error {
	box, err := running.fleet.Session(ctx, session)
	if err != nil {
		return err
	}
	content, _, err := box.ReadFile(ctx, demoFile, sandbox.ReadOptions{})
	if err != nil {
		return fmt.Errorf("the file is not in the session's sandbox: %w", err)
	}
	fmt.Fprintf(w, "  in the session's sandbox %s   yes, %d bytes\n", box.ID, len(content))

	agent, err := running.fleet.Named(ctx, agentHostName, running.agent.spec)
	if err != nil {
		return err
	}
	found, err := agent.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"find", "/home", "/tmp", "/var", "/root", "-name", path.Base(demoFile)}}})
	if err != nil {
		return err
	}
	if len(found.Stdout) > 0 {
		return fmt.Errorf("the file is in the agent host: %s", found.Stdout)
	}
	fmt.Fprintf(w, "  in the agent host        %s   no\n", agent.ID)
	if _, err := os.Lstat(demoFile); err == nil {
		return fmt.Errorf("%s exists on this machine", demoFile)
	}
	fmt.Fprintf(w, "  on this machine                             no\n")
	return nil
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func shorten(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}
