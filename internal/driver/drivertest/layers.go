package drivertest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/sandbox"
)

// layer makes a directory that is put on top of an image. Its owners are ids inside, where that can be said.
type layer struct {
	t     *testing.T
	s     Suite
	path  string
	owned map[string]int
}

// giving is what give does for an ordinary user.
var giving = idmap.Task{Name: "drivertest.give"}

func init() {
	giving.Serve(func(_ context.Context, argument func(any) error) error {
		var l struct {
			Path  string
			Owned map[string]int
		}
		if err := argument(&l); err != nil {
			return err
		}
		return giveAway(l.Path, l.Owned)
	})
}

func giveAway(dir string, owned map[string]int) error {
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(p, 0, 0))
	})
	for p, id := range owned { // some have two names, of which one is told
		err = errors.Join(err, os.Lchown(filepath.Join(dir, p), id, id))
	}
	return err
}

// give gives what has been written into layers to whom it belongs, the rest to root.
func (b *bed) give(t *testing.T, layers ...*layer) {
	t.Helper()
	for _, l := range layers {
		if m := b.image.Map; !m.None() {
			must(t, giving.Run(t.Context(), m, map[string]any{"Path": l.path, "Owned": l.owned}, idmap.Streams{}))
		} else if os.Geteuid() == 0 {
			must(t, giveAway(l.path, l.owned))
		}
	}
}

func (b *bed) layer(t *testing.T, name string) *layer {
	t.Helper()
	l := &layer{t, b.s, filepath.Join(imageDir(b.home), name), make(map[string]int)}
	must(t, os.MkdirAll(l.path, 0o755))
	return l
}

func (l *layer) at(p string) string { return filepath.Join(l.path, p) }

func (l *layer) dir(p string, uid int) {
	l.t.Helper()
	must(l.t, os.MkdirAll(l.at(p), 0o755))
	l.own(p, uid)
}

func (l *layer) file(p, data string, uid int) {
	l.t.Helper()
	must(l.t, os.MkdirAll(filepath.Dir(l.at(p)), 0o755))
	must(l.t, os.WriteFile(l.at(p), []byte(data), 0o644))
	l.own(p, uid)
}

func (l *layer) own(p string, uid int) { l.owned[p] = uid }

// gone says that a name of the layers below isn't there any more.
func (l *layer) gone(p string) {
	l.t.Helper()
	must(l.t, os.MkdirAll(filepath.Dir(l.at(p)), 0o755))
	must(l.t, unix.Mknod(l.at(p), unix.S_IFCHR, 0))
}

// opaque hides what the layers below have in a directory.
func (l *layer) opaque(p string) {
	l.t.Helper()
	attr := "trusted.overlay.opaque"
	if os.Geteuid() != 0 {
		attr = "user.overlay.opaque"
	}
	must(l.t, unix.Setxattr(l.at(p), attr, []byte("y"), 0))
}

// testLayers makes sandboxes of an image of several layers.
func testLayers(t *testing.T, s Suite) {
	b := newBed(t, s)
	low, top := b.layer(t, "low"), b.layer(t, "top")
	low.file("srv/data/both", "low", 0)
	low.file("srv/data/below", "low", 0)
	low.file("srv/data/removed", "low", 0)
	low.file("srv/hidden/old", "low", 0)
	low.file("srv/was-dir/file", "low", 0)
	low.file("srv/was-file", "low", 0)
	low.file("home/user/mine", "mine", 1000)
	low.file("home/user/one", "hard", 1000)
	must(t, os.Link(low.at("home/user/one"), low.at("home/user/two")))
	low.dir("home/user", 1000)
	top.file("srv/data/both", "top", 0)
	top.gone("srv/data/removed")
	top.dir("srv/hidden", 0)
	top.opaque("srv/hidden")
	top.file("srv/hidden/new", "top", 0)
	top.file("srv/was-dir", "now a file", 0)
	top.file("srv/was-file/now", "in a directory", 0)
	top.dir("home/user", 1000)
	b.give(t, low, top)

	spec := b.spec("layered")
	spec.Image.ID, spec.Image.Small = "layers", false
	spec.Image.Lower = slices.Concat([]string{top.path, low.path}, b.image.Lower)
	spec.Files = []driver.File{{Path: "/srv/data/given/file", Data: []byte("given")}, {Path: "/home/user/deep/er", Data: []byte("x"), UID: 1000}}
	shared := t.TempDir()
	must(t, os.Chmod(shared, 0o755))
	must(t, os.WriteFile(filepath.Join(shared, "seen"), []byte("bound"), 0o644))
	spec.Binds = []driver.Bind{{Source: shared, Target: "/srv/hidden/old"}, {Source: shared, Target: "/srv/data/removed"}}
	b.create(t, spec)

	owner, rootWrites := "0 1000", "refused"
	if s.OneUser() {
		owner, rootWrites = "1000 1000", "written"
	}
	for _, again := range []bool{false, true} {
		if again {
			must(t, b.Stop(t.Context(), "layered"))
			must(t, b.Start(t.Context(), "layered"))
		}
		c := b.connect(t, "layered")
		for script, want := range map[string]string{
			"cat /srv/data/both /srv/data/below":                                            "toplow",
			"ls /srv/data /srv/hidden":                                                      "/srv/data:\nbelow\nboth\ngiven\nremoved\n\n/srv/hidden:\nnew\nold",
			"cat /srv/data/removed/seen /srv/hidden/old/seen":                               "boundbound",
			"cat /srv/was-dir; cat /srv/was-file/now":                                       "now a filein a directory",
			"stat -c %u /srv/data/both /home/user/mine | tr '\\n' ' '":                      owner + " ",
			"cat /srv/data/given/file ~/deep/er":                                            "givenx",
			"test -d /usr/bin && test -x /bin/sh && git -C ~/project log --oneline | wc -l": "1",
		} {
			if got := output(t, c, script); got != want {
				t.Errorf("again %v: %s\ngot  %q\nwant %q", again, script, got, want)
			}
		}
		if again {
			continue
		}
		if got := output(t, c, "(echo x >/srv/data/below) 2>/dev/null && echo written || echo refused"); got != rootWrites {
			t.Errorf("another user's file: %s, want %s", got, rootWrites)
		}
		if s.OneUser() {
			output(t, c, "printf low >/srv/data/below")
		}
		// What is written is copied up, and the image stays as it is.
		if got := output(t, c, "stat -c %h ~/one; echo changed >~/one; cat ~/one; echo more >>~/mine; cat ~/mine; rm ~/two; mkdir ~/two; rm -rf ~/two; ls ~"); got !=
			"2\nchanged\nminemore\ndeep\nmine\none\nproject" {
			t.Errorf("written to: %q", got)
		}
		for p, want := range map[string]string{"home/user/one": "hard", "home/user/two": "hard", "home/user/mine": "mine", "srv/data/below": "low"} {
			if data, err := os.ReadFile(low.at(p)); err != nil || string(data) != want {
				t.Errorf("the image's %s is %q now, %v", p, data, err)
			}
		}
		// What it can read of its mounts doesn't tell where they are kept.
		if got := output(t, c, "cat /proc/self/mountinfo"); strings.Contains(got, filepath.Base(filepath.Dir(b.home))) || !strings.Contains(got, "lowerdir") && !s.OwnKernel {
			t.Errorf("the mounts: %s", got)
		}
	}
	// A fork sees the same.
	b.create(t, driver.Spec{ID: "child", From: "layered"})
	if got := output(t, b.connect(t, "child"), "cat ~/one; ls ~; ls /srv/hidden"); got != "changed\ndeep\nmine\none\nproject\nnew\nold" {
		t.Errorf("a fork: %q", got)
	}

	must(t, b.Stop(t.Context(), "child"))
	must(t, os.Rename(low.path, low.path+"-away"))
	wantCode(t, b.Start(t.Context(), "child"), sandbox.CodeImageNotFound)
	spec.ID = "third"
	wantCode(t, b.Create(t.Context(), spec), sandbox.CodeImageNotFound)
	must(t, os.Rename(low.path+"-away", low.path))
	must(t, b.Start(t.Context(), "child"))
}

// testManyLayers makes a sandbox of as many layers as there may be, in a place with a long name.
func testManyLayers(t *testing.T, s Suite) {
	const most = 128
	b := newBed(t, s)
	spec := b.spec("many")
	spec.Image.ID, spec.Image.Small, spec.Image.Lower = "many", false, nil
	for i := range most - 1 {
		l := b.layer(t, fmt.Sprintf("%s-%d", strings.Repeat("long", 20), i))
		l.file("srv/top", fmt.Sprint(i), 0)
		l.file(fmt.Sprintf("srv/of-%d", i), "", 0)
		if i%32 == 0 {
			b.give(t, l)
		}
		spec.Image.Lower = append(spec.Image.Lower, l.path)
	}
	spec.Image.Lower = append(spec.Image.Lower, b.image.Lower...)
	b.create(t, spec)
	if got := output(t, b.connect(t, "many"), "cat /srv/top; ls /srv | wc -l"); got != fmt.Sprintf("0%d", most) {
		t.Errorf("got %q", got)
	}
	spec.ID = "more"
	spec.Image.Lower = slices.Insert(spec.Image.Lower, 0, spec.Image.Lower[0])
	wantCode(t, b.Create(t.Context(), spec), sandbox.CodeInvalidArgument)
}
