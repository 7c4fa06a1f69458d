package cli

import (
	"context"
	"fmt"

	"github.com/tongs-dev/tongs/sandbox"
)

type sandboxShellCommand struct {
	Attach     string   `placeholder:"ID" help:"Go back to a shell that was left."`
	Env        []string `short:"e" sep:"none" placeholder:"KEY=VALUE" help:"Set a variable (repeatable)."`
	Workdir    string   `short:"w" placeholder:"DIR" help:"Where it begins. Default: the project directory."`
	User       string   `short:"u" help:"root, where the sandbox has one. Default: its user."`
	Shell      string   `placeholder:"PROGRAM" help:"Default: bash if there is one, else sh."`
	DetachKeys string   `name:"detach-keys" default:"ctrl-],d" placeholder:"KEYS" help:"What leaves the shell running: keys with commas between, or none. Default: ${default}."`
	Name       string   `arg:"" help:"The sandbox."`
}

// Help is the long help text.
func (sandboxShellCommand) Help() string {
	return `A real terminal: full-screen programs, Ctrl-C, Ctrl-Z and changes of the window's size work in it.

Ctrl-] and then d leaves it: the shell and what runs in it go on, and --attach brings you back, as often and from
as many places as you like. (Ctrl-] twice types one.) It also goes on when the connection breaks; exit,
Ctrl-D, or closing your terminal's window ends it. Without a terminal on standard input, the shell reads its commands from there.

EXIT STATUS
  the shell's own, 0 when you left it; 128 + the signal's number when a signal ended it
  125  tongs could not do it; the message says why
  2    wrong usage`
}

// shellLabel marks the processes that are shells of people.
const shellLabel = "tongs.shell"

// replayBytes is how much of a terminal's last output is shown when somebody comes back to it.
const replayBytes = 64 << 10

// Run opens a shell.
func (c *sandboxShellCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	env, err := variables(c.Env)
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(c.DetachKeys)
	if err != nil {
		return usageError{err}
	}
	v := &viewer{s: s, g: g, api: a, name: c.Name, input: true, forget: true}
	v.terminal = isTerminalReader(s.stdin) && isTerminal(s.stdout)
	if v.terminal {
		v.detach = keys
	}
	if err := v.open(ctx); err != nil {
		return failure{exitTongs, err}
	}
	defer v.close()
	id := c.Attach
	var exit error
	if id == "" {
		spec := sandbox.ProcessSpec{
			ID: newProcessID("shell"), Argv: []string{"/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"}, Env: env,
			Dir: c.Workdir, User: c.User, Stdin: true, Mode: sandbox.Lossless, Labels: map[string]string{shellLabel: "true"},
		}
		if c.Shell != "" {
			spec.Argv = []string{c.Shell}
		}
		if v.terminal {
			spec.Terminal, spec.Env, spec.Mode = terminalSize(s), withTerm(env), sandbox.Follow
		}
		id = spec.ID
		exit, err = v.run(ctx, spec)
		if err != nil {
			return startFailure(err, spec.Argv)
		}
	} else {
		exit, err = c.back(ctx, s, v)
		if err != nil {
			return failure{exitTongs, err}
		}
	}
	if exit == errDetached { //nolint:errorlint // our own
		fmt.Fprintf(s.stderr, "left %s running; come back with: tongs sandbox shell %s --attach %s\n", id, c.Name, id)
		return nil
	}
	return exit
}

// back attaches to a shell that runs.
func (c *sandboxShellCommand) back(ctx context.Context, s *streams, v *viewer) (error, error) {
	p, err := v.client().Get(ctx, c.Attach)
	switch {
	case sandbox.CodeOf(err) == sandbox.CodeProcessNotFound:
		return nil, &sandbox.Error{Code: sandbox.CodeProcessNotFound, Op: "attach", Message: "there is no process " + printable(c.Attach), Err: err,
			Hint: "`tongs sandbox ps " + c.Name + "` shows those there are"}
	case err != nil:
		return nil, err
	case !p.Running:
		return nil, sandbox.Errf(sandbox.CodeProcessExited, "attach", c.Attach+" has ended", fmt.Sprintf("`tongs sandbox logs %s %s` shows what it printed", c.Name, c.Attach))
	case p.Terminal == nil:
		v.terminal, v.detach = false, nil
	}
	if v.terminal {
		// A change of size makes full-screen programs draw again.
		size := *terminalSize(s)
		_ = v.client().Resize(ctx, p.ID, sandbox.TerminalSize{Columns: size.Columns, Rows: max(1, size.Rows-1)})
		_ = v.client().Resize(ctx, p.ID, size)
	}
	return v.attach(ctx, p, max(p.LogStart, p.LogEnd-replayBytes))
}

// terminalSize is that of our terminal, or a usual one.
func terminalSize(s *streams) *sandbox.TerminalSize {
	if size, ok := sizeOf(s.stdout); ok {
		return &size
	}
	if size, ok := sizeOf(s.stdin); ok {
		return &size
	}
	return &sandbox.TerminalSize{Columns: 80, Rows: 24}
}
