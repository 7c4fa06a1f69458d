package project_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/project"
)

// TestRepositories takes repositories of every kind. Each makes a change in the sandbox, and has to get it back as a patch and as a
// branch.
func TestRepositories(t *testing.T) {
	t.Parallel()
	const first = "one\ntwo\nthree\n"
	for name, test := range map[string]struct {
		make    func(t *testing.T, r *rig)
		notPull string // why a pull is refused
		check   func(t *testing.T, r *rig, l *project.Layer, b *box)
	}{
		"usual": {make: func(t *testing.T, r *rig) { r.commit() }},
		"sha256": {make: func(t *testing.T, r *rig) { r.commit("--object-format=sha256") }, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, b.dir(), "rev-parse", "--show-object-format"); got != "sha256" {
				t.Errorf("format %s", got)
			}
		}},
		"detached HEAD": {make: func(t *testing.T, r *rig) {
			r.commit()
			write(t, r.dir, "x", "y\n")
			git(t, r.dir, "add", "x")
			git(t, r.dir, "commit", "-qm", "second")
			git(t, r.dir, "checkout", "-q", "HEAD~1")
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if _, err := gitErr(t, b.dir(), nil, "symbolic-ref", "-q", "HEAD"); err == nil {
				t.Error("HEAD is not detached")
			}
		}},
		"unborn branch": {make: func(t *testing.T, r *rig) {
			git(t, r.dir, "init", "-q", "-b", "trunk")
			git(t, r.dir, "add", "file")
		}},
		"empty index": {make: func(t *testing.T, r *rig) { git(t, r.dir, "init", "-q", "-b", "trunk") }},
		"shallow": {make: func(t *testing.T, r *rig) {
			r.commit()
			for _, n := range []string{"2", "3"} {
				write(t, r.dir, "n", n)
				git(t, r.dir, "add", "n")
				git(t, r.dir, "commit", "-qm", n)
			}
			from := r.dir
			r.dir += "-clone"
			git(t, from, "clone", "-q", "--depth=1", "file://"+from, r.dir)
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, b.dir(), "log", "--format=%s"); got != "3" {
				t.Errorf("log: %s", got)
			}
		}},
		"alternates": {make: func(t *testing.T, r *rig) {
			r.commit()
			from := r.dir
			r.dir += "-clone"
			git(t, from, "clone", "-q", "--shared", from, r.dir)
		}},
		"work tree": {make: func(t *testing.T, r *rig) {
			r.commit()
			from := r.dir
			r.dir += "-tree"
			git(t, from, "worktree", "add", "-q", "-b", "side", r.dir)
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, b.dir(), "branch", "--show-current"); got != "side" {
				t.Errorf("branch %s", got)
			}
			if info, err := os.Lstat(filepath.Join(b.dir(), ".git")); err != nil || !info.IsDir() {
				t.Error(".git is no directory")
			}
		}},
		"packed": {make: func(t *testing.T, r *rig) {
			r.commit()
			git(t, r.dir, "tag", "-a", "v1", "-m", "v1")
			git(t, r.dir, "gc", "-q")
		}},
		"split index": {make: func(t *testing.T, r *rig) {
			r.commit()
			git(t, r.dir, "update-index", "--split-index")
			write(t, r.dir, "more", "x\n")
			git(t, r.dir, "add", "more")
		}},
		"sparse": {make: func(t *testing.T, r *rig) {
			write(t, r.dir, "a/x", "a\n")
			write(t, r.dir, "b/x", "b\n")
			r.commit()
			git(t, r.dir, "sparse-checkout", "set", "--cone", "--sparse-index", "a")
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if _, err := os.Lstat(filepath.Join(b.dir(), "b")); err == nil {
				t.Error("what is not checked out is there")
			}
		}},
		"line ends": {make: func(t *testing.T, r *rig) {
			write(t, r.dir, ".gitattributes", "*.txt text eol=crlf\n*.bin -text\n")
			write(t, r.dir, "dos.txt", "a\r\nb\r\nc\r\n")
			write(t, r.dir, "x.bin", "a\r\nb\n")
			r.commit()
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			write(t, b.dir(), "dos.txt", "a\r\nB\r\nc\r\n")
			write(t, b.dir(), "x.bin", "a\r\nB\n")
		}},
		"autocrlf": {make: func(t *testing.T, r *rig) {
			git(t, r.dir, "init", "-q", "-b", "main")
			git(t, r.dir, "config", "core.autocrlf", "true")
			write(t, r.dir, "dos.txt", "a\r\nb\r\nc\r\n")
			r.commit()
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) { write(t, b.dir(), "dos.txt", "a\r\nB\r\nc\r\n") }},
		"filter": {make: func(t *testing.T, r *rig) {
			write(t, r.dir, ".gitattributes", "*.big filter=lfs diff=lfs -text\n")
			write(t, r.dir, "pointer.big", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
			r.commit()
			git(t, r.dir, "config", "filter.lfs.clean", "touch ran; cat")
			git(t, r.dir, "config", "filter.lfs.process", "touch ran; cat")
		}},
		"conflict": {make: func(t *testing.T, r *rig) {
			r.commit()
			git(t, r.dir, "checkout", "-q", "-b", "side")
			write(t, r.dir, "other", "side\n")
			git(t, r.dir, "add", ".")
			git(t, r.dir, "commit", "-qm", "side")
			git(t, r.dir, "checkout", "-q", "main")
			write(t, r.dir, "other", "main\n")
			git(t, r.dir, "add", ".")
			git(t, r.dir, "commit", "-qm", "main")
			if _, err := gitErr(t, r.dir, nil, "merge", "side"); err == nil {
				t.Fatal("there is no conflict")
			}
		}},
		"submodule": {make: func(t *testing.T, r *rig) {
			sub := newRig(t)
			write(t, sub.dir, "in-sub", "sub\n")
			sub.commit()
			r.commit()
			git(t, r.dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", sub.dir, "sub")
			git(t, r.dir, "commit", "-qm", "sub")
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, filepath.Join(b.dir(), "sub"), "log", "--format=%s"); got != "first" {
				t.Errorf("the submodule's log: %s", got)
			}
			write(t, b.dir(), "sub/in-sub", "changed\n")
		}},
		"repository within": {make: func(t *testing.T, r *rig) {
			r.commit()
			write(t, r.dir, "inner/file", "inner\n")
			git(t, filepath.Join(r.dir, "inner"), "init", "-q", "-b", "main")
			git(t, filepath.Join(r.dir, "inner"), "add", ".")
			git(t, filepath.Join(r.dir, "inner"), "commit", "-qm", "inner")
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, filepath.Join(b.dir(), "inner"), "log", "--format=%s"); got != "inner" {
				t.Errorf("the inner log: %s", got)
			}
		}},
		"no repository": {make: func(t *testing.T, r *rig) {
			write(t, r.dir, "inner/file", "inner\n")
			git(t, filepath.Join(r.dir, "inner"), "init", "-q", "-b", "main")
		}, notPull: "is no repository", check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			if got := git(t, b.dir(), "log", "--format=%s"); !strings.Contains(got, "as they were") {
				t.Errorf("log: %s", got)
			}
		}},
		"odd names of branches": {make: func(t *testing.T, r *rig) {
			r.commit()
			for _, branch := range []string{"ünï", "a/b/c", "with'quote", "-dash", "main.x"} {
				git(t, r.dir, "update-ref", "refs/heads/"+branch, "HEAD")
			}
		}},
		"settings": {make: func(t *testing.T, r *rig) {
			r.commit()
			for _, kv := range [][2]string{
				{"remote.origin.url", "https://me:SECRET@example.org/x.git?SECRET"}, {"remote.a\"b\\.url", "git@example.org:x"}, {"remote.ext.url", "ext::sh -c SECRET"},
				{"remote.ssh.url", "ssh://me:SECRET@example.org/x"}, {"remote.path.url", "/SECRET/path"},
				{"http.https://example.org/.extraheader", "AUTHORIZATION: basic SECRET"}, {"core.fsmonitor", "touch ran; false"}, {"core.sshCommand", "SECRET"},
				{"alias.x", "!SECRET"}, {"branch.main.remote", "origin"}, {"branch.main.merge", "refs/heads/main"}, {"credential.helper", "SECRET"}, {"user.name", "SECRET"},
			} {
				git(t, r.dir, "config", kv[0], kv[1])
			}
			write(t, r.dir, ".git/hooks/pre-commit", "#!/bin/sh\ntouch ran\n")
			if err := os.Chmod(filepath.Join(r.dir, ".git/hooks/pre-commit"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, check: func(t *testing.T, r *rig, l *project.Layer, b *box) {
			config, err := os.ReadFile(filepath.Join(l.Root(), inside, ".git/config"))
			if err != nil || strings.Contains(string(config), "SECRET") {
				t.Errorf("%v, configuration %s", err, config)
			}
			for key, want := range map[string]string{"remote.origin.url": "https://example.org/x.git", "remote.a\"b\\.url": "git@example.org:x", "remote.ssh.url": "ssh://me@example.org/x", "branch.main.merge": "refs/heads/main"} {
				if got := git(t, b.dir(), "config", key); got != want {
					t.Errorf("%s is %q", key, got)
				}
			}
			if _, err := os.Lstat(filepath.Join(l.Root(), inside, ".git/hooks")); err == nil {
				t.Error("hooks are there")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			write(t, r.dir, "file", first)
			test.make(t, r)
			write(t, r.dir, "untracked", "mine\n")
			status := git(t, r.dir, statusArgs(name)...)
			before := tree(t, r.dir, true)
			l := r.take(project.Options{})
			if diff := cmp.Diff(before, tree(t, r.dir, true)); diff != "" {
				t.Errorf("the project was touched: %s", diff)
			}
			if len(l.Notes) > 0 {
				t.Errorf("notes: %q", l.Notes)
			}
			b := newBox(t, l)
			if name != "no repository" {
				if diff := cmp.Diff(status, git(t, b.dir(), statusArgs(name)...)); diff != "" {
					t.Errorf("status: %s", diff)
				}
			}
			git(t, b.dir(), "fsck", "--strict", "--no-dangling")
			if got := r.patch(r.bring(l, b)); len(got) > 0 {
				t.Errorf("nothing changed, and the patch is %s", got)
			}
			write(t, b.dir(), "file", "one\n2\nthree\n")
			write(t, b.dir(), "new", "new\n")
			if test.check != nil {
				test.check(t, r, l, b)
			}
			w := r.bring(l, b)
			patch := r.patch(w)
			if out, err := gitErr(t, r.dir, patch, "apply", "--check", "-"); err != nil {
				t.Fatalf("git apply: %v %s\n%s", err, out, patch)
			}
			p, err := w.Pull(t.Context(), project.PullOptions{Name: "box"})
			if test.notPull != "" {
				if err == nil || !strings.Contains(err.Error(), test.notPull) {
					t.Errorf("pull: %+v, %v", p, err)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if got := git(t, r.dir, "show", p.Branch+":file"); got != "one\n2\nthree" {
				t.Errorf("the branch has %q", got)
			} else {
				git(t, r.dir, "fsck", "--strict", "--no-dangling")
			}
			if diff := cmp.Diff(without(before, ".git"), without(tree(t, r.dir, true), ".git")); diff != "" {
				t.Errorf("the work tree was touched: %s", diff)
			}
			// What the patch makes is what is there.
			if out, err := gitErr(t, r.dir, patch, "apply", "-"); err != nil {
				t.Fatalf("git apply: %v %s", err, out)
			}
			mine, theirs := without(tree(t, r.dir, false), ".git"), without(tree(t, b.dir(), false), ".git")
			for _, in := range []string{"sub", "inner"} {
				mine, theirs = without(mine, in), without(theirs, in)
			}
			if name == "autocrlf" { // git apply writes line ends as it is told to
				git(t, r.dir, "add", "-A")
				git(t, r.dir, "diff", "--cached", "--exit-code", p.Branch)
			} else if diff := cmp.Diff(theirs, mine); diff != "" {
				t.Errorf("after git apply: %s", diff)
			}
		})
	}
}

func statusArgs(name string) []string {
	args := []string{"status", "--porcelain=v2", "--branch"}
	if name == "no repository" {
		return []string{"version"}
	}
	return args
}

// TestOwnerRuns: root lets git look at a directory as the one whose it is, and gives him what a pull makes.
func TestOwnerRuns(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	r := newRig(t)
	const other = "12345"
	write(t, r.dir, "file", "x\n")
	write(t, r.dir, "hidden", "root's\n")
	r.commit()
	git(t, r.dir, "rm", "-q", "--cached", "hidden")
	if out, err := exec.Command("chown", "-R", other+":"+other, r.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The way to it is open, as it is to a user's home.
	for dir := filepath.Dir(r.dir); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(r.dir, "hidden"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(r.dir, "hidden"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := r.take(project.Options{})
	if _, err := os.Lstat(filepath.Join(l.Root(), inside, "hidden")); err == nil {
		t.Error("a file that only root may read was taken")
	}
	if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], `cannot be read: ["hidden"]`) {
		t.Errorf("notes: %q", l.Notes)
	}
	b := newBox(t, l)
	write(t, b.dir(), "file", "y\n")
	p, err := r.bring(l, b).Pull(t.Context(), project.PullOptions{Name: "box"})
	if err != nil || p.Branch == "" {
		t.Fatalf("%+v, %v", p, err)
	}
	out, err := exec.Command("find", r.dir, "-not", "-user", other).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != filepath.Join(r.dir, "hidden") {
		t.Errorf("not the user's: %s, %v", out, err)
	}
}
