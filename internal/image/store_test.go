//go:build linux

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	server "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tongs-dev/tongs/internal/image/layer"
	"github.com/tongs-dev/tongs/internal/image/registry"
	"github.com/tongs-dev/tongs/sandbox"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing describes a layer: names and what is in them. A name that ends in a slash is a directory, content
// that begins with -> a link, with x> a program.
type listing [][2]string

func (l listing) archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range l {
		h := tar.Header{Name: e[0], Mode: 0o644, Size: int64(len(e[1])), Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0)}
		if to, ok := strings.CutPrefix(e[1], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
		} else if strings.HasSuffix(e[0], "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		} else if strings.HasPrefix(e[1], "x>") {
			h.Mode = 0o755
		}
		must(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := io.WriteString(w, e[1])
			must(t, err)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

// makeImage makes an image of layers, the lowest first.
func makeImage(t testing.TB, env []string, layers ...listing) v1.Image {
	t.Helper()
	im, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: HostPlatform().Architecture, Config: v1.Config{Env: env}, RootFS: v1.RootFS{Type: "layers"}})
	must(t, err)
	for _, l := range layers {
		data := l.archive(t)
		made, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		must(t, err)
		im, err = mutate.AppendLayers(im, made)
		must(t, err)
	}
	return im
}

// shop is a registry on this machine.
type shop struct {
	host string
	mu   sync.Mutex
	got  map[string]int // how often a path was asked for
	fail func(w http.ResponseWriter, r *http.Request) bool
}

func newShop(t testing.TB) *shop {
	s := &shop{got: make(map[string]int)}
	inner := server.New(server.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fail := s.fail
		if r.Method == http.MethodGet {
			s.got[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]++
		}
		s.mu.Unlock()
		if fail != nil && fail(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { srv.Close(); http.DefaultClient.CloseIdleConnections() })
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *shop) send(t testing.TB, method, path, kind string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.host+"/v2/some/"+path, bytes.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	res.Body.Close()
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, res.Status)
	}
}

// push pushes an image and gives its name.
func (s *shop) push(t testing.TB, tag string, im v1.Image) string {
	t.Helper()
	blob := func(h v1.Hash, data []byte) {
		s.send(t, http.MethodPost, "image/blobs/uploads/?digest="+h.String(), "application/octet-stream", data)
	}
	layers, err := im.Layers()
	must(t, err)
	for _, l := range layers {
		h, err := l.Digest()
		must(t, err)
		r, err := l.Compressed()
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, errors.Join(err, r.Close()))
		blob(h, data)
	}
	cfg, err := im.RawConfigFile()
	must(t, err)
	h, err := im.ConfigName()
	must(t, err)
	blob(h, cfg)
	m, err := im.RawManifest()
	must(t, err)
	kind, err := im.MediaType()
	must(t, err)
	s.send(t, http.MethodPut, "image/manifests/"+tag, string(kind), m)
	return s.host + "/some/image:" + tag
}

func (s *shop) count(h v1.Hash) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[h.String()]
}

func newStore(t testing.TB, change func(*StoreConfig)) *Store {
	t.Helper()
	cfg := StoreConfig{Dir: filepath.Join(t.TempDir(), "images"), Environ: []string{"PATH=" + os.Getenv("PATH")}, OneID: true,
		Registry: registry.Options{Stall: 2 * time.Second, Attempts: 2, Pause: time.Millisecond,
			Credentials: func(context.Context, string) (registry.Credential, error) { return registry.Credential{}, nil }}}
	if change != nil {
		change(&cfg)
	}
	s, err := OpenStore(cfg)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

var low = listing{{"bin", "->usr/bin"}, {"usr/bin/sh", "x>sh"}, {"usr/bin/git", "x>git"}, {"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n"},
	{"etc/group", "root:x:0:\nuser:x:7:\n"}, {"srv/gone", "low"}, {"srv/here", "low"}, {"tmp", "->var/tmp"}}

var top = listing{{"srv/.wh.gone", ""}, {"srv/new", "top"}}

// left says what there is in a store besides what it has to have.
func left(t testing.TB, s *Store) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{layersDir, blobsDir, pinsDir} {
		entries, err := os.ReadDir(s.path(dir))
		must(t, err)
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".lock-") {
				all = append(all, dir+"/"+e.Name())
			}
		}
	}
	return all
}

func wantCode(t testing.TB, err error, code sandbox.Code, says string) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != code || e.Hint == "" || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %s with a hint, saying %q", err, code, says)
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	im := makeImage(t, []string{"PATH=/usr/bin", "HOME=/root", "WITH=spaces and = signs"}, low, top)
	ref := shop.push(t, "v1", im)
	s := newStore(t, nil)
	var steps []string
	pulled, err := s.Pull(t.Context(), ref, PullOptions{Progress: func(p Progress) { steps = append(steps, p.Step) }})
	must(t, err)
	want, err := im.ConfigName()
	must(t, err)
	if pulled.ID != want.String() || len(pulled.Names) != 1 || pulled.Names[0].Name != ref || len(pulled.Layers) != 2 || pulled.Platform != "linux/"+HostPlatform().Architecture {
		t.Errorf("%+v", pulled)
	}
	if steps[0] != "manifest" || steps[len(steps)-1] != "done" || !slices.Contains(steps, "download") || !slices.Contains(steps, "unpack") {
		t.Errorf("steps %q", steps)
	}
	if pulled.Shell != "/usr/bin/sh" || !slices.Equal(pulled.Missing(), []string{"bash", "rg", "python3", "node"}) {
		t.Errorf("shell %q, missing %q", pulled.Shell, pulled.Missing())
	}
	if got := left(t, s); len(got) != 2 {
		t.Errorf("two layers make %q", got)
	}
	// Once more: nothing is downloaded, and an image with one more layer needs that alone.
	again, err := s.Pull(t.Context(), ref, PullOptions{})
	must(t, err)
	if again.ID != pulled.ID || len(again.Names) != 1 || !again.Added.Equal(pulled.Added) {
		t.Errorf("again: %+v", again)
	}
	more := makeImage(t, nil, low, top, listing{{"more", "x"}})
	_, err = s.Pull(t.Context(), shop.push(t, "v2", more), PullOptions{})
	must(t, err)
	layers, err := more.Layers()
	must(t, err)
	for i, l := range layers {
		h, err := l.Digest()
		must(t, err)
		if n := shop.count(h); n != 1 {
			t.Errorf("layer %d was downloaded %d times", i, n)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Errorf("%d images, %v", len(all), err)
	}
	for _, text := range []string{ref, pulled.ID, ShortID(pulled.ID), pulled.Names[0].Digest} {
		if found, err := s.Find(text); err != nil || found.ID != pulled.ID {
			t.Errorf("%s: %v, %v", text, found.ID, err)
		}
	}
	_, err = s.Find("none")
	wantCode(t, err, sandbox.CodeImageNotFound, "none")
	_, err = s.Pull(t.Context(), "no reference", PullOptions{})
	wantCode(t, err, sandbox.CodeInvalidArgument, "no reference")
	_, err = s.Pull(t.Context(), ref, PullOptions{Platform: "linux/riscv64"})
	wantCode(t, err, sandbox.CodeImageNotSupported, "riscv64")
}

// TestUse looks at what sandboxes get.
func TestUse(t *testing.T) {
	t.Parallel()
	shop := newShop(t)
	ref := shop.push(t, "v1", makeImage(t, []string{"PATH=/usr/bin", "HOME=/root", "WITH=spaces and = signs"}, low, top))
	s := newStore(t, nil)
	root, im, release, err := s.Use(t.Context(), ref, PullOptions{})
	must(t, err)
	defer release()
	if len(root.Lower) != 3 || !uses(root, im) || root.Shell != "/usr/bin/sh" || root.Small {
		t.Errorf("%+v", root)
	}
	if want := []string{"WITH=spaces and = signs", "PATH=/home/user/.local/bin:/usr/bin", "LANG=C.UTF-8"}; !slices.Equal(root.Env, want) {
		t.Errorf("environment %q", root.Env)
	}
	u, err := layer.OpenUnion(root.Lower)
	must(t, err)
	defer u.Close()
	for p, want := range map[string]string{
		"srv/here": "low", "srv/new": "top", "srv/gone": "",
		"etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
		"etc/group":    "root:x:0:\nuser:x:7:\ntty:x:5:\nsandbox:x:1000:\n",
		"etc/hostname": "sandbox\n", "etc/resolv.conf": etcOwn["resolv.conf"], "home/user/.gitconfig": gitConfig, "bin/sh": "x>sh",
	} {
		if got, err := u.ReadFile(p, 1<<20); string(got) != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
	if git, _ := findGit(HostConfig{}); git != "" {
		if head, err := u.ReadFile("home/user/project/.git/HEAD", 100); err != nil || string(head) != "ref: refs/heads/main\n" {
			t.Errorf("HEAD %q, %v", head, err)
		}
	}
	for _, p := range []string{"proc", "sys", "dev", "tmp", "run", "var/tmp", "root"} {
		if info, err := u.Lstat(p); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", p, err)
		}
	}
	if bundle := firstFile(hostBundles); bundle != "" {
		data, err := os.ReadFile(bundle)
		must(t, err)
		if got, err := u.ReadFile("etc/ssl/certs/ca-certificates.crt", maxFileBytes); err != nil || bytes.Count(got, []byte("BEGIN")) < bytes.Count(data, []byte("BEGIN CERT"))/2 {
			t.Errorf("%d bytes of certificates, %v", len(got), err)
		}
	}
	again, _, release2, err := s.Use(t.Context(), ref, PullOptions{})
	must(t, err)
	release2()
	if again.ID != root.ID || !slices.Equal(again.Lower, root.Lower) {
		t.Errorf("again it is another: %v", again)
	}
}

func TestMergeCertificates(t *testing.T) {
	t.Parallel()
	one, two := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
	for _, c := range [][3]string{{one, one + two, one + two}, {"", one, one}, {"# a\n" + two, one, "# a\n" + two + one}, {one, "", one}, {one, "nonsense", one}, {strings.TrimSpace(one), two, one + two}} {
		if got := string(mergeCertificates([]byte(c[0]), []byte(c[1]))); got != c[2] {
			t.Errorf("%q and %q: %q", c[0], c[1], got)
		}
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	im := makeImage(t, []string{"A=b"}, low, top)
	id, err := im.ConfigName()
	must(t, err)
	dir := t.TempDir()
	tag, err := name.NewTag("some.example/saved:v3")
	must(t, err)
	saved := filepath.Join(dir, "saved.tar")
	must(t, tarball.WriteToFile(saved, tag, im))
	zipped := filepath.Join(dir, "saved.tar.gz")
	data, err := os.ReadFile(saved)
	must(t, err)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err = w.Write(data)
	must(t, errors.Join(err, w.Close()))
	must(t, os.WriteFile(zipped, z.Bytes(), 0o644))
	oci := filepath.Join(dir, "My Layout")
	path, err := layout.Write(oci, empty.Index)
	must(t, err)
	must(t, path.AppendImage(im))
	ociTar := filepath.Join(dir, "layout.tar")
	must(t, archiveDir(oci, ociTar))
	rootTar := filepath.Join(dir, "root fs.tar")
	must(t, os.WriteFile(rootTar, low.archive(t), 0o644))
	nothing := filepath.Join(dir, "nothing.tar")
	must(t, os.WriteFile(nothing, []byte(strings.Repeat("nothing", 500)), 0o644))
	for _, c := range []struct {
		file, asked, name string
		id                string
		code              sandbox.Code
	}{
		{saved, "", "some.example/saved:v3", id.String(), ""},
		{zipped, "mine", "index.docker.io/library/mine:latest", id.String(), ""},
		{oci, "", "index.docker.io/library/my-layout:latest", id.String(), ""},
		{ociTar, "x.example/y:z", "x.example/y:z", id.String(), ""},
		{rootTar, "", "index.docker.io/library/root-fs:latest", "", ""},
		{nothing, "", "", "", sandbox.CodeInvalidArchive},
		{filepath.Join(dir, "missing"), "", "", "", sandbox.CodeFileNotFound},
		{dir, "", "", "", sandbox.CodeImageInvalid},
		{rootTar, "BAD NAME", "", "", sandbox.CodeInvalidArgument},
		{"/dev/zero", "", "", "", sandbox.CodeNotRegular},
	} {
		t.Run(filepath.Base(c.file)+c.asked, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, nil)
			got, err := s.Import(t.Context(), c.file, ImportOptions{Name: c.asked})
			if c.code != "" {
				if sandbox.CodeOf(err) != c.code {
					t.Errorf("got %v, want %s", err, c.code)
				}
				if rest := left(t, s); len(rest) != 0 {
					t.Errorf("left: %q", rest)
				}
				return
			}
			must(t, err)
			if c.id != "" && got.ID != c.id || len(got.Names) != 1 || got.Names[0].Name != c.name {
				t.Errorf("%+v, want %s called %s", got, c.id, c.name)
			}
			root, _, release, err := s.Use(t.Context(), c.name, PullOptions{})
			must(t, err)
			release()
			if len(root.Lower) != len(got.Layers)+1 {
				t.Errorf("%+v", root)
			}
		})
	}
}

// archiveDir makes a tar archive of a directory.
func archiveDir(dir, to string) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	w := tar.NewWriter(f)
	return errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close())
}

// TestHostileImages leaves nothing behind, and has a control: the same, but right.
func TestHostileImages(t *testing.T) {
	t.Parallel()
	bomb := make([]listing, 1)
	bomb[0] = listing{{"zeros", strings.Repeat("\x00", 4<<20)}}
	for what, c := range map[string]struct {
		layers []listing
		code   sandbox.Code
	}{
		"right":     {[]listing{low, top}, ""},
		"dots":      {[]listing{low, {{"../../x", "x"}}}, sandbox.CodeUnsafeArchive},
		"bomb":      {bomb, sandbox.CodeArchiveTooLarge},
		"long name": {[]listing{low, {{strings.Repeat("n", 300), "x"}}}, sandbox.CodeNameTooLong},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			shop := newShop(t)
			im := makeImage(t, nil, c.layers...)
			ref := shop.push(t, "v1", im)
			layers, err := im.Layers()
			must(t, err)
			right, err := layers[0].Digest()
			must(t, err)
			s := newStore(t, func(cfg *StoreConfig) { cfg.Limits = layer.Limits{Ratio: 50, RatioBytes: 1 << 20} })
			_, err = s.Pull(t.Context(), ref, PullOptions{})
			if c.code == "" {
				must(t, err)
				return
			}
			wantCode(t, err, c.code, "")
			if _, err := s.Find(ref); sandbox.CodeOf(err) != sandbox.CodeImageNotFound {
				t.Errorf("it is there all the same: %v", err)
			}
			for _, p := range left(t, s) {
				// A layer that is all right may stay, unpacked or begun.
				if len(layers) == 1 || p != layersDir+"/"+s.layerName(layerID(t, low)) && p != blobsDir+"/"+right.Hex {
					t.Errorf("left: %s", p)
				}
			}
		})
	}
	t.Run("another layer than its configuration says", func(t *testing.T) {
		t.Parallel()
		im := makeImage(t, nil, low)
		cfg, err := im.ConfigFile()
		must(t, err)
		other := cfg.DeepCopy()
		other.RootFS.DiffIDs[0] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
		lying := &lyingImage{Image: im}
		lying.cfg, err = json.Marshal(other)
		must(t, err)
		s := newStore(t, nil)
		_, err = s.Pull(t.Context(), newShop(t).push(t, "v1", lying), PullOptions{})
		wantCode(t, err, sandbox.CodeImageInvalid, "configuration says")
		if rest := left(t, s); len(rest) != 0 {
			t.Errorf("left: %q", rest)
		}
	})
}

func layerID(t testing.TB, l listing) string { return "sha256:" + digest(l.archive(t)) }

// lyingImage has another configuration than it should have.
type lyingImage struct {
	v1.Image
	cfg []byte
}

func (l *lyingImage) RawConfigFile() ([]byte, error) { return l.cfg, nil }
func (l *lyingImage) ConfigName() (v1.Hash, error) {
	return v1.Hash{Algorithm: "sha256", Hex: digest(l.cfg)}, nil
}
func (l *lyingImage) RawManifest() ([]byte, error) {
	m, err := l.Image.Manifest()
	if err != nil {
		return nil, err
	}
	m = m.DeepCopy()
	m.Config.Digest, _ = l.ConfigName()
	m.Config.Size = int64(len(l.cfg))
	return json.Marshal(m)
}
