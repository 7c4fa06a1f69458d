//go:build linux

package image

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// TestCutOff pulls from a registry that fails in the middle: the next pull goes on, also in another process.
func TestCutOff(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	noise := make([]byte, 0, 1<<20)
	for i := range 1 << 15 {
		noise = fmt.Appendf(noise, "%032x", i*2654435761)
	}
	im := makeImage(t, nil, listing{{"noise", string(noise)}})
	ref := shop.push(t, "v1", im)
	layers, err := im.Layers()
	must(t, err)
	h, err := layers[0].Digest()
	must(t, err)
	size, err := layers[0].Size()
	must(t, err)
	var ranges []string
	shop.fail = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, h.String()) {
			return false
		}
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			if len(ranges) > 3 {
				return false
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		blob, err := layers[0].Compressed()
		if err == nil {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = io.CopyN(w, blob, size/2)
			blob.Close()
		}
		return true
	}
	s := newStore(t, nil)
	_, err = s.Pull(t.Context(), ref, PullOptions{})
	wantCode(t, err, sandbox.CodeRegistryError, "")
	other := newStore(t, func(cfg *StoreConfig) { cfg.Dir = s.cfg.Dir })
	_, err = other.Pull(t.Context(), ref, PullOptions{})
	must(t, err)
	if last := ranges[len(ranges)-1]; !strings.HasPrefix(last, "bytes=") || strings.HasPrefix(last, "bytes=0-") {
		t.Errorf("asked for %q", ranges)
	}
}

// TestTogether pulls the same image from several processes' places at once.
func TestTogether(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	im := makeImage(t, nil, low, top)
	ref := shop.push(t, "v1", im)
	first := newStore(t, nil)
	var wg sync.WaitGroup
	for range 5 {
		s := newStore(t, func(cfg *StoreConfig) { cfg.Dir = first.cfg.Dir })
		wg.Go(func() {
			_, _, release, err := s.Use(t.Context(), ref, PullOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	wg.Wait()
	layers, err := im.Layers()
	must(t, err)
	for _, l := range layers {
		h, err := l.Digest()
		must(t, err)
		if n := shop.count(h); n != 1 {
			t.Errorf("%s was downloaded %d times", h, n)
		}
	}
	if all, err := first.List(); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestRemoveAndGC(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	s := newStore(t, nil)
	one := shop.push(t, "one", makeImage(t, nil, low, top))
	two := shop.push(t, "two", makeImage(t, nil, low))
	also := shop.push(t, "also", makeImage(t, nil, low))
	root, im, release, err := s.Use(t.Context(), one, PullOptions{})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.GC(ctx, nil)
	wantCode(t, err, sandbox.CodeImageInUse, "another process")
	release()
	for _, ref := range []string{two, also} {
		_, err := s.Pull(t.Context(), ref, PullOptions{})
		must(t, err)
	}
	users := []User{{"web", root}}
	_, err = s.Remove(t.Context(), one, users, false)
	wantCode(t, err, sandbox.CodeImageInUse, "web")
	done, err := s.GC(t.Context(), users)
	if err != nil || done.Layers != 0 || len(done.Images) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	// One of two names.
	done, err = s.Remove(t.Context(), also, users, false)
	if err != nil || len(done.Names) != 1 || len(done.Images) != 0 || done.Layers != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	// By force: it is forgotten, and what the sandbox needs stays.
	done, err = s.Remove(t.Context(), ShortID(im.ID), users, true)
	if err != nil || len(done.Images) != 1 || done.Layers != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	for _, dir := range root.Lower {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	// A running process keeps it as well.
	unpin, err := s.Pin(root)
	must(t, err)
	if done, err := s.GC(t.Context(), nil); err != nil || done.Layers != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	unpin()
	done, err = s.GC(t.Context(), nil)
	if err != nil || done.Layers != 2 { // ours, and the top one: the lower one is the other image's too
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := os.Stat(s.tree(layerID(t, low))); err != nil {
		t.Error(err)
	}
	// A name that comes to mean another image leaves the old one without.
	shop.push(t, "two", makeImage(t, nil, top))
	_, err = s.Pull(t.Context(), two, PullOptions{})
	must(t, err)
	done, err = s.GC(t.Context(), nil)
	if err != nil || len(done.Images) != 1 || done.Layers != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	must(t, os.WriteFile(s.path(blobsDir, "begun"), []byte("x"), 0o600))
	if _, err = s.GC(t.Context(), nil); err != nil || len(left(t, s)) != 1 {
		t.Errorf("left: %q, %v", left(t, s), err)
	}
	_, err = s.Remove(t.Context(), "none", nil, false)
	wantCode(t, err, sandbox.CodeImageNotFound, "none")
}
