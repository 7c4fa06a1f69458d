package sandboxtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/archive"
)

func testArchive(t *testing.T, h Harness) {
	cases{
		"RoundTrip":     archiveRoundTrip,
		"Choice":        archiveChoice,
		"Hostile":       archiveHostile,
		"ThroughLinks":  archiveThroughLinks,
		"Overwrite":     archiveOverwrite,
		"Bounds":        archiveBounds,
		"Broken":        archiveBroken,
		"FromGNUTar":    archiveFromGNUTar,
		"HostileReader": archiveReaderLeaves,
	}.run(t, h)
}

func (t *test) create(path string, opts archive.CreateOptions) []byte {
	t.Helper()
	r, err := archive.Create(t.ctx, t.box, path, opts)
	t.ok(err)
	defer r.Close()
	data, err := io.ReadAll(r)
	t.ok(err)
	return data
}

func (t *test) extract(dir string, data []byte, opts archive.ExtractOptions) (*archive.Result, error) {
	return archive.Extract(t.ctx, t.box, dir, bytes.NewReader(data), opts)
}

// described prints a tree: names, types, modes, times, targets and contents.
func (t *test) described(dir string) string {
	return t.out("cd " + dir + ` && find . -mindepth 1 ! -type l -printf '%P %y %m %T@\n' | sort; find . -type l -printf '%P %l\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum`)
}

func archiveRoundTrip(t *test) {
	t.out(`mkdir -p w/d/empty 'w/ü x'; echo hi > w/f; head -c 300000 /dev/urandom > w/d/random; : > w/none; ln -s ../f w/d/l; printf x > 'w/ü x/a
b'; printf y > "$(printf 'w/\377')"; chmod 4755 w/f; chmod 0500 w/d/empty; chmod 1777 w/d; mkfifo w/pipe; ln w/f w/hard
		touch -d '2001-02-03 04:05:06.123456789 UTC' w/f w/d; `)
	for _, format := range []archive.Format{archive.Auto, archive.Tar, archive.TarGzip, archive.TarZstd} {
		data := t.create("w", archive.CreateOptions{Format: format})
		res, err := t.extract("out/of/"+string(format), data, archive.ExtractOptions{})
		t.ok(err)
		if want := (archive.Result{Files: 6, Directories: 3, Links: 1, Bytes: 3 + 300000 + 2 + 3}); *res != want {
			t.Errorf("%s: %+v, want %+v", format, *res, want)
		}
		if format == archive.Auto {
			t.out("rm w/pipe; chmod 0755 w/f")
		}
		if diff := cmp.Diff(t.described("w"), t.described("out/of/"+string(format))); diff != "" {
			t.Errorf("%s: -original +extracted\n%s", format, diff)
		}
		t.out("chmod -R u+w out; rm -r out")
	}
	one := t.create("w/f", archive.CreateOptions{})
	_, err := t.extract("one", one, archive.ExtractOptions{})
	t.ok(err)
	t.holds("one/f", "hi\n")
	_, err = archive.Create(t.ctx, t.box, "absent", archive.CreateOptions{})
	t.wantCode(err, sandbox.CodeFileNotFound)
	_, err = archive.Create(t.ctx, t.box, "/dev/zero", archive.CreateOptions{})
	t.wantCode(err, sandbox.CodeNotRegular)
	_, err = archive.Create(t.ctx, t.box, ".", archive.CreateOptions{Format: "rar"})
	t.wantCode(err, sandbox.CodeInvalidArgument)
	_, err = t.extract("w/none/x", one, archive.ExtractOptions{})
	t.wantCode(err, sandbox.CodeNotDirectory)
}

func (t *test) names(data []byte) (names []string) {
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		t.ok(err)
		names = append(names, h.Name)
	}
}

func archiveChoice(t *test) {
	t.out(`mkdir -p w/node_modules/m w/src/gen w/.git; cd w; touch a.go b.js src/c.go src/gen/d.go node_modules/m/e.go .git/HEAD x.log keep.log
		printf '*.log\n!keep.log\ngen/\n' > .gitignore`)
	for _, c := range []struct {
		opts sandbox.TreeOptions
		want string
	}{
		{sandbox.TreeOptions{Ignored: true, Exclude: []string{"node_modules"}}, ".gitignore a.go b.js keep.log src/ src/c.go"},
		{sandbox.TreeOptions{Include: []string{"*.go"}, Exclude: []string{"/src/gen", ".git"}}, "a.go node_modules/ node_modules/m/ node_modules/m/e.go src/ src/c.go"},
	} {
		if got := strings.Join(t.names(t.create("w", archive.CreateOptions{TreeOptions: c.opts})), " "); got != c.want {
			t.Errorf("%+v: %s", c.opts, got)
		}
	}
	// The same by a path that is not clean.
	if got := t.names(t.create("w/../w/src", archive.CreateOptions{TreeOptions: sandbox.TreeOptions{Ignored: true}})); strings.Join(got, " ") != "c.go" {
		t.Errorf("%q", got)
	}
	_, err := archive.Create(t.ctx, t.box, "w", archive.CreateOptions{TreeOptions: sandbox.TreeOptions{Include: []string{"["}}})
	t.wantCode(err, sandbox.CodeInvalidArgument)
}

// tarOf makes an archive of entries.
func tarOf(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "content of " + h.Name
			h.Size = int64(len(text))
		}
		h.ModTime = time.Unix(1e9, 0)
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// A hostile archive writes nothing outside of its directory, and makes nothing that
// leads out.
func archiveHostile(t *test) {
	t.out("mkdir victim; echo mine > victim/f; ln -s ../victim out-link")
	good := tar.Header{Name: "good"}
	sym := func(name, target string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
	}
	for i, c := range []struct {
		entries []tar.Header
		code    sandbox.Code
	}{
		{[]tar.Header{{Name: "../victim/f"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "a/../../victim/f"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "/tmp/absolute"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: ".."}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{sym("l", "../victim"), {Name: "l/f"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{sym("l", "/etc")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{sym("a/l", "../../victim")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}, sym("y", "d"), sym("x", "y/..")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}, sym("l", "d"), {Name: "l/f"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{sym("l", "."), {Name: "l/", Typeflag: tar.TypeDir}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{hard("h", "../victim/f")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{hard("h", "/etc/passwd")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{sym("l", "good"), good, hard("h", "l")}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{hard("h", "absent")}, sandbox.CodeFileNotFound},
		{[]tar.Header{good, hard("good", "good")}, sandbox.CodeFileExists},
		{[]tar.Header{{Name: "fifo", Typeflag: tar.TypeFifo}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "dev", Typeflag: tar.TypeBlock}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: strings.Repeat("n", 300)}}, sandbox.CodeNameTooLong},
		{[]tar.Header{{Name: strings.Repeat("d/", 3000) + "x"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{good, {Name: "good/x"}}, sandbox.CodeUnsafeArchive},
		{[]tar.Header{{Name: "d/", Typeflag: tar.TypeDir}, {Name: "d"}}, sandbox.CodeIsDirectory},
		{[]tar.Header{good, good}, sandbox.CodeFileExists},
		{[]tar.Header{sym("l", "good"), {Name: "l"}}, sandbox.CodeFileExists},
	} {
		_, err := t.extract(fmt.Sprint("w/", i), tarOf(c.entries...), archive.ExtractOptions{})
		if sandbox.CodeOf(err) != c.code {
			t.Errorf("%d, %.100q: %v, want %s", i, c.entries[len(c.entries)-1].Name, err, c.code)
		}
	}
	// Harmless are setuid and setgid, which go; and with LinksOut a link out,
	// which is made and not followed.
	_, err := t.extract("w/modes", tarOf(tar.Header{Name: "s", Mode: 0o6755}, tar.Header{Name: "./a//b/c"}), archive.ExtractOptions{})
	t.ok(err)
	if fi, err := t.box.Stat(t.ctx, "w/modes/s"); err != nil || fi.Mode != 0o755 {
		t.Errorf("%+v, %v", fi, err)
	}
	t.holds("w/modes/a/b/c", "content of ./a//b/c")
	out := archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{LinksOut: true, Overwrite: true}}
	_, err = t.extract("w/out", tarOf(sym("l", "../../victim"), tar.Header{Name: "l/f"}), out)
	t.wantCode(err, sandbox.CodeUnsafeArchive)
	_, err = t.extract("w/out", tarOf(sym("l", "../../victim/f"), tar.Header{Name: "l"}), out)
	t.ok(err)
	t.holds("w/out/l", "content of l")
	if got := t.out("cat victim/*; ls victim; ls /tmp/absolute 2>/dev/null || true"); got != "mine\nf\n" {
		t.Errorf("outside there is %q", got)
	}
	t.answers()
}

// Links that were there before are not gone through either.
func archiveThroughLinks(t *test) {
	t.out("mkdir -p victim w; echo mine > victim/f; ln -s ../victim w/d; ln -s ../victim/f w/f")
	_, err := t.extract("w", tarOf(tar.Header{Name: "d/f"}), archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{Overwrite: true}})
	t.wantCode(err, sandbox.CodeUnsafeArchive)
	_, err = t.extract("w", tarOf(tar.Header{Name: "f"}), archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{Overwrite: true}})
	t.ok(err)
	t.holds("victim/f", "mine\n")
	t.holds("w/f", "content of f")
	// The directory itself may be named by way of a link.
	t.out("ln -s w lw")
	_, err = t.extract("lw", tarOf(tar.Header{Name: "new"}), archive.ExtractOptions{})
	t.ok(err)
	t.holds("w/new", "content of new")
}

func archiveOverwrite(t *test) {
	t.out("mkdir w; echo old > w/f; ln w/f w/other")
	data := tarOf(tar.Header{Name: "top/f"}, tar.Header{Name: "top/g"})
	opts := archive.ExtractOptions{Strip: 1}
	_, err := t.extract("w", data, opts)
	t.wantCode(err, sandbox.CodeFileExists)
	opts.Overwrite = true
	_, err = t.extract("w", data, opts)
	t.ok(err)
	t.holds("w/f", "content of top/f")
	t.holds("w/g", "content of top/g")
	t.holds("w/other", "old\n")
}

func archiveBounds(t *test) {
	t.out("mkdir w; truncate -s 1M w/a w/b; touch w/c")
	for _, o := range []archive.CreateOptions{{MaxBytes: 1 << 20}, {MaxEntries: 2}} {
		r, err := archive.Create(t.ctx, t.box, "w", o)
		t.ok(err)
		_, err = io.Copy(io.Discard, r)
		t.wantCode(err, sandbox.CodeArchiveTooLarge)
		r.Close()
	}
	whole := t.create("w", archive.CreateOptions{Format: archive.TarZstd})
	if len(whole) > 10_000 {
		t.Errorf("2 MiB of zeros are %d bytes", len(whole))
	}
	for _, o := range []archive.ExtractOptions{{MaxBytes: 1<<21 - 1}, {MaxEntries: 2}} {
		_, err := t.extract("x", whole, o)
		t.wantCode(err, sandbox.CodeArchiveTooLarge)
		t.out("rm -rf x")
	}
	_, err := t.extract("x", whole, archive.ExtractOptions{MaxBytes: 1 << 21})
	t.ok(err)
	// A sparse file counts by its size, not by what is in the archive.
	if !t.h.OwnKernel && t.sh("tar --version | grep -q GNU").Exit.Success() {
		t.out("mkdir s; truncate -s 1T s/huge; tar -C s -cSf s.tar huge")
		data := []byte(t.read("s.tar"))
		_, err := t.extract("y", data, archive.ExtractOptions{})
		t.wantCode(err, sandbox.CodeArchiveTooLarge)
	}
	t.answers()
}

func archiveBroken(t *test) {
	good := tarOf(tar.Header{Name: "a"}, tar.Header{Name: "b"})
	var z bytes.Buffer
	g := gzip.NewWriter(&z)
	_, _ = g.Write(good)
	g.Close()
	for name, data := range map[string][]byte{
		"cut": good[:1100], "cut gzip": z.Bytes()[:z.Len()/2], "text": []byte(strings.Repeat("hello ", 1000)), "zstd": []byte("\x28\xb5\x2f\xfdnonsense"),
		"bad sum": append(append([]byte{}, z.Bytes()[:z.Len()-8]...), "12345678"...),
	} {
		_, err := t.extract("w", data, archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{Overwrite: true}})
		if sandbox.CodeOf(err) != sandbox.CodeInvalidArchive {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("the source broke")
	_, err := archive.Extract(t.ctx, t.box, "w", io.MultiReader(bytes.NewReader(good[:600]), iotest.ErrReader(broken)), archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{Overwrite: true}})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the source's error", err)
	}
	// A file that is not whole does not stay.
	_, err = t.extract("v", append(tarOf(tar.Header{Name: "a"})[:512], "half"...), archive.ExtractOptions{})
	t.wantCode(err, sandbox.CodeInvalidArchive)
	t.eventually("removal of what was half written", func() bool { return t.out("ls -A v") == "" })
	ctx, cancel := context.WithCancel(t.ctx)
	_, err = archive.Extract(ctx, t.box, "w", io.MultiReader(bytes.NewReader(good[:1024]), readerFunc(func([]byte) (int, error) { cancel(); <-ctx.Done(); return 0, ctx.Err() })), archive.ExtractOptions{WriteTreeOptions: sandbox.WriteTreeOptions{Overwrite: true}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err = t.extract("empty", nil, archive.ExtractOptions{})
	t.ok(err)
	t.answers()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// What GNU tar makes, in each of its formats, is read; and it reads ours.
func archiveFromGNUTar(t *test) {
	if !t.sh("tar --version | grep -q GNU").Exit.Success() {
		t.Skip("the sandbox has no GNU tar")
	}
	long := strings.Repeat("long", 40)
	t.out(fmt.Sprintf("mkdir -p w/%[1]s; echo a > w/%[1]s/%[1]s; ln -s %[1]s/%[1]s w/l; echo b > w/h1; ln w/h1 w/h2; head -c 100000 /dev/zero > w/z; chmod 700 w/h1; touch -d @1000000000 w/*", long))
	for _, format := range []string{"gnu", "pax", "oldgnu"} {
		t.out("tar --format=" + format + " -C w -czf a.tgz . && rm -rf x")
		_, err := t.extract("x", []byte(t.read("a.tgz")), archive.ExtractOptions{})
		t.ok(err)
		t.out("diff -r w x && test x/h1 -ef x/h2 && [ \"$(stat -c '%a %Y' x/h1)\" = '700 1000000000' ]")
	}
	t.write("ours.tar.gz", string(t.create("w", archive.CreateOptions{Format: archive.TarGzip})))
	t.out("mkdir y && tar -C y -xzf ours.tar.gz && diff -r w y")
}

func archiveReaderLeaves(t *test) {
	t.out("mkdir w; truncate -s 1G w/a w/b")
	for range 3 {
		r, err := archive.Create(t.ctx, t.box, "w", archive.CreateOptions{})
		t.ok(err)
		_, err = io.ReadFull(r, make([]byte, 10_000))
		t.ok(err)
		t.ok(r.Close())
	}
	if in, err := t.box.Info(t.ctx); err != nil || in.MemoryBytes > 64<<20 {
		t.Errorf("the guest takes %d MiB, %v", in.MemoryBytes>>20, err)
	}
	t.answers()
}
