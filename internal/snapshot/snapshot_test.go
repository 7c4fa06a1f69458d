package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// here is a sandbox that is this machine.
type here struct{ env []string }

func (h here) Exec(ctx context.Context, spec sandbox.ExecSpec) (*sandbox.ExecResult, error) {
	cmd := exec.CommandContext(ctx, spec.Argv[0], spec.Argv[1:]...)
	cmd.Dir, cmd.Stdin = spec.Dir, bytes.NewReader(spec.Input)
	cmd.Env = append(os.Environ(), h.env...)
	for name, value := range spec.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return nil, err
	}
	return &sandbox.ExecResult{Exit: sandbox.Exit{Code: cmd.ProcessState.ExitCode()}, Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Truncated: int64(stdout.Len()) > spec.MaxOutput}, nil
}

func (here) Lstat(_ context.Context, path string) (*sandbox.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, missing(err)
	}
	found := &sandbox.FileInfo{Path: path, Size: info.Size(), Mode: uint32(info.Mode().Perm())}
	if info.Mode().IsRegular() {
		found.Type = sandbox.TypeFile
	}
	return found, nil
}

func (here) RemoveFile(_ context.Context, path string, _ bool) error { return missing(os.Remove(path)) }

func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &sandbox.Error{Code: sandbox.CodeFileNotFound, Err: err}
	}
	return err
}

// project is a directory with states.
type project struct {
	*snapshot.Store
	t   testing.TB
	ctx context.Context
	dir string
}

func newProject(t testing.TB) *project {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	top := t.TempDir()
	dir := filepath.Join(top, "project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &project{snapshot.Open(here{}, dir, top), t, ctx, dir}
}

func (p *project) write(name, content string) {
	p.t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *project) remove(name string) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, syscall.ENOTDIR) {
		p.t.Fatal(err)
	}
}

func (p *project) take(refs ...string) snapshot.Tree {
	p.t.Helper()
	tree, err := p.Take(p.ctx, snapshot.Refs{Set: refs})
	if err != nil {
		p.t.Fatal(err)
	}
	return tree
}

// undo undoes spans from the state now.
func (p *project) undo(spans ...snapshot.Span) {
	p.t.Helper()
	now := p.take()
	plan, err := p.Undo(p.ctx, spans)
	if err != nil {
		p.t.Fatal(err)
	}
	to, err := p.Compose(p.ctx, now, plan)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.Switch(p.ctx, now, to); err != nil {
		p.t.Fatal(err)
	}
	if again := p.take(); again != to {
		p.t.Errorf("the project is in state %s, not %s", again, to)
	}
}

// files are the project's, with their content; links with where they lead, behind "->".
func (p *project) files() map[string]string {
	p.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(p.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, p.dir+"/")
		switch {
		case entry.Name() == ".git":
			return filepath.SkipDir
		case entry.Type() == fs.ModeSymlink:
			to, err := os.Readlink(path)
			all[name] = "->" + to
			return err
		case entry.IsDir():
			return nil
		}
		content, err := os.ReadFile(path)
		info, _ := entry.Info()
		if info != nil && info.Mode()&0o111 != 0 {
			name += "*"
		}
		all[name] = string(content)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

func (p *project) want(what string, want map[string]string) {
	p.t.Helper()
	if diff := cmp.Diff(want, p.files()); diff != "" {
		p.t.Errorf("%s: %s", what, diff)
	}
}

func TestUndoAndRedo(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	hard := "with space\n\t\"quotes\" and ütf"
	p.write("kept", "as it is")
	p.write("changed", "one\n")
	p.write("removed/deep/file", "there")
	p.write("file", "becomes a directory")
	p.write("dir/file", "becomes a file")
	p.write(hard, "1")
	p.write("crlf", "a\r\nb\r\n")
	p.write("binary", "\x00\x01\xff")
	if err := os.Symlink("/etc/passwd", filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	before, first := p.files(), p.take()

	p.write("changed", "two\n")
	p.write("new", "new\n")
	p.remove("removed")
	p.remove("file")
	p.write("file/in/it", "x")
	p.remove("dir")
	p.write("dir", "a file")
	p.write(hard, "2")
	p.write("crlf", "a\nb\n")
	p.write("binary", "\x00\x02")
	p.remove("link")
	p.write("link", "a file")
	if err := os.Chmod(filepath.Join(p.dir, "kept"), 0o755); err != nil {
		t.Fatal(err)
	}
	after, second := p.files(), p.take()
	step := snapshot.Span{From: first, To: second}

	p.write("later", "by somebody else")
	p.undo(step)
	undone := before
	undone["later"] = "by somebody else"
	p.want("undone", undone)

	p.undo(snapshot.Span{From: second, To: first})
	after["later"] = "by somebody else"
	p.want("done again", after)
}

// TestFirstStepWins holds that a file becomes what it was before the first of the steps that changed it.
func TestFirstStepWins(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write("a", "0")
	trees := []snapshot.Tree{p.take()}
	for i := 1; i <= 3; i++ {
		p.write("a", fmt.Sprint(i))
		p.write(fmt.Sprint("new", i), "x")
		trees = append(trees, p.take())
	}
	p.undo(snapshot.Span{From: trees[1], To: trees[2]}, snapshot.Span{From: trees[2], To: trees[3]})
	p.want("two of three steps", map[string]string{"a": "1", "new1": "x"})
	p.undo(snapshot.Span{From: trees[0], To: trees[1]})
	p.want("all steps", map[string]string{"a": "0"})
}

func TestWhatStatesLeaveOut(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	git := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(p.ctx, "git", append([]string{"-c", "user.name=u", "-c", "user.email=u@e"}, args...)...)
		cmd.Dir = filepath.Join(p.dir, dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	git("", "init", "-q")
	p.write("user", "staged")
	git("", "add", "user")
	p.write(".git/info/exclude", "excluded\n")
	p.write(".gitignore", "*.log\nnode_modules/\n")
	first := p.take()
	big := strings.Repeat("x", snapshot.MaxFileBytes+1)
	for name, content := range map[string]string{"a.log": "1", "node_modules/m/index.js": "1", "excluded": "1", "big": big, "text": "1"} {
		p.write(name, content)
	}
	if err := os.MkdirAll(filepath.Join(p.dir, "nested"), 0o755); err != nil {
		t.Fatal(err)
	}
	git("nested", "init", "-q")
	p.write("nested/file", "1")
	second := p.take()
	diff, err := p.Diff(p.ctx, snapshot.Span{From: first, To: second})
	if err != nil || len(diff) != 1 || diff[0].File != "text" {
		t.Errorf("%v, %v", diff, err)
	}
	index, err := os.ReadFile(filepath.Join(p.dir, ".git/index"))
	if err != nil {
		t.Fatal(err)
	}
	p.undo(snapshot.Span{From: first, To: second})
	p.want("what is left out stays", map[string]string{"user": "staged", ".gitignore": "*.log\nnode_modules/\n", "a.log": "1", "node_modules/m/index.js": "1", "excluded": "1", "big": big, "nested/file": "1"})
	if now, err := os.ReadFile(filepath.Join(p.dir, ".git/index")); err != nil || !bytes.Equal(now, index) {
		t.Errorf("the user's index was written: %v", err)
	}
	refs := exec.CommandContext(p.ctx, "git", "for-each-ref")
	refs.Dir = p.dir
	if out, err := refs.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the user's repository has %s, %v", out, err)
	}
}

// TestManyFiles goes the way for more files than are asked for one by one.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	first := p.take()
	for i := range 300 {
		p.write(fmt.Sprintf("d%d/f%d", i%7, i), fmt.Sprint(i))
	}
	p.write("big", strings.Repeat("x", snapshot.MaxFileBytes+1))
	second := p.take()
	diff, err := p.Diff(p.ctx, snapshot.Span{From: first, To: second})
	if err != nil || len(diff) != 300 {
		t.Errorf("%d files, %v", len(diff), err)
	}
	p.undo(snapshot.Span{From: first, To: second})
	if left := p.files(); len(left) != 1 {
		t.Errorf("%d files are left", len(left))
	}
}

// TestNothingIsLost holds that a switch that would overwrite what no state has leaves all as it is.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write("a", "1")
	p.write("data", "small")
	first := p.take()
	p.write("a", "2")
	p.remove("data")
	second := p.take()
	p.write("data", strings.Repeat("x", snapshot.MaxFileBytes+1)) // in no state
	before := p.files()
	if now := p.take(); now != second {
		t.Fatal("a large file is in a state")
	}
	if err := p.Switch(p.ctx, second, first); sandbox.CodeOf(err) != snapshot.CodeConflict || !strings.Contains(err.Error(), "data") {
		t.Errorf("%v", err)
	}
	p.want("after the refusal", before)
	p.remove("data")
	if err := p.Switch(p.ctx, second, first); err != nil {
		t.Error(err)
	}
	p.want("once it is out of the way", map[string]string{"a": "1", "data": "small"})
}

func TestDiff(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.write("m ü", "one\ntwo\n")
	p.write("gone", "x\n")
	p.write("bin", "\x00\x01")
	first := p.take()
	p.write("m ü", "one\n2\n")
	p.remove("gone")
	p.write("bin", "\x00\x02")
	p.write("new", "--- a\n+++ b\n")
	got, err := p.Diff(p.ctx, snapshot.Span{From: first, To: p.take()})
	if err != nil {
		t.Fatal(err)
	}
	head := func(name string) string {
		return "Index: " + name + "\n" + strings.Repeat("=", 67) + "\n--- " + name + "\t\n+++ " + name + "\t\n"
	}
	want := []snapshot.FileDiff{
		{File: "bin", Status: "modified"},
		{File: "gone", Status: "deleted", Deletions: 1, Patch: head("gone") + "@@ -1 +0,0 @@\n-x\n"},
		{File: "m ü", Status: "modified", Additions: 1, Deletions: 1, Patch: head("m ü") + "@@ -1,2 +1,2 @@\n one\n-two\n+2\n"},
		{File: "new", Status: "added", Additions: 2, Patch: head("new") + "@@ -0,0 +1,2 @@\n+--- a\n++++ b\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	if kept, err := p.Kept(p.ctx, "steps"); err != nil || len(kept) != 0 {
		t.Errorf("%v %v", kept, err)
	}
	first, err := p.Take(p.ctx, snapshot.Refs{New: []string{"steps/m1/before"}})
	if err != nil {
		t.Fatal(err)
	}
	p.write("a", "1")
	second, err := p.Take(p.ctx, snapshot.Refs{New: []string{"steps/m1/before"}, Set: []string{"steps/m1/after", "other/x"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Keep(p.ctx, map[string]snapshot.Tree{"steps/m2/before": second}); err != nil {
		t.Fatal(err)
	}
	kept, err := p.Kept(p.ctx, "steps")
	if diff := cmp.Diff(map[string]snapshot.Tree{"m1/before": first, "m1/after": second, "m2/before": second}, kept); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := p.Drop(p.ctx, "steps/m1"); err != nil {
		t.Error(err)
	}
	if kept, err := p.Kept(p.ctx, "steps"); err != nil || len(kept) != 1 || kept["m2/before"] != second {
		t.Errorf("after some were dropped: %v %v", kept, err)
	}
}

func TestWithoutGit(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	if err := os.Symlink(sh, filepath.Join(top, "sh")); err != nil {
		t.Fatal(err)
	}
	s := snapshot.Open(here{env: []string{"PATH=" + top}}, filepath.Join(top, "p"), top)
	if _, err := s.Take(t.Context(), snapshot.Refs{}); sandbox.CodeOf(err) != sandbox.CodeNotSupported {
		t.Errorf("%v", err)
	}
}

// TestAnyProject takes states of a project that changes at random, and goes from any to any.
func TestAnyProject(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		p := newProject(t)
		names := []string{"a", "b/c", "b", "b/d/e", " x", "-r", "é\n", "a.log"}
		states := []map[string]string{p.files()}
		trees := []snapshot.Tree{p.take()}
		for range rapid.IntRange(1, 4).Draw(r, "steps") {
			for range rapid.IntRange(0, 4).Draw(r, "changes") {
				name := rapid.SampledFrom(names).Draw(r, "name")
				if rapid.Bool().Draw(r, "remove") {
					p.remove(name)
					continue
				}
				for above := filepath.Dir(name); above != "."; above = filepath.Dir(above) {
					if info, err := os.Lstat(filepath.Join(p.dir, above)); err == nil && !info.IsDir() {
						p.remove(above)
					}
				}
				p.remove(name)
				p.write(name, rapid.StringN(0, 5, -1).Draw(r, "content"))
			}
			states = append(states, p.files())
			trees = append(trees, p.take())
		}
		to := rapid.IntRange(0, len(trees)-1).Draw(r, "to")
		if err := p.Switch(p.ctx, trees[len(trees)-1], trees[to]); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff(states[to], p.files()); diff != "" {
			r.Fatal(diff)
		}
		var spans []snapshot.Span
		for i := to; i+1 < len(trees); i++ {
			spans = append(spans, snapshot.Span{From: trees[i], To: trees[i+1]})
		}
		plan, err := p.Undo(p.ctx, spans)
		if err != nil {
			r.Fatal(err)
		}
		if tree, err := p.Compose(p.ctx, trees[len(trees)-1], plan); err != nil || tree != trees[to] {
			r.Fatal(tree, err)
		}
	})
}
