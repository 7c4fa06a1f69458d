//go:build linux

package image

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestDiskFull pulls and imports onto file systems that are too small, and onto one that isn't.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a small file system")
	}
	noise := make([]byte, 0, 4<<20)
	for i := range 1 << 17 {
		noise = fmt.Appendf(noise, "%032x", i*2654435761)
	}
	shop := newShop(t)
	ref := shop.push(t, "v1", makeImage(t, nil, listing{{"noise", string(noise)}}))
	archive := filepath.Join(t.TempDir(), "root.tar")
	must(t, os.WriteFile(archive, listing{{"noise", string(noise)}}.archive(t), 0o644))
	for _, c := range []struct {
		size string
		code sandbox.Code
	}{{"256k", sandbox.CodeNoSpace}, {"4m", sandbox.CodeNoSpace}, {"64m", ""}} {
		t.Run(c.size, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "small")
			must(t, os.Mkdir(dir, 0o700))
			must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+c.size))
			t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
			s := newStore(t, func(cfg *StoreConfig) { cfg.Dir = filepath.Join(dir, "images") })
			for what, do := range map[string]func() error{
				"pull":   func() error { _, err := s.Pull(t.Context(), ref, PullOptions{}); return err },
				"import": func() error { _, err := s.Import(t.Context(), archive, ImportOptions{}); return err },
			} {
				err := do()
				if c.code == "" {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					continue
				}
				wantCode(t, err, c.code, "")
				for _, p := range left(t, s) {
					if filepath.Dir(p) != blobsDir { // what was downloaded is kept, until gc
						t.Errorf("%s left %s", what, p)
					}
				}
				_, err = s.GC(t.Context(), nil)
				if rest := left(t, s); err != nil || len(rest) != 0 {
					t.Errorf("%s: after gc there is %q, %v", what, rest, err)
				}
			}
		})
	}
}

// TestUnfinished removes what a process has left that was killed, and leaves alone what one is at.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	for _, name := range []string{"dead", "alive"} {
		must(t, os.MkdirAll(s.path(layersDir, newPrefix+name, treeName, "usr"), 0o755))
	}
	alive, err := os.Open(s.path(layersDir, newPrefix+"alive"))
	must(t, err)
	defer alive.Close()
	got, err := tryLock(alive, exclusive)
	if !got {
		t.Fatal(err)
	}
	ref := newShop(t).push(t, "v1", makeImage(t, nil, low))
	_, err = s.Pull(t.Context(), ref, PullOptions{})
	must(t, err)
	if _, err := os.Stat(s.path(layersDir, newPrefix+"dead")); err == nil {
		t.Error("what a dead process has left is there")
	}
	if _, err := os.Stat(s.path(layersDir, newPrefix+"alive", treeName, "usr")); err != nil {
		t.Error(err)
	}
}

// TestOldHostImages removes trees of the host image that are old and not in use.
func TestOldHostImages(t *testing.T) {
	t.Parallel()
	s := newStore(t, nil)
	for _, name := range []string{"host-old", "host-new", "host-used", "host-pinned", "other"} {
		must(t, os.MkdirAll(s.path(name, "etc"), 0o755))
		if name != "host-new" {
			must(t, os.Chtimes(s.path(name), time.Time{}, time.Now().Add(-2*staleAfter)))
		}
	}
	unpin, err := s.Pin(Root{Lower: []string{s.path("host-pinned")}})
	must(t, err)
	defer unpin()
	done, err := s.GC(t.Context(), []User{{"box", Root{Lower: []string{"/a/project/layer", s.path("host-used")}}}})
	if err != nil || len(done.Images) != 1 || done.Images[0] != "host-old" {
		t.Errorf("%+v, %v", done, err)
	}
	for name, want := range map[string]bool{"host-old": false, "host-new": true, "host-used": true, "host-pinned": true, "other": true} {
		if _, err := os.Stat(s.path(name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzImport reads archives of images, which describe themselves in JSON. What is refused leaves nothing.
func FuzzImport(f *testing.F) {
	f.Add(listing{{"manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":["l"]}]`}, {"c", `{"rootfs":{"diff_ids":["sha256:` + layerID(f, nil)[7:] + `"]}}`}, {"l", string(listing{}.archive(f))}}.archive(f))
	f.Add(listing{{"oci-layout", "{}"}, {"index.json", `{"schemaVersion":2,"manifests":[{"digest":"sha256:` + digest([]byte("{}")) + `"}]}`}, {"blobs/sha256/" + digest([]byte("{}")), "{}"}}.archive(f))
	f.Add(low.archive(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStore(t, func(cfg *StoreConfig) {
			cfg.Limits = layer.Limits{Entries: 100, Bytes: 1 << 20, Ratio: 10, RatioBytes: 4 << 20}
		})
		file := filepath.Join(t.TempDir(), "a.tar")
		must(t, os.WriteFile(file, data, 0o600))
		im, err := s.Import(t.Context(), file, ImportOptions{})
		if err == nil && (len(im.Names) != 1 || !s.complete(im)) {
			t.Errorf("%+v", im)
		}
		if err != nil && sandbox.CodeOf(err) == "" {
			t.Errorf("%v has no code", err)
		}
	})
}
