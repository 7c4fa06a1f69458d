package tool

import (
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

// A Filter says which paths below a directory are wanted. Patterns are lines as in
// a .gitignore file.
type Filter struct{ include, exclude patternList }

// NewFilter compiles patterns. Without any to include, all is included. The error
// is a *sandbox.Error, CodeInvalidArgument.
func NewFilter(include, exclude []string) (*Filter, error) {
	var f Filter
	if n := len(include) + len(exclude); n > sandbox.MaxWatchPatterns {
		return nil, failf(sandbox.CodeInvalidArgument, "there are %d patterns, and %d may be", n, sandbox.MaxWatchPatterns)
	}
	for _, side := range []struct {
		lines []string
		to    *patternList
	}{{include, &f.include}, {exclude, &f.exclude}} {
		for _, line := range side.lines {
			p, ok, err := ignoreLine(line)
			switch {
			case err != nil:
				return nil, failf(sandbox.CodeInvalidArgument, "%v", err)
			case strings.ContainsRune(line, 0):
				return nil, failf(sandbox.CodeInvalidArgument, "a pattern contains a NUL byte, which no path can")
			case ok:
				*side.to = append(*side.to, p)
			}
		}
	}
	return &f, nil
}

// Excluded reports whether a path, relative to the directory, is left out.
func (f *Filter) Excluded(rel, name string, isDir bool) bool {
	return f.exclude.judge(rel, name, isDir) == ignored
}

// Wanted reports whether a path is included and not left out.
func (f *Filter) Wanted(rel, name string, isDir bool) bool {
	return (len(f.include) == 0 || f.include.judge(rel, name, isDir) == ignored) && !f.Excluded(rel, name, isDir)
}
