//go:build linux

package project_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/internal/snapshot"
)

// TestSeed: states of a project begin with what was taken in, and are the same as without that.
func TestSeed(t *testing.T) {
	t.Parallel()
	if project.MaxSeedFile != snapshot.MaxFileBytes {
		t.Error("states leave out other files")
	}
	m := newMachine(t)
	odd(t, m.dir)
	write(t, m.dir, "large", strings.Repeat("large", 1<<20))
	write(t, m.dir, ".gitattributes", "*.big filter=lfs\n*.dos text eol=crlf\n")
	write(t, m.dir, "x.dos", "a\r\nb\r\n")
	write(t, m.dir, "x.big", "what the filter makes\n")
	git(t, m.dir, "init", "-q", "-b", "main")
	git(t, m.dir, "add", "-A")
	// As a filter leaves it: the index has something else, and takes the file for that.
	write(t, m.dir, "pointer", "pointer\n")
	pointer := git(t, m.dir, "hash-object", "-w", "pointer")
	git(t, m.dir, "update-index", "--cacheinfo", "100644,"+pointer+",x.big")
	git(t, m.dir, "commit", "-qm", "first")
	write(t, m.dir, "inner/file", "x\n")
	git(t, filepath.Join(m.dir, "inner"), "init", "-q")
	git(t, filepath.Join(m.dir, "inner"), "add", ".")
	git(t, filepath.Join(m.dir, "inner"), "commit", "-qm", "inner")
	l := m.take(project.Options{Map: m.image.Map})
	seeded, bare := m.sandbox("seeded", "", l), m.sandbox("bare", "", l)
	m.sh(bare, "rm -rf ~/.local/share/tongs/seed")
	states := map[string]*snapshot.Store{"seeded": snapshot.Open(seeded, "/home/user/project", "/home/user"), "bare": snapshot.Open(bare, "/home/user/project", "/home/user")}
	took := map[string][]snapshot.Tree{}
	take := func(ref string) {
		t.Helper()
		for name, s := range states {
			tree, err := s.Take(t.Context(), snapshot.Refs{Set: []string{ref}})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			took[name] = append(took[name], tree)
		}
		if n := len(took["bare"]) - 1; took["seeded"][n] != took["bare"][n] {
			t.Errorf("%s: the states are not the same", ref)
		}
	}
	take("first")
	if got := m.sh(seeded, "git --git-dir ~/.local/share/tongs/snapshot.git count-objects -v | grep ^alternate"); !strings.Contains(got, "seed/objects") {
		t.Errorf("the seed is not used: %s", got)
	}
	work := "echo more >>plain.txt; rm dir/b; echo x >>large; echo y >>x.big; echo new >'new file'; chmod 755 empty; rm -rf .git"
	m.sh(seeded, work)
	m.sh(bare, work)
	take("second")
	// What the agent did to its repository does not matter.
	if missing := m.sh(seeded, "git --git-dir ~/.local/share/tongs/snapshot.git fsck --no-dangling --connectivity-only 2>&1 | grep -i missing"); missing != "" {
		t.Error(missing)
	}
}
