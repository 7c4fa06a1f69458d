package tool

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/internal/files"
)

// What a search leaves out, by ripgrep's rules (ripgrep's GUIDE.md, "Automatic
// filtering"): .rgignore over .ignore over .gitignore over .git/info/exclude
// over the user's own file; nearer directories over farther ones; those of git
// only inside a repository, and never beyond its root.

const (
	maxIgnoreFile  = 1 << 20 // bytes of one file of patterns
	maxIgnoreLines = 10000   // patterns of one
)

// verdict is what patterns say about a path.
type verdict int

const (
	undecided verdict = iota
	ignored
	wanted
)

// patternList is the patterns of one file; the last that matches decides.
type patternList []pathPattern

func (l patternList) judge(rel, name string, isDir bool) verdict {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].matches(rel, name, isDir) {
			if l[i].negated {
				return wanted
			}
			return ignored
		}
	}
	return undecided
}

func readPatterns(ctx context.Context, path string) patternList {
	st, err := files.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	data, err := readWhole(ctx, path, maxIgnoreFile)
	if err != nil {
		return nil
	}
	text, _ := splitBOM(string(data))
	var list patternList
	for line := range strings.Lines(text) {
		if len(list) >= maxIgnoreLines {
			break
		}
		// What can't be understood is passed over, as git does.
		if p, ok, _ := ignoreLine(strings.TrimRight(line, "\r\n")); ok {
			list = append(list, p)
		}
	}
	return list
}

// dirRules is what the files in one directory say, linked to those above it.
type dirRules struct {
	above *dirRules
	dir   string // absolute
	repo  bool   // it has a .git

	rgignore, ignore, gitignore, exclude patternList
}

// rulesOf reads the rules of a directory. Names it has are given when they are
// known, so that a file that isn't there costs nothing.
func rulesOf(ctx context.Context, dir string, above *dirRules, has func(string) bool) *dirRules {
	d := &dirRules{above: above, dir: dir}
	read := func(name string) patternList {
		if !has(name) {
			return nil
		}
		return readPatterns(ctx, filepath.Join(dir, name))
	}
	d.rgignore, d.ignore, d.gitignore = read(".rgignore"), read(".ignore"), read(".gitignore")
	if has(".git") {
		d.repo = true
		d.exclude = readPatterns(ctx, filepath.Join(dir, ".git", "info", "exclude"))
	}
	if above != nil && !d.repo && len(d.rgignore)+len(d.ignore)+len(d.gitignore) == 0 {
		return above // it says nothing
	}
	return d
}

// rulesAbove reads the rules of a directory and of all those above it.
func rulesAbove(ctx context.Context, dir string) *dirRules {
	var above *dirRules
	if parent := filepath.Dir(dir); parent != dir {
		above = rulesAbove(ctx, parent)
	}
	return rulesOf(ctx, dir, above, func(name string) bool {
		_, err := files.Lstat(filepath.Join(dir, name))
		return err == nil
	})
}

// inRepo reports whether a directory with these rules is in a git repository.
func (d *dirRules) inRepo() bool {
	for ; d != nil; d = d.above {
		if d.repo {
			return true
		}
	}
	return false
}

// judge says whether a path (absolute, below d.dir) is left out.
func (d *dirRules) judge(path, name string, isDir bool, user *userRules) verdict {
	var byRg, byIgnore, byGit, byExclude verdict
	git, left := d.inRepo(), false
	for at := d; at != nil; at = at.above {
		rel := relativeTo(at.dir, path)
		first := func(v *verdict, list patternList) {
			if *v == undecided && len(list) > 0 {
				*v = list.judge(rel, name, isDir)
			}
		}
		first(&byRg, at.rgignore)
		first(&byIgnore, at.ignore)
		if git && !left {
			first(&byGit, at.gitignore)
			first(&byExclude, at.exclude)
		}
		left = left || at.repo
	}
	for _, v := range []verdict{byRg, byIgnore, byGit, byExclude} {
		if v != undecided {
			return v
		}
	}
	if git && user != nil {
		return user.list.judge(relativeTo(user.dir, path), name, isDir)
	}
	return undecided
}

// relativeTo cuts a directory off a path below it. Both are absolute and clean.
func relativeTo(dir, path string) string {
	if dir == "/" {
		return path[1:]
	}
	return path[len(dir)+1:]
}

// userRules is git's ignore file of the user.
type userRules struct {
	dir  string // patterns are relative to where the search begins
	list patternList
}

// userIgnore reads core.excludesFile, or git's default for it.
func (r *run) userIgnore(ctx context.Context, dir string) *userRules {
	home := r.Home
	if home == "" {
		home = os.Getenv("HOME")
	}
	if home == "" {
		return nil
	}
	config := r.variable("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	file := filepath.Join(config, "git", "ignore")
	for _, path := range []string{filepath.Join(home, ".gitconfig"), filepath.Join(config, "git", "config")} {
		if named := excludesFile(ctx, path); named != "" {
			if rest, ok := strings.CutPrefix(named, "~/"); ok {
				named = filepath.Join(home, rest)
			}
			file = named
			break
		}
	}
	if list := readPatterns(ctx, file); list != nil {
		return &userRules{dir: dir, list: list}
	}
	return nil
}

// variable looks one up in the commands' environment.
func (r *run) variable(name string) string {
	for i := len(r.Environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(r.Environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// excludesFile finds the setting in a git configuration file.
func excludesFile(ctx context.Context, path string) string {
	if st, err := files.Stat(path); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	data, err := readWhole(ctx, path, maxIgnoreFile)
	if err != nil {
		return ""
	}
	section := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.ToLower(strings.Trim(line, "[] \t"))
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok && section == "core" && strings.EqualFold(strings.TrimSpace(key), "excludesfile") {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}
