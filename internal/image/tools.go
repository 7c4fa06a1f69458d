package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// toolchain is a place below somebody's home that holds programs and nothing else. Homes hold secrets,
// so only what is listed here is ever bound, and never the home itself.
type toolchain struct {
	path string   // what is bound, relative to the home; may be a pattern
	more []string // what its programs need besides, relative to the home
	env  string   // a variable that names the first of more, or path, at its place inside
}

var toolchains = []toolchain{
	{path: ".nvm/versions/node/*"},
	{path: ".local/share/fnm/node-versions/*"},
	{path: ".volta"},
	{path: ".bun/bin"},
	{path: ".deno/bin"},
	{path: ".pyenv", env: "PYENV_ROOT"},
	{path: ".cargo/bin", more: []string{".rustup"}, env: "RUSTUP_HOME"},
	{path: "go/bin"},
	{path: ".asdf", env: "ASDF_DIR"},
	{path: ".local/share/mise/shims", more: []string{".local/share/mise/installs"}},
	{path: ".sdkman/candidates"},
	{path: "miniconda3"}, {path: "miniforge3"}, {path: "anaconda3"},
	{path: ".linuxbrew"},
}

// tools is what findTools found.
type tools struct {
	path  []string // PATH inside
	env   []string
	notes []Note
}

var standardPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// findTools goes through the host's PATH: what is below /usr is there anyway, a known kind of
// toolchain elsewhere is bound, and the rest is left out and noted.
func findTools(cfg HostConfig, t *tree) tools {
	homes := cfg.homes
	if homes == nil {
		homes = homeDirs(cfg.Environ)
	}
	found := tools{path: []string{Home + "/.local/bin"}}
	keep := func(dir string) {
		if !slices.Contains(found.path, dir) {
			found.path = append(found.path, dir)
		}
	}
	for _, dir := range filepath.SplitList(lookup(cfg.Environ, "PATH")) {
		if !filepath.IsAbs(dir) {
			continue
		}
		dir = filepath.Clean(dir)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		switch {
		case underAny(dir, t.visible) || slices.Contains(standardPath, dir):
			keep(dir)
		case found.bindToolchain(t, homes, dir):
			keep(dir)
		}
	}
	for _, dir := range standardPath {
		keep(dir)
	}
	return found
}

// bindToolchain binds what dir belongs to, if it is something we know.
func (f *tools) bindToolchain(t *tree, homes []string, dir string) bool {
	for _, home := range homes {
		if !under(dir, home) {
			continue
		}
		for _, c := range toolchains {
			root, ok := matchPrefix(home, c.path, dir)
			if !ok || !f.bind(t, root) {
				continue
			}
			named := root
			for i, m := range c.more {
				p := filepath.Join(home, m)
				if f.bind(t, p) && i == 0 {
					named = p
				}
			}
			if kv := c.env + "=" + named; c.env != "" && !slices.Contains(f.env, kv) {
				f.env = append(f.env, kv)
			}
			return true
		}
		f.note(Note{Subject: dir, Detail: "is in a home directory and no toolchain we know; homes hold secrets, so it is left out"})
		return false
	}
	switch {
	case under(dir, "/opt") && dir != "/opt":
		return f.bind(t, filepath.Join("/opt", strings.Split(strings.TrimPrefix(dir, "/opt/"), "/")[0]))
	case under(dir, "/nix"):
		return f.bind(t, "/nix/store") && f.bind(t, "/nix/var/nix/profiles")
	}
	f.note(Note{Subject: dir, Detail: "is outside of /usr and /opt, so it is left out"})
	return false
}

// matchPrefix says whether dir is home/pattern or below it, and what the pattern matched.
func matchPrefix(home, pattern, dir string) (string, bool) {
	rel, err := filepath.Rel(home, dir)
	if err != nil {
		return "", false
	}
	parts, n := strings.Split(rel, "/"), strings.Count(pattern, "/")+1
	if len(parts) < n {
		return "", false
	}
	head := filepath.Join(parts[:n]...)
	ok, err := filepath.Match(pattern, head)
	return filepath.Join(home, head), err == nil && ok
}

// bind makes a directory of the host visible at its own path, if everybody may read it.
func (f *tools) bind(t *tree, dir string) bool {
	if underAny(dir, t.visible) {
		return true
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return false
	}
	if info.Mode()&fs.ModeSymlink != 0 || !info.IsDir() {
		f.note(Note{Subject: dir, Detail: "is not a directory itself, so it is left out"})
		return false
	}
	if info.Mode().Perm()&0o005 != 0o005 {
		f.note(Note{Subject: dir, Detail: "can't be read by everybody, so nobody inside could use it: `chmod o+rx` it"})
		return false
	}
	t.dir(dir, 0o755)
	t.bind(dir, dir)
	t.visible = append(t.visible, dir)
	f.note(Note{Subject: dir, Visible: true, Detail: "is visible in sandboxes, read-only"})
	return true
}

func (f *tools) note(n Note) {
	if !slices.Contains(f.notes, n) {
		f.notes = append(f.notes, n)
	}
}

// homeDirs are the directories in which secrets are to be expected.
func homeDirs(environ []string) []string {
	homes := []string{"/root"}
	if h := lookup(environ, "HOME"); filepath.IsAbs(h) && h != "/" {
		homes = append(homes, filepath.Clean(h))
	}
	entries, err := os.ReadDir("/home")
	if err == nil {
		for _, e := range entries {
			homes = append(homes, filepath.Join("/home", e.Name()))
		}
	}
	slices.Sort(homes)
	return slices.Compact(homes)
}

func lookup(environ []string, key string) string {
	for _, kv := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}
