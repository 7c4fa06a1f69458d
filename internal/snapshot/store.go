package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of a state and of the time that one step of the work may take.
const (
	// MaxFileBytes is the size of a file from which on it is left out of states.
	MaxFileBytes = 2 << 20
	// MaxListBytes bounds the names of the files that differ from one state to the next, with a byte for each.
	// Beyond it there is no new state.
	MaxListBytes = 32 << 20

	commandTimeout = 2 * time.Minute
	// maxAsked is how many files are asked for one by one; for more, the project is walked once.
	maxAsked = 128
	// manyFiles is from how many files on they are packed together.
	manyFiles = 200
)

// Codes that only states have.
const (
	// CodeConflict: the project can't be put into that state without losing something that no state holds. It was
	// left as it is.
	CodeConflict sandbox.Code = "SNAPSHOT_CONFLICT"
	// CodeFailed: git in the sandbox failed; what it said is in the message.
	CodeFailed sandbox.Code = "SNAPSHOT_FAILED"
)

// Box is the part of a sandbox that states need; a *sandbox.Client is one.
type Box interface {
	Exec(ctx context.Context, spec sandbox.ExecSpec) (*sandbox.ExecResult, error)
	Lstat(ctx context.Context, path string) (*sandbox.FileInfo, error)
	RemoveFile(ctx context.Context, path string, recursive bool) error
}

// Tree names a state: 40 or 64 hexadecimal digits.
type Tree string

var validTree = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// Store is the states of one project in one sandbox. Its methods are to be called one after the other.
type Store struct {
	box     Box
	project string
	dir     string
}

// Open gives the states of a project, whether there are any or not. home is the home directory of the
// sandbox's user; both paths are absolute.
func Open(box Box, project, home string) *Store {
	return &Store{box: box, project: path.Clean(project), dir: path.Join(home, ".local/share/tongs/snapshot.git")}
}

// Refs say under which names a state is kept. Names are paths of letters, digits, '_' and '-'.
type Refs struct {
	New []string // kept as they are if there are such names already
	Set []string
}

func (r Refs) args() []string {
	var args []string
	for _, name := range r.New {
		args = append(args, "new", name)
	}
	for _, name := range r.Set {
		args = append(args, "set", name)
	}
	return args
}

// keepScript keeps the tree $tree under the names that are given, each behind "new" or "set".
const keepScript = `
while [ $# -ge 2 ]; do
  case $1 in
  new) git update-ref "refs/tongs/$2" "$tree" "" 2>/dev/null || git rev-parse -q --verify "refs/tongs/$2" >/dev/null ;;
  set) git update-ref "refs/tongs/$2" "$tree" ;;
  esac
  shift 2
done
echo "$tree"
`

// lookScript makes the repository if there is none, and lists what differs from the last state, behind the
// line "changed"; when nothing does, it says the state itself, behind the line "same". A sandbox with a project has
// objects of that beside the repository (package project's seed): the repository begins with them, and with an index of what is
// still so.
const lookScript = `
set -e
command -v git >/dev/null || exit 127
umask 077
if [ ! -f "$GIT_DIR/ready-1" ]; then
  mkdir -p "$GIT_DIR"
  git init -q
  for pair in core.autocrlf=false core.symlinks=true core.fileMode=true core.fsmonitor=false \
    core.looseCompression=1 core.logAllRefUpdates=false core.preloadIndex=true index.version=4 gc.auto=0; do
    git config "${pair%%=*}" "${pair#*=}"
  done
  seed=${GIT_DIR%/*}/seed
  if [ -f "$seed/tree" ] && cd "$GIT_WORK_TREE"; then
    mkdir -p "$GIT_DIR/objects/info"
    echo "$seed/objects" >"$GIT_DIR/objects/info/alternates"
    if git read-tree "$(cat "$seed/tree")" 2>/dev/null; then
      git update-index -q --refresh >/dev/null 2>&1 || :
      git diff-files -z --name-only >"$GIT_DIR/changed"
      git update-index -z --force-remove --stdin <"$GIT_DIR/changed"
    else
      rm -f "$GIT_DIR/objects/info/alternates" "$GIT_DIR/index" "$GIT_DIR/index.lock"
    fi
  fi
  : >"$GIT_DIR/ready-1"
fi
umask 022
mkdir -p "$GIT_WORK_TREE" "$GIT_DIR/info"
cd "$GIT_WORK_TREE"
rm -f "$GIT_DIR/index.lock"
if [ -f .git/info/exclude ]; then cat .git/info/exclude >"$GIT_DIR/info/exclude"; else : >"$GIT_DIR/info/exclude"; fi
git diff-files -z --name-status >"$GIT_DIR/changed"
git ls-files -z --others --exclude-standard >"$GIT_DIR/others" 2>/dev/null
if [ -s "$GIT_DIR/changed" ] || [ -s "$GIT_DIR/others" ]; then
  echo changed
  cat "$GIT_DIR/changed"
  printf '\0'
  cat "$GIT_DIR/others"
  exit
fi
echo same
tree=$(git write-tree)
` + keepScript

// addScript takes the files whose names come in into the index, and makes a state of it. Many at once go into one
// pack and not into a file each, by a git that can do that (from 2.38 on): that is several times faster.
const addScript = `
set -e
cd "$GIT_WORK_TREE"
threshold=512m
if [ "$1" = many ]; then
  version=$(git version)
  version=${version#git version }
  minor=${version#*.}
  minor=${minor%%.*}
  if [ "${version%%.*}" -gt 2 ] || [ "${version%%.*}" -eq 2 ] && [ "$minor" -ge 38 ]; then threshold=1; fi
fi
shift
git -c core.bigFileThreshold=$threshold -c core.compression=1 update-index -z --add --remove --replace --stdin
tree=$(git write-tree)
` + keepScript

// Take makes a state of the project as it is and keeps it under names. Nothing is made anew when nothing
// changed since the last one.
func (s *Store) Take(ctx context.Context, refs Refs) (Tree, error) {
	tree, err := s.take(ctx, refs)
	if err != nil && ctx.Err() == nil && sandbox.CodeOf(err) == CodeFailed {
		tree, err = s.take(ctx, refs) // files that come and go while they are looked at
	}
	return tree, err
}

func (s *Store) take(ctx context.Context, refs Refs) (Tree, error) {
	const op = "take snapshot"
	out, err := s.run(ctx, op, lookScript, nil, MaxListBytes, refs.args()...)
	if err != nil {
		return "", err
	}
	head, rest, _ := bytes.Cut(out, []byte("\n"))
	if string(head) == "same" {
		return asTree(op, rest)
	}
	names, gone, err := s.fit(ctx, op, rest)
	if err != nil {
		return "", err
	}
	if len(gone) > 0 {
		if _, err := s.run(ctx, op, `git update-index -z --force-remove --stdin`, gone, 1<<10); err != nil {
			return "", err
		}
	}
	amount := "few"
	if bytes.Count(names, []byte{0}) > manyFiles {
		amount = "many"
	}
	if out, err = s.run(ctx, op, addScript, names, 1<<10, append([]string{amount}, refs.args()...)...); err != nil {
		return "", err
	}
	return asTree(op, out)
}

// fit reads what lookScript has listed: the files to be looked at, without those that states leave out, and those
// that are gone, each with a zero behind it.
func (s *Store) fit(ctx context.Context, op string, list []byte) (names, gone []byte, err error) {
	fields := bytes.Split(list, []byte{0})
	fields = fields[:len(fields)-1]
	var present [][]byte
	for len(fields) > 0 { // pairs, up to an empty one
		if len(fields[0]) == 0 || len(fields) == 1 {
			present = append(present, fields[1:]...)
			break
		}
		if fields[0][0] == 'D' { // also what is a directory now
			gone = append(append(gone, fields[1]...), 0)
		} else {
			present = append(present, fields[1])
		}
		fields = fields[2:]
	}
	out := map[string]bool{}
	few := len(present) <= maxAsked
	if !few {
		if out, err = s.unfit(ctx, op); err != nil {
			return nil, nil, err
		}
	}
	for _, raw := range present {
		name := string(raw)
		if name == "" || strings.HasSuffix(name, "/") || out[name] { // a repository of its own ends with /
			continue
		}
		if few {
			info, err := s.box.Lstat(ctx, path.Join(s.project, name))
			switch {
			case err != nil && ctx.Err() != nil:
				return nil, nil, err
			case err != nil && sandbox.CodeOf(err) != sandbox.CodeFileNotFound: // which git finds out too
				continue
			case err == nil && info.Type == sandbox.TypeFile && (info.Size > MaxFileBytes || info.Mode&0o400 == 0):
				continue
			}
		}
		names = append(append(names, raw...), 0)
	}
	return names, gone, nil
}

// unfit finds the files that are too large or can't be read.
func (s *Store) unfit(ctx context.Context, op string) (map[string]bool, error) {
	found, err := s.run(ctx, op, `cd "$GIT_WORK_TREE" && find . -name .git -prune -o -type f \( -size +4096 -o ! -perm -400 \) -print0 2>/dev/null || :`, nil, MaxListBytes)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for name := range bytes.SplitSeq(found, []byte{0}) {
		out[strings.TrimPrefix(string(name), "./")] = true
	}
	return out, nil
}

// Kept lists the states that are kept under names below a prefix, by what follows the prefix.
func (s *Store) Kept(ctx context.Context, prefix string) (map[string]Tree, error) {
	const op = "list snapshots"
	out, err := s.run(ctx, op, `[ -f "$GIT_DIR/ready-1" ] || exit 0; git for-each-ref --format="%(objectname) %(refname)" "refs/tongs/$1"`, nil, MaxListBytes, prefix)
	if err != nil {
		return nil, err
	}
	kept := map[string]Tree{}
	for line := range strings.Lines(string(out)) {
		hash, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if rest, ok := strings.CutPrefix(name, "refs/tongs/"+prefix+"/"); ok && validTree.MatchString(hash) {
			kept[rest] = Tree(hash)
		}
	}
	return kept, nil
}

// Keep keeps states under names.
func (s *Store) Keep(ctx context.Context, names map[string]Tree) error {
	if len(names) == 0 {
		return nil
	}
	var in bytes.Buffer
	for name, tree := range names {
		fmt.Fprintf(&in, "update refs/tongs/%s %s\n", name, tree)
	}
	_, err := s.run(ctx, "keep snapshots", `git update-ref --stdin`, in.Bytes(), 1<<10)
	return err
}

// Drop drops the names below a prefix.
func (s *Store) Drop(ctx context.Context, prefix string) error {
	_, err := s.run(ctx, "drop snapshots", `[ -f "$GIT_DIR/ready-1" ] || exit 0; git for-each-ref --format="delete %(refname)" "refs/tongs/$1" | git update-ref --stdin`, nil, 1<<10, prefix)
	return err
}

// run runs a script of this package's in the sandbox. Its text is fixed; what varies are its arguments and its
// input.
func (s *Store) run(ctx context.Context, op, script string, input []byte, limit int64, args ...string) ([]byte, error) {
	res, err := s.box.Exec(ctx, sandbox.ExecSpec{
		ProcessSpec: sandbox.ProcessSpec{
			Argv: append([]string{"sh", "-c", script, "snapshot"}, args...), Dir: "/", Timeout: commandTimeout,
			Env: map[string]string{
				"GIT_DIR": s.dir, "GIT_WORK_TREE": s.project, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
				"GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C",
			},
			Unset: []string{"GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_TRACE"},
		},
		Input: input, MaxOutput: limit,
	})
	switch {
	case sandbox.CodeOf(err) == sandbox.CodeCommandNotFound:
		return nil, noGit(op)
	case err != nil:
		return nil, err
	case res.Exit.Code == 127:
		return nil, noGit(op)
	case !res.Exit.Success():
		text := strings.TrimSpace(strings.ToValidUTF8(string(res.Stderr[:min(len(res.Stderr), 1000)]), "\uFFFD"))
		return nil, sandbox.Errf(CodeFailed, op, fmt.Sprintf("git in the sandbox failed (%v): %s", res.Exit, text), "look at the project's files in the sandbox")
	case res.Truncated:
		return nil, sandbox.Errf(sandbox.CodeFileTooLarge, op, fmt.Sprintf("git says more than %d bytes about the project", limit),
			"let .gitignore leave out what need not be restored")
	}
	return res.Stdout, nil
}

func noGit(op string) error {
	return sandbox.Errf(sandbox.CodeNotSupported, op, "the sandbox has no git, which keeps the states of its files", "use an image that has git")
}

func asTree(op string, out []byte) (Tree, error) {
	hash := strings.TrimSpace(string(out))
	if !validTree.MatchString(hash) {
		return "", sandbox.Errf(CodeFailed, op, fmt.Sprintf("git in the sandbox gave %.80q for a tree", hash), "")
	}
	return Tree(hash), nil
}
