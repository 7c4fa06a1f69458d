package project_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/project"
)

// odd makes files that are hard to carry.
func odd(t *testing.T, dir string) {
	t.Helper()
	for name, data := range map[string]string{
		"plain.txt": "one\ntwo\nthree\n", "with space.txt": "x\n", "q\"uote'.txt": "q\n", "new\nline.txt": "n\n", "tab\t.txt": "t\n", "latin\xe9.txt": "l\n",
		"ünïcode.txt": "u\n", "-dash": "d\n", "--all": "d\n", ":(top)magic": "m\n", "*star*": "s\n", "back\\slash": "b\n", "$(touch x)": "c\n", "dir/deep/er/file": "deep\n",
		"binary.bin": "\x00\x01\x02\xff\xfe", "empty": "", "no newline": "end", "crlf.txt": "a\r\nb\r\n", "dir.x/a": "1\n", "dir/b": "2\n", "dir-y": "3\n", "moved/from here": strings.Repeat("the same line\n", 30),
		strings.Repeat("long", 60): "long\n", "a -> b": "arrow\n", "trailing ": "t\n", ".hidden": "h\n",
	} {
		write(t, dir, name, data)
	}
	write(t, dir, "run.sh", "#!/bin/sh\necho hi\n")
	if err := os.Chmod(filepath.Join(dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": "plain.txt", "dangling": "nowhere", "loop": "loop", "dirlink": "dir", "out": "/etc/passwd", "up": "../../up"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTakeHasEverything(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	odd(t, r.dir)
	write(t, r.dir, ".gitignore", "*.log\nnode_modules/\n")
	r.commit()
	git(t, r.dir, "branch", "other")
	git(t, r.dir, "tag", "-a", "v1", "-m", "tag")
	write(t, r.dir, "plain.txt", "one\n2\nthree\n")     // not staged
	write(t, r.dir, "dir/b", "staged\n")                // staged
	git(t, r.dir, "add", "dir/b")                       //
	write(t, r.dir, "untracked/file", "new\n")          // not tracked
	write(t, r.dir, "build.log", "ignored\n")           // ignored
	write(t, r.dir, "node_modules/x/index.js", "ign\n") // ignored
	if err := os.Remove(filepath.Join(r.dir, "empty")); err != nil {
		t.Fatal(err)
	}
	status := git(t, r.dir, "status", "--porcelain") // which writes the index
	before := tree(t, r.dir, true)

	l := r.take(project.Options{})
	taken := filepath.Join(l.Root(), inside)
	want := without(tree(t, r.dir, false), ".git")
	delete(want, "build.log")
	want = without(want, "node_modules")
	if diff := cmp.Diff(want, without(tree(t, taken, false), ".git")); diff != "" {
		t.Errorf("files in the layer: %s", diff)
	}
	if diff := cmp.Diff(before, tree(t, r.dir, true)); diff != "" {
		t.Errorf("the project was touched: %s", diff)
	}
	b := newBox(t, l)
	if diff := cmp.Diff(status, git(t, b.dir(), "status", "--porcelain")); diff != "" {
		t.Errorf("status: %s", diff)
	}
	for _, args := range [][]string{{"log", "--format=%H %s", "--all"}, {"branch", "--format=%(refname) %(objectname)"}, {"show", "v1"}, {"diff", "--cached"}, {"diff"}} {
		if diff := cmp.Diff(git(t, r.dir, args...), git(t, b.dir(), args...)); diff != "" {
			t.Errorf("git %q: %s", args, diff)
		}
	}
	git(t, b.dir(), "fsck", "--strict")
	if got := git(t, b.dir(), "symbolic-ref", "HEAD"); got != "refs/heads/main" {
		t.Errorf("HEAD is %s", got)
	}
	if diff := cmp.Diff([]string(nil), l.Notes); diff != "" {
		t.Errorf("notes: %s", diff)
	}
	with := r.take(project.Options{Ignored: true})
	if data, err := os.ReadFile(filepath.Join(with.Root(), inside, "node_modules/x/index.js")); err != nil || string(data) != "ign\n" {
		t.Errorf("what is ignored is not taken: %q, %v", data, err)
	}
}

func TestDiffAndPull(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	odd(t, r.dir)
	r.commit()
	write(t, r.dir, "plain.txt", "one\ntwo\nthree\nmine\n")
	write(t, r.dir, "untracked", "mine\n")
	l := r.take(project.Options{})
	b := newBox(t, l)
	if got := r.patch(r.bring(l, b)); len(got) != 0 {
		t.Errorf("a patch of nothing: %s", got)
	}
	if p, err := r.bring(l, b).Pull(t.Context(), project.PullOptions{Name: "web"}); err != nil || p.Branch != "" {
		t.Errorf("pull of nothing: %+v, %v", p, err)
	}

	write(t, b.dir(), "plain.txt", "one\ntwo\n3\nmine\n")
	write(t, b.dir(), "untracked", "mine\nand the agent's\n")
	write(t, b.dir(), "with space.txt", "changed\n")
	write(t, b.dir(), "q\"uote'.txt", "changed\n")
	write(t, b.dir(), "new\nline.txt", "changed\n")
	write(t, b.dir(), "latin\xe9.txt", "changed\n")
	write(t, b.dir(), "ünïcode.txt", "changed\n")
	write(t, b.dir(), "binary.bin", "\x00\x01\x02\xff\xfe\x00more")
	write(t, b.dir(), "new \"dir\"/f\xff", "\x00new binary")
	write(t, b.dir(), "no newline", "other end")
	for _, do := range []error{
		os.Remove(filepath.Join(b.dir(), "tab\t.txt")), os.Rename(filepath.Join(b.dir(), "moved/from here"), filepath.Join(b.dir(), "moved to")), os.Remove(filepath.Join(b.dir(), "moved")),
		os.Chmod(filepath.Join(b.dir(), "dir/b"), 0o755), os.Chmod(filepath.Join(b.dir(), "run.sh"), 0o644),
		os.Remove(filepath.Join(b.dir(), "link")), os.Symlink("dir/b", filepath.Join(b.dir(), "link")),
		os.Remove(filepath.Join(b.dir(), "dangling")), os.WriteFile(filepath.Join(b.dir(), "dangling"), []byte("a file now\n"), 0o644),
	} {
		if do != nil {
			t.Fatal(do)
		}
	}
	git(t, b.dir(), "commit", "-q", "-m", "the agent's", "with space.txt")
	write(t, b.dir(), "with space.txt", "changed once more\n")

	before := tree(t, r.dir, true)
	w := r.bring(l, b)
	patch := r.patch(w)
	if out, err := gitErr(t, r.dir, patch, "apply", "--check", "-"); err != nil {
		t.Fatalf("git apply --check: %v %s\n%s", err, out, patch)
	}
	p, err := w.Pull(t.Context(), project.PullOptions{Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Branch != "tongs/web" || p.Commits != 2 || !p.Uncommitted {
		t.Errorf("pulled %+v", p)
	}
	if diff := cmp.Diff(without(before, ".git"), without(tree(t, r.dir, true), ".git")); diff != "" {
		t.Errorf("the work tree was touched: %s", diff)
	}
	after := tree(t, r.dir, true)
	for name, text := range before {
		dir := strings.HasPrefix(text, "d")
		if !dir && after[name] != text {
			t.Errorf("%s was touched:\n%s\n%s", name, text, after[name])
		}
	}
	git(t, r.dir, "fsck", "--strict")
	if got := git(t, r.dir, "log", "--format=%s", "main..tongs/web"); got != "Uncommitted work of sandbox web\nthe agent's" {
		t.Errorf("log: %s", got)
	}
	// What the patch makes is what the sandbox has, and what the branch has.
	if out, err := gitErr(t, r.dir, patch, "apply", "-"); err != nil {
		t.Fatalf("git apply: %v %s", err, out)
	}
	want := without(tree(t, b.dir(), false), ".git")
	if diff := cmp.Diff(want, without(tree(t, r.dir, false), ".git")); diff != "" {
		t.Errorf("after git apply: %s", diff)
	}
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, r.dir, "clone", "-q", "-b", "tongs/web", r.dir, clone)
	if diff := cmp.Diff(want, without(tree(t, clone, false), ".git")); diff != "" {
		t.Errorf("the branch: %s", diff)
	}
	// Once more is another branch, and a branch that is there is refused.
	if p, err := w.Pull(t.Context(), project.PullOptions{Name: "web"}); err != nil || p.Branch != "tongs/web-2" {
		t.Errorf("pulled once more: %+v, %v", p, err)
	}
	if _, err := w.Pull(t.Context(), project.PullOptions{Name: "web", Branch: "main"}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("pull into main: %v", err)
	}
	for _, name := range []string{"-x", "a..b", "refs/heads/x", "HEAD", "x.lock", "a b", "tongs/web/x"} {
		if _, err := w.Pull(t.Context(), project.PullOptions{Name: "web", Branch: name}); err == nil {
			t.Errorf("pull into %q is taken", name)
		}
	}
}
