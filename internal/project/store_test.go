package project_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
)

func info(t *testing.T, p string) os.FileInfo {
	t.Helper()
	i, err := os.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestLayersAreShared: a layer is used again until something changes; then what did not is the same file. None is one of
// the project's.
func TestLayersAreShared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 20 {
		write(t, r.dir, fmt.Sprintf("dir%d/file%d", i%4, i), fmt.Sprint(i))
	}
	r.commit()
	first := r.take(project.Options{})
	if again := r.take(project.Options{}); again.ID != first.ID {
		t.Error("nothing changed, and it is another layer")
	}
	at := func(l *project.Layer, name string) os.FileInfo { return info(t, filepath.Join(l.Root(), inside, name)) }
	// As long as before, and with the time from before.
	changed := filepath.Join(r.dir, "dir1/file5")
	was := info(t, changed)
	if err := os.WriteFile(changed, []byte("X"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(changed, was.ModTime(), was.ModTime()); err != nil {
		t.Fatal(err)
	}
	second := r.take(project.Options{})
	if second.ID == first.ID {
		t.Fatal("a file changed, and it is the same layer")
	}
	if data, err := os.ReadFile(filepath.Join(second.Root(), inside, "dir1/file5")); err != nil || string(data) != "X" {
		t.Errorf("the new layer has %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(first.Root(), inside, "dir1/file5")); err != nil || string(data) != "5" {
		t.Errorf("the old layer has %q, %v", data, err)
	}
	if !os.SameFile(at(first, "dir0/file4"), at(second, "dir0/file4")) {
		t.Error("what did not change was copied")
	}
	object := git(t, r.dir, "rev-parse", "HEAD")
	object = ".git/objects/" + object[:2] + "/" + object[2:]
	if !os.SameFile(at(first, object), at(second, object)) {
		t.Error("history that did not change was copied")
	}
	mine := map[uint64]string{}
	err := filepath.WalkDir(r.dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			mine[info(t, p).Sys().(*syscall.Stat_t).Ino] = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(r.home, func(p string, e fs.DirEntry, err error) error {
		if err == nil && mine[info(t, p).Sys().(*syscall.Stat_t).Ino] != "" {
			t.Errorf("%s is %s", p, mine[info(t, p).Sys().(*syscall.Stat_t).Ino])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// What decides the state of git makes another layer, too.
	git(t, r.dir, "branch", "other")
	if third := r.take(project.Options{}); third.ID == second.ID {
		t.Error("a branch is new, and it is the same layer")
	}
}

func TestGC(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "file", "1")
	r.commit()
	one := r.take(project.Options{})
	write(t, r.dir, "file", "2")
	two := r.take(project.Options{})
	write(t, r.dir, "file", "3")
	three := r.take(project.Options{})
	write(t, r.home, "projects/.new-dead/root/x", "cut short")
	write(t, r.home, "projects/.bring-dead/x", "cut short")
	one.Close()
	two.Close()
	gc := func(used ...string) []string {
		t.Helper()
		_, err := r.store.GC(t.Context(), func(context.Context) (map[string]bool, error) {
			all := map[string]bool{}
			for _, id := range used {
				all[id] = true
				// Whoever comes while it is decided waits, or is told that it is gone.
				if l, err := r.store.Get(id); err == nil && id != three.ID {
					l.Close()
					t.Errorf("%s can be had while it may be removed", id)
				}
			}
			return all, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(filepath.Join(r.home, "projects"))
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range entries {
			left = append(left, e.Name())
		}
		return left
	}
	if left := gc(two.ID); len(left) != 2 || strings.Contains(fmt.Sprint(left), one.ID) || strings.Contains(fmt.Sprint(left), "dead") {
		t.Errorf("left are %v", left)
	}
	if _, err := r.store.Get(one.ID); sandbox.CodeOf(err) != project.CodeGone {
		t.Errorf("a layer that was removed: %v", err)
	}
	if l, err := r.store.Get(two.ID); err != nil {
		t.Errorf("a layer that is used: %v", err)
	} else {
		l.Close()
	}
	three.Close()
	if left := gc(); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	for _, id := range []string{"", "../x", "..", strings.Repeat("a", 26), "/etc"} {
		if _, err := r.store.Get(id); sandbox.CodeOf(err) != project.CodeGone {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 30 {
		write(t, r.dir, fmt.Sprintf("node_modules/%d", i), strings.Repeat("x", 1000)+fmt.Sprint(i))
	}
	write(t, r.dir, "src/main", "x")
	r.commit()
	for name, opts := range map[string]project.Options{
		"files": {MaxFiles: 20}, "bytes": {MaxBytes: 15_000}, "history": {MaxFiles: 50},
	} {
		opts.Dir = r.dir
		_, err := r.store.Take(t.Context(), opts)
		want := "node_modules"
		if name == "history" {
			want = ".git"
		}
		if sandbox.CodeOf(err) != project.CodeTooLarge || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ".gitignore") {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, r.dir, ".gitignore", "node_modules\n")
	git(t, r.dir, "rm", "-rq", "--cached", "node_modules")
	git(t, r.dir, "commit", "-q", "--amend", "-m", "first")
	git(t, r.dir, "reflog", "expire", "--expire=all", "--all")
	git(t, r.dir, "gc", "-q", "--prune=now")
	for _, opts := range []project.Options{{MaxFiles: 20}, {MaxBytes: 15_000}} {
		r.take(opts) // what the message says does help
	}
	if left, err := filepath.Glob(filepath.Join(r.home, "projects/.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	for _, repository := range []bool{true, false} {
		r := newRig(t)
		write(t, r.dir, "file", "x")
		if repository {
			r.commit()
		}
		if err := syscall.Mkfifo(filepath.Join(r.dir, "fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		// A path of a socket has to be short.
		short, err := os.MkdirTemp("", "s")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(short)
		l, err := net.Listen("unix", filepath.Join(short, "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Link(filepath.Join(short, "s"), filepath.Join(r.dir, "socket")); err != nil {
			t.Skipf("no link to a socket: %v", err)
		}
		write(t, r.dir, "suid", "x")
		if err := os.Chmod(filepath.Join(r.dir, "suid"), 0o755|fs.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		layer := r.take(project.Options{})
		dir := filepath.Join(layer.Root(), inside)
		if mode := info(t, filepath.Join(dir, "suid")).Mode(); mode != 0o755 {
			t.Errorf("mode %v", mode)
		}
		for _, name := range []string{"fifo", "socket"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				t.Errorf("%s was taken", name)
			}
		}
		if !repository && (len(layer.Notes) != 1 || !strings.Contains(layer.Notes[0], `no file, directory or link: ["fifo" "socket"]`)) {
			t.Errorf("notes: %q", layer.Notes) // git itself lists none of them
		}
	}
}

func TestHomeWithin(t *testing.T) {
	t.Parallel()
	for _, repository := range []bool{true, false} {
		r := newRig(t)
		write(t, r.dir, "file", "x")
		if repository {
			r.commit()
		}
		r.store = project.Open(filepath.Join(r.dir, "deep/tongs"))
		write(t, r.dir, "deep/tongs/secret", "x")
		for range 2 {
			l := r.take(project.Options{})
			if _, err := os.Lstat(filepath.Join(l.Root(), inside, "deep/tongs")); err == nil {
				t.Error("Tongs' own directory was taken")
			}
		}
	}
}

// TestChangesWhileCopied: what changes all the time is said to, and what is quiet is not.
func TestChangesWhileCopied(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "quiet", "x")
	r.commit()
	busy := filepath.Join(r.dir, "busy")
	f, err := os.Create(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, 4096), int64(i%1024)*4096); err != nil {
				t.Error(err)
				return
			}
		}
	})
	l := r.take(project.Options{})
	if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], "changed while it was copied") {
		t.Errorf("notes: %q", l.Notes)
	}
	close(stop)
	writer.Wait()
	calm := r.take(project.Options{})
	if len(calm.Notes) != 0 || calm.ID == l.ID {
		t.Errorf("notes: %q", calm.Notes)
	}
	want, err := os.ReadFile(busy)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(calm.Root(), inside, "busy")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is another, %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(r.home, "projects/.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestCancelled: a take that is cut short leaves nothing.
func TestCancelled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 200 {
		write(t, r.dir, fmt.Sprint("f", i), "x")
	}
	r.commit()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.store.Take(ctx, project.Options{Dir: r.dir}); err == nil {
		t.Error("it was taken")
	}
	if left, err := filepath.Glob(filepath.Join(r.home, "projects/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	r.take(project.Options{})
}
