package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// packTimeout bounds the work of the git in the sandbox.
	packTimeout = 10 * time.Minute
	// MaxPackBytes bounds the objects that come out of a sandbox, as they are sent.
	MaxPackBytes = 2 << 30
	// maxQuarantine bounds each file of the repository that they are checked in.
	maxQuarantine = 4 << 30
	// MaxFileBytes bounds a file that is brought out, MaxAllBytes all of them.
	MaxFileBytes = 512 << 20
	MaxAllBytes  = 2 << 30
	// MaxCommits bounds how many commits are brought out.
	MaxCommits = 20_000
)

// Box is the part of a sandbox that is needed; a *sandbox.Client is one.
type Box interface {
	Run(ctx context.Context, spec sandbox.ProcessSpec, stdin io.Reader, stdout, stderr io.Writer) (sandbox.Exit, error)
}

// packScript says in one line what the tree of all files is and which commit is checked out, and sends after it the objects of
// them that are new since the commits that are given. It writes to no repository. The index that came with the project
// says which files are the project's even where something ignores them by now; what the agent's own index has counts, too.
const packScript = `
set -e
command -v git >/dev/null || exit 127
umask 077
mkdir -p "$1"
cd "$GIT_WORK_TREE"
[ -e "$GIT_DIR/HEAD" ] || exit 126
work=$(mktemp -d "$1/bring.XXXXXXXX")
trap 'rm -rf "$work"' EXIT
real=$(git rev-parse --git-path objects)
mkdir "$work/objects"
quiet="-c core.fsmonitor=false -c core.hooksPath=/dev/null -c core.checkStat=minimal -c advice.addEmbeddedRepo=false"
if [ -f "$1/$2" ]; then cp -p "$1/$2" "$work/index"
elif [ -f "$GIT_DIR/index" ]; then cp -p "$GIT_DIR/index" "$work/index"; fi
shift 2
git ls-files -z >"$work/names"
export GIT_INDEX_FILE="$work/index"
case $real in /*) ;; *) real=$PWD/$real ;; esac
export GIT_ALTERNATE_OBJECT_DIRECTORIES="$real" GIT_OBJECT_DIRECTORY="$work/objects"
git $quiet add --all --ignore-errors . 1>&2 || [ $? -eq 1 ]
git $quiet update-index -z --add --remove --ignore-skip-worktree-entries --stdin <"$work/names" 1>&2 || :
tree=$(git write-tree)
head=$(git rev-parse -q --verify 'HEAD^0') || head=
{
  echo "$tree"
  if [ -n "$head" ]; then echo "$head"; fi
  for known; do
    if git cat-file -e "$known^{commit}" 2>/dev/null; then echo "^$known"; fi
  done
} >"$work/wanted"
echo "tongs-project $tree $head"
git -c pack.threads=1 pack-objects --revs --stdout -q <"$work/wanted"
`

// Work is what a sandbox has to bring out, checked, in a repository of its own.
type Work struct {
	layer   *Layer
	dir     string   // thrown away by Close
	lock    *os.File // keeps GC away from it
	program string
	git     *git

	Tree    string   // of all its files, git's ignored ones left out
	Head    string   // the commit that is checked out in the sandbox; "" if there is none
	Commits int      // how many are new, up to Head
	Changes []Change // from the state that was taken to Tree
	Notes   []string // for people: what is not brought out
}

// Change is one file that is not as it was taken in.
type Change struct {
	Path             string
	Status           byte // A, D, M, T
	OldMode, NewMode string
	OldID, NewID     string
}

// BringOptions say how strict to be.
type BringOptions struct {
	// OutsideLinks lets symbolic links through that lead out of the project.
	OutsideLinks bool
}

// Bring asks a sandbox that was made from a layer for its work. The caller closes it, and the layer after it.
func (s *Store) Bring(ctx context.Context, box Box, l *Layer, opts BringOptions) (_ *Work, err error) {
	const op = "bring out work"
	program, err := findGit()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.dir, bringPrefix)
	if err != nil {
		return nil, workError(op, err)
	}
	w := &Work{layer: l, dir: dir, program: program}
	defer func() {
		if err != nil {
			w.Close()
			err = workError(op, err)
		}
	}()
	if w.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if err := w.prepare(ctx); err != nil {
		return nil, err
	}
	if err := w.fetch(ctx, box); err != nil {
		return nil, err
	}
	if err := w.examine(ctx, opts); err != nil {
		return nil, err
	}
	return w, nil
}

// Close throws the repository away.
func (w *Work) Close() {
	_ = os.RemoveAll(w.dir) // what is left of it, GC removes
	if w.lock != nil {
		w.lock.Close()
	}
}

// workError gives an error its code and operation.
func workError(op string, err error) error {
	var done *sandbox.Error
	if err == nil || errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e, ok := takeError(err).(*sandbox.Error)
	if !ok {
		return err
	}
	e.Op = op
	return e
}

// prepare makes the repository: bare, with our configuration, and with what the layer has behind it.
func (w *Work) prepare(ctx context.Context) error {
	bare := filepath.Join(w.dir, "work.git")
	w.git = ourGit(w.program, bare, "")
	w.git.bound = true
	if err := os.Mkdir(bare, 0o700); err != nil {
		return err
	}
	if _, err := w.git.line(ctx, "init", "--quiet", "--bare", "--template=", "--object-format="+w.layer.Format); err != nil {
		return err
	}
	from := filepath.Join(w.layer.Root(), inside, ".git")
	objects, err := filepath.EvalSymlinks(filepath.Join(from, "objects"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(bare, "objects/info"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(bare, "objects/info/alternates"), []byte(objects+"\n"), 0o600); err != nil {
		return err
	}
	if shallow, err := os.ReadFile(filepath.Join(from, "shallow")); err == nil {
		return os.WriteFile(filepath.Join(bare, "shallow"), shallow, 0o600)
	}
	return nil
}

// fetch gets the objects.
func (w *Work) fetch(ctx context.Context, box Box) error {
	ctx, cancel := context.WithTimeout(ctx, packTimeout+time.Minute)
	defer cancel()
	r, pipe := io.Pipe()
	sent := &limited{w: pipe, left: MaxPackBytes}
	said := &head{limit: maxSaid}
	type end struct {
		exit sandbox.Exit
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		known := []string{w.layer.Base}
		if w.layer.Commit != "" {
			known = append(known, w.layer.Commit)
		}
		exit, err := box.Run(ctx, sandbox.ProcessSpec{
			Argv: append([]string{"sh", "-c", packScript, "project", "/" + insideOwn, baseIndex}, known...), Dir: "/", Timeout: packTimeout,
			Env: map[string]string{
				"GIT_DIR": "/" + inside + "/.git", "GIT_WORK_TREE": "/" + inside, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
				"GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C",
			},
			Unset: []string{"GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_TRACE"},
		}, nil, sent, said)
		pipe.CloseWithError(io.EOF)
		ended <- end{exit, err}
	}()
	read := w.receive(ctx, r)
	// Whoever still writes is told to stop.
	r.CloseWithError(errors.New("nobody reads any more"))
	e := <-ended
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case sent.left < 0:
		return sandbox.Errf(sandbox.CodeFileTooLarge, "bring out work", fmt.Sprintf("the sandbox sends more than %d MiB", MaxPackBytes>>20), "remove large files there, or copy what you need: tongs sandbox cp")
	case sandbox.CodeOf(e.err) == sandbox.CodeCommandNotFound || e.err == nil && e.exit.Code == 127:
		return sandbox.Errf(sandbox.CodeNotSupported, "bring out work", "the sandbox has no git, which finds out what is new there", "copy what you need: tongs sandbox cp")
	case e.err == nil && e.exit.Code == 126:
		return sandbox.Errf(CodeFailed, "bring out work", "there is no repository in the sandbox's project any more", "copy what you need: tongs sandbox cp")
	case e.err != nil && read == nil:
		return e.err
	case !e.exit.Success() && e.err == nil:
		return sandbox.Errf(CodeFailed, "bring out work", fmt.Sprintf("git in the sandbox failed (%v): %s", e.exit, strings.TrimSpace(said.String())), "look at the project in the sandbox: tongs sandbox exec NAME git status")
	}
	return read
}

// limited passes on so many bytes at most.
type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("more than it may be")
	}
	return l.w.Write(p)
}

// receive reads what the script sends: the line, and a pack, which git checks.
func (w *Work) receive(ctx context.Context, r io.Reader) error {
	const longest = 200
	var line []byte
	for one := make([]byte, 1); len(line) < longest; line = append(line, one[0]) {
		if _, err := io.ReadFull(r, one); err != nil {
			return unsafe("the sandbox sends nothing that makes sense")
		}
		if one[0] == '\n' {
			break
		}
	}
	f := strings.Split(string(line), " ")
	if len(f) != 3 || f[0] != "tongs-project" || !w.oid(f[1]) || f[2] != "" && !w.oid(f[2]) {
		return unsafe(fmt.Sprintf("the sandbox sends %.100q", line))
	}
	w.Tree, w.Head = f[1], f[2]
	// Everything that git has a name for in its checks is refused, not only what it calls an error.
	args := []string{"-c", "transfer.fsckObjects=true", "index-pack", "--strict", "--stdin", "--threads=1", fmt.Sprintf("--max-input-size=%d", int64(MaxPackBytes))}
	if _, err := w.git.pipe(ctx, r, args...); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return unsafe("git refuses the objects that the sandbox sends: " + err.Error())
	}
	return nil
}

func (w *Work) oid(text string) bool {
	return validOID.MatchString(text) && (len(text) == 40) == (w.layer.Format == "sha1")
}

func unsafe(message string) error {
	return sandbox.Errf(CodeUnsafe, "bring out work", message, "look at the files in the sandbox before you use anything of it: tongs sandbox shell NAME")
}

// examine looks at every new tree.
func (w *Work) examine(ctx context.Context, opts BringOptions) error {
	// That all of it is there says the walk, which ends with an error where something is missing.
	tips := []string{w.Tree}
	if w.Head != "" {
		tips = append(tips, w.Head)
	}
	args := append([]string{"rev-list", "--objects", "--quiet", "--missing=error"}, tips...)
	if _, err := w.git.run(ctx, nil, maxSmall, append(args, "--not", w.layer.Base)...); err != nil {
		return unsafe("the sandbox does not send everything that belongs to it: " + err.Error())
	}
	for i, want := range []string{"tree", "commit"}[:len(tips)] {
		if kind, err := w.git.line(ctx, "cat-file", "-t", tips[i]); err != nil || kind != want {
			return unsafe(fmt.Sprintf("what the sandbox calls a %s is none", want))
		}
	}
	changes, err := w.changes(ctx, nil, "diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", "--no-abbrev", w.layer.Base, w.Tree)
	if err != nil {
		return err
	}
	all := changes
	for _, c := range changes {
		if c.OldMode == gitlink || c.NewMode == gitlink {
			w.Notes = append(w.Notes, fmt.Sprintf("not brought out: what changed in the repository %q within the project", c.Path))
		} else {
			w.Changes = append(w.Changes, c)
		}
	}
	if w.Head != "" {
		commits, err := w.git.run(ctx, nil, (MaxCommits+1)*65, "rev-list", fmt.Sprintf("--max-count=%d", MaxCommits+1), w.Head, "--not", w.layer.Base)
		if err != nil {
			return err
		}
		if w.Commits = bytes.Count(commits, []byte("\n")); w.Commits > MaxCommits {
			return unsafe(fmt.Sprintf("there are more than %d new commits", MaxCommits))
		}
		if w.Commits > 0 {
			more, err := w.changes(ctx, commits, "diff-tree", "-r", "-z", "-m", "--root", "--raw", "--no-commit-id", "--no-renames", "--full-index", "--no-abbrev", "--stdin")
			if err != nil {
				return err
			}
			all = slices.Concat(all, more)
		}
	}
	return w.check(ctx, all, opts)
}

// pipe runs git with an input that is a stream.
func (g *git) pipe(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	out := &bounded{limit: maxSmall}
	err := g.stream(ctx, in, out, args...)
	return out.data, err
}

const (
	gitlink  = "160000"
	linkMode = "120000"
)

// changes reads git's raw differences.
func (w *Work) changes(ctx context.Context, in []byte, args ...string) ([]Change, error) {
	out, err := w.git.run(ctx, in, maxListing, args...)
	if err != nil {
		return nil, err
	}
	var all []Change
	fields := bytes.Split(out, []byte{0})
	for i := 0; i+1 < len(fields); i += 2 {
		f := strings.Split(strings.TrimPrefix(string(fields[i]), ":"), " ")
		if len(f) != 5 || len(f[4]) != 1 || !w.oid(f[2]) || !w.oid(f[3]) {
			return nil, fmt.Errorf("git gives %.200q for a difference", fields[i])
		}
		all = append(all, Change{Path: string(fields[i+1]), Status: f[4][0], OldMode: f[0], NewMode: f[1], OldID: f[2], NewID: f[3]})
	}
	return all, nil
}
