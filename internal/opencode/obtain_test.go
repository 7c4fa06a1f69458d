package opencode_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/internal/opencode"
)

// fakeBinary is what the packages of the tests hold: a script that answers
// --version, and bytes that do not compress, so that downloads have a length.
func fakeBinary() []byte {
	noise := make([]byte, 512<<10)
	rand.Read(noise)
	return append([]byte("#!/bin/sh\necho "+opencode.Version+"\nexit 0\n"), noise...)
}

func tarball(t testing.TB, files map[string][]byte, typ byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	for name, body := range files {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(body)), Typeflag: typ}
		if typ == tar.TypeSymlink {
			h.Size, h.Linkname = 0, "/etc/passwd"
			body = nil
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sri(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// registry serves one package and counts what it was asked.
type registry struct {
	*httptest.Server
	pkg      opencode.Package
	tarball  []byte
	binary   []byte
	requests atomic.Int64
}

const testPackage = "opencode-linux-test"

// newRegistry serves a good package; answer, if not nil, may answer instead by
// returning true.
func newRegistry(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, n int64) bool) *registry {
	t.Helper()
	bin := fakeBinary()
	reg := &registry{binary: bin, tarball: tarball(t, map[string][]byte{"package/package.json": []byte("{}"), "package/bin/opencode": bin}, tar.TypeReg)}
	reg.pkg = opencode.Package{Name: testPackage, Version: opencode.Version, Integrity: sri(reg.tarball), Size: int64(len(reg.tarball)), BinarySize: int64(len(bin))}
	reg.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := reg.requests.Add(1)
		if answer != nil && answer(w, r, n) {
			return
		}
		if r.URL.Path != "/npm/"+testPackage+"/-/"+testPackage+"-"+opencode.Version+".tgz" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(reg.tarball))
	}))
	t.Cleanup(reg.Close)
	return reg
}

// options returns options that use only the given registry.
func (reg *registry) options(t testing.TB, env ...string) opencode.ObtainOptions {
	t.Helper()
	empty := t.TempDir()
	npm, err := opencode.LoadNpmConfig(opencode.NpmSources{
		Env: append([]string{"npm_config_registry=" + reg.URL + "/npm"}, env...), Dir: empty, Home: empty, GlobalFile: filepath.Join(empty, "none"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return opencode.ObtainOptions{Home: t.TempDir(), Package: &reg.pkg, Npm: npm, Timeout: 20 * time.Second,
		StallTimeout: 5 * time.Second, RetryDelay: time.Millisecond}
}

func wantCode(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	var oe *opencode.ObtainError
	if !errors.As(err, &oe) {
		t.Fatalf("error %v (%T), want an *ObtainError with code %s", err, err, code)
	}
	if oe.Code != code {
		t.Errorf("code %s, want %s: %v", oe.Code, code, err)
	}
	if oe.Hint == "" || oe.Op == "" || oe.Message == "" {
		t.Errorf("error lacks an operation, a message or a cure: %+v", oe)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has more than one line: %q", err)
	}
}

// leftovers lists what is below home/opencode/<version>, without the lock.
func leftovers(t *testing.T, home string) []string {
	t.Helper()
	var names []string
	entries, err := os.ReadDir(filepath.Join(home, "opencode", opencode.Version))
	if err != nil && !os.IsNotExist(err) && !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestObtain(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	o := reg.options(t)
	var phases []opencode.Phase
	var last opencode.Progress
	o.Progress = func(p opencode.Progress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if p.Phase == opencode.PhaseDownload {
			last = p
		}
	}
	got, err := opencode.Obtain(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := opencode.Binary{Path: filepath.Join(o.Home, "opencode", opencode.Version, "opencode"), Version: opencode.Version, Fresh: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("binary (-want +got):\n%s", diff)
	}
	if b, err := os.ReadFile(got.Path); err != nil || !bytes.Equal(b, reg.binary) {
		t.Errorf("the binary is not the one of the package: %d bytes, %v", len(b), err)
	}
	if st, err := os.Stat(got.Path); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want 0755", st.Mode(), err)
	}
	if diff := cmp.Diff([]string{"opencode", "receipt.json"}, leftovers(t, o.Home)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]opencode.Phase{opencode.PhaseDownload, opencode.PhaseUnpack, opencode.PhaseDone}, phases); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	if last.Done != reg.pkg.Size || last.Total != reg.pkg.Size || last.Package != testPackage || last.From == "" {
		t.Errorf("last report of the download: %+v", last)
	}

	// A second call needs no network and downloads nothing.
	n := reg.requests.Load()
	reg.Close()
	again, err := opencode.Obtain(t.Context(), o)
	if err != nil || again.Path != got.Path || again.Fresh {
		t.Errorf("second call: %+v, %v", again, err)
	}
	if reg.requests.Load() != n {
		t.Error("the second call made a request")
	}
	if b, err := opencode.UseBinary(t.Context(), got.Path); err != nil || b.Version != opencode.Version {
		t.Errorf("UseBinary: %+v, %v", b, err)
	}
}

func TestObtainAgainWhenDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"truncated":  func(dir string) error { return os.Truncate(filepath.Join(dir, "opencode"), 10) },
		"gone":       func(dir string) error { return os.Remove(filepath.Join(dir, "opencode")) },
		"no receipt": func(dir string) error { return os.Remove(filepath.Join(dir, "receipt.json")) },
		"not executable": func(dir string) error {
			return os.Chmod(filepath.Join(dir, "opencode"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, nil)
			o := reg.options(t)
			b, err := opencode.Obtain(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(filepath.Dir(b.Path)); err != nil {
				t.Fatal(err)
			}
			b, err = opencode.Obtain(t.Context(), o)
			if err != nil || !b.Fresh {
				t.Fatalf("%+v, %v; want a fresh binary", b, err)
			}
			if got, err := os.ReadFile(b.Path); err != nil || !bytes.Equal(got, reg.binary) {
				t.Error("the binary is not the one of the package")
			}
		})
	}
}

func TestObtainConcurrently(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	o := reg.options(t)
	var wg sync.WaitGroup
	var fresh atomic.Int64
	for range 8 {
		wg.Go(func() {
			b, err := opencode.Obtain(t.Context(), o)
			if err != nil {
				t.Error(err)
			}
			if b.Fresh {
				fresh.Add(1)
			}
		})
	}
	wg.Wait()
	if fresh.Load() != 1 || reg.requests.Load() != 1 {
		t.Errorf("%d fresh binaries from %d requests, want 1 from 1", fresh.Load(), reg.requests.Load())
	}
}

func TestObtainResumes(t *testing.T) {
	t.Parallel()
	var ranges sync.Map
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request, n int64) bool {
		ranges.Store(n, r.Header.Get("Range"))
		return false
	})
	// Breaks the first three answers after 100 kB each.
	good := reg.Config.Handler
	reg.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reg.requests.Load() < 3 {
			w = &breaking{ResponseWriter: w, left: 100_000}
		}
		good.ServeHTTP(w, r)
	})
	o := reg.options(t)
	b, err := opencode.Obtain(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(b.Path); !bytes.Equal(got, reg.binary) {
		t.Error("the binary is not the one of the package")
	}
	for n, want := range map[int64]string{1: "", 4: "bytes="} {
		if got, _ := ranges.Load(n); !strings.HasPrefix(got.(string), want) || want == "" && got != "" {
			t.Errorf("request %d had Range %q, want %q…", n, got, want)
		}
	}
}

// breaking drops the connection after some bytes of the body.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.ResponseWriter.Write(p[:b.left])
		b.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func TestObtainResumesALaterCall(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var home string
	var ranges []string
	reg := newRegistry(t, nil)
	good := reg.Config.Handler
	reg.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			good.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(reg.tarball)))
		w.Write(reg.tarball[:200_000])
		w.(http.Flusher).Flush()
		for r.Context().Err() == nil { // until all of it is in the file
			parts, _ := filepath.Glob(filepath.Join(home, "opencode", "*", ".*.part"))
			if len(parts) == 1 {
				if st, err := os.Stat(parts[0]); err == nil && st.Size() == 200_000 {
					cancel()
					break
				}
			}
			time.Sleep(time.Millisecond)
		}
		<-r.Context().Done()
	})
	o := reg.options(t)
	home = o.Home
	_, err := opencode.Obtain(ctx, o)
	wantCode(t, err, opencode.CodeObtainCanceled)
	if _, err := opencode.Obtain(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"", "bytes=200000-"}, ranges); diff != "" {
		t.Errorf("ranges asked for (-want +got):\n%s", diff)
	}
}

func TestObtainFromWhereTheRegistrySays(t *testing.T) {
	t.Parallel()
	elsewhere := newRegistry(t, nil)
	var auth atomic.Value
	good := elsewhere.Config.Handler
	elsewhere.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth.Store(r.Header.Get("Authorization"))
		good.ServeHTTP(w, r)
	})
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request, _ int64) bool {
		if r.URL.Path != "/npm/"+testPackage+"/"+opencode.Version {
			return false
		}
		fmt.Fprintf(w, `{"dist":{"tarball":"%s/npm/%s/-/%s-%s.tgz"}}`, elsewhere.URL, testPackage, testPackage, opencode.Version)
		return true
	})
	reg.Config.Handler = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".tgz") {
				http.NotFound(w, r)
				return
			}
			if r.Header.Get("Authorization") != "Bearer s3cret" {
				t.Error("the registry did not get the token")
			}
			next.ServeHTTP(w, r)
		})
	}(reg.Config.Handler)
	reg.pkg, reg.tarball = elsewhere.pkg, elsewhere.tarball
	o := reg.options(t, "npm_config_"+strings.TrimPrefix(reg.URL, "http:")+"/:_authToken=s3cret")
	if _, err := opencode.Obtain(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := auth.Load(); got != "" {
		t.Errorf("another host got the login %q", got)
	}
}
