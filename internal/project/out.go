package project

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// Diff writes a patch that turns the files that were taken in into those of the sandbox; `git apply` in the project's
// directory takes it. Nothing is written when nothing changed.
func (w *Work) Diff(ctx context.Context, out io.Writer) error {
	err := w.git.stream(ctx, nil, out, "diff-tree", "-r", "-p", "--binary", "--full-index", "--find-renames", "-l1000", "--no-ext-diff", "--no-textconv",
		"--no-color", "--ignore-submodules=all", "--src-prefix=a/", "--dst-prefix=b/", w.layer.Base, w.Tree)
	return workError("make patch", err)
}

// PullOptions say where the work goes.
type PullOptions struct {
	// Dir is the project's directory, if it is another one than the one that was taken.
	Dir string
	// Branch is the new branch. Default: tongs/NAME, with a number if there is one already.
	Branch string
	// Name is what the sandbox is called.
	Name string
}

// Pulled says what was brought in.
type Pulled struct {
	Dir     string `json:"dir"`
	Branch  string `json:"branch"` // "" when there was nothing
	Commit  string `json:"commit"`
	Commits int    `json:"commits"` // new ones, the one of uncommitted work with them
	Files   int    `json:"files"`   // that are not as they were taken in
	// Uncommitted: the last commit has what was not committed in the sandbox, with what had not been in the
	// project.
	Uncommitted bool `json:"uncommitted"`
}

const opPull = "pull"

// Pull makes a new branch in the project's repository, with the commits of the sandbox and, as a last one, what was not
// committed there. The branches that are there, the work tree and the index stay as they are.
func (w *Work) Pull(ctx context.Context, opts PullOptions) (*Pulled, error) {
	p, err := w.pull(ctx, opts)
	return p, workError(opPull, err)
}

func (w *Work) pull(ctx context.Context, opts PullOptions) (*Pulled, error) {
	refuse := func(message, hint string) error {
		return sandbox.Errf(sandbox.CodeInvalidArgument, opPull, message, hint)
	}
	if opts.Dir == "" {
		opts.Dir = w.layer.Dir
	}
	top, err := filepath.EvalSymlinks(opts.Dir)
	if err == nil {
		top, err = filepath.Abs(top)
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(top, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: top, Err: err}
	}
	g, err := usersGit(w.program, top, statOf(&st))
	if err != nil {
		return nil, err
	}
	dir, err := g.line(ctx, "rev-parse", "--path-format=absolute", "--git-dir")
	if err != nil {
		return nil, refuse(fmt.Sprintf("%s is no repository: %v", top, err), "use `tongs sandbox diff NAME | git apply` there; or `git init`, and start anew")
	}
	if format, err := g.line(ctx, "rev-parse", "--show-object-format"); err != nil || format != w.layer.Format {
		return nil, refuse(fmt.Sprintf("the repository in %s has objects of another format than %s", top, w.layer.Format), "name the one that the sandbox was made from")
	}
	g = g.with("GIT_DIR=" + dir)
	p := &Pulled{Dir: top, Files: len(w.Changes), Commits: w.Commits}
	if p.Commit, err = w.tip(ctx, p, opts.Name); err != nil || p.Commit == "" {
		return p, err
	}
	if p.Branch, err = newBranch(ctx, g, opts, refuse); err != nil {
		return nil, err
	}
	if err := w.send(ctx, g, p.Commit); err != nil {
		return nil, err
	}
	zero := strings.Repeat("0", len(p.Commit))
	if _, err := g.line(ctx, "update-ref", "--no-deref", "-m", "tongs sandbox pull "+opts.Name, "refs/heads/"+p.Branch, p.Commit, zero); err != nil {
		return nil, sandbox.Errf(CodeFailed, opPull, "the branch "+p.Branch+" could not be made: "+err.Error(), "name another one with --branch")
	}
	return p, nil
}

// tip gives the commit for the branch: the one that is checked out in the sandbox, or one on top of it that has the
// files as they are. "" when nothing is new.
func (w *Work) tip(ctx context.Context, p *Pulled, name string) (string, error) {
	parent := w.Head
	if w.Commits == 0 && len(w.Changes) == 0 {
		return "", nil
	}
	if parent != "" {
		tree, err := w.git.line(ctx, "rev-parse", "--verify", parent+"^{tree}")
		if err != nil {
			return "", err
		}
		if tree == w.Tree {
			return parent, nil
		}
	}
	args := []string{"commit-tree", w.Tree, "-m", "Uncommitted work of sandbox " + name}
	if parent != "" {
		args = append(args, "-p", parent)
	}
	p.Uncommitted = true
	p.Commits++
	return w.git.line(ctx, args...)
}

// newBranch finds the name of a branch that is not there.
func newBranch(ctx context.Context, g *git, opts PullOptions, refuse func(message, hint string) error) (string, error) {
	free := func(branch string) (bool, error) {
		if _, err := g.line(ctx, "rev-parse", "--verify", "-q", "refs/heads/"+branch); err == nil {
			return false, nil
		} else if exitCode(err) != 1 {
			return false, err
		}
		// It may be checked out before its first commit.
		head, err := g.line(ctx, "symbolic-ref", "-q", "HEAD")
		if err != nil && exitCode(err) != 1 {
			return false, err
		}
		return head != "refs/heads/"+branch, nil
	}
	want := opts.Branch
	if want == "" {
		want = "tongs/" + opts.Name
	}
	if strings.HasPrefix(want, "-") || strings.HasPrefix(want, "refs/") || want == "HEAD" {
		return "", refuse(fmt.Sprintf("%q cannot be the name of a branch", want), "such as --branch work")
	}
	if _, err := g.line(ctx, "check-ref-format", "refs/heads/"+want); err != nil {
		return "", refuse(fmt.Sprintf("%q cannot be the name of a branch", want), "such as --branch work")
	}
	for i := 1; i < 1000; i++ {
		branch := want
		if i > 1 {
			branch = fmt.Sprintf("%s-%d", want, i)
		}
		ok, err := free(branch)
		if err != nil || ok {
			return branch, err
		}
		if opts.Branch != "" {
			break
		}
	}
	return "", sandbox.Errf(sandbox.CodeAlreadyExists, opPull, "there is a branch "+want+" already, and nothing is changed in it", "name another one with --branch")
}

// send puts the objects that the project's repository has not into it.
func (w *Work) send(ctx context.Context, to *git, tip string) error {
	wanted := tip + "\n"
	if c := w.layer.Commit; c != "" {
		if _, err := to.line(ctx, "cat-file", "-e", c+"^{commit}"); err == nil {
			wanted += "^" + c + "\n"
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, pipe := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := w.git.stream(ctx, strings.NewReader(wanted), pipe, "pack-objects", "--revs", "--stdout", "-q", "--threads=1")
		pipe.CloseWithError(err)
		made <- err
	}()
	_, err := to.pipe(ctx, r, "index-pack", "--strict", "--stdin", "--threads=1")
	r.CloseWithError(io.ErrClosedPipe)
	if merr := <-made; merr != nil && err == nil {
		err = merr
	}
	if err == nil {
		// Nothing may be missing behind the branch.
		_, err = to.line(ctx, "rev-list", "--objects", "--quiet", tip, "--not", "--all")
	}
	return err
}
