package tool_test

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/tool"
)

func (b *bench) project(known string) tool.Project {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	p, err := tool.DescribeProject(ctx, b.env, known)
	must(b.t, err)
	return p
}

func TestProject(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"AGENTS.md": "one", "CLAUDE.md": "two"})
	p := b.project("")
	if p.Directory != b.dir || p.Worktree != b.dir || p.Platform != "linux" || p.Git || p.Instructions != "Instructions from: "+b.path("AGENTS.md")+"\none" {
		t.Errorf("%+v", p)
	}
	if again := b.project(p.Version); again.Version != p.Version || again.Instructions != "" {
		t.Errorf("unchanged, and known: %+v", again)
	}
	b.put("AGENTS.md", "1!!")
	if changed := b.project(p.Version); changed.Version == p.Version || !strings.HasSuffix(changed.Instructions, "\n1!!") {
		t.Errorf("changed: %+v", changed)
	}
	must(t, os.Mkdir(b.path(".git"), 0o755))
	if !b.project("").Git {
		t.Error("it is a repository")
	}
	b.env.Directory = b.path("sub") // of which there is nothing
	if p := b.project(""); !p.Git || p.Instructions != "" {
		t.Errorf("in a directory below: %+v", p)
	}
}

func TestProjectHostileInstructions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(path string) error
		has  string
	}{
		"huge": {func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("é", 10<<20)), 0o644) }, "first 64 KiB"},
		"sparse, of a terabyte": {func(p string) error {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 1<<40)
		}, "first 64 KiB"},
		"no text":       {func(p string) error { return os.WriteFile(p, []byte("a\xff\xfeb"), 0o644) }, "\ufffd"},
		"a pipe":        {func(p string) error { return syscall.Mkfifo(p, 0o644) }, ""},
		"a directory":   {func(p string) error { return os.Mkdir(p, 0o755) }, ""},
		"a loop":        {func(p string) error { return os.Symlink("AGENTS.md", p) }, ""},
		"a device":      {func(p string) error { return os.Symlink("/dev/zero", p) }, ""},
		"a magic link":  {func(p string) error { return os.Symlink("/proc/self/exe", p) }, ""},
		"another root":  {func(p string) error { return os.Symlink("/proc/1/root/etc/passwd", p) }, ""},
		"not to be had": {func(p string) error { return os.Symlink("nowhere", p) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, f{"CLAUDE.md": "fine"})
			must(t, c.make(b.path("AGENTS.md")))
			text := b.project("").Instructions
			if len(text) > 70<<10 || !utf8.ValidString(text) {
				t.Errorf("%d bytes, valid %v", len(text), utf8.ValidString(text))
			}
			if c.has != "" && !strings.Contains(text, c.has) || c.has == "" && !strings.HasSuffix(text, "CLAUDE.md\nfine") {
				t.Errorf("got %.200q…", text)
			}
		})
	}
}
