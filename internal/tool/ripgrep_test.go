package tool_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestSearchAsRipgrep compares our walk, with its rules and patterns, with that
// of the rg that TONGS_TEST_RIPGREP names, on trees made at random.
func TestSearchAsRipgrep(t *testing.T) {
	t.Parallel()
	rg := os.Getenv("TONGS_TEST_RIPGREP")
	if rg == "" {
		rg, _ = exec.LookPath("rg")
	}
	if rg == "" {
		t.Skip("set TONGS_TEST_RIPGREP to an rg to compare with it")
	}
	dirs := rapid.SampledFrom([]string{"", "", "a", "b", "a/b", "b/a", ".h", "a/.h", "build", "a/build", "a/b/c"})
	names := rapid.SampledFrom([]string{"x.go", "x.js", "a", "b", "build", ".env", "x.log", "keep.log", "[x]", "x y", "é.go", "#x", "!x"})
	rule := rapid.SampledFrom([]string{
		"*.log", "!keep.log", "build", "/build", "build/", "a/", "/a", "a/b", "a/*", "!a/b", "**/b", "a/**", "**", "!*.go", "*", "!*/", ".h", ".*", "!.env", "x.*",
		"# no", "", "\\#x", "\\!x", "[x]", "\\[x\\]", "x y ", "b/**/c", "*.{go,js}", "/*/b", "[ab]", "[!ab].go", "?.go", "a//", "/", "**/", "a/**/x.go",
	})
	ignores := rapid.SampledFrom([]string{".gitignore", ".gitignore", ".ignore", ".rgignore"})
	globs := rapid.SampledFrom([]string{
		"*.go", "**/*.go", "*", "**", "**/*", "a/**", "a/*", "/a/*", "x.*", "!*.go", "!a", "!a/", "build", "build/**", "**/build/**", ".env", ".*", "{a,b}/*", "a/b", "a/", "[ab]/*", "*.log", "nothing", ".h/**", "**/.h/*",
	})
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, nil)
		for range rapid.IntRange(1, 20).Draw(rt, "files") {
			name := filepath.Join(dirs.Draw(rt, "dir"), names.Draw(rt, "name"))
			if makeParents(b.path(name)) {
				_ = os.WriteFile(b.path(name), []byte("needle\n"), 0o644) // not over a directory
			}
		}
		for range rapid.IntRange(0, 3).Draw(rt, "ignore files") {
			name := filepath.Join(dirs.Draw(rt, "dir"), ignores.Draw(rt, "ignore file"))
			text := strings.Join(rapid.SliceOfN(rule, 1, 4).Draw(rt, "rules"), "\n") + "\n"
			if makeParents(b.path(name)) {
				_ = os.WriteFile(b.path(name), []byte(text), 0o644)
			}
		}
		for range rapid.IntRange(0, 2).Draw(rt, "repositories") {
			_ = os.MkdirAll(b.path(filepath.Join(dirs.Draw(rt, "repository"), ".git", "info")), 0o755)
		}
		if rapid.Bool().Draw(rt, "exclude") {
			_ = os.WriteFile(b.path(".git/info/exclude"), []byte(rule.Draw(rt, "excluded")+"\n"), 0o644)
		}
		glob, sub := globs.Draw(rt, "glob"), dirs.Draw(rt, "below")
		root := b.path(sub)
		if st, err := os.Stat(root); err != nil || !st.IsDir() {
			root = b.dir
		}
		ask := func(args ...string) []string {
			cmd := exec.Command(rg, append(append([]string{"--no-config"}, args...), "--glob="+glob, "--glob=!**/.git/**")...)
			if !slices.Contains(args, "--files") {
				cmd.Args = append(cmd.Args, "--", "needle", ".")
			} else {
				cmd.Args = append(cmd.Args, ".")
			}
			cmd.Dir, cmd.Env = root, []string{"HOME=" + b.env.Home}
			out, _ := cmd.Output()
			var found []string
			for line := range strings.Lines(string(out)) {
				found = append(found, filepath.Join(root, strings.TrimSuffix(line, "\n")))
			}
			slices.Sort(found)
			return found
		}
		var found []string
		for _, line := range strings.Split(b.ok("glob", m{"pattern": glob, "path": root}).Output, "\n") {
			if strings.HasPrefix(line, "/") {
				found = append(found, line)
			}
		}
		slices.Sort(found)
		if diff := cmp.Diff(ask("--files"), found); diff != "" {
			rt.Fatalf("glob %q in %s: rg (-) and ours (+)\n%s", glob, root, diff)
		}
		found = nil
		for _, line := range strings.Split(b.ok("grep", m{"pattern": "needle", "include": glob, "path": root}).Output, "\n") {
			if strings.HasPrefix(line, "/") {
				found = append(found, strings.TrimSuffix(line, ":"))
			}
		}
		slices.Sort(found)
		if diff := cmp.Diff(ask("--hidden", "--files-with-matches"), found); diff != "" {
			rt.Fatalf("grep with %q in %s: rg (-) and ours (+)\n%s", glob, root, diff)
		}
	})
}

// makeParents makes the directories above a path, unless a file is in the way.
func makeParents(path string) bool { return os.MkdirAll(filepath.Dir(path), 0o755) == nil }

// TestBinaryBeginning: a file with a NUL near its beginning is passed over, but for the lines that are whole in
// its first three bytes, which ripgrep reads by themselves to look for a byte order mark.
func TestBinaryBeginning(t *testing.T) {
	t.Parallel()
	rg, _ := exec.LookPath("rg")
	for _, c := range []struct {
		text, pattern string
		lines         int
	}{
		{"needle\nhay\n\x00x\n", "needle", 0}, {"n\nhay\n\x00x\n", "n", 1}, {"n\nn\nhay\n\x00x\n", "n", 1}, {"\n\nhay\n\x00x\n", "^$", 2},
		{"nn\nn\n\x00", "n", 1}, {"n\n\x00x\n", "n", 0}, {"\x00\nn\n", "n", 0}, {"\ufeffn\nn\n\x00", "n", 0}, {"\r\nhay\n\x00", "[^y]$", 1},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		res, err := tool.Grep(t.Context(), tool.Env{Directory: dir}, c.pattern, sandbox.GrepOptions{Scope: sandbox.Scope{Path: dir}})
		if err != nil || len(res.Matches) != c.lines {
			t.Errorf("%q in %q: %+v, %v, want %d lines", c.pattern, c.text, res, err, c.lines)
		}
		if rg == "" {
			continue
		}
		cmd := exec.Command(rg, "--no-config", "--no-messages", "--line-number", "--", c.pattern, ".")
		cmd.Dir = dir
		out, _ := cmd.Output() // exit status 1 is that there is none
		if got := len(regexp.MustCompile(`(?m)^[^:]*:\d+:`).FindAll(out, -1)); got != c.lines {
			t.Errorf("control: rg finds %q in %q %d times, not %d: %q", c.pattern, c.text, got, c.lines, out)
		}
	}
}
