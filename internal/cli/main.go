package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit statuses of every command. Each command's help repeats those it can end with.
const (
	exitOK      = 0
	exitFailure = 1 // the command could not do what it was asked for; the message says why and what to do
	exitUsage   = 2 // an unknown command, flag or configuration key, or a value that cannot be
)

// commands is the whole command line.
type commands struct {
	Globals

	Up      upCommand      `cmd:"" help:"Run the service: OpenCode at http://localhost:8787, every tool call in a sandbox."`
	Sandbox sandboxCommand `cmd:"" aliases:"sb" help:"Make, use and destroy sandboxes of a running service."`
	Image   imageCommand   `cmd:"" help:"Get, list and remove the images that sandboxes are made from."`
	Down    downCommand    `cmd:"" help:"Stop the service and every sandbox. Files are kept."`
	Demo    demoCommand    `cmd:"" help:"Let a scripted model do one small task, and show where everything happened."`
	Verify  verifyCommand  `cmd:"" help:"Drive every door of OpenCode and say where each one leads: a table, and whether any escapes."`
	Driver  driverCommand  `cmd:"" help:"What runs sandboxes: see what is there, and install gVisor."`
	Doctor  doctorCommand  `cmd:"" help:"Say what this machine can do, what is missing, and how to get it."`
	Version versionCommand `cmd:"" help:"Print the versions of tongs and of the OpenCode it runs."`

	Completion completionCommand `cmd:"" help:"Print a script that lets your shell complete commands, flags and names."`
	Complete   completeCommand   `cmd:"" name:"__complete" hidden:""`
}

// Globals are the flags that every command takes.
type Globals struct {
	Config    string `placeholder:"FILE" env:"TONGS_CONFIG" help:"Configuration file (TOML). Default: ${config_default}, when it exists."`
	Home      string `placeholder:"DIR" env:"TONGS_HOME" help:"Where everything is kept: OpenCode, images, sandboxes. Default: ${home_default}."`
	LogLevel  string `name:"log-level" placeholder:"LEVEL" env:"TONGS_LOG_LEVEL" help:"debug, info, warn or error. Default: warn on a terminal, else info."`
	LogFormat string `name:"log-format" placeholder:"FORMAT" env:"TONGS_LOG_FORMAT" help:"text or json. Default: text."`
}

// streams are what a command reads and writes.
type streams struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// usageError is a mistake in what was asked: the command ends with exitUsage.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// errReported ends a command with exitFailure when everything has been printed already.
var errReported = errors.New("reported")

// Main runs the command line args (without the program's name) and returns the exit status. It ends
// early, cleaning up, when ctx is done.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var cmds commands
	exited := -1
	parser, err := kong.New(&cmds,
		kong.Name("tongs"),
		kong.Description("Run OpenCode for you, and everything its agents do in an isolated sandbox per session."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, NoExpandSubcommands: true}),
		kong.Vars{"home_default": homeDefault(), "config_default": configDefault()},
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(&streams{stdin: stdin, stdout: stdout, stderr: stderr}, &cmds.Globals, &cmds.Sandbox.APIFlags),
	)
	if err != nil {
		fmt.Fprintf(stderr, "tongs: %v\n", err)
		return exitFailure
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "tongs: %v\n  try: %s --help\n", err, asked(err))
		return exitUsage
	}
	return status(stderr, parsed.Run())
}

// asked is the command that could not be parsed, as far as it is known.
func asked(err error) string {
	var wrong *kong.ParseError
	if errors.As(err, &wrong) && wrong.Context != nil {
		if node := wrong.Context.Selected(); node != nil {
			return commandPath(node)
		}
	}
	return "tongs"
}

// commandPath is a command with those above it, "tongs sandbox exec".
func commandPath(node *kong.Node) string {
	var names []string
	for ; node != nil && node.Name != ""; node = node.Parent {
		names = append(names, node.Name)
	}
	slices.Reverse(names)
	return strings.Join(names, " ")
}

// status prints err, whose text says what to do, and turns it into an exit status.
func status(stderr io.Writer, err error) int {
	var usage usageError
	var ended exitStatus
	var failed failure
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailure
	case errors.As(err, &ended):
		return int(ended)
	}
	fmt.Fprintf(stderr, "tongs: %v\n", err)
	if errors.As(err, &failed) {
		return failed.status
	}
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

// logger makes the structured log of a command, on standard error.
func (c *Config) logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	if c.Log.Level == "" && isTerminal(w) {
		level = slog.LevelWarn
	} else if c.Log.Level != "" {
		_ = level.UnmarshalText([]byte(c.Log.Level)) // checked by validate
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
