package tool

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxFound is how many files glob gives, and how many lines grep.
const maxFound = 100

// glob finds files by name.
func glob(ctx context.Context, r *run, a *args) (Result, error) {
	pattern := a.str("pattern", true)
	dir := a.path("path", false)
	if strings.ContainsRune(pattern, 0) {
		a.fail(`"pattern" contains a NUL byte, which no path can`)
	}
	if a.err != nil {
		return Result{}, a.err
	}
	err := r.ask(ctx, "glob", []string{pattern}, []string{"*"}, given(a, "pattern", "path"))
	if err != nil {
		return Result{}, err
	}
	root, st, err := r.searchDir(dir)
	if err == nil && !st.IsDir() {
		return Result{}, failf(sandbox.CodeNotDirectory, "glob path must be a directory: %s", root)
	}
	if err := r.askExternal(ctx, root, true); err != nil {
		return Result{}, err
	}
	if err != nil {
		if errors.Is(err, files.ErrMagicLink) {
			return Result{}, readError(root, err)
		}
		return Result{}, fail(err, "glob path does not exist or cannot be read: %s", root)
	}
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	w, err := r.newWalker(ctx, root, pattern, false)
	if err != nil {
		return Result{}, err
	}
	var found []string
	err = w.walk(func(path string) error {
		if found = append(found, path); len(found) == maxFound {
			return errStop
		}
		return nil
	})
	truncated := len(found) == maxFound || w.full
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			err = failf(sandbox.CodeTimeout, "The search took longer than %v. Use a more specific path.", searchTime)
		}
		return Result{}, err
	}
	lines := found
	if len(found) == 0 {
		lines = []string{"No files found"}
	}
	if truncated {
		lines = append(lines[:len(lines):len(lines)], "",
			fmt.Sprintf("(Results are truncated: showing first %d results. Consider using a more specific path or pattern.)", len(found)))
	}
	return Result{
		Title:    r.relative(root),
		Output:   r.fit(strings.Join(lines, "\n")),
		Metadata: map[string]any{"count": len(found), "truncated": truncated},
	}, nil
}

// given repeats the string arguments that a call has, for the metadata of a
// question.
func given(a *args, names ...string) map[string]any {
	m := map[string]any{}
	for _, name := range names {
		if a.has(name) {
			m[name] = a.str(name, false)
		}
	}
	return m
}
