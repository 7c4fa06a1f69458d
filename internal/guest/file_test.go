package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func TestReadAndWrite(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	for _, size := range []int{0, 1, 4096, sandbox.InlineBytes, sandbox.InlineBytes + 1, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := bytes.Repeat([]byte("\x00\xffabc\n"), size/6+1)[:size]
			name := fmt.Sprint("f", size)
			fi, err := b.WriteFile(ctx, name, data, sandbox.WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if fi.Size != int64(size) || fi.Mode != 0o644 || fi.Type != sandbox.TypeFile || fi.Path != b.path(name) {
				t.Errorf("info %+v", fi)
			}
			got, ri, err := b.ReadFile(ctx, b.path(name), sandbox.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) || ri.Version != fi.Version {
				t.Errorf("read %d bytes, version %q and %q", len(got), ri.Version, fi.Version)
			}
			half := int64(size / 2)
			got, _, err = b.ReadFile(ctx, name, sandbox.ReadOptions{Offset: half, Length: half / 2})
			if err != nil {
				t.Fatal(err)
			}
			if want := data[half:]; half/2 > 0 && !bytes.Equal(got, want[:half/2]) {
				t.Errorf("read %d bytes of the part", len(got))
			}
			if got, _, err := b.ReadFile(ctx, name, sandbox.ReadOptions{Offset: int64(size) + 10}); err != nil || len(got) != 0 {
				t.Errorf("behind the end: %d bytes, %v", len(got), err)
			}
			r, err := b.OpenFile(ctx, name, sandbox.ReadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if err := iotest.TestReader(r, data); err != nil && size < 10000 {
				t.Error(err)
			}
		})
	}
	if names := listNames(ctx, t, b, ".", sandbox.ListOptions{Hidden: true}); len(names) != 6 {
		t.Errorf("temporary files are left: %q", names)
	}
}

func TestWriteOptions(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	write := func(name, data string, o sandbox.WriteOptions) (*sandbox.FileInfo, error) {
		t.Helper()
		return b.WriteFile(ctx, name, []byte(data), o)
	}
	must := func(name, data string, o sandbox.WriteOptions) *sandbox.FileInfo {
		t.Helper()
		fi, err := write(name, data, o)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	content := func(name, want string) {
		t.Helper()
		if got, err := os.ReadFile(b.path(name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	_, err := write("a/b/c", "x", sandbox.WriteOptions{})
	wantCode(t, err, sandbox.CodeFileNotFound)
	must("a/b/c", "x", sandbox.WriteOptions{Parents: true, Mode: 0o751})
	content("a/b/c", "x")
	if st, _ := os.Stat(b.path("a/b/c")); st.Mode().Perm() != 0o751 {
		t.Errorf("mode %v", st.Mode())
	}
	_, err = write("a/b/c", "y", sandbox.WriteOptions{Exclusive: true})
	wantCode(t, err, sandbox.CodeFileExists)
	must("a/b/c", "yy", sandbox.WriteOptions{Mode: 0o600}) // keeps its bits
	if st, _ := os.Stat(b.path("a/b/c")); st.Mode().Perm() != 0o751 {
		t.Errorf("mode %v", st.Mode())
	}
	must("a/b/c", "zz", sandbox.WriteOptions{Append: true})
	content("a/b/c", "yyzz")
	must("a/b/new", "1", sandbox.WriteOptions{Append: true, Sync: true})
	content("a/b/new", "1")

	// In place keeps the inode, the default doesn't.
	inode := func(name string) uint64 {
		st, err := os.Stat(b.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Ino
	}
	before := inode("a/b/c")
	must("a/b/c", "in place", sandbox.WriteOptions{InPlace: true})
	content("a/b/c", "in place")
	if inode("a/b/c") != before {
		t.Error("another inode")
	}

	// Links are followed, also to what isn't there yet.
	for _, l := range [][2]string{{"a/b/c", "link"}, {"fresh", "dangling"}, {"loop2", "loop1"}, {"loop1", "loop2"}} {
		if err := b.Symlink(ctx, l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	must("link", "through", sandbox.WriteOptions{})
	content("a/b/c", "through")
	must("dangling", "made", sandbox.WriteOptions{})
	content("fresh", "made")
	if fi, err := b.Lstat(ctx, "link"); err != nil || fi.Type != sandbox.TypeSymlink || fi.Target != "a/b/c" {
		t.Errorf("%+v, %v", fi, err)
	}
	_, err = write("loop1", "", sandbox.WriteOptions{})
	wantCode(t, err, sandbox.CodeSymlinkLoop)
	_, _, err = b.ReadFile(ctx, "loop1", sandbox.ReadOptions{})
	wantCode(t, err, sandbox.CodeSymlinkLoop)

	// Versions.
	v := must("v", "1", sandbox.WriteOptions{})
	v2 := must("v", "2", sandbox.WriteOptions{IfVersion: v.Version})
	_, err = write("v", "3", sandbox.WriteOptions{IfVersion: v.Version})
	wantCode(t, err, sandbox.CodeVersionMismatch)
	if err := os.WriteFile(b.path("v"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = write("v", "3", sandbox.WriteOptions{IfVersion: v2.Version})
	wantCode(t, err, sandbox.CodeVersionMismatch)
	_, err = write("not there", "3", sandbox.WriteOptions{IfVersion: v2.Version})
	wantCode(t, err, sandbox.CodeVersionMismatch)
	content("v", "x")
}

// Of many that compare and swap, each step is won by one.
func TestVersionsRace(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if _, err := b.WriteFile(ctx, "n", []byte("0"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	const workers, each = 8, 20
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				data, fi, err := b.ReadFile(ctx, "n", sandbox.ReadOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(data), &n)
				_, err = b.WriteFile(ctx, "n", fmt.Append(nil, n+1), sandbox.WriteOptions{IfVersion: fi.Version})
				if err == nil {
					done++
				} else if sandbox.CodeOf(err) != sandbox.CodeVersionMismatch {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if data, _, err := b.ReadFile(ctx, "n", sandbox.ReadOptions{}); err != nil || string(data) != fmt.Sprint(workers*each) {
		t.Errorf("%s, %v", data, err)
	}
}

// A file is the old one or the new one: whoever reads sees no other, and a writer
// that fails leaves the old.
func TestWritesAreAtomic(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	old, fresh := bytes.Repeat([]byte("o"), 1<<20), bytes.Repeat([]byte("n"), 1<<20)
	if _, err := b.WriteFile(ctx, "f", old, sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("source broke")
	_, err := b.WriteFrom(ctx, "f", io.MultiReader(bytes.NewReader(fresh), iotest.ErrReader(broken)), sandbox.WriteOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	_, err = b.WriteFrom(short, "f", readerFunc(func(p []byte) (int, error) { cancel(); time.Sleep(time.Millisecond); return len(p), nil }), sandbox.WriteOptions{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got, err := os.ReadFile(b.path("f")); err != nil || !bytes.Equal(got, old) {
		t.Errorf("the old file is lost: %d bytes, %v", len(got), err)
	}
	waitFor(ctx, t, "removal of what was half written", func() bool {
		return len(listNames(ctx, t, b, ".", sandbox.ListOptions{Hidden: true})) == 1
	})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got, err := os.ReadFile(b.path("f"))
			if err != nil || !bytes.Equal(got, old) && !bytes.Equal(got, fresh) {
				t.Errorf("a reader saw %d bytes, %v", len(got), err)
				return
			}
		}
	})
	for i := range 20 {
		data := old
		if i%2 == 0 {
			data = fresh
		}
		if _, err := b.WriteFile(ctx, "f", data, sandbox.WriteOptions{}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Whatever is named, the answer is a typed error, at once.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if err := syscall.Mkfifo(b.path("fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.path("full/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", 300)
	for _, c := range []struct {
		path        string
		read, write sandbox.Code
	}{
		{"", sandbox.CodeInvalidPath, sandbox.CodeInvalidPath},
		{"a\x00b", sandbox.CodeInvalidPath, sandbox.CodeInvalidPath},
		{"missing", sandbox.CodeFileNotFound, ""},
		{"absent/x", sandbox.CodeFileNotFound, sandbox.CodeFileNotFound},
		{"plain/x", sandbox.CodeNotDirectory, sandbox.CodeNotDirectory},
		{"full", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"full/", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"..", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"/", sandbox.CodeIsDirectory, sandbox.CodeIsDirectory},
		{"fifo", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"/dev/zero", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"/dev/null", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{"/dev/tty", sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{b.socket, sandbox.CodeNotRegular, sandbox.CodeNotRegular},
		{long, sandbox.CodeNameTooLong, sandbox.CodeNameTooLong},
		{strings.Repeat("d/", 3000), sandbox.CodeNameTooLong, sandbox.CodeNameTooLong},
	} {
		name := strings.ReplaceAll(fmt.Sprintf("%.30q", c.path), "/", "|")
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, _, err := b.ReadFile(ctx, c.path, sandbox.ReadOptions{})
			wantCode(t, err, c.read)
			for _, o := range []sandbox.WriteOptions{{}, {InPlace: true}, {Append: true}} {
				_, err = b.WriteFile(ctx, c.path, []byte("x"), o)
				if c.write != "" {
					wantCode(t, err, c.write)
				} else if err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	_, _, err := b.ReadFile(ctx, "plain", sandbox.ReadOptions{Offset: -1})
	wantCode(t, err, sandbox.CodeInvalidArgument)
	_, err = b.WriteFile(ctx, "plain", nil, sandbox.WriteOptions{Mode: 0o100644})
	wantCode(t, err, sandbox.CodeInvalidArgument)
	// A file of the kernel's that says its size is 0.
	if data, _, err := b.ReadFile(ctx, "/proc/self/status", sandbox.ReadOptions{}); err != nil || !bytes.Contains(data, []byte("Name:")) {
		t.Errorf("%q, %v", data, err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	b := newBox(t)
	ctx := b.context()
	small := b.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if _, err := b.WriteFile(ctx, "small/f", []byte("old"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{250 << 10, 5 << 20} {
		_, err := b.WriteFile(ctx, "small/f", make([]byte, size+40<<10), sandbox.WriteOptions{})
		wantCode(t, err, sandbox.CodeNoSpace)
	}
	if got, err := os.ReadFile(b.path("small/f")); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	if names := listNames(ctx, t, b, "small", sandbox.ListOptions{Hidden: true}); len(names) != 1 {
		t.Errorf("left over: %q", names)
	}
}

func TestFileOperations(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	wantCode(t, b.Mkdir(ctx, "d/e", false), sandbox.CodeFileNotFound)
	if err := b.Mkdir(ctx, "d/e", true); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.Mkdir(ctx, "d", false), sandbox.CodeFileExists)
	if _, err := b.WriteFile(ctx, "d/f", []byte("x"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Chmod(ctx, "d/f", 0o4711); err != nil {
		t.Fatal(err)
	}
	if fi, err := b.Stat(ctx, "d/f"); err != nil || fi.Mode != 0o4711 || fi.Name != "f" || time.Since(fi.Modified) > time.Hour {
		t.Errorf("%+v, %v", fi, err)
	}
	if fi, err := b.Stat(ctx, "d"); err != nil || fi.Type != sandbox.TypeDirectory {
		t.Errorf("%+v, %v", fi, err)
	}
	if err := b.Rename(ctx, "d/f", "g"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.Rename(ctx, "d/f", "g"), sandbox.CodeFileNotFound)
	wantCode(t, b.RemoveFile(ctx, "d", false), sandbox.CodeDirNotEmpty)
	wantCode(t, b.RemoveFile(ctx, "nothing", true), sandbox.CodeFileNotFound)
	if err := b.RemoveFile(ctx, "d", true); err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveFile(ctx, "g", false); err != nil {
		t.Fatal(err)
	}
	_, err := b.Stat(ctx, "d")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if names := listNames(ctx, t, b, ".", sandbox.ListOptions{Hidden: true}); len(names) != 0 {
		t.Errorf("left over: %q", names)
	}
}

// listNames pages through a listing and gives paths below the directory.
func listNames(ctx context.Context, t *testing.T, b *box, dir string, o sandbox.ListOptions) []string {
	t.Helper()
	names := []string{}
	for range 10_000 {
		res, err := b.ListFiles(ctx, dir, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range res.Entries {
			rel, err := filepath.Rel(filepath.Join(b.project, dir), e.Path)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, rel)
		}
		if res.Next == "" {
			return names
		}
		o.Cursor = res.Next
	}
	t.Fatal("the listing never ends")
	return nil
}

func TestListing(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	for _, d := range []string{"b/c", "b-", "a", ".h/i", "b/.g"} {
		if err := os.MkdirAll(b.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"z", "b/c/1", "b/c/2", "b/d", ".h/i/j", "b0", "a/ü x"} {
		if err := os.WriteFile(b.path(f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("b", b.path("link")); err != nil {
		t.Fatal(err)
	}
	all := []string{".h", ".h/i", ".h/i/j", "a", "a/ü x", "b", "b/.g", "b/c", "b/c/1", "b/c/2", "b/d", "b-", "b0", "link", "z"}
	shown := []string{"a", "a/ü x", "b", "b/c", "b/c/1", "b/c/2", "b/d", "b-", "b0", "link", "z"}
	top := []string{"a", "b", "b-", "b0", "link", "z"}
	for limit := range len(all) + 2 {
		for _, c := range []struct {
			o    sandbox.ListOptions
			want []string
		}{
			{sandbox.ListOptions{Recursive: true, Hidden: true, Limit: limit}, all},
			{sandbox.ListOptions{Recursive: true, Limit: limit}, shown},
			{sandbox.ListOptions{Limit: limit}, top},
		} {
			if diff := cmp.Diff(c.want, listNames(ctx, t, b, ".", c.o)); diff != "" {
				t.Errorf("%+v: -want +got\n%s", c.o, diff)
			}
		}
	}
	_, err := b.ListFiles(ctx, "z", sandbox.ListOptions{})
	wantCode(t, err, sandbox.CodeNotDirectory)
	_, err = b.ListFiles(ctx, "nothing", sandbox.ListOptions{})
	wantCode(t, err, sandbox.CodeFileNotFound)
	_, err = b.ListFiles(ctx, ".", sandbox.ListOptions{Limit: 1 << 30})
	wantCode(t, err, sandbox.CodeInvalidArgument)
}

// What is being written goes where its directory goes, and a link to a place for a file makes the file there.
func TestWriteStaysInItsDirectory(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	for _, dir := range []string{"d", "far/away"} {
		if err := b.Mkdir(ctx, dir, true); err != nil {
			t.Fatal(err)
		}
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		_, err := b.WriteFrom(ctx, "d/f", r, sandbox.WriteOptions{})
		written <- err
	}()
	if _, err := io.WriteString(w, "moved"); err != nil { // it is read when the place is open
		t.Fatal(err)
	}
	if err := b.Rename(ctx, "d", "e"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for _, l := range [][2]string{{"far/one", "link"}, {"away/two", "far/one"}, {"../../e/new", "far/away/two"}} {
		if err := b.Symlink(ctx, l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.WriteFile(ctx, "link", []byte("linked"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "moved", "new": "linked"} {
		if got, err := os.ReadFile(b.path("e/" + name)); string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	if all, err := os.ReadDir(b.path("e")); len(all) != 2 {
		t.Errorf("there is %v, %v", all, err)
	}
}
