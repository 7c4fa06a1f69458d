package tool

import (
	"context"
	"slices"
)

// IgnoreRules say what a search leaves out of a tree: the files of patterns in it
// and above it. nil leaves out nothing.
type IgnoreRules struct {
	ctx   context.Context
	rules *dirRules
	user  *userRules
}

// NewIgnoreRules reads the rules of a directory (absolute, clean). home and environ
// are those of the commands: where git's own settings are.
func NewIgnoreRules(ctx context.Context, dir, home string, environ []string) *IgnoreRules {
	if dir == "" {
		dir = "/"
	}
	r := &run{Env: Env{Home: home, Environ: environ}}
	return &IgnoreRules{ctx: ctx, rules: rulesAbove(ctx, dir), user: r.userIgnore(ctx, dir)}
}

// Below gives the rules of a directory directly below, which has these names,
// sorted.
func (r *IgnoreRules) Below(dir string, names []string) *IgnoreRules {
	if r == nil {
		return nil
	}
	rules := rulesOf(r.ctx, dir, r.rules, func(name string) bool {
		_, found := slices.BinarySearch(names, name)
		return found
	})
	return &IgnoreRules{ctx: r.ctx, rules: rules, user: r.user}
}

// Ignored reports whether a path directly in the directory is left out; .git is.
func (r *IgnoreRules) Ignored(path, name string, isDir bool) bool {
	return r != nil && (name == ".git" || r.rules.judge(path, name, isDir, r.user) == ignored)
}
