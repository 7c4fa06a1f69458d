package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// sandboxCommand is everything under `tongs sandbox`. It talks to a running `tongs up` through its
// endpoint, as any other program does.
type sandboxCommand struct {
	APIFlags

	Create     sandboxCreateCommand     `cmd:"" help:"Make a sandbox and print its name."`
	List       sandboxListCommand       `cmd:"" help:"List the sandboxes."`
	Inspect    sandboxInspectCommand    `cmd:"" help:"Say what is known of a sandbox."`
	Exec       sandboxExecCommand       `cmd:"" help:"Run a command in a sandbox."`
	Shell      sandboxShellCommand      `cmd:"" help:"Open a shell in a sandbox, on a terminal."`
	PS         sandboxPSCommand         `cmd:"" name:"ps" help:"List the processes of a sandbox that were started through Tongs."`
	Kill       sandboxKillCommand       `cmd:"" help:"Send a signal to a process in a sandbox."`
	Logs       sandboxLogsCommand       `cmd:"" help:"Print the output of a process."`
	Cp         sandboxCpCommand         `cmd:"" help:"Copy files and directories into a sandbox or out of it."`
	Diff       sandboxDiffCommand       `cmd:"" help:"Print what changed in a sandbox that has a project's files, as a patch for git apply."`
	Pull       sandboxPullCommand       `cmd:"" help:"Bring the work of a sandbox that has a project's files back, as a new branch."`
	Ls         sandboxLsCommand         `cmd:"" help:"List a directory of a sandbox."`
	Cat        sandboxCatCommand        `cmd:"" help:"Print files of a sandbox."`
	Watch      sandboxWatchCommand      `cmd:"" help:"Print what happens to the files of a directory in a sandbox."`
	Ports      sandboxPortsCommand      `cmd:"" help:"List the ports on which something listens in a sandbox."`
	Forward    sandboxForwardCommand    `cmd:"" help:"Make ports of a sandbox reachable on this machine."`
	Token      sandboxTokenCommand      `cmd:"" help:"Issue, list and revoke tokens that are good for one sandbox."`
	Checkpoint sandboxCheckpointCommand `cmd:"" help:"Write what runs in sandboxes to disk and end it; the next use goes on from there."`
	Restore    sandboxRestoreCommand    `cmd:"" help:"Have sandboxes go on from their checkpoints."`
	Rm         sandboxRmCommand         `cmd:"" help:"Destroy sandboxes and their files."`
}

// Help is the long help text.
func (sandboxCommand) Help() string {
	return `A sandbox is named by its name, its id, or the id of its OpenCode session, or by how one of these begins,
if nothing else begins so.

These commands talk to a running "tongs up" of the same home. They find its address and its token there;
another one is named with --api and --token-file, or with the variables TONGS_API and TONGS_API_TOKEN.

EXIT STATUS
  0  it was done
  1  it could not be done; the message says why and what to do
  2  wrong usage
exec and shell end with the status of what they ran: see their own help.`
}

// APIFlags say where the endpoint is and how to get in.
type APIFlags struct {
	API       string `name:"api" placeholder:"URL" env:"TONGS_API" help:"The endpoint of a running tongs. Default: that of this home."`
	TokenFile string `name:"token-file" placeholder:"FILE" env:"TONGS_API_TOKEN_FILE" help:"File that holds the token. Default: api-token in the home; the variable TONGS_API_TOKEN can hold the token itself."`
}

// tokenEnv names the variable that can hold the token. There is no flag for it: others see flags.
const tokenEnv = "TONGS_API_TOKEN"

// connectTimeout bounds how long connecting may take.
const connectTimeout = 20 * time.Second

// connect connects to the endpoint.
func (f *APIFlags) connect(ctx context.Context, g *Globals) (*remote.Host, error) {
	cfg, err := g.load()
	if err != nil {
		return nil, err
	}
	address, known := f.API, true
	if address == "" {
		address, known = homeEndpoint(cfg)
	}
	if address == "" {
		return nil, sandbox.Errf(sandbox.CodeConnectionLost, "connect", "the configuration says that there is no endpoint (api_listen = \"\")", "set it, or name one with --api")
	}
	token, err := f.token(cfg, known || f.API != "")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	host, err := remote.Connect(ctx, address, remote.DialOptions{Token: token})
	switch {
	case err == nil:
		return host, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, sandbox.Errf(sandbox.CodeConnectionLost, "connect", fmt.Sprintf("%s did not answer within %s", address, connectTimeout), "is `tongs up` well there?")
	case sandbox.CodeOf(err) == sandbox.CodeConnectionLost && f.API == "":
		return nil, notRunning(cfg, address, err)
	case sandbox.CodeOf(err) == remote.CodeUnauthorized:
		return nil, &sandbox.Error{Code: remote.CodeUnauthorized, Op: "connect to " + address, Message: "the endpoint refuses the token", Err: err,
			Hint: "it is not the one of the home that is served there: name that with --home, or its token with --token-file"}
	}
	return nil, err
}

func notRunning(cfg *Config, address string, err error) error {
	return &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: "connect", Message: "tongs is not running: nothing listens at " + address, Err: err,
		Hint: "start it with `tongs up` in another terminal; if it uses another home than " + cfg.Home + ", name that with --home"}
}

// homeEndpoint is the address of the home's endpoint, and whether a running service has written it.
func homeEndpoint(cfg *Config) (string, bool) {
	if text, err := os.ReadFile(filepath.Join(cfg.Home, endpointFile)); err == nil && len(text) < 300 {
		if address := strings.TrimSpace(string(text)); address != "" {
			return address, true
		}
	}
	address := cfg.apiListen()
	if address == "" {
		return "", false
	}
	return "http://" + address, false
}

// token finds the token.
func (f *APIFlags) token(cfg *Config, running bool) (string, error) {
	if token := os.Getenv(tokenEnv); token != "" && f.TokenFile == "" {
		return strings.TrimSpace(token), nil
	}
	file := f.TokenFile
	if file == "" {
		file = filepath.Join(cfg.Home, api.TokenFile)
	}
	token, err := api.ReadToken(file)
	switch {
	case err == nil:
		return token, nil
	case errors.Is(err, fs.ErrNotExist) && f.TokenFile == "" && !running:
		return "", &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: "connect", Message: "tongs is not running with the home " + cfg.Home, Err: err,
			Hint: "start it with `tongs up` in another terminal, or name the home of the one that runs with --home"}
	case errors.Is(err, fs.ErrPermission):
		return "", &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: "read token", Message: err.Error(), Hint: "be the user who runs `tongs up`, or get a token from them", Err: err}
	}
	return "", &sandbox.Error{Code: sandbox.CodeFileNotFound, Op: "read token", Message: err.Error(), Hint: "name the file with --token-file, or put the token into " + tokenEnv, Err: err}
}

// open connects to one sandbox.
func (f *APIFlags) open(ctx context.Context, g *Globals, name string) (*remote.Host, *sandbox.Client, error) {
	host, err := f.connect(ctx, g)
	if err != nil {
		return nil, nil, err
	}
	box, err := host.Sandbox(ctx, name)
	if err != nil {
		host.Close()
		return nil, nil, err
	}
	return host, box, nil
}

// with runs f with a sandbox, and closes the connection afterwards.
func (f *APIFlags) with(ctx context.Context, g *Globals, name string, do func(*sandbox.Client) error) error {
	host, box, err := f.open(ctx, g, name)
	if err != nil {
		return err
	}
	defer host.Close()
	defer box.Close()
	return do(box)
}

// place is NAME:PATH, or a path of this machine.
type place struct {
	box  string // "" for this machine
	path string
}

// parsePlace reads NAME:PATH. What begins with / or . is of this machine, whatever colons it has.
func parsePlace(text string) place {
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") {
		return place{path: text}
	}
	name, path, ok := strings.Cut(text, ":")
	if !ok || name == "" || strings.ContainsAny(name, "/\\") {
		return place{path: text}
	}
	return place{box: name, path: path}
}

// inBox reads the arguments NAME [PATH…] or NAME:PATH…, of which all must be of one sandbox.
func inBox(args []string) (string, []string, error) {
	first := parsePlace(args[0])
	if first.box == "" {
		if strings.ContainsAny(args[0], "/.") {
			return "", nil, usageError{fmt.Errorf("%q names no sandbox: write NAME:PATH, or NAME PATH", args[0])}
		}
		return args[0], args[1:], nil
	}
	paths := []string{first.path}
	for _, arg := range args[1:] {
		next := parsePlace(arg)
		if next.box != "" && next.box != first.box {
			return "", nil, usageError{fmt.Errorf("%q is of another sandbox than %q: use one at a time", arg, args[0])}
		}
		paths = append(paths, next.path)
	}
	return first.box, paths, nil
}

// printable is what comes from outside as people get it: control characters are shown, not obeyed.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, text)
}

// ago says how long ago something was.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// exitStatus ends a command with a status and without a message.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failure ends a command with a status and a message.
type failure struct {
	status int
	err    error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }
