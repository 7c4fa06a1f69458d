package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// gitTimeout bounds one run of git.
	gitTimeout = 10 * time.Minute
	// maxSaid bounds what is kept of what git says when it fails.
	maxSaid = 4 << 10
	// maxSmall bounds the output of a command that answers with a few lines.
	maxSmall = 1 << 20
	// maxListing bounds a list of names.
	maxListing = 512 << 20
)

// searchPath is where git is looked for, besides the PATH of this process.
const searchPath = "/usr/local/bin:/usr/bin:/bin"

// quiet are settings that keep git from running anything that a repository configures, from talking to anybody, and
// from tidying up.
var quiet = []string{
	"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
	"-c", "core.pager=cat", "-c", "protocol.allow=never", "-c", "credential.helper=", "-c", "core.askPass=", "-c", "core.sshCommand=false",
	"-c", "core.alternateRefsCommand=false", "-c", "log.showSignature=false", "-c", "commit.gpgSign=false",
	"-c", "core.packedGitWindowSize=32m", "-c", "core.packedGitLimit=512m", "-c", "submodule.recurse=false", "-c", "advice.addEmbeddedRepo=false",
}

// git runs git in one place, with an environment that has nothing of this process's.
type git struct {
	program string
	dir     string   // the working directory
	env     []string // on top of what every run has
	as      *syscall.Credential
	bound   bool // it reads hostile data
}

// findGit finds the git of this machine.
func findGit() (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), filepath.SplitList(searchPath)...) {
		p := filepath.Join(dir, "git")
		if info, err := os.Stat(p); filepath.IsAbs(p) && err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return p, nil
		}
	}
	return "", sandbox.Errf(sandbox.CodeNotSupported, "find git", "there is no git on this machine, and a project needs it", "install git, 2.31 or later")
}

// usersGit is git for a directory of the user's: with the user's configuration, since that says what is ignored.
// Root runs it as the directory's owner, who may have written that configuration.
func usersGit(program, dir string, owner stat) (*git, error) {
	g := &git{program: program, dir: dir}
	home, config := os.Getenv("HOME"), os.Getenv("XDG_CONFIG_HOME")
	if os.Geteuid() == 0 && owner.UID != 0 {
		g.as = &syscall.Credential{Uid: owner.UID, Gid: owner.GID}
		home, config = "/nonexistent", ""
		if u, err := user.LookupId(strconv.FormatUint(uint64(owner.UID), 10)); err == nil {
			home = u.HomeDir
		}
	}
	g.env = []string{"HOME=" + home}
	if config != "" {
		g.env = append(g.env, "XDG_CONFIG_HOME="+config)
	}
	return g, nil
}

// ourGit is git for a repository of ours at gitDir, with no configuration but that repository's.
func ourGit(program, gitDir, workTree string) *git {
	g := &git{program: program, dir: gitDir, env: []string{
		"HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "GIT_DIR=" + gitDir,
		"GIT_AUTHOR_NAME=" + AuthorName, "GIT_AUTHOR_EMAIL=" + AuthorEmail, "GIT_COMMITTER_NAME=" + AuthorName, "GIT_COMMITTER_EMAIL=" + AuthorEmail,
	}}
	if workTree != "" {
		g.dir = workTree
		g.env = append(g.env, "GIT_WORK_TREE="+workTree)
	}
	return g
}

// Who commits of ours are by.
const (
	AuthorName  = "OpenCode Agent"
	AuthorEmail = "agent@opencode.ai"
)

func (g *git) with(env ...string) *git {
	other := *g
	other.env = append(append([]string{}, g.env...), env...)
	return &other
}

// failure is a git that did not end well.
type gitFailure struct {
	args []string
	code int
	said string
	err  error
}

func (f *gitFailure) Error() string {
	said := f.said
	if said == "" {
		said = f.err.Error()
	}
	return "git " + f.args[0] + ": " + said
}

func (f *gitFailure) Unwrap() error { return f.err }

// exitCode is the status with which git has ended; -1 when it is none.
func exitCode(err error) int {
	var f *gitFailure
	if errors.As(err, &f) {
		return f.code
	}
	return -1
}

// stream runs git with an input (nil is none) and passes its output on.
func (g *git) stream(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.program, append(append([]string{}, quiet...), args...)...)
	cmd.Dir = g.dir
	cmd.Env = append([]string{
		"PATH=" + searchPath, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_ALLOW_PROTOCOL=none", "GIT_LITERAL_PATHSPECS=1", "GIT_EDITOR=false", "GIT_ASKPASS=", "SSH_ASKPASS=",
	}, g.env...)
	said := &head{limit: maxSaid}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: g.as}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Start()
	if err == nil {
		if g.bound {
			bound(cmd.Process.Pid, maxQuarantine)
		}
		err = cmd.Wait()
		if errors.Is(err, exec.ErrWaitDelay) {
			err = nil // it has ended well; who sends or reads takes his time
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	f := &gitFailure{args: args, code: -1, said: strings.TrimSpace(said.String()), err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		f.code = exit.ExitCode()
	}
	return f
}

// run gives git's output, which has to be within a limit.
func (g *git) run(ctx context.Context, in []byte, limit int64, args ...string) ([]byte, error) {
	out := &bounded{limit: limit}
	var r io.Reader
	if in != nil {
		r = bytes.NewReader(in)
	}
	err := g.stream(ctx, r, out, args...)
	if out.over {
		return nil, fmt.Errorf("git %s: more than %d bytes of output", args[0], limit)
	}
	return out.data, err
}

// line gives the one line that git answers with.
func (g *git) line(ctx context.Context, args ...string) (string, error) {
	out, err := g.run(ctx, nil, maxSmall, args...)
	return strings.TrimSuffix(string(out), "\n"), err
}

// bounded takes what is written up to a limit.
type bounded struct {
	data  []byte
	limit int64
	over  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(b.data)+len(p)) > b.limit {
		b.over = true
		return 0, errors.New("too much output")
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// head keeps the beginning of what is written.
type head struct {
	data  []byte
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.data = append(h.data, p[:min(len(p), h.limit-len(h.data))]...)
	return len(p), nil
}

// String is what was kept, for people.
func (h *head) String() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(string(h.data), "\uFFFD"))
}
