package tool

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// resolve makes a path from an argument absolute and lexically clean, so that
// the path that is asked about and the one that is used are the same.
func (r *run) resolve(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.Directory, path)
	}
	return filepath.Clean(path)
}

// relative is how titles and patterns name a path: relative to the worktree,
// "" for the worktree itself.
func (r *run) relative(path string) string {
	rel, err := filepath.Rel(r.Worktree, path)
	if err != nil {
		return path
	}
	if rel == "." {
		return ""
	}
	return rel
}

// contains reports whether path is dir or below it. Both are clean.
func contains(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// inside reports whether a path belongs to the project: no permission is asked
// for where it lies. A worktree of "/" is that of a directory without one.
func (r *run) inside(path string) bool {
	if contains(r.Directory, path) || r.Worktree != "/" && contains(r.Worktree, path) {
		return true
	}
	// The project's directory may itself be named by way of a link.
	if contains(realPath(r.Directory), path) {
		return true
	}
	return r.Worktree != "/" && contains(realPath(r.Worktree), path)
}

// realPath resolves the links in a path as far as the path exists. A path that
// can't be resolved (a loop, no right to look) stays what it is.
func realPath(path string) string {
	rest := ""
	for dir := path; ; {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest)
		}
		// A link to something that isn't there: what would be made is its target.
		if target, err := files.Readlink(dir); err == nil && os.IsNotExist(statErr(dir)) {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(dir), target)
			}
			return filepath.Join(target, rest)
		}
		if !os.IsNotExist(err) || dir == "/" {
			return path
		}
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
	}
}

func statErr(path string) error { _, err := files.Stat(path); return err }

// askExternal asks for the permission external_directory when a path is outside
// the project, as it is written or as its links resolve. isDir says that the
// path is itself the directory in question.
func (r *run) askExternal(ctx context.Context, path string, isDir bool) error {
	targets := []string{path}
	if real := realPath(path); real != path {
		targets = append(targets, real)
	}
	asked := map[string]bool{}
	for _, target := range targets {
		if r.inside(target) {
			continue
		}
		dir := target
		if !isDir {
			dir = filepath.Dir(target)
		}
		pattern := filepath.Join(dir, "*")
		if asked[pattern] {
			continue
		}
		asked[pattern] = true
		err := r.ask(ctx, "external_directory", []string{pattern}, []string{pattern},
			map[string]any{"filepath": target, "parentDir": dir})
		if err != nil {
			return err
		}
	}
	return nil
}
