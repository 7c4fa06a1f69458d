package files_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
)

// magicPaths names what this process has open, in ways that all go through a
// magic link. The first is the file "secret" itself, of the directory fd.
func magicPaths(t *testing.T) (outside string, file []string, dirs []string) {
	t.Helper()
	outside = t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func(path string) int {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	dir, secret := open(outside), open(filepath.Join(outside, "secret"))
	links := t.TempDir()
	link := func(name, text string) string {
		path := filepath.Join(links, name)
		if err := os.Symlink(text, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pid := os.Getpid()
	dirs = []string{
		fmt.Sprintf("/proc/self/fd/%d", dir), fmt.Sprintf("/proc/%d/fd/%d", pid, dir), fmt.Sprintf("/proc/thread-self/fd/%d", dir),
		fmt.Sprintf("/proc/%d/task/%d/fd/%d", pid, pid, dir), fmt.Sprintf("/dev/fd/%d", dir),
		"/proc/self/root" + outside, fmt.Sprintf("/proc/%d/root%s", pid, outside), "/proc/self/cwd/../../../../../../../.." + outside,
		fmt.Sprintf("/proc/self/fd/%d/../%s", dir, filepath.Base(outside)),
		link("direct", fmt.Sprintf("/proc/self/fd/%d", dir)), link("behind", fmt.Sprintf("/proc/%d/fd/%d/../%s", pid, dir, filepath.Base(outside))),
	}
	dirs = append(dirs, link("twice", "direct/."))
	for _, d := range dirs {
		file = append(file, d+"/secret")
	}
	file = append(file, fmt.Sprintf("/proc/self/fd/%d", secret), link("file", fmt.Sprintf("/proc/self/fd/%d", secret)), "/proc/self/exe")
	return outside, file, dirs
}

func wantMagic(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, files.ErrMagicLink) || !errors.Is(err, syscall.ELOOP) {
		t.Errorf("%s: %v, want ErrMagicLink", what, err)
	}
}

func TestMagicLinksAreRefused(t *testing.T) {
	t.Parallel()
	outside, file, dirs := magicPaths(t)
	for _, path := range append(file, dirs...) {
		// The test would prove nothing if the path led nowhere.
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		_, err := files.Open(path)
		wantMagic(t, "open "+path, err)
		_, err = files.OpenFile(path, os.O_WRONLY|os.O_TRUNC|os.O_CREATE, 0o666)
		wantMagic(t, "create "+path, err)
		_, err = files.Stat(path)
		wantMagic(t, "stat "+path, err)
		wantMagic(t, "chmod "+path, files.Chmod(path, 0o777))
		_, err = files.OpenByName(path, unix.O_RDONLY, 0)
		wantMagic(t, "open by name "+path, err)
	}
	for _, dir := range dirs {
		_, err := files.ReadDir(dir)
		wantMagic(t, "read "+dir, err)
		_, err = files.Lstat(dir + "/secret")
		wantMagic(t, "lstat in "+dir, err)
		_, err = files.Readlink(dir + "/secret")
		wantMagic(t, "readlink in "+dir, err)
		_, err = files.OpenByName(dir+"/new", unix.O_WRONLY|unix.O_CREAT, 0o666)
		wantMagic(t, "create by name in "+dir, err)
		here := filepath.Join(t.TempDir(), "here")
		if err := os.WriteFile(here, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		wantMagic(t, "mkdir in "+dir, files.Mkdir(dir+"/new", 0o777))
		wantMagic(t, "mkdirall in "+dir, files.MkdirAll(dir+"/new/new", 0o777))
		wantMagic(t, "remove in "+dir, files.Remove(dir+"/secret"))
		wantMagic(t, "removeall in "+dir, files.RemoveAll(dir+"/secret"))
		wantMagic(t, "symlink in "+dir, files.Symlink("x", dir+"/new"))
		wantMagic(t, "rename to "+dir, files.Rename(here, dir+"/new"))
		wantMagic(t, "rename from "+dir, files.Rename(dir+"/secret", here))
		wantMagic(t, "link to "+dir, files.Link(here, dir+"/new"))
		wantMagic(t, "link from "+dir, files.Link(dir+"/secret", here+"2"))
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(outside, "secret")); string(data) != "secret" {
		t.Errorf("the secret is %q, %v", data, err)
	}
}

// Everything else is as package os has it, with openat2 and without.
func TestAsOS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(files.MkdirAll(at("a/b/c"), 0o755))
	must(files.MkdirAll(at("a/b/c/"), 0o755))
	must(files.Mkdir(at("d"), 0o700))
	must(os.WriteFile(at("a/b/file"), []byte("text"), 0o600))
	must(files.Symlink("b", at("a/link")))
	must(files.Symlink(at("a/link/file"), at("far")))
	must(files.Symlink("nowhere/at/all", at("dangling")))
	must(files.Symlink("made", at("to be made")))
	must(files.Symlink("loop", at("loop")))
	must(files.Link(at("a/b/file"), at("hard")))
	must(files.Rename(at("hard"), at("d/renamed")))
	must(files.Chmod(at("far"), 0o640))

	paths := []string{
		dir, dir + "/", at("a"), at("a/link"), at("a/link/"), at("a/link/../d"), at("a/b/file"), at("a/b/file/"), at("a/b/file/x"),
		at("far"), at("dangling"), at("loop"), at("loop/x"), at("no"), at("no/no"), at("d/../a/./b//file"), "/", "//", "/.", "/..", "",
		"files_test.go", "./files_test.go", ".", "..", "/proc/cpuinfo", "/proc/1/status", "/proc/sys/kernel/ostype",
	}
	same := func(what string, got, want error) {
		t.Helper()
		var a, b syscall.Errno
		if errors.As(got, &a) != errors.As(want, &b) || a != b {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for _, path := range paths {
		for name, f := range map[string][2]func(string) (fs.FileInfo, error){"stat": {files.Stat, os.Stat}, "lstat": {files.Lstat, os.Lstat}} {
			got, gerr := f[0](path)
			want, werr := f[1](path)
			same(name+" "+path, gerr, werr)
			if gerr == nil && werr == nil && (!os.SameFile(got, want) || got.Mode() != want.Mode()) {
				t.Errorf("%s %s: %v, want %v", name, path, got, want)
			}
		}
		got, gerr := files.Readlink(path)
		want, werr := os.Readlink(path)
		if same("readlink "+path, gerr, werr); got != want {
			t.Errorf("readlink %s: %q, want %q", path, got, want)
		}
		if path == "" {
			continue
		}
		for _, flags := range []int{unix.O_RDONLY, unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW, unix.O_RDONLY | unix.O_NOFOLLOW, unix.O_RDONLY | unix.O_DIRECTORY} {
			wantFD, werr := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			for name, open := range map[string]func(string, int, uint32) (int, error){"OpenFD": files.OpenFD, "by name": files.OpenByName} {
				fd, gerr := open(path, flags|unix.O_CLOEXEC, 0)
				same(fmt.Sprintf("%s %s %#x", name, path, flags), gerr, werr)
				if gerr == nil && werr == nil {
					var a, b unix.Stat_t
					must(unix.Fstat(fd, &a))
					must(unix.Fstat(wantFD, &b))
					if a.Ino != b.Ino || a.Dev != b.Dev {
						t.Errorf("%s %s %#x is another file", name, path, flags)
					}
				}
				if gerr == nil {
					must(unix.Close(fd))
				}
			}
			if werr == nil {
				must(unix.Close(wantFD))
			}
		}
	}
	// A link to what is not there is where a file is made.
	for _, open := range []func(string, int, uint32) (int, error){files.OpenFD, files.OpenByName} {
		fd, err := open(at("to be made"), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
		must(err)
		must(unix.Close(fd))
		must(files.Remove(at("made")))
		if _, err := open(at("to be made"), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o666); !errors.Is(err, fs.ErrExist) {
			t.Error("O_EXCL at a link:", err)
		}
	}
	if st, err := os.Stat(at("a/b/file")); err != nil || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	same("remove a full directory", files.Remove(at("a")), os.Remove(at("a")))
	same("remove nothing", files.Remove(at("no")), os.Remove(at("no")))
	same("mkdir over a file", files.MkdirAll(at("a/b/file/x"), 0o755), os.MkdirAll(at("a/b/file/x"), 0o755))
	same("rename nothing", files.Rename(at("no"), at("no2")), os.Rename(at("no"), at("no2")))
	entries, err := files.ReadDir(dir)
	must(err)
	want, err := os.ReadDir(dir)
	must(err)
	for i := range want {
		if entries[i].Name() != want[i].Name() || entries[i].Type() != want[i].Type() {
			t.Errorf("entry %d is %v, want %v", i, entries[i], want[i])
		}
	}
	must(files.Remove(at("far")))
	must(files.RemoveAll(at("a")))
	if _, err := os.Lstat(at("a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after RemoveAll: %v", err)
	}
}

func BenchmarkStat(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	for name, stat := range map[string]func(string) (fs.FileInfo, error){"files": files.Stat, "os": os.Stat} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := stat(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
