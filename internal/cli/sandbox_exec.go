package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Exit statuses of exec and shell for what is not the command's own: those of env(1), timeout(1) and
// other programs that run programs.
const (
	exitTimeout  = 124 // --timeout has passed
	exitTongs    = 125 // tongs itself failed
	exitNoExec   = 126 // the program cannot be executed
	exitNotFound = 127 // there is no such program
)

type sandboxExecCommand struct {
	Interactive *bool         `short:"i" negatable:"" help:"Pass standard input. Default: yes, unless --detach."`
	TTY         *bool         `name:"tty" short:"t" negatable:"" help:"Run it on a terminal. Default: if standard input and output are one."`
	Env         []string      `short:"e" sep:"none" placeholder:"KEY=VALUE" help:"Set a variable (repeatable)."`
	Workdir     string        `short:"w" placeholder:"DIR" help:"Where it runs. Default: the project directory."`
	User        string        `short:"u" help:"root, where the sandbox has one. Default: its user."`
	Timeout     time.Duration `help:"End it after so long (90s, 15m)."`
	Detach      bool          `short:"d" help:"Start it, print its id, and leave it running. See logs."`
	ID          string        `name:"id" help:"The id it gets. Default: made up."`
	JSON        bool          `name:"json" help:"Print JSON objects, one a line: output as it comes, then how it ended."`
	Name        string        `arg:"" help:"The sandbox."`
	Argv        []string      `arg:"" optional:"" passthrough:"partial" name:"command" help:"The program and its arguments. There is no shell unless it is named."`
}

// Help is the long help text.
func (sandboxExecCommand) Help() string {
	return `Flags go before the sandbox's name; everything after it is the command's:

  tongs sandbox exec web ls -la
  tongs sandbox exec web -- ls -la             (the same)
  tongs sandbox exec web -- sh -c 'cd /tmp && ls | wc -l'
  tar c src | tongs sandbox exec web tar x

Input, output and errors are passed as bytes; interrupts (Ctrl-C), SIGTERM and other signals go to the
command. When the connection breaks because the host restarts, exec connects again and goes on where it was.

EXIT STATUS
  the command's own; 128 + the signal's number when a signal ended it
  124  --timeout has passed
  125  tongs could not do it; the message says why
  126  the program cannot be executed
  127  there is no such program
  2    wrong usage`
}

// Run runs a command.
func (c *sandboxExecCommand) Run(ctx context.Context, s *streams, g *Globals, a *APIFlags) error {
	argv := c.Argv
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return usageError{fmt.Errorf("no command: write tongs sandbox exec %s -- PROGRAM ARGUMENTS…", c.Name)}
	}
	env, err := variables(c.Env)
	if err != nil {
		return err
	}
	if c.Detach && (c.TTY != nil && *c.TTY || c.Interactive != nil && *c.Interactive) {
		return usageError{fmt.Errorf("--detach leaves nobody to type: leave -i and -t out")}
	}
	spec := sandbox.ProcessSpec{ID: c.ID, Argv: argv, Env: env, Dir: c.Workdir, User: c.User, Timeout: c.Timeout}
	if spec.ID == "" {
		spec.ID = newProcessID("exec")
	}
	v := &viewer{s: s, g: g, api: a, name: c.Name, json: c.JSON, forget: c.ID == ""}
	if err := v.open(ctx); err != nil {
		return failure{exitTongs, err}
	}
	defer v.close()
	if c.Detach {
		p, err := v.box.Start(ctx, spec)
		if err != nil {
			return startFailure(err, argv)
		}
		if c.JSON {
			return json.NewEncoder(s.stdout).Encode(p)
		}
		_, err = fmt.Fprintln(s.stdout, p.ID)
		return err
	}
	v.terminal = isTerminalReader(s.stdin) && isTerminal(s.stdout) && !c.JSON
	if c.TTY != nil {
		v.terminal = *c.TTY
	}
	v.input = c.Interactive == nil || *c.Interactive
	spec.Stdin = v.input
	spec.Mode = sandbox.Lossless
	if v.terminal {
		spec.Terminal = terminalSize(s)
		spec.Env = withTerm(env)
	}
	exit, err := v.run(ctx, spec)
	if err != nil {
		return startFailure(err, argv)
	}
	return exit
}

// withTerm tells the command which terminal it is on, unless that was said.
func withTerm(env map[string]string) map[string]string {
	all := map[string]string{"TERM": cmpOr(os.Getenv("TERM"), "xterm-256color")}
	if color := os.Getenv("COLORTERM"); color != "" {
		all["COLORTERM"] = color
	}
	for k, v := range env {
		all[k] = v
	}
	return all
}

// startFailure gives the error of a command that did not start its status, and a hint where people
// make mistakes.
func startFailure(err error, argv []string) error {
	if _, ok := err.(exitStatus); ok { //nolint:errorlint // our own
		return err
	}
	switch sandbox.CodeOf(err) {
	case sandbox.CodeCommandNotFound:
		var e *sandbox.Error
		if hint := mistake(argv[0]); hint != "" && errors.As(err, &e) {
			err = &sandbox.Error{Code: e.Code, Op: e.Op, Message: e.Message, Hint: hint, Err: e}
		}
		return failure{exitNotFound, err}
	case sandbox.CodeCommandPermissionDenied, sandbox.CodeCommandExecutionError:
		return failure{exitNoExec, err}
	}
	return failure{exitTongs, err}
}

// mistake says what is wrong with something that is no program, if it is a usual mistake.
func mistake(program string) string {
	switch program {
	case "cd", "export", "source", "alias", "set":
		return program + " is the shell's own: use --workdir and -e before the sandbox's name, or name the shell: … -- sh -c '" + program + " …'"
	}
	switch {
	case strings.HasPrefix(program, "-"):
		return "flags of tongs go before the sandbox's name"
	case strings.ContainsAny(program, " |&;<>$*"):
		return "it is one word with blanks or a shell's signs, taken for the name of a program: leave the quotes out, or name the shell: … -- sh -c " + quoteShell(program)
	case strings.Contains(program, "="):
		return "variables are set with -e KEY=VALUE before the sandbox's name"
	}
	return ""
}

// quoteShell writes text as one word of a shell's command line.
func quoteShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
