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
	"os/exec"
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

func TestObtainPartThatIsWrong(t *testing.T) {
	t.Parallel()
	for name, part := range map[string][]byte{
		"other bytes":  bytes.Repeat([]byte("x"), 1000),
		"too long":     bytes.Repeat([]byte("x"), 2<<20),
		"right length": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, nil)
			o := reg.options(t)
			if part == nil {
				part = bytes.Repeat([]byte("x"), len(reg.tarball))
			}
			dir := filepath.Join(o.Home, "opencode", opencode.Version)
			os.MkdirAll(dir, 0o755)
			if err := os.WriteFile(filepath.Join(dir, ".download-"+testPackage+".tgz.part"), part, 0o644); err != nil {
				t.Fatal(err)
			}
			b, err := opencode.Obtain(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(b.Path); !bytes.Equal(got, reg.binary) {
				t.Error("the binary is not the one of the package")
			}
		})
	}
}

func TestObtainFailures(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.ResponseWriter, *http.Request, int64) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
			w.WriteHeader(code)
			return true
		}
	}
	for _, tc := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request, int64) bool
		change func(*testing.T, *registry, *opencode.ObtainOptions)
		code   string
		words  []string
		keeps  bool // a part that a later call goes on with
	}{
		{name: "no network", change: func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) { r.Close() },
			code: opencode.CodeRegistryUnreachable, words: []string{"npm_config_registry", "--opencode-binary", "connection refused"}},
		{name: "404", answer: status(404), code: opencode.CodePackageNotFound, words: []string{"404", testPackage, "npm_config_registry"}},
		{name: "401", answer: status(401), code: opencode.CodeRegistryDenied, words: []string{"401", "_authToken", "~/.npmrc"}},
		{name: "403", answer: status(403), code: opencode.CodeRegistryDenied, words: []string{"403"}},
		{name: "400", answer: status(400), code: opencode.CodeRegistryUnreachable, words: []string{"400"}},
		{name: "500 for ever", answer: status(500), code: opencode.CodeRegistryUnreachable, words: []string{"500", "5 attempts"}},
		{name: "redirects for ever", answer: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
			return true
		}, code: opencode.CodeRegistryUnreachable, words: []string{"redirect"}},
		{name: "silent", answer: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
			<-r.Context().Done()
			return true
		}, change: func(_ *testing.T, _ *registry, o *opencode.ObtainOptions) { o.StallTimeout = 20 * time.Millisecond },
			code: opencode.CodeRegistryUnreachable, words: []string{"no byte for 20ms"}},
		{name: "truncated for ever", answer: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
			if r.Header.Get("Range") != "" {
				panic(http.ErrAbortHandler)
			}
			w.Write([]byte("1234567"))
			return true
		}, code: opencode.CodeDownloadTruncated, words: []string{"after 7 of"}, keeps: true},
		{name: "wrong content", answer: func(w http.ResponseWriter, r *http.Request, _ int64) bool {
			w.Write(bytes.Repeat([]byte("evil"), 1<<20))
			return true
		}, code: opencode.CodeDigestMismatch, words: []string{"not the package that is pinned", "npm_config_registry"}},
		{name: "wrong pin", change: func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) { r.pkg.Integrity = sri([]byte("other")) },
			code: opencode.CodeDigestMismatch},
		{name: "no pin", change: func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) { r.pkg.Integrity = "" },
			code: opencode.CodeDigestMismatch},
		{name: "not gzip", change: repin([]byte("this is no tarball")), code: opencode.CodeArchiveInvalid, words: []string{"gzip"}},
		{name: "damaged tarball", change: func(t *testing.T, r *registry, o *opencode.ObtainOptions) {
			repin(r.tarball[:len(r.tarball)/2])(t, r, o)
		}, code: opencode.CodeArchiveInvalid, words: []string{"damaged"}},
		{name: "no binary inside", change: func(t *testing.T, r *registry, o *opencode.ObtainOptions) {
			repin(tarball(t, map[string][]byte{"package/readme": nil}, tar.TypeReg))(t, r, o)
		}, code: opencode.CodeArchiveInvalid, words: []string{"package/bin/opencode"}},
		{name: "a link inside", change: func(t *testing.T, r *registry, o *opencode.ObtainOptions) {
			repin(tarball(t, map[string][]byte{"package/bin/opencode": nil}, tar.TypeSymlink))(t, r, o)
		}, code: opencode.CodeArchiveInvalid, words: []string{"regular file"}},
		{name: "too large inside", change: func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) { r.pkg.BinarySize-- },
			code: opencode.CodeArchiveInvalid, words: []string{"bytes"}},
		{name: "too little space", change: func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) { r.pkg.BinarySize = 1 << 60 },
			code: opencode.CodeDiskFull, words: []string{"are free", "TONGS_HOME"}},
		{name: "home is a file", change: func(t *testing.T, _ *registry, o *opencode.ObtainOptions) {
			o.Home = filepath.Join(o.Home, "file")
			os.WriteFile(o.Home, nil, 0o644)
		}, code: opencode.CodeHomeUnwritable, words: []string{"TONGS_HOME"}},
		{name: "no home", change: func(_ *testing.T, _ *registry, o *opencode.ObtainOptions) { o.Home = "" },
			code: opencode.CodeHomeUnwritable, words: []string{"TONGS_HOME"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, tc.answer)
			o := reg.options(t)
			if tc.change != nil {
				tc.change(t, reg, &o)
			}
			_, err := opencode.Obtain(t.Context(), o)
			wantCode(t, err, tc.code, tc.words...)
			for _, name := range leftovers(t, o.Home) {
				if tc.code == opencode.CodeHomeUnwritable || !strings.HasSuffix(name, ".part") {
					t.Errorf("left behind: %s", name)
				} else if tc.code != opencode.CodeArchiveInvalid && !tc.keeps {
					t.Errorf("left a part behind: %s", name)
				}
			}
		})
	}
}

func repin(tarball []byte) func(*testing.T, *registry, *opencode.ObtainOptions) {
	return func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) {
		r.tarball = tarball
		r.pkg.Integrity, r.pkg.Size, r.pkg.BinarySize = sri(tarball), int64(len(tarball)), 0
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

func TestObtainUnwritable(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		// Root may write anywhere, but not into a read-only mount.
		inNewMounts(t, func(home string) error {
			return errors.Join(syscall.Mount("none", home, "tmpfs", 0, "size=1m"), syscall.Mount("none", home, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		}, opencode.CodeHomeUnwritable)
		return
	}
	reg := newRegistry(t, nil)
	o := reg.options(t)
	if err := os.Chmod(o.Home, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := opencode.Obtain(t.Context(), o)
	wantCode(t, err, opencode.CodeHomeUnwritable, "TONGS_HOME")
}

func TestObtainDiskFull(t *testing.T) {
	t.Parallel()
	inNewMounts(t, func(home string) error {
		return syscall.Mount("none", home, "tmpfs", 0, "size=256k")
	}, opencode.CodeDiskFull)
}

// inNewMounts runs the calling test once more in a mount namespace of its own,
// where it mounts something at the home and obtains into that.
func inNewMounts(t *testing.T, mount func(home string) error, code string) {
	if os.Getenv("TONGS_TEST_MOUNTS") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "TONGS_TEST_MOUNTS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
			t.Skip("this machine allows no user namespaces:", err)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Fatalf("in a mount namespace: %v\n%s", err, out)
		}
		return
	}
	reg := newRegistry(t, nil)
	reg.pkg.Size, reg.pkg.BinarySize = 0, 0 // so that only the write finds out
	o := reg.options(t)
	if err := mount(o.Home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(o.Home, syscall.MNT_DETACH) })
	_, err := opencode.Obtain(t.Context(), o)
	wantCode(t, err, code, "TONGS_HOME")
}

func TestObtainLockHasADeadline(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, nil)
	o := reg.options(t)
	dir := filepath.Join(o.Home, "opencode", opencode.Version)
	os.MkdirAll(dir, 0o755)
	held, err := os.Create(filepath.Join(dir, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var waited bool
	o.Progress = func(p opencode.Progress) { waited = waited || p.Phase == opencode.PhaseWait }
	o.Timeout = 50 * time.Millisecond
	_, err = opencode.Obtain(t.Context(), o)
	wantCode(t, err, opencode.CodeObtainCanceled, "not done within 50ms")
	if !waited {
		t.Error("waiting was not reported")
	}
}

func TestPackageFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		p    opencode.Platform
		want string
	}{
		{opencode.Platform{OS: "linux", Arch: "amd64", AVX2: true}, "opencode-linux-x64"},
		{opencode.Platform{OS: "linux", Arch: "amd64"}, "opencode-linux-x64-baseline"},
		{opencode.Platform{OS: "linux", Arch: "amd64", AVX2: true, Musl: true}, "opencode-linux-x64-musl"},
		{opencode.Platform{OS: "linux", Arch: "amd64", Musl: true}, "opencode-linux-x64-baseline-musl"},
		{opencode.Platform{OS: "linux", Arch: "arm64"}, "opencode-linux-arm64"},
	} {
		p, err := opencode.PackageFor(tc.p)
		if err != nil || p.Name != tc.want || p.Version != opencode.Version || p.Size == 0 {
			t.Errorf("PackageFor(%+v) = %+v, %v; want %s", tc.p, p, err, tc.want)
		}
	}
	for _, p := range []opencode.Platform{{OS: "linux", Arch: "arm64", Musl: true}, {OS: "darwin", Arch: "arm64"}, {OS: "linux", Arch: "riscv64"}} {
		_, err := opencode.PackageFor(p)
		wantCode(t, err, opencode.CodeUnsupportedPlatform, "--opencode-binary")
	}
}

func TestUseBinaryRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, body string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(body), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, tc := range map[string]struct{ path, word string }{
		"missing":     {filepath.Join(dir, "none"), "cannot be found"},
		"directory":   {dir, "regular file"},
		"not exec":    {script("noexec", "#!/bin/sh\n", 0o644), "permission denied"},
		"fails":       {script("fails", "#!/bin/sh\necho broken here >&2; exit 3\n", 0o755), "broken here"},
		"other":       {script("other", "#!/bin/sh\necho hello\n", 0o755), "hello"},
		"old":         {script("old", "#!/bin/sh\necho 0.9.1\n", 0o755), "0.9.1"},
		"next major":  {script("two", "#!/bin/sh\necho 2.18.33\n", 0o755), "2.18.33"},
		"floods":      {script("flood", "#!/bin/sh\nhead -c 10000000 /dev/zero; exit 1\n", 0o755), "does not run"},
		"own garbage": {script("garbage", "\x7fELF garbage", 0o755), "does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := opencode.UseBinary(t.Context(), tc.path)
			wantCode(t, err, opencode.CodeBinaryUnusable, tc.word, "--opencode-binary")
		})
	}
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := opencode.UseBinary(ctx, script("hangs", "#!/bin/sh\nsleep 600\n", 0o755))
		wantCode(t, err, opencode.CodeBinaryUnusable, "in time")
	})
	t.Run("other patch number", func(t *testing.T) {
		t.Parallel()
		b, err := opencode.UseBinary(t.Context(), script("patch", "#!/bin/sh\necho v1.18.99\n", 0o755))
		if err != nil || b.Version != "1.18.99" || !b.Own {
			t.Errorf("%+v, %v", b, err)
		}
	})
}

// realBinary obtains the real OpenCode into a cache that the tests share. It
// skips the test when there is no network and the cache is empty.
func realBinary(t testing.TB) opencode.Binary {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache directory for OpenCode:", err)
	}
	b, err := opencode.Obtain(t.Context(), opencode.ObtainOptions{Home: filepath.Join(cache, "tongs-test"), Timeout: 5 * time.Minute})
	var oe *opencode.ObtainError
	if errors.As(err, &oe) && (oe.Code == opencode.CodeRegistryUnreachable || oe.Code == opencode.CodeUnsupportedPlatform) {
		t.Skip("OpenCode cannot be obtained here:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestObtainReal(t *testing.T) {
	t.Parallel()
	b := realBinary(t)
	own, err := opencode.UseBinary(t.Context(), b.Path)
	if err != nil || own.Version != opencode.Version {
		t.Errorf("%+v, %v; want version %s", own, err, opencode.Version)
	}
}
