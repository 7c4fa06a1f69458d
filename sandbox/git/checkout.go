package git

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// DefaultTimeout bounds a checkout when nothing else is said.
const DefaultTimeout = 10 * time.Minute

// cleanTimeout bounds the removal of what a failed checkout has left.
const cleanTimeout = 30 * time.Second

// Spec says what to check out. Only URL is needed.
type Spec struct {
	// URL of the repository: https, http, ssh, git or file, "user@host:path",
	// or a path in the sandbox that begins with "/", "./" or "../". A user
	// and password in it are used and not kept in the checkout.
	URL string
	// Branch is a branch or a tag. Default: the branch that the remote has
	// checked out.
	Branch string
	// Dir is where the checkout goes; relative to the project directory. It
	// must be empty or not there. Default: the last part of the URL's path
	// without ".git".
	Dir string
	// Depth is how many commits of history to fetch; 0 is all.
	Depth int
	// Env is added to git's environment: GIT_SSH_COMMAND for a key,
	// HTTPS_PROXY.
	Env map[string]string
	// Timeout bounds the whole of it. Default DefaultTimeout.
	Timeout time.Duration
	// Progress is told how far git is, in its own words, from one goroutine.
	// It holds git up while it runs.
	Progress func(Progress)
}

// Progress is one line of git's.
type Progress struct {
	// Phase is "Counting objects", "Compressing objects", "Receiving
	// objects", "Resolving deltas", "Updating files"; Remote that it is the
	// other side that does it.
	Phase   string `json:"phase"`
	Remote  bool   `json:"remote,omitempty"`
	Percent int    `json:"percent"` // 0 to 100
	Done    int64  `json:"done"`
	Total   int64  `json:"total"`
}

// Result is a finished checkout.
type Result struct {
	Dir    string `json:"dir"`              // absolute, in the sandbox
	Branch string `json:"branch,omitempty"` // "" when a tag was asked for
	Commit string `json:"commit,omitempty"` // "" for an empty repository
}

// Checkout clones a repository.
//
// Errors: CodeInvalidGitURL and CodeInvalidArgument before anything is done;
// CodeDirNotEmpty when there is something at Dir; CodeGitRepositoryNotFound,
// CodeGitBranchNotFound, CodeGitAuthFailed, CodeGitNetworkError, CodeTimeout,
// CodeNoSpace or CodeGitCloneFailed with what git said; CodeCommandNotFound when
// the sandbox has no git. When ctx ends, git is killed. Whatever fails, nothing
// is left at Dir.
func Checkout(ctx context.Context, box *sandbox.Client, spec Spec) (*Result, error) {
	const op = "git checkout"
	remote, err := parseURL(spec.URL)
	if err != nil {
		return nil, err
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	if spec.Timeout <= 0 {
		spec.Timeout = DefaultTimeout
	}
	began := time.Now()
	if spec.Dir == "" {
		if spec.Dir = remote.name(); spec.Dir == "" {
			return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, "the URL's path gives no name for the directory", "set Dir")
		}
	}
	dir, err := absolute(ctx, box, spec.Dir)
	if err != nil {
		return nil, err
	}
	parent := path.Dir(dir)
	if err := vacant(ctx, box, dir); err != nil {
		return nil, err
	}
	if err := box.Mkdir(ctx, parent, true); err != nil {
		return nil, err
	}
	// git works beside the place, on the same file system, so that one rename
	// puts a whole checkout there.
	temporary := "." + clip(path.Base(dir), 100) + ".checkout-" + strconv.FormatUint(rand.Uint64(), 36)
	made := path.Join(parent, temporary)
	res, err := clone(ctx, box, spec, remote, parent, temporary)
	if err == nil {
		if err = box.Rename(ctx, made, dir); err == nil {
			res.Dir = dir
			return res, nil
		}
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	_ = remove(clean, box, made) // the first error is the one that says something
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if sandbox.CodeOf(err) == sandbox.CodeTimeout {
		err = sandbox.Errf(sandbox.CodeTimeout, op, fmt.Sprintf("the checkout was not done after %s", time.Since(began).Round(time.Millisecond)), "set a longer timeout, or a depth")
	}
	return nil, err
}

// remove takes what git has made away; git itself may be doing that too.
func remove(ctx context.Context, box *sandbox.Client, dir string) error {
	for {
		err := box.RemoveFile(ctx, dir, true)
		switch sandbox.CodeOf(err) {
		case sandbox.CodeDirNotEmpty, sandbox.CodeFileNotFound:
			if _, lerr := box.Lstat(ctx, dir); sandbox.CodeOf(lerr) == sandbox.CodeFileNotFound {
				return nil
			}
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
				return err
			}
		}
		return err
	}
}

func (s *Spec) check() error {
	const op = "git checkout"
	switch {
	case s.Depth < 0:
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the depth %d is negative", s.Depth), "use 0 for all of the history")
	case s.Branch != "" && !validBranch(s.Branch):
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.80q can't be the name of a branch", s.Branch), "see git help check-ref-format")
	case strings.ContainsRune(s.Dir, 0):
		return sandbox.Errf(sandbox.CodeInvalidPath, op, "the directory's name holds a NUL", "")
	}
	return nil
}

func absolute(ctx context.Context, box *sandbox.Client, dir string) (string, error) {
	if !path.IsAbs(dir) {
		info, err := box.Info(ctx)
		if err != nil {
			return "", err
		}
		dir = path.Join(info.Project, dir)
	}
	if dir = path.Clean(dir); dir == "/" {
		return "", sandbox.Errf(sandbox.CodeInvalidPath, "git checkout", "the root directory can't be a checkout", "name another directory")
	}
	return dir, nil
}

// vacant says early what the rename at the end would say late.
func vacant(ctx context.Context, box *sandbox.Client, dir string) error {
	list, err := box.ListFiles(ctx, dir, sandbox.ListOptions{Limit: 1, Hidden: true})
	switch {
	case sandbox.CodeOf(err) == sandbox.CodeFileNotFound:
		return nil
	case err != nil:
		return err
	case len(list.Entries) > 0:
		return sandbox.Errf(sandbox.CodeDirNotEmpty, "git checkout", dir+" is not empty", "choose another directory, or empty that one")
	}
	return nil
}

// safe are settings for one command, which win over all that files say.
var safe = []string{"-c", "core.hooksPath=/dev/null", "-c", "credential.helper=", "-c", "core.askPass=", "-c", "core.fsmonitor=false", "-c", "advice.detachedHead=false"}

// environment of every git. LC_ALL is for reading what it says.
func environment(extra map[string]string) map[string]string {
	env := map[string]string{
		"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "false", "SSH_ASKPASS": "false", "GCM_INTERACTIVE": "never",
		"GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file", "LC_ALL": "C.UTF-8", "LANGUAGE": "C",
		"GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=30",
	}
	for k, v := range extra {
		env[k] = v
	}
	return env
}

// unset are variables by which a command in the sandbox may have been told of
// another repository.
var unset = []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_TEMPLATE_DIR", "GIT_CONFIG_COUNT", "GIT_TRACE", "GIT_PROXY_COMMAND"}

func clone(ctx context.Context, box *sandbox.Client, spec Spec, remote remote, parent, name string) (*Result, error) {
	argv := append([]string{"git"}, safe...)
	argv = append(argv, "clone", "--progress", "--template=", "--origin=origin")
	if spec.Branch != "" {
		argv = append(argv, "--branch="+spec.Branch)
	}
	if spec.Depth > 0 {
		argv = append(argv, "--depth="+strconv.Itoa(spec.Depth))
	}
	url := remote.text
	if spec.Depth > 0 && remote.path {
		// By a path git copies the whole repository, whatever the depth.
		p, err := absolute(ctx, box, url)
		if err != nil {
			return nil, err
		}
		url = "file://" + p
	} else if remote.path && !path.IsAbs(url) {
		p, err := absolute(ctx, box, url) // relative to the project, not to parent
		if err != nil {
			return nil, err
		}
		url = p
	}
	argv = append(argv, "--", url, name)

	said := &watcher{report: spec.Progress}
	exit, err := box.Run(ctx, sandbox.ProcessSpec{Argv: argv, Dir: parent, Env: environment(spec.Env), Unset: unset, Timeout: spec.Timeout}, nil, nil, said)
	if err != nil {
		return nil, notThere(err)
	}
	if exit.TimedOut {
		return nil, sandbox.Errf(sandbox.CodeTimeout, "git checkout", "the deadline has passed", "")
	}
	if !exit.Success() {
		return nil, failure(said.last(), exit, spec, remote)
	}
	dir := path.Join(parent, name)
	if remote.clean != remote.text {
		if _, err := ask(ctx, box, dir, "remote", "set-url", "origin", remote.clean); err != nil {
			return nil, err
		}
	}
	res := &Result{}
	if res.Branch, err = ask(ctx, box, dir, "symbolic-ref", "--short", "-q", "HEAD"); err != nil {
		return nil, err
	}
	if res.Commit, err = ask(ctx, box, dir, "rev-parse", "--verify", "-q", "HEAD"); err != nil {
		return nil, err
	}
	return res, nil
}

// ask runs a short git command in a checkout; "" is also the answer of one that has
// none.
func ask(ctx context.Context, box *sandbox.Client, dir string, args ...string) (string, error) {
	argv := append(append([]string{"git"}, safe...), args...)
	res, err := box.Exec(ctx, sandbox.ExecSpec{MaxOutput: 4096, ProcessSpec: sandbox.ProcessSpec{
		Argv: argv, Dir: dir, Env: environment(nil), Unset: unset, Timeout: time.Minute}})
	if err != nil {
		return "", notThere(err)
	}
	return strings.TrimSpace(string(res.Stdout)), nil
}

func notThere(err error) error {
	if sandbox.CodeOf(err) != sandbox.CodeCommandNotFound {
		return err
	}
	return &sandbox.Error{Code: sandbox.CodeCommandNotFound, Op: "git checkout", Message: "the sandbox has no git", Hint: "use an image that has it", Err: err}
}

func clip(s string, n int) string { return s[:min(len(s), n)] }
