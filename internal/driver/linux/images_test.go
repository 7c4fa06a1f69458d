//go:build linux

package linux_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestImages makes a sandbox of an image of three layers, as the kernel shows it: as root, as an ordinary user
// with a range of ids, and as one without.
func TestImages(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("there is no busybox on this machine to make an image of")
	}
	if os.Geteuid() != 0 {
		imageOfLayers(t)
		return
	}
	t.Run("root", imageOfLayers)
	t.Run("one id", func(t *testing.T) { asUser(t, idmaptest.User{Name: "bob", ID: ordinary}, "^TestImages$", 1) })
	t.Run("ranges", func(t *testing.T) { asUser(t, idmaptest.Alice, "^TestImages$", 1) })
}

func imageOfLayers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	path, err := exec.LookPath("busybox")
	must(t, err)
	busybox, err := os.ReadFile(path)
	must(t, err)
	root := func(name, data string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), Linkname: data}
	}
	dir := func(name string, mode int64, id int) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: id, Gid: id}
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	mine := root("srv/daemon", "daemon's", 0o640)
	mine.Uid, mine.Gid = 33, 33
	low := []tar.Header{dir("usr/bin", 0o755, 0), {Typeflag: tar.TypeReg, Name: "usr/bin/busybox", Mode: 0o4755, Size: int64(len(busybox)), Linkname: string(busybox)},
		link("bin", "usr/bin"), root("srv/kept", "low", 0o644), root("srv/gone", "low", 0o644), root("srv/dir/old", "low", 0o644), root("srv/one", "hard", 0o666),
		{Typeflag: tar.TypeLink, Name: "srv/two", Linkname: "srv/one"}, mine, dir("srv/sticky", 0o1777, 0), {Typeflag: tar.TypeChar, Name: "srv/null", Devmajor: 1, Devminor: 3, Mode: 0o666}}
	for _, name := range []string{"sh", "cat", "ls", "stat", "id", "rm", "mkdir", "echo", "ln", "test"} {
		low = append(low, link("usr/bin/"+name, "busybox"))
	}
	middle := []tar.Header{root("srv/.wh.gone", "", 0), dir("srv/dir", 0o755, 0), root("srv/dir/.wh..wh..opq", "", 0), root("srv/dir/new", "middle", 0o644), root("srv/again", "middle", 0o644)}
	top := []tar.Header{root("srv/.wh.again", "", 0), root("srv/kept", "top", 0o644), root("srv/gone", "back", 0o644)}

	work := t.TempDir()
	home := filepath.Join(work, "home")
	im, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: image.HostPlatform().Architecture,
		Config: v1.Config{Env: []string{"PATH=/usr/bin", "FROM=the image", "HOME=/nowhere"}}, RootFS: v1.RootFS{Type: "layers"}})
	must(t, err)
	for _, headers := range [][]tar.Header{low, middle, top} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			data := ""
			if h.Typeflag == tar.TypeReg { // in a field that such an entry doesn't have
				data, h.Linkname = h.Linkname, ""
			}
			h.ModTime = time.Unix(1e9, 0)
			must(t, w.WriteHeader(&h))
			_, err := io.WriteString(w, data)
			must(t, err)
		}
		must(t, w.Close())
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
		must(t, err)
		im, err = mutate.AppendLayers(im, l)
		must(t, err)
	}
	at, err := layout.Write(filepath.Join(work, "oci"), empty.Index)
	must(t, err)
	must(t, at.AppendImage(im))

	store, err := image.OpenStore(image.StoreConfig{Dir: filepath.Join(home, "images"), Environ: []string{"PATH=" + os.Getenv("PATH")}})
	must(t, err)
	defer store.Close()
	t.Cleanup(func() { must(t, idmap.Remove(context.WithoutCancel(t.Context()), home)) })
	_, err = store.Import(ctx, filepath.Join(work, "oci"), image.ImportOptions{Name: "three:layers"})
	must(t, err)
	tree, _, release, err := store.Use(ctx, "three:layers", image.PullOptions{})
	must(t, err)
	defer release()
	guest := drivertest.GuestBinary(t)
	d, err := linux.New(linux.Config{Home: home, Guest: &guest})
	must(t, err)
	defer d.Close()
	must(t, d.Create(ctx, driver.Spec{ID: "box", Image: tree}))
	defer d.Destroy(context.WithoutCancel(ctx), "box")
	all, err := d.List(ctx)
	must(t, err)
	if all[0].Image.ID != tree.ID {
		t.Errorf("the list says that it is made from %q", all[0].Image.ID)
	}
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "box") })
	must(t, err)
	defer c.Close()

	many := os.Geteuid() == 0 || !tree.Map.None() // ids
	owner, daemon, id := "user", "daemon'sread", "0 0 0"
	if many {
		owner, daemon, id = "root", "refused", "0 0 33"
	} else {
		id = "1000 1000 1000"
	}
	for _, test := range []struct{ script, want string }{
		{"id -un; pwd; echo $HOME $FROM $SHELL", "user\n/home/user/project\n/home/user the image /usr/bin/sh"},
		{"ls /srv /srv/dir", "/srv:\ndaemon\ndir\ngone\nkept\none\nsticky\ntwo\n\n/srv/dir:\nnew"},
		{"cat /srv/kept /srv/gone /srv/dir/new", "topbackmiddle"},
		{"stat -c %u /srv/kept /usr/bin/busybox /srv/daemon | while read n; do echo -n \"$n \"; done", id + " "},
		{"stat -c %a /srv/sticky /usr/bin/busybox; stat -c %U /etc/passwd ~", "1777\n755\n" + owner + "\nuser"},
		{"cat /srv/daemon 2>/dev/null && echo read || echo refused", daemon},
		{"stat -c %h /srv/one; echo written >/srv/one && cat /srv/one && ls /srv/two", "2\nwritten\n/srv/two"},
		{"rm -rf ~/project/.git; mkdir ~/new; ls -A ~", ".gitconfig\nnew\nproject"},
		{"test -c /dev/null && test ! -e /srv/null && test -d /proc/1 && test -d /tmp/opencode && echo ok", "ok"},
	} {
		res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", test.script}}})
		must(t, err)
		if got := strings.TrimSuffix(string(res.Stdout), "\n"); got != test.want {
			t.Errorf("%s\ngot  %q\nwant %q\n%s", test.script, got, test.want, res.Stderr)
		}
	}
}
