package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// Span is what happened between two states.
type Span struct{ From, To Tree }

// entry is what a state says of one path. The mode is git's; "000000" is that there is nothing.
type entry struct{ mode, hash string }

func (e entry) absent() bool { return e.mode == "000000" }

// Plan says what paths are to become. The zero value changes nothing.
type Plan struct{ paths map[string]entry }

// Len is the number of paths.
func (p *Plan) Len() int { return len(p.paths) }

// spansScript lists the changes of each pair of trees, one after the other.
const spansScript = `set -e; while [ $# -ge 2 ]; do git diff-tree -r -z --raw --no-renames --no-abbrev "$1" "$2"; shift 2; done`

// maxSpans is how many spans are asked for at once: their names are arguments of one command.
const maxSpans = 2000

// Undo plans to undo what happened in spans: each path that changed in one of them becomes what it was before
// the first of them in which it did. Spans are in the order of time.
func (s *Store) Undo(ctx context.Context, spans []Span) (*Plan, error) {
	plan := &Plan{paths: map[string]entry{}}
	for part := range slices.Chunk(spans, maxSpans) {
		args := make([]string, 0, 2*len(part))
		for _, span := range part {
			if span.From != span.To {
				args = append(args, string(span.From), string(span.To))
			}
		}
		if len(args) == 0 {
			continue
		}
		out, err := s.run(ctx, "compare snapshots", spansScript, nil, MaxListBytes, args...)
		if err != nil {
			return nil, err
		}
		if err := plan.read(out); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// read takes in what git diff-tree -z --raw says; what is planned already stays.
func (p *Plan) read(out []byte) error {
	fields := bytes.Split(out, []byte{0})
	for i := 0; i+1 < len(fields); i += 2 {
		f := strings.Fields(strings.TrimPrefix(string(fields[i]), ":"))
		name := string(fields[i+1])
		if len(f) != 5 || len(f[0]) != 6 || !validTree.MatchString(f[2]) || name == "" {
			return sandbox.Errf(CodeFailed, "compare snapshots", fmt.Sprintf("git in the sandbox gave %.200q for a change", fields[i]), "")
		}
		if _, ok := p.paths[name]; !ok {
			p.paths[name] = entry{f[0], f[2]}
		}
	}
	return nil
}

// composeScript makes a tree of another one and of changes to it.
const composeScript = `
set -e
GIT_INDEX_FILE=$GIT_DIR/index.compose
export GIT_INDEX_FILE
rm -f "$GIT_INDEX_FILE" "$GIT_INDEX_FILE.lock"
git read-tree "$1"
git update-index -z --replace --index-info
git write-tree
rm -f "$GIT_INDEX_FILE"
`

// Compose makes the state that tree becomes by a plan. The project stays as it is.
func (s *Store) Compose(ctx context.Context, tree Tree, plan *Plan) (Tree, error) {
	if plan.Len() == 0 {
		return tree, nil
	}
	names := make([]string, 0, len(plan.paths))
	for name := range plan.paths {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { // what goes, goes first: a file may become a directory
		x, y := plan.paths[a], plan.paths[b]
		if x.absent() != y.absent() {
			if x.absent() {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	var in bytes.Buffer
	for _, name := range names {
		e := plan.paths[name]
		mode := e.mode
		if e.absent() {
			mode = "0"
		}
		fmt.Fprintf(&in, "%s %s\t%s\x00", mode, e.hash, name)
	}
	const op = "compose snapshot"
	out, err := s.run(ctx, op, composeScript, in.Bytes(), 1<<10, string(tree))
	if err != nil {
		return "", err
	}
	return asTree(op, out)
}

// Switch puts the project, which is in the state that Take has just given, into another one. Only files that
// differ between the two are written. After an error the project is in the first state: nothing is overwritten
// that no state holds, and what was written before a failure is taken back.
func (s *Store) Switch(ctx context.Context, from, to Tree) error {
	const op = "restore files"
	if from == to {
		return nil
	}
	_, err := s.run(ctx, op, `cd "$GIT_WORK_TREE" && git read-tree -m -u --dry-run "$1" "$2"`, nil, 1<<20, string(from), string(to))
	if sandbox.CodeOf(err) == CodeFailed {
		return &sandbox.Error{Code: CodeConflict, Op: op, Message: "files that are in the way would be lost: " + err.Error(), Err: err,
			Hint: "move them out of the project's directory, or remove them, and try again"}
	}
	if err != nil {
		return err
	}
	if _, err = s.run(ctx, op, `cd "$GIT_WORK_TREE" && git read-tree -m -u "$1" "$2"`, nil, 1<<20, string(from), string(to)); err == nil {
		return nil
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	if failed := s.back(back, from, to); failed != nil {
		return &sandbox.Error{Code: CodeFailed, Op: op, Message: fmt.Sprintf("%v; and not all of it could be taken back: %v", err, failed), Err: err,
			Hint: "the files as they were are in the snapshot " + string(from)}
	}
	return err
}

// back undoes a switch that was cut short.
func (s *Store) back(ctx context.Context, from, to Tree) error {
	plan, err := s.Undo(ctx, []Span{{from, to}})
	if err != nil {
		return err
	}
	if _, err := s.run(ctx, "take back", `rm -f "$GIT_DIR/index.lock"; cd "$GIT_WORK_TREE" && git read-tree --reset -u "$1"`, nil, 1<<20, string(from)); err != nil {
		return err
	}
	for name, e := range plan.paths {
		if !e.absent() {
			continue
		}
		if err := s.box.RemoveFile(ctx, path.Join(s.project, name), false); err != nil && sandbox.CodeOf(err) != sandbox.CodeFileNotFound {
			return err
		}
	}
	return nil
}
