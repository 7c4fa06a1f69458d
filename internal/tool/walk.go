package tool

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// maxWalk bounds the names that one search looks at.
	maxWalk = 2_000_000
	// maxDepth bounds how deep a search goes; a path of 4,095 bytes can't be
	// much deeper.
	maxDepth = 1024
	// searchTime bounds one search.
	searchTime = 120 * time.Second
)

// walker visits the regular files below a directory in the order of their
// paths, as ripgrep sorts them: by name within each directory, directories
// among the files. Links are not followed.
type walker struct {
	ctx      context.Context
	root     string
	hidden   bool          // hidden files too
	noIgnore bool          // what the rules leave out too
	globs    []pathPattern // what is wanted and, negated, what is not; over all rules
	user     *userRules

	positive bool // one of globs is not negated
	seen     int
	full     bool // maxWalk was reached: there may be more
}

// errStop ends a walk early without an error.
var errStop = errors.New("stop")

// newWalker prepares a search below root for the files that match glob; "" for
// all.
func (r *run) newWalker(ctx context.Context, root, glob string, hidden bool) (*walker, error) {
	w := &walker{ctx: ctx, root: root, hidden: hidden, user: r.userIgnore(ctx, root)}
	return w, w.addGlobs([]string{glob})
}

// addGlobs adds patterns to those there are; what is in .git stays out.
func (w *walker) addGlobs(lines []string) error {
	for _, line := range append(lines[:len(lines):len(lines)], "!**/.git/**") {
		p, ok, err := ignoreLine(line)
		if err != nil {
			return failf(sandbox.CodeInvalidArgument, "%v", err)
		}
		if ok {
			w.globs = append(w.globs, p)
			w.positive = w.positive || !p.negated
		}
	}
	return nil
}

// walk calls visit with each file: its absolute path.
func (w *walker) walk(visit func(path string) error) error {
	err := w.dir(w.root, rulesAbove(w.ctx, w.root), 0, visit)
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

func (w *walker) dir(dir string, rules *dirRules, depth int, visit func(string) error) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := files.ReadDir(dir)
	if err != nil && len(entries) == 0 {
		return nil // not ours to read, or gone: left out, as ripgrep is told to
	}
	if depth > 0 {
		rules = rulesOf(w.ctx, dir, rules, func(name string) bool { return hasEntry(entries, name) })
	}
	for _, e := range entries {
		if w.seen++; w.seen > maxWalk {
			w.full = true
			return errStop
		}
		if w.seen&0x3ff == 0 && w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		kind := e.Type()
		if kind&fs.ModeIrregular != 0 {
			st, err := e.Info()
			if err != nil {
				continue
			}
			kind = st.Mode().Type()
		}
		if !kind.IsDir() && !kind.IsRegular() {
			continue
		}
		path := dir + "/" + e.Name()
		if dir == "/" {
			path = "/" + e.Name()
		}
		if w.leftOut(path, e.Name(), kind.IsDir(), rules) {
			continue
		}
		if !kind.IsDir() {
			err = visit(path)
		} else if depth < maxDepth {
			err = w.dir(path, rules, depth+1, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func hasEntry(entries []fs.DirEntry, name string) bool {
	// Sorted, and the names looked for begin with a dot: near the front.
	for _, e := range entries {
		if e.Name() >= name {
			return e.Name() == name
		}
	}
	return false
}

// leftOut decides by what was asked for, then by the rules, then by whether the
// name is hidden.
func (w *walker) leftOut(path, name string, isDir bool, rules *dirRules) bool {
	rel := relativeTo(w.root, path)
	switch patternList(w.globs).judge(rel, name, isDir) {
	case wanted: // negated
		return true
	case ignored: // matched: for a search that means wanted
		return false
	}
	if w.positive && !isDir {
		return true
	}
	if !w.noIgnore {
		switch rules.judge(path, name, isDir, w.user) {
		case ignored:
			return true
		case wanted:
			return false
		}
	}
	return !w.hidden && strings.HasPrefix(name, ".")
}

// searchDir finds out what a search's path argument names.
func (r *run) searchDir(arg string) (path string, st fs.FileInfo, err error) {
	path = r.Directory
	if arg != "" {
		path = r.resolve(arg)
	}
	st, err = files.Stat(path)
	return filepath.Clean(path), st, err
}
