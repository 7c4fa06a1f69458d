package sandboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func testFiles(t *testing.T, h Harness) {
	cases{
		"ReadAndWrite":      readAndWrite,
		"WriteOptions":      writeOptions,
		"AtomicReplacement": atomicReplacement,
		"CompareAndSwap":    compareAndSwap,
		"ReadLines":         readLineRanges,
		"Edit":              edit,
		"EditsRace":         editsRace,
		"Copy":              copyFiles,
		"Places":            places,
		"ListPages":         listPages,
		"Kinds":             kinds,
		"Patch":             patch,
		"PatchAllOrNothing": patchAllOrNothing,
		"PatchAsGit":        patchAsGit,
	}.run(t, h)
}

func (t *test) write(name, text string) *sandbox.FileInfo {
	t.Helper()
	fi, err := t.box.WriteFile(t.ctx, name, []byte(text), sandbox.WriteOptions{Parents: true})
	t.ok(err)
	return fi
}

func (t *test) read(name string) string {
	t.Helper()
	data, _, err := t.box.ReadFile(t.ctx, name, sandbox.ReadOptions{})
	t.ok(err)
	return string(data)
}

func (t *test) holds(name, want string) {
	t.Helper()
	if got := t.read(name); got != want {
		t.Errorf("%s holds %.200q, want %.200q", name, got, want)
	}
}

func readAndWrite(t *test) {
	for _, size := range []int{0, 1, 4096, sandbox.InlineBytes, sandbox.InlineBytes + 1, 3<<20 + 7} {
		data := bytes.Repeat([]byte("\x00\xff\r\nab"), size/6+1)[:size]
		fi, err := t.box.WriteFrom(t.ctx, "f", iotest.HalfReader(bytes.NewReader(data)), sandbox.WriteOptions{})
		t.ok(err)
		got, ri, err := t.box.ReadFile(t.ctx, "f", sandbox.ReadOptions{})
		t.ok(err)
		if !bytes.Equal(got, data) || fi.Size != int64(size) || ri.Version != fi.Version || ri.Type != sandbox.TypeFile || path.Base(ri.Path) != "f" {
			t.Errorf("%d bytes: read %d, %+v and %+v", size, len(got), fi, ri)
		}
		from := int64(size / 3)
		r, err := t.box.OpenFile(t.ctx, "f", sandbox.ReadOptions{Offset: from, Length: 1 << 20})
		t.ok(err)
		part, err := io.ReadAll(r)
		t.ok(err)
		r.Close()
		if want := data[from:]; !bytes.Equal(part, want[:min(len(want), 1<<20)]) {
			t.Errorf("%d bytes from %d: read %d", size, from, len(part))
		}
	}
	// A reader that goes away in the middle costs nothing.
	r, err := t.box.OpenFile(t.ctx, "/dev/null/..", sandbox.ReadOptions{})
	if err == nil {
		r.Close()
		t.Error("a directory behind a file could be read")
	}
	t.ok(func() error { r, err := t.box.OpenFile(t.ctx, "f", sandbox.ReadOptions{}); r.Close(); return err }())
	t.holds("f", t.read("f"))
}

func writeOptions(t *test) {
	write := func(name, text string, o sandbox.WriteOptions) error {
		_, err := t.box.WriteFile(t.ctx, name, []byte(text), o)
		return err
	}
	t.wantCode(write("a/b", "x", sandbox.WriteOptions{}), sandbox.CodeFileNotFound)
	t.ok(write("a/b", "x", sandbox.WriteOptions{Parents: true, Mode: 0o750, Sync: true}))
	t.wantCode(write("a/b", "y", sandbox.WriteOptions{Exclusive: true}), sandbox.CodeFileExists)
	t.ok(write("a/b", "yz", sandbox.WriteOptions{Mode: 0o600}))
	if fi, err := t.box.Stat(t.ctx, "a/b"); err != nil || fi.Mode != 0o750 {
		t.Errorf("a replaced file does not keep its mode: %+v, %v", fi, err)
	}
	t.ok(write("a/b", "+1", sandbox.WriteOptions{Append: true}))
	t.holds("a/b", "yz+1")
	t.ok(t.box.Symlink(t.ctx, "a/b", "link"))
	t.out("ln a/b hard")
	t.ok(write("link", "in place", sandbox.WriteOptions{InPlace: true}))
	t.holds("hard", "in place")
	t.ok(write("link", "anew", sandbox.WriteOptions{}))
	t.holds("a/b", "anew")
	t.holds("hard", "in place")
	t.wantCode(write("a/b", "", sandbox.WriteOptions{Mode: 0o100644}), sandbox.CodeInvalidArgument)
}

// What fails half way leaves the old file, and nothing beside it.
func atomicReplacement(t *test) {
	t.write("f", "old")
	broken := errors.New("the source broke")
	_, err := t.box.WriteFrom(t.ctx, "f", io.MultiReader(strings.NewReader(strings.Repeat("new", 1<<20)), iotest.ErrReader(broken)), sandbox.WriteOptions{})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the source's error", err)
	}
	t.holds("f", "old")
	t.eventually("removal of what was half written", func() bool { return t.out("ls -A -I .git") == "f\n" })
}

func compareAndSwap(t *test) {
	first := t.write("f", "1")
	second, err := t.box.WriteFile(t.ctx, "f", []byte("2"), sandbox.WriteOptions{IfVersion: first.Version})
	t.ok(err)
	_, err = t.box.WriteFile(t.ctx, "f", []byte("3"), sandbox.WriteOptions{IfVersion: first.Version})
	t.wantCode(err, sandbox.CodeVersionMismatch)
	t.out("echo other > f")
	_, err = t.box.WriteFile(t.ctx, "f", []byte("3"), sandbox.WriteOptions{IfVersion: second.Version})
	t.wantCode(err, sandbox.CodeVersionMismatch)
	_, err = t.box.Edit(t.ctx, "f", "other", "3", sandbox.EditOptions{IfVersion: second.Version})
	t.wantCode(err, sandbox.CodeVersionMismatch)
	t.holds("f", "other\n")
}

func readLineRanges(t *test) {
	t.write("f", "one\ntwo\r\n\nfour\nfive")
	for _, c := range []struct {
		opts sandbox.LineOptions
		text string
		more bool
		cut  bool
	}{
		{sandbox.LineOptions{}, "one\ntwo\r\n\nfour\nfive", false, false},
		{sandbox.LineOptions{Count: 2}, "one\ntwo\r\n", true, false},
		{sandbox.LineOptions{First: 2, Count: 3}, "two\r\n\nfour\n", true, false},
		{sandbox.LineOptions{First: 5}, "five", false, false},
		{sandbox.LineOptions{First: 6}, "", false, false},
		{sandbox.LineOptions{First: 100, Count: 1 << 50}, "", false, false},
		{sandbox.LineOptions{MaxBytes: 10}, "one\ntwo\r\n\n", true, false},
		{sandbox.LineOptions{MaxBytes: 9}, "one\ntwo\r\n", true, false},
		{sandbox.LineOptions{First: 4, MaxBytes: 2}, "fo", true, true},
		{sandbox.LineOptions{First: 5, MaxBytes: 4}, "five", false, false},
	} {
		l, err := t.box.ReadLines(t.ctx, "f", c.opts)
		t.ok(err)
		count := int64(strings.Count(c.text, "\n"))
		if c.text != "" && !strings.HasSuffix(c.text, "\n") {
			count++
		}
		if string(l.Text) != c.text || l.Truncated != c.more || l.LineCut != c.cut || l.Total != 5 || l.Count != count || l.First != max(c.opts.First, 1) || l.Binary || l.MIME != "text/plain" {
			t.Errorf("%+v: %q %+v", c.opts, l.Text, l)
		}
	}
	t.write("empty", "")
	if l, err := t.box.ReadLines(t.ctx, "empty", sandbox.LineOptions{}); err != nil || l.Total != 0 || l.Count != 0 || l.Truncated {
		t.Errorf("%+v, %v", l, err)
	}
	// Reading on gives every byte once.
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "%d %s\n", i, strings.Repeat("é", i%300))
	}
	t.write("long", text.String())
	var got strings.Builder
	for next := int64(1); ; {
		l, err := t.box.ReadLines(t.ctx, "long", sandbox.LineOptions{First: next, MaxBytes: 100_000})
		t.ok(err)
		got.Write(l.Text)
		if next += l.Count; !l.Truncated {
			break
		}
	}
	if got.String() != text.String() {
		t.Error("the pages are not the file")
	}
	_, err := t.box.ReadLines(t.ctx, "f", sandbox.LineOptions{First: -1})
	t.wantCode(err, sandbox.CodeInvalidArgument)
	_, err = t.box.ReadLines(t.ctx, "f", sandbox.LineOptions{MaxBytes: 1 << 40})
	t.wantCode(err, sandbox.CodeInvalidArgument)
}

// Text is told from other files by what is in it.
func kinds(t *test) {
	for name, c := range map[string]struct {
		data   string
		binary bool
		mime   string
	}{
		"a.py": {"print(1)\n", false, "text/x-python"}, "a.json": {"{}", false, "application/json"},
		"a.bin": {"a\x00b", true, "application/octet-stream"}, "latin.txt": {"caf\xe9 au lait", true, "application/octet-stream"},
		"long.md": {strings.Repeat("é", 5000), false, "text/markdown"}, "p.txt": {"\x89PNG\r\n\x1a\n\x00", true, "image/png"},
		"odd.txt": {"x" + strings.Repeat("é", 5000), false, "text/plain"},
	} {
		t.write(name, c.data)
		l, err := t.box.ReadLines(t.ctx, name, sandbox.LineOptions{})
		t.ok(err)
		if l.Binary != c.binary || l.MIME != c.mime || c.binary && len(l.Text) > 0 {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func edit(t *test) {
	text := "a $1 b\r\n\xff $& a\n"
	t.write("f", text)
	for _, c := range []struct {
		old, new string
		all      bool
		want     string
		n        int
		code     sandbox.Code
	}{
		{"nothing", "x", false, "", 0, sandbox.CodeTextNotFound},
		{"a", "x", false, "", 0, sandbox.CodeTextNotUnique},
		{"", "x", true, "", 0, sandbox.CodeInvalidArgument},
		{"a", "a", true, "", 0, sandbox.CodeInvalidArgument},
		{"a", "$&", true, "$& $1 b\r\n\xff $& $&\n", 2, ""},
		{"$1", "\\1\x00", false, "a \\1\x00 b\r\n\xff $& a\n", 1, ""},
		{"b\r\n\xff", "", false, "a $1  $& a\n", 1, ""},
	} {
		t.write("f", text)
		res, err := t.box.Edit(t.ctx, "f", c.old, c.new, sandbox.EditOptions{All: c.all})
		if c.code != "" {
			t.wantCode(err, c.code)
			t.holds("f", text)
			continue
		}
		t.ok(err)
		t.holds("f", c.want)
		if res.Replaced != c.n || res.Info.Size != int64(len(c.want)) {
			t.Errorf("%q: %+v", c.old, res)
		}
	}
	t.write("aaa", "aaa")
	_, err := t.box.Edit(t.ctx, "aaa", "aa", "b", sandbox.EditOptions{})
	t.wantCode(err, sandbox.CodeTextNotUnique) // it stands there twice, one over the other
	_, err = t.box.Edit(t.ctx, "absent", "a", "b", sandbox.EditOptions{})
	t.wantCode(err, sandbox.CodeFileNotFound)
	_, err = t.box.Edit(t.ctx, ".", "a", "b", sandbox.EditOptions{})
	t.wantCode(err, sandbox.CodeIsDirectory)
	_, err = t.box.Edit(t.ctx, "f", strings.Repeat("x", 17<<20), "b", sandbox.EditOptions{})
	t.wantCode(err, sandbox.CodeFileTooLarge)
	t.out("chmod 755 f; truncate -s 40M large")
	_, err = t.box.Edit(t.ctx, "large", "a", "b", sandbox.EditOptions{})
	t.wantCode(err, sandbox.CodeFileTooLarge)
	_, err = t.box.Edit(t.ctx, "f", "$&", "x", sandbox.EditOptions{})
	t.ok(err)
	if fi, err := t.box.Stat(t.ctx, "f"); err != nil || fi.Mode != 0o755 {
		t.Errorf("an edit changed the mode: %+v, %v", fi, err)
	}
}

// Of many edits at once none is lost.
func editsRace(t *test) {
	const n = 24
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "<%d>\n", i)
	}
	t.write("f", text.String())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for {
				_, err := t.box.Edit(t.ctx, "f", fmt.Sprintf("<%d>", i), fmt.Sprintf("(%d)", i), sandbox.EditOptions{})
				if err == nil {
					return
				}
				// After many attempts it gives up, and says so.
				if sandbox.CodeOf(err) != sandbox.CodeVersionMismatch {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.holds("f", strings.NewReplacer("<", "(", ">", ")").Replace(text.String()))
}

func copyFiles(t *test) {
	t.out(`mkdir -p d/sub/empty 'd/a b'; echo one > d/f; printf 'two' > 'd/a b/x'; ln -s ../f d/sub/link; ln -s /nowhere d/dangling
		chmod 751 d/f; chmod 500 d/sub/empty; chmod 711 d/sub; mkfifo d/pipe; touch -d '2001-02-03 04:05:06.789 UTC' d/f d/sub
		truncate -s 1G d/sparse; printf tail >> d/sparse`)
	res, err := t.box.Copy(t.ctx, "d", "e", sandbox.CopyOptions{})
	t.ok(err)
	want := sandbox.CopyResult{Files: 3, Directories: 4, Symlinks: 2, Skipped: 1, Bytes: 4 + 3 + 1<<30 + 4}
	if diff := cmp.Diff(want, *res); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	list := func(dir string) string {
		return t.out("cd " + dir + " && find . ! -name pipe ! -type l -printf '%P %y %m %T@\\n' | sort; find . -type l -printf '%P %l\\n' | sort; cat 'a b/x'; tail -c 4 sparse; cat f")
	}
	t.out("rm d/pipe; touch -d @1 d; touch -d @1 e")
	if diff := cmp.Diff(list("d"), list("e")); diff != "" {
		t.Errorf("-original +copy\n%s", diff)
	}
	if n := strings.TrimSpace(t.out("du -k e/sparse | cut -f1")); len(n) > 4 && !t.h.OwnKernel {
		t.Errorf("the copy of a hole takes %s KiB", n)
	}
	_, err = t.box.Copy(t.ctx, "d/f", "e/f", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeFileExists)
	t.out("echo new > d/f")
	_, err = t.box.Copy(t.ctx, "d/f", "e/f", sandbox.CopyOptions{Overwrite: true})
	t.ok(err)
	t.holds("e/f", "new\n")
	_, err = t.box.Copy(t.ctx, "d/f", "e", sandbox.CopyOptions{Overwrite: true})
	t.wantCode(err, sandbox.CodeFileExists)
	_, err = t.box.Copy(t.ctx, "d", "d/sub/d", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeInvalidArgument)
	_, err = t.box.Copy(t.ctx, "d/f", "d/f", sandbox.CopyOptions{Overwrite: true})
	t.wantCode(err, sandbox.CodeInvalidArgument)
	_, err = t.box.Copy(t.ctx, "absent", "x", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeFileNotFound)
	_, err = t.box.Copy(t.ctx, "d/f", "absent/x", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeFileNotFound)
	t.out("mkfifo p")
	_, err = t.box.Copy(t.ctx, "p", "q", sandbox.CopyOptions{})
	t.wantCode(err, sandbox.CodeNotRegular)
	if left := t.out("ls -A | grep tongs || true"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

func places(t *test) {
	for name, want := range map[string]bool{".": true, "absent": false, "f": true, "f/x": false, "dangling": false, "d/../f": true} {
		t.write("f", "")
		t.ok(t.box.Mkdir(t.ctx, "d", true))
		_ = t.box.Symlink(t.ctx, "nowhere", "dangling")
		if got, err := t.box.Exists(t.ctx, name); err != nil || got != want {
			t.Errorf("%s exists: %v, %v", name, got, err)
		}
	}
	_, err := t.box.Exists(t.ctx, "a\x00")
	t.wantCode(err, sandbox.CodeInvalidPath)
	t.ok(t.box.Chmod(t.ctx, "f", 0o4750))
	if fi, err := t.box.Stat(t.ctx, "f"); err != nil || fi.Mode != 0o4750 {
		t.Errorf("%+v, %v", fi, err)
	}
	t.ok(t.box.Mkdir(t.ctx, "x/y", true))
	t.ok(t.box.Rename(t.ctx, "f", "x/y/g"))
	t.ok(t.box.Rename(t.ctx, "x/y", "d/z"))
	t.holds("d/z/g", "")
	t.wantCode(t.box.Rename(t.ctx, "d", "d/z/d"), sandbox.CodeInvalidPath)
	t.wantCode(t.box.Rename(t.ctx, "absent", "y"), sandbox.CodeFileNotFound)
	t.wantCode(t.box.RemoveFile(t.ctx, "d", false), sandbox.CodeDirNotEmpty)
	t.ok(t.box.Symlink(t.ctx, "d", "ld"))
	t.ok(t.box.RemoveFile(t.ctx, "ld", true)) // the link, not what it names
	t.holds("d/z/g", "")
	t.ok(t.box.RemoveFile(t.ctx, "d", true))
	t.wantCode(t.box.RemoveFile(t.ctx, "d", true), sandbox.CodeFileNotFound)
	t.wantCode(t.box.Mkdir(t.ctx, "x", false), sandbox.CodeFileExists)
	if fi, err := t.box.Lstat(t.ctx, "dangling"); err != nil || fi.Type != sandbox.TypeSymlink || fi.Target != "nowhere" {
		t.Errorf("%+v, %v", fi, err)
	}
}

// A listing is whole and sorted, however it is cut into pages.
func listPages(t *test) {
	t.out(`mkdir -p a/b .h a-; for i in $(seq 3000); do : > a/f$i; done; : > a/b/x; : > .h/y; ln -s a l; : > 'a/
nl'`)
	want := strings.Split(strings.TrimSuffix(t.out("find . -mindepth 1 -printf '%P\\0'"), "\x00"), "\x00")
	got := map[string]bool{}
	last := ""
	opts := sandbox.ListOptions{Recursive: true, Hidden: true, Limit: 7}
	root, err := t.box.Stat(t.ctx, ".")
	t.ok(err)
	for pages := 0; ; pages++ {
		res, err := t.box.ListFiles(t.ctx, ".", opts)
		t.ok(err)
		for _, e := range res.Entries {
			name := strings.TrimPrefix(e.Path, root.Path+"/")
			if got[name] || strings.Compare(strings.ReplaceAll(name, "/", "\x00"), strings.ReplaceAll(last, "/", "\x00")) <= 0 {
				t.Fatalf("%q comes after %q", name, last)
			}
			got[name], last = true, name
		}
		if opts.Cursor = res.Next; res.Next == "" {
			break
		}
		if pages > len(want) {
			t.Fatal("the listing does not end")
		}
		if pages == 3 {
			opts.Limit = 1000
		}
	}
	for _, name := range want {
		if !got[name] {
			t.Errorf("%q is missing", name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	// What was made after the first page is on a later one, if it sorts behind.
	first, err := t.box.ListFiles(t.ctx, "a", sandbox.ListOptions{Limit: 2500})
	t.ok(err)
	t.write("a/zz", "")
	rest, err := t.box.ListFiles(t.ctx, "a", sandbox.ListOptions{Limit: 2500, Cursor: first.Next})
	t.ok(err)
	if n := len(rest.Entries); n == 0 || rest.Entries[n-1].Name != "zz" {
		t.Errorf("%d entries on the second page, without the new one", n)
	}
}
