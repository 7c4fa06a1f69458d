package project

import (
	"bytes"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a/b", ".git", "a/.GIT/x", "../x", "a//b", "/x", ".g\u200cit ", "git~1", "a/./b", "", "\xff", ".git:x"} {
		f.Add(name, "target")
		f.Add("dir/link", name)
	}
	f.Fuzz(func(t *testing.T, name, target string) {
		if badPath(name) == "" {
			if !filepath.IsLocal(name) || filepath.Clean(name) != name || len(name) > 4096 {
				t.Errorf("%q is taken", name)
			}
			for part := range strings.SplitSeq(strings.ToLower(name), "/") {
				if strings.TrimRight(part, ". ") == ".git" {
					t.Errorf("%q is taken", name)
				}
			}
		}
		if badPath(name) == "" && !leadsOut(name, target) {
			if at := filepath.Join(filepath.Dir(name), target); strings.HasPrefix(target, "/") || !filepath.IsLocal(at) || badPath(at) != "" && at != "." {
				t.Errorf("%q leads to %q, and is taken", name, target)
			}
		}
	})
}

func FuzzCleanURL(f *testing.F) {
	for _, text := range []string{"https://me:SECRET@example.org/x?SECRET", "git@example.org:x", "ext::sh -c SECRET", "ssh://u:SECRET@h/x", "/SECRET", "https://SECRET@h/#SECRET", "http://h\nx"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		clean, ok := cleanURL(text)
		if !ok {
			return
		}
		if strings.Contains(clean, "://") {
			u, err := url.Parse(clean)
			if err != nil || u.RawQuery != "" && u.Scheme != "ssh" || u.Fragment != "" && u.Scheme != "ssh" {
				t.Errorf("%q becomes %q: %v", text, clean, err)
				return
			}
			if _, has := u.User.Password(); has || u.User != nil && u.Scheme != "ssh" {
				t.Errorf("%q becomes %q", text, clean)
			}
		} else if strings.Contains(clean, "::") {
			t.Errorf("%q becomes %q", text, clean)
		}
	})
}

// FuzzReceive: whatever a sandbox sends before its pack ends in an answer.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("tongs-project 0123456789012345678901234567890123456789 \n"))
	f.Add([]byte("tongs-project  \n\n"))
	f.Add(bytes.Repeat([]byte("x"), 1000))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &Work{layer: &Layer{about: about{Format: "sha1"}}, git: &git{program: "/bin/false", dir: "/"}}
		if err := w.receive(t.Context(), bytes.NewReader(data)); err == nil {
			t.Error("git fails, and that is taken")
		}
		if w.Tree != "" && !validOID.MatchString(w.Tree) || w.Head != "" && !validOID.MatchString(w.Head) {
			t.Errorf("taken: %q %q", w.Tree, w.Head)
		}
	})
}

// TestOrder: what is in a directory comes right behind it.
func TestOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.StringMatching(`[a.\-/]{1,8}`), 1, 40).Draw(t, "names")
		names = slices.DeleteFunc(names, func(n string) bool { return filepath.Clean(n) != n || !filepath.IsLocal(n) })
		slices.SortFunc(names, comparePaths)
		for i, dir := range names {
			left := false
			for _, name := range names[i+1:] {
				within := strings.HasPrefix(name, dir+"/")
				if within && left {
					t.Fatalf("%q: %q is apart from %q", names, name, dir)
				}
				left = left || !within && name != dir
			}
			for _, name := range names[:i] {
				if strings.HasPrefix(name, dir+"/") {
					t.Fatalf("%q: %q comes before %q", names, name, dir)
				}
			}
		}
	})
}

// TestQuotedConfig: a setting is what git reads back.
func TestQuotedConfig(t *testing.T) {
	t.Parallel()
	program, err := findGit()
	if err != nil {
		t.Skip(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.StringMatching(`[ -~äé]{1,12}`).Draw(rt, "name")
		value := rapid.StringMatching(`[ -~\n\té;#]{0,20}`).Draw(rt, "value")
		r := repo{Format: "sha1", Config: []setting{{"branch." + name + ".merge", value}}}
		g := &git{program: program, dir: "/"}
		got, err := g.run(t.Context(), []byte(r.config()), 1<<20, "config", "--file=-", "-z", "--get", "branch."+name+".merge")
		if err != nil || strings.TrimSuffix(string(got), "\x00") != value {
			rt.Fatalf("%q = %q is read as %q, %v", name, value, got, err)
		}
	})
}
