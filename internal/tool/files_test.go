package tool_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// changing are calls that would change a.txt, or make something.
var changing = []struct {
	tool string
	args m
}{
	{"write", m{"filePath": "a.txt", "content": "two\n"}},
	{"write", m{"filePath": "new/dir/b.txt", "content": "two\n"}},
	{"edit", m{"filePath": "a.txt", "oldString": "one", "newString": "two"}},
	{"edit", m{"filePath": "c.txt", "oldString": "", "newString": "two"}},
	{"apply_patch", m{"patchText": "*** Begin Patch\n*** Add File: x/d.txt\n+d\n*** Update File: a.txt\n*** Move to: e.txt\n@@\n-one\n+two\n*** Delete File: z.txt\n*** End Patch"}},
	{"bash", m{"command": "touch made; rm a.txt"}},
}

func TestDeniedChangesNothing(t *testing.T) {
	t.Parallel()
	var denied error = &sandbox.Error{Code: sandbox.CodeRejected, Message: "The user rejected permission to use this specific tool call."}
	for _, c := range changing {
		for _, permission := range []string{"edit", "bash"} {
			b := newBench(t, f{"a.txt": "one\n", "z.txt": "z\n"})
			before := tree(t, b.dir)
			b.onAsk = func(req tool.AskRequest) error {
				if req.Permission == permission {
					return denied
				}
				return nil
			}
			_, err := b.call(c.tool, c.args)
			if (permission == "bash") != (c.tool == "bash") {
				continue // it asks for something else
			}
			if err != denied {
				t.Errorf("%s: got %v, want what the person said", c.tool, err)
			}
			if diff := cmp.Diff(before, tree(t, b.dir)); diff != "" {
				t.Errorf("%s changed something though it was denied:\n%s", c.tool, diff)
			}
			if _, err := os.Lstat(b.path("new")); err == nil {
				t.Errorf("%s made a directory though it was denied", c.tool)
			}
		}
	}
}

func TestOutsideIsAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tool    string
		args    m
		pattern string // below the directory that holds the project
	}{
		{"read", m{"filePath": "{O}/o.txt"}, "{O}/*"},
		{"read", m{"filePath": "{O}"}, "{O}/*"},
		{"read", m{"filePath": "../out/o.txt"}, "{O}/*"},
		{"read", m{"filePath": "link/o.txt"}, "{O}/*"},
		{"read", m{"filePath": "flink"}, "{O}/*"},
		{"list", m{"path": "{O}"}, "{O}/*"},
		{"write", m{"filePath": "{O}/n.txt", "content": ""}, "{O}/*"},
		{"write", m{"filePath": "link/deep/n.txt", "content": ""}, "{O}/deep/*"},
		{"write", m{"filePath": "dangling", "content": ""}, "{O}/*"},
		{"edit", m{"filePath": "link/o.txt", "oldString": "o", "newString": "p"}, "{O}/*"},
		{"apply_patch", m{"patchText": "*** Begin Patch\n*** Add File: link/n.txt\n+x\n*** End Patch"}, "{O}/*"},
		{"apply_patch", m{"patchText": "*** Begin Patch\n*** Update File: a.txt\n*** Move to: {O}/n.txt\n*** End Patch"}, "{O}/*"},
		{"glob", m{"pattern": "*", "path": "link"}, "{O}/*"},
		{"grep", m{"pattern": "x", "path": "{O}"}, "{O}/*"},
		{"bash", m{"command": "true", "workdir": "link"}, "{O}/*"},
		{"bash", m{"command": "rm -f {O}/o.txt"}, "{O}/*"},
		{"bash", m{"command": "cat 'link/o.txt'"}, "{O}/*"},
		{"bash", m{"command": `echo "$(cp a.txt {O}/x)"`}, "{O}/*"},
		{"bash", m{"command": "cd .. && ls"}, "{H}/*"},
		{"bash", m{"command": "touch ~/x"}, "{H}/*"},
	} {
		b := newBench(t, f{"a.txt": "one\n"})
		home, out := filepath.Dir(b.dir), filepath.Join(filepath.Dir(b.dir), "out")
		must(t, os.Mkdir(out, 0o755))
		must(t, os.WriteFile(filepath.Join(out, "o.txt"), []byte("o\n"), 0o644))
		must(t, os.Symlink(out, b.path("link")))
		must(t, os.Symlink(filepath.Join(out, "o.txt"), b.path("flink")))
		must(t, os.Symlink("../out/not-yet", b.path("dangling")))
		names := strings.NewReplacer("{O}", out, "{H}", home)
		args := m{}
		for k, v := range c.args {
			args[k] = names.Replace(v.(string))
		}
		no := errors.New("no")
		b.onAsk = func(req tool.AskRequest) error {
			if req.Permission == "external_directory" {
				return no
			}
			return nil
		}
		before := tree(t, home)
		if _, err := b.call(c.tool, args); !errors.Is(err, no) {
			t.Errorf("%s %v: %v, want the refusal", c.tool, args, err)
		}
		asked := b.asks[len(b.asks)-1]
		if want := []string{names.Replace(c.pattern)}; cmp.Diff(want, asked.Patterns) != "" {
			t.Errorf("%s %v: asked for %v, want %v", c.tool, args, asked.Patterns, want)
		}
		if diff := cmp.Diff(before, tree(t, home)); diff != "" {
			t.Errorf("%s changed something: %s", c.tool, diff)
		}
	}
}

// TestInsideIsNotAsked: a project whose directory is named by way of a link, and
// links within it, are inside.
func TestInsideIsNotAsked(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "one\n", "d/x": "x\n"})
	alias := filepath.Join(filepath.Dir(b.dir), "alias")
	must(t, os.Symlink(b.dir, alias))
	must(t, os.Symlink("d", b.path("in")))
	b.env.Directory = alias
	b.ok("read", m{"filePath": "a.txt"})
	b.ok("read", m{"filePath": "in/x"})
	b.ok("bash", m{"command": "cat a.txt in/x; cd d"})
	for _, a := range b.asks {
		if a.Permission == "external_directory" {
			t.Errorf("asked for %v", a.Patterns)
		}
	}
}

func TestSpecialFilesNeverHang(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "x\n"})
	must(t, syscall.Mkfifo(b.path("fifo"), 0o666))
	must(t, os.Symlink("fifo", b.path("to-fifo")))
	must(t, os.Symlink("loop2", b.path("loop1")))
	must(t, os.Symlink("loop1", b.path("loop2")))
	must(t, os.Symlink(".", b.path("self")))
	socket, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	must(t, err)
	defer syscall.Close(socket)
	must(t, syscall.Bind(socket, &syscall.SockaddrUnix{Name: b.path("s")}))
	patch := func(name string) m {
		return m{"patchText": "*** Begin Patch\n*** Update File: " + name + "\n@@\n-a\n+b\n*** End Patch"}
	}
	for _, name := range []string{"fifo", "to-fifo", "s", "/dev/zero", "/dev/null", "/dev/tty"} {
		b.fails(sandbox.CodeNotRegular, "read", m{"filePath": name}, "Not a regular file")
		b.fails(sandbox.CodeNotRegular, "write", m{"filePath": name, "content": "x"}, "Not a regular file")
		b.fails(sandbox.CodeNotRegular, "edit", m{"filePath": name, "oldString": "a", "newString": "b"})
		b.fails(sandbox.CodeNotRegular, "apply_patch", patch(name), "apply_patch verification failed")
		b.fails(sandbox.CodeNotRegular, "grep", m{"pattern": "x", "path": name})
	}
	for _, name := range []string{"loop1", "loop1/x"} {
		b.fails(sandbox.CodeSymlinkLoop, "read", m{"filePath": name})
		b.fails(sandbox.CodeSymlinkLoop, "write", m{"filePath": name, "content": "x"})
		b.fails(sandbox.CodeSymlinkLoop, "glob", m{"pattern": "*", "path": name})
	}
	b.fails(sandbox.CodeNotDirectory, "read", m{"filePath": "a.txt/b"})
	b.fails(sandbox.CodeNotDirectory, "write", m{"filePath": "a.txt/b", "content": ""})
	b.fails(sandbox.CodeNameTooLong, "write", m{"filePath": strings.Repeat("n", 300), "content": ""})
	if res := b.ok("grep", m{"pattern": "."}); res.Metadata["matches"] != 1 {
		t.Errorf("grep among special files: %s", res.Output)
	}
	if res := b.ok("glob", m{"pattern": "**"}); res.Metadata["count"] != 1 {
		t.Errorf("glob among special files: %s", res.Output)
	}
	// Files of the kernel's: some have no end, some wait, none may hold us up.
	for _, name := range []string{"/proc/self/status", "/proc/kmsg", "/proc/self/pagemap", "/proc/self/mem", "/proc/kcore", "/proc/sysrq-trigger"} {
		_, _ = b.call("read", m{"filePath": name})
		_, _ = b.call("edit", m{"filePath": name, "oldString": "no such text", "newString": "b"})
		_, _ = b.call("grep", m{"pattern": "no such text", "path": name})
	}
	b.ok("glob", m{"pattern": "*", "path": "/proc/self"})
}

func TestPatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	files := f{"a.txt": "a\n", "b.txt": "b\n", "d/c.txt": "c\n"}
	text := "*** Begin Patch\n*** Update File: a.txt\n@@\n-a\n+A\n*** Add File: n/o/p.txt\n+new\n*** Delete File: d/c.txt\n" +
		"*** Update File: b.txt\n*** Move to: m/b.txt\n@@\n-b\n+B\n*** End Patch"
	for what, disturb := range map[string]func(b *bench){
		"changed":          func(b *bench) { b.put("b.txt", "other\n") },
		"removed":          func(b *bench) { must(t, os.Remove(b.path("b.txt"))) },
		"came into being":  func(b *bench) { b.put("m/b.txt", "other\n") },
		"parent is a file": func(b *bench) { b.put("m", "a file\n") },
		"became a fifo": func(b *bench) {
			must(t, os.Remove(b.path("b.txt")))
			must(t, syscall.Mkfifo(b.path("b.txt"), 0o600))
		},
	} {
		b := newBench(t, files)
		b.onAsk = func(tool.AskRequest) error { disturb(b); return nil }
		want := newBench(t, files)
		disturb(want)
		if _, err := b.call("apply_patch", m{"patchText": text}); err == nil {
			t.Errorf("%s: no error", what)
		}
		if diff := cmp.Diff(below(t, want.dir), below(t, b.dir)); diff != "" {
			t.Errorf("%s: a part of the patch was left:\n%s", what, diff)
		}
	}
	b := newBench(t, files)
	b.ok("apply_patch", m{"patchText": text})
	want := map[string]string{"a.txt": "A\n", "n/o/p.txt": "new\n", "m/b.txt": "B\n", "n/": "", "n/o/": "", "m/": "", "d/": ""}
	if diff := cmp.Diff(want, below(t, b.dir)); diff != "" {
		t.Error(diff)
	}
}

// below is all there is in a directory, special files and directories too.
func below(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		switch {
		case err != nil || rel == ".":
		case d.IsDir():
			all[rel+"/"] = ""
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			all[rel] = string(data)
			return err
		default:
			all[rel] = d.Type().String()
		}
		return err
	}))
	return all
}

func TestChangedWhileAsking(t *testing.T) {
	t.Parallel()
	for _, c := range changing[:3] {
		b := newBench(t, f{"a.txt": "one\n"})
		b.onAsk = func(tool.AskRequest) error {
			b.put("a.txt", "somebody else's\n")
			b.put("new/dir/b.txt", "somebody else's\n")
			return nil
		}
		b.fails(sandbox.CodeVersionMismatch, c.tool, c.args, "in the meantime", "Read it again")
		if got := b.get("a.txt"); got != "somebody else's\n" {
			t.Errorf("%s: %q was written over what somebody else wrote", c.tool, got)
		}
	}
}

func TestEditsOfOneFileWaitForEachOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "start\n"})
	must(t, os.Symlink("a.txt", b.path("l.txt")))
	var all sync.WaitGroup
	for i := range 40 {
		name := []string{"a.txt", "l.txt"}[i%2]
		all.Go(func() {
			raw := fmt.Appendf(nil, `{"filePath":%q,"oldString":"start\n","newString":"start\n%d\n"}`, name, i)
			if _, err := tool.Call(t.Context(), b.env, "edit", raw, tool.Hooks{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := strings.Count(b.get("a.txt"), "\n"); n != 41 {
		t.Errorf("%d of 40 edits are in the file", n-1)
	}
}

func TestWaitingForAFileEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "one\n"})
	asked, answer := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, err := tool.Call(context.Background(), b.env, "edit", []byte(`{"filePath":"a.txt","oldString":"one","newString":"two"}`),
			tool.Hooks{Ask: func(context.Context, tool.AskRequest) error { close(asked); <-answer; return nil }})
		ended <- err
	}()
	<-asked
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.callWith(ctx, "write", m{"filePath": "a.txt", "content": "x"})
	if sandbox.CodeOf(err) != sandbox.CodeAborted {
		t.Errorf("got %v, want %s", err, sandbox.CodeAborted)
	}
	close(answer)
	must(t, <-ended)
	if got := b.get("a.txt"); got != "two\n" {
		t.Errorf("%q", got)
	}
	b.ok("write", m{"filePath": "a.txt", "content": "three\n"}) // the lock is free again
}

// TestWhatAFileIsIsKept: its mode, its other names, what a link points to.
func TestWhatAFileIsIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"run.sh": "echo 1\n", "hard": "1\n", "target": "1\n"})
	must(t, os.Chmod(b.path("run.sh"), 0o751))
	must(t, os.Link(b.path("hard"), b.path("hard2")))
	must(t, os.Symlink("target", b.path("link")))
	for _, name := range []string{"run.sh", "hard", "link"} {
		b.ok("edit", m{"filePath": name, "oldString": "1", "newString": "2"})
	}
	st, err := os.Stat(b.path("run.sh"))
	must(t, err)
	if st.Mode().Perm() != 0o751 {
		t.Errorf("mode %v, want 0751", st.Mode())
	}
	if b.get("hard2") != "2\n" {
		t.Error("the file's other name has the old text")
	}
	if to, err := os.Readlink(b.path("link")); err != nil || to != "target" || b.get("target") != "2\n" {
		t.Errorf("the link was replaced: %q %v", to, err)
	}
	b.ok("apply_patch", m{"patchText": "*** Begin Patch\n*** Update File: run.sh\n*** Move to: bin/run\n@@\n-echo 2\n+echo 3\n*** End Patch"})
	if st, err = os.Stat(b.path("bin/run")); err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("moved: mode %v %v, want 0751", st, err)
	}
	b.ok("apply_patch", m{"patchText": "*** Begin Patch\n*** Delete File: link\n*** End Patch"})
	if b.get("target") != "2\n" {
		t.Error("deleting a link deleted its target")
	}
	for name := range below(t, b.dir) {
		if strings.HasPrefix(filepath.Base(name), ".tongs-") {
			t.Errorf("left behind: %s", name)
		}
	}
}

// TestBytesThatAreNoText: edit leaves what it does not replace as it is.
func TestBytesThatAreNoText(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.bin.txt": "\xff\xfeone\x00two\n"})
	res := b.ok("edit", m{"filePath": "a.bin.txt", "oldString": "two", "newString": "2"})
	if got := b.get("a.bin.txt"); got != "\xff\xfeone\x002\n" {
		t.Errorf("%q", got)
	}
	if s := res.Metadata["diff"].(string); s != tool.Clean(s) {
		t.Error("the difference is no UTF-8")
	}
}

func TestReadGivesTwoThousandLinesWhole(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	b := newBench(t, f{"a.txt": text.String()})
	res := b.ok("read", m{"filePath": "a.txt"})
	if !strings.Contains(res.Output, "\n2000: line 1999\n") || !strings.Contains(res.Output, "(End of file - total 2000 lines)") || res.Metadata["truncated"] != false {
		t.Errorf("the answer ends with %q", res.Output[len(res.Output)-200:])
	}
}
