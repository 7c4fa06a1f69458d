//go:build linux

package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entry is one of a tar archive.
type entry struct {
	tar.Header
	data string
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}
func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data}
}
func link(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}
func hard(name, to string) entry {
	return entry{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_700_000_000, 0)
		}
		must(t, w.WriteHeader(&e.Header))
		_, err := io.WriteString(w, e.data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var isRoot = os.Geteuid() == 0

// unpack unpacks into a new directory beside which nothing else may appear.
func unpack(t testing.TB, data []byte, opts layer.Options) (string, layer.Result, error) {
	t.Helper()
	around := t.TempDir()
	dir := filepath.Join(around, "layer")
	must(t, os.Mkdir(dir, 0o755))
	opts.Owners = isRoot
	res, err := layer.Unpack(t.Context(), dir, bytes.NewReader(data), opts)
	if names, rerr := os.ReadDir(around); rerr != nil || len(names) != 1 {
		t.Errorf("beside the layer there is %v, %v", names, rerr)
	}
	return dir, res, err
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	owned := file("home/user/mine", "mine")
	owned.Uid, owned.Gid = 1000, 1001
	suid := file("bin/su", "su")
	suid.Mode = 0o4755
	tmp := dir("tmp/")
	tmp.Mode = 0o1777
	device := entry{tar.Header{Typeflag: tar.TypeChar, Name: "dev/sda", Devmajor: 8}, ""}
	zero := entry{tar.Header{Typeflag: tar.TypeChar, Name: "etc/nowhiteout"}, ""}
	locked := dir("locked")
	locked.Mode = 0o500
	attrs := file("attrs", "x")
	attrs.Format = tar.FormatPAX
	attrs.PAXRecords = map[string]string{"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.security.capability": "cap", "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": "/etc"}
	beyond := file("beyond", "x")
	beyond.Uid = 70000
	data := archive(t, dir("./"), dir("./etc/"), file("./etc/passwd", "root"), file("/etc/absolute", "inside"), link("etc/link", "passwd"), hard("etc/hard", "etc/passwd"),
		file("a/b/c/deep", "deep"), owned, suid, tmp, device, zero, locked, file("locked/in", "in"), attrs, beyond,
		entry{tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600}, ""},
		link("lib", "usr/lib"), dir("usr/lib"), file("lib/so", "through a link"), link("up", "../../../../.."), file("twice", "1"), file("twice", "2"))
	for name, compress := range map[string]func(io.Writer) io.WriteCloser{
		"plain": func(w io.Writer) io.WriteCloser { return nopCloser{w} },
		"gzip":  func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"zstd":  func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			z := compress(&b)
			_, err := z.Write(data)
			must(t, errors.Join(err, z.Close()))
			d, res, err := unpack(t, b.Bytes(), layer.Options{})
			must(t, err)
			if want := fmt.Sprintf("sha256:%x", sha256.Sum256(data)); res.DiffID != want {
				t.Errorf("digest %s, want %s", res.DiffID, want)
			}
			for p, want := range map[string]string{"etc/passwd": "root", "etc/absolute": "inside", "etc/link": "root", "a/b/c/deep": "deep", "home/user/mine": "mine",
				"usr/lib/so": "through a link", "locked/in": "in", "twice": "2"} {
				if got, err := os.ReadFile(filepath.Join(d, p)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", p, got, err)
				}
			}
			stat := func(p string) *syscall.Stat_t {
				info, err := os.Lstat(filepath.Join(d, p))
				if err != nil {
					t.Fatal(err)
				}
				return info.Sys().(*syscall.Stat_t)
			}
			if a, b := stat("etc/passwd"), stat("etc/hard"); a.Ino != b.Ino || a.Nlink != 2 {
				t.Error("the hard link is none")
			}
			if st := stat("bin/su"); st.Mode&0o7777 != 0o755 {
				t.Errorf("su has mode %o", st.Mode)
			}
			if st := stat("tmp"); st.Mode&0o7777 != 0o1777 {
				t.Errorf("tmp has mode %o", st.Mode)
			}
			if st := stat("pipe"); st.Mode&syscall.S_IFMT != syscall.S_IFIFO {
				t.Errorf("pipe has mode %o", st.Mode)
			}
			if st := stat("etc"); st.Mtim.Sec != 1_700_000_000 {
				t.Errorf("etc has the time %d", st.Mtim.Sec)
			}
			for _, p := range []string{"dev/sda", "etc/nowhiteout"} {
				if _, err := os.Lstat(filepath.Join(d, p)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", p, err)
				}
			}
			want := layer.Left{Devices: 2, Setuid: 1, Attributes: 3}
			if isRoot {
				want.Owners = 1
				if st := stat("home/user/mine"); st.Uid != 1000 || st.Gid != 1001 {
					t.Errorf("mine belongs to %d:%d", st.Uid, st.Gid)
				}
				if st := stat("beyond"); st.Uid != 65534 {
					t.Errorf("beyond belongs to %d", st.Uid)
				}
			}
			if res.Left != want {
				t.Errorf("left out %+v, want %+v", res.Left, want)
			}
			buf := make([]byte, 16)
			if n, err := unix.Getxattr(filepath.Join(d, "attrs"), "user.note", buf); err != nil || string(buf[:n]) != "kept" {
				t.Errorf("attribute: %q, %v", buf[:max(n, 0)], err)
			}
			for _, name := range []string{"trusted.overlay.opaque", "user.overlay.redirect", "security.capability"} {
				if _, err := unix.Getxattr(filepath.Join(d, "attrs"), name, buf); err == nil {
					t.Errorf("%s is there", name)
				}
			}
		})
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestWhiteouts(t *testing.T) {
	t.Parallel()
	d, _, err := unpack(t, archive(t, file("etc/.wh.gone", ""), dir("var"), file("var/.wh..wh..opq", ""), file("var/new", "x"),
		file(".wh.remade", ""), dir("remade"), file("remade/x", "x"), dir("first"), file(".wh.first", ""), file(".wh..wh.plnk", ""), file(".wh.implied", ""), file("implied/x", "x"),
		file("kept", "x"), file(".wh.kept", "")), layer.Options{})
	must(t, err)
	info, err := os.Lstat(filepath.Join(d, "etc/gone"))
	if err != nil || !layer.Whiteout(info) {
		t.Errorf("etc/gone: %v, %v", info, err)
	}
	attr := "user.overlay.opaque"
	if isRoot {
		attr = "trusted.overlay.opaque"
	}
	for _, p := range []string{"var", "remade", "first", "implied"} {
		buf := make([]byte, 4)
		if n, err := unix.Getxattr(filepath.Join(d, p), attr, buf); err != nil || string(buf[:n]) != "y" {
			t.Errorf("%s is not opaque: %v", p, err)
		}
	}
	for _, p := range []string{"var/new", "remade/x", "implied/x", "kept"} {
		if data, err := os.ReadFile(filepath.Join(d, p)); err != nil || string(data) != "x" {
			t.Errorf("%s: %v", p, err)
		}
	}
	if names, _ := filepath.Glob(d + "/.wh*"); len(names) != 0 {
		t.Errorf("left: %v", names)
	}

	// And what a union of layers makes of it.
	low, _, err := unpack(t, archive(t, file("etc/gone", "low"), file("etc/here", "low"), file("var/old", "low"), file("remade/old", "low"),
		link("bin", "usr/bin"), file("usr/bin/tool", "low"), link("loop", "loop"), link("abs", "/etc/here"), link("out", "../../../etc/here"), file("kept", "low")), layer.Options{})
	must(t, err)
	u, err := layer.OpenUnion([]string{d, low})
	must(t, err)
	defer u.Close()
	for p, want := range map[string]string{"etc/here": "low", "bin/tool": "low", "/abs": "low", "out": "low", "kept": "x", "var/new": "x",
		"etc/gone": "", "var/old": "", "remade/old": "", "loop": "", "kept/x": "", "": "", "nothing/there": "", "bin": ""} {
		got, err := u.ReadFile(p, 100)
		if string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	if _, err := u.ReadFile("etc/here", 2); err == nil {
		t.Error("a file larger than asked for is read")
	}
}

// TestHostile has a control for each refusal: what is nearly the same and right.
func TestHostile(t *testing.T) {
	t.Parallel()
	many := make([]entry, 1000)
	for i := range many {
		many[i] = file(fmt.Sprintf("f/%d", i), "")
	}
	zeros := func(n int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(archive(t, file("zeros", strings.Repeat("\x00", n))))
		must(t, errors.Join(err, z.Close()))
		return b.Bytes()
	}
	attrs := func(n, size int) entry {
		e := file("attrs", "")
		e.Format, e.PAXRecords = tar.FormatPAX, map[string]string{}
		for i := range n {
			e.PAXRecords[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = strings.Repeat("x", size)
		}
		return e
	}
	name := func(n int) string { return strings.Repeat("n", n) }
	for _, c := range []struct {
		what      string
		bad, good []byte
		limits    layer.Limits
		code      sandbox.Code
	}{
		{"dots", archive(t, file("a/../../x", "x")), archive(t, file("a/..x", "x")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"dots in the middle", archive(t, dir("a"), file("a/../x", "x")), archive(t, dir("a"), file("a/./x", "x")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"hard link out", archive(t, hard("h", "../../etc/passwd")), archive(t, file("f", ""), hard("h", "/f")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"hard link to what is not there", archive(t, hard("h", "/etc/passwd")), archive(t, file("etc/passwd", ""), hard("h", "/etc/passwd")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"hard link through a link out", archive(t, link("l", "/"), hard("h", "l/etc/passwd")), archive(t, link("l", "/"), file("etc/passwd", ""), hard("h", "l/etc/passwd")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"hard link to a directory", archive(t, dir("d"), hard("h", "d")), archive(t, link("d", "x"), hard("h", "d")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"hard link to a whiteout", archive(t, file(".wh.w", ""), hard("h", "w")), archive(t, file("w", ""), hard("h", "w")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"through a file", archive(t, file("f", ""), file("f/x", "")), archive(t, dir("f"), file("f/x", "")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"through a link in a circle", archive(t, link("l", "l"), file("l/x", "")), archive(t, link("l", "d"), dir("d"), file("l/x", "")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"in the place of all", archive(t, file(".", "x")), archive(t, dir(".")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"whiteout of nothing", archive(t, file("a/.wh.", "")), archive(t, file("a/.wh.x", "")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"whiteout of what is above", archive(t, file("a/.wh...", "")), archive(t, file("a/.wh....", "")), layer.Limits{}, sandbox.CodeUnsafeArchive},
		{"long name", archive(t, file(name(256), "")), archive(t, file(name(255), "")), layer.Limits{}, sandbox.CodeNameTooLong},
		{"long path", archive(t, file(strings.Repeat("d/", 2050)+"f", "")), archive(t, file(strings.Repeat("d/", 1000)+"f", "")), layer.Limits{}, sandbox.CodeNameTooLong},
		{"entries", archive(t, many...), archive(t, many[:50]...), layer.Limits{Entries: 100}, sandbox.CodeArchiveTooLarge},
		{"implied directories", archive(t, file(strings.Repeat("d/", 200)+"f", "")), archive(t, file(strings.Repeat("d/", 50)+"f", "")), layer.Limits{Entries: 100}, sandbox.CodeArchiveTooLarge},
		{"bytes", archive(t, file("a", name(600)), file("b", name(600))), archive(t, file("a", name(600)), file("b", name(300))), layer.Limits{Bytes: 1000}, sandbox.CodeArchiveTooLarge},
		{"bomb", zeros(16 << 20), zeros(1 << 20), layer.Limits{Ratio: 100, RatioBytes: 4 << 20}, sandbox.CodeArchiveTooLarge},
		{"many attributes", archive(t, attrs(65, 1)), archive(t, attrs(10, 1)), layer.Limits{}, sandbox.CodeArchiveTooLarge},
		{"large attributes", archive(t, attrs(40, 2000)), archive(t, attrs(1, 200)), layer.Limits{}, sandbox.CodeArchiveTooLarge},
		{"cut short", archive(t, file("f", name(5000)))[:2000], archive(t, file("f", name(5000))), layer.Limits{}, sandbox.CodeInvalidArchive},
		{"cut compression", zeros(1 << 20)[:500], zeros(1 << 20), layer.Limits{}, sandbox.CodeInvalidArchive},
		{"no archive", []byte(strings.Repeat("nonsense", 200)), archive(t), layer.Limits{}, sandbox.CodeInvalidArchive},
		{"unknown kind", archive(t, entry{tar.Header{Typeflag: 'Z', Name: "z"}, ""}), archive(t, entry{tar.Header{Typeflag: tar.TypeFifo, Name: "z"}, ""}), layer.Limits{}, sandbox.CodeUnsafeArchive},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			_, _, err := unpack(t, c.bad, layer.Options{Limits: c.limits})
			var e *sandbox.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Message == "" || e.Hint == "" {
				t.Errorf("got %v, want %s with a hint", err, c.code)
			}
			if _, _, err := unpack(t, c.good, layer.Options{Limits: c.limits}); err != nil {
				t.Errorf("the control: %v", err)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r := &cancelling{bytes.NewReader(archive(t, file("f", strings.Repeat("x", 8<<20)))), cancel}
	if _, err := layer.Unpack(ctx, t.TempDir(), r, layer.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// cancelling ends a context after the first read.
type cancelling struct {
	io.Reader
	cancel func()
}

func (c *cancelling) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.cancel()
	return n, err
}

// TestFailingSource reports what the source said, not what the archive lacks because of it.
func TestFailingSource(t *testing.T) {
	t.Parallel()
	broken := errors.New("the cable was cut")
	r := io.MultiReader(bytes.NewReader(archive(t, file("f", strings.Repeat("x", 8<<20)))[:1<<20]), failing{broken})
	if _, err := layer.Unpack(t.Context(), t.TempDir(), r, layer.Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestMany unpacks many files in many directories, more than are kept open.
func TestMany(t *testing.T) {
	t.Parallel()
	n := 1500
	if os.Getenv("TONGS_TEST_LONG") != "" {
		n = 100_000
	}
	entries := make([]entry, 0, n)
	for i := range n {
		entries = append(entries, file(fmt.Sprintf("d%d/e%d/f%d", i%300, i%7, i), "x"))
	}
	d, res, err := unpack(t, archive(t, entries...), layer.Options{})
	must(t, err)
	found := 0
	must(t, filepath.WalkDir(d, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			found++
		}
		return err
	}))
	if found != n || res.Entries != int64(n) {
		t.Errorf("%d files, %d entries, want %d", found, res.Entries, n)
	}
}

// FuzzUnpack looks for archives that leave anything outside, or anything dangerous inside.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, file("a/b", "x"), link("l", "/"), file("l/etc/x", "x"), hard("h", "a/b"), file(".wh.a", ""), dir("a"), file("a/.wh..wh..opq", "")))
	f.Add(archive(f, file("../x", "x"), link("a", ".."), file("a/x", "x")))
	f.Add(archive(f, entry{tar.Header{Typeflag: tar.TypeChar, Name: "dev"}, ""}, dir("a"), file("a/b", ""), file("a", ""), file("a/c", "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, _, err := unpack(t, data, layer.Options{Limits: layer.Limits{Entries: 200, Bytes: 1 << 20, Ratio: 10, RatioBytes: 4 << 20}})
		_ = err
		_ = filepath.WalkDir(d, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			info, err := e.Info()
			if err != nil {
				return nil
			}
			if m := info.Mode(); m&fs.ModeDevice != 0 && !layer.Whiteout(info) || !m.IsDir() && m&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				t.Errorf("%s is %v", p, m)
			}
			return nil
		})
	})
}
