package doors

import (
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// maxRules bounds the rules that a project can make every listing look at.
const maxRules = 2000

// ignoreRules are those of one .gitignore at the top of a project; the last that
// matches decides.
type ignoreRules []ignoreRule

type ignoreRule struct {
	pattern string // of doublestar, from the top of the project
	negated bool   // ! in front: not ignored after all
	dirOnly bool   // / behind: directories only
}

// parseIgnore reads the format of gitignore(5). A line that cannot be read matches nothing.
func parseIgnore(text string) ignoreRules {
	var rules ignoreRules
	for line := range strings.Lines(text) {
		if len(rules) >= maxRules {
			break
		}
		line = strings.TrimRight(line, "\r\n")
		for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, "\\ ") {
			line = line[:len(line)-1]
		}
		if line == "" || line[0] == '#' {
			continue
		}
		var r ignoreRule
		if line[0] == '!' {
			r.negated, line = true, line[1:]
		}
		if strings.HasSuffix(line, "/") {
			r.dirOnly, line = true, strings.TrimSuffix(line, "/")
		}
		anchored := strings.Contains(line, "/")
		line = strings.TrimPrefix(line, "/")
		// gitignore knows no alternatives in braces.
		line = strings.NewReplacer("{", "\\{", "}", "\\}").Replace(line)
		if !anchored {
			line = "**/" + line
		}
		r.pattern = line
		if line == "" || !doublestar.ValidatePattern(line) {
			continue
		}
		rules = append(rules, r)
	}
	return rules
}

// match says whether a path, relative to the project and without a / at its end, is
// ignored: it, or a directory above it.
func (rules ignoreRules) match(p string, isDir bool) bool {
	if len(rules) == 0 {
		return false
	}
	if dir := path.Dir(p); dir != "." && dir != "/" && rules.match(dir, true) {
		return true
	}
	ignored := false
	for _, r := range rules {
		if r.dirOnly && !isDir || r.negated != ignored {
			continue // nothing that it could change
		}
		if ok, err := doublestar.Match(r.pattern, p); ok && err == nil {
			ignored = !r.negated
		}
	}
	return ignored
}
