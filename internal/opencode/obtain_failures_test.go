package opencode_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
)

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

// A registry's password, which may be in its URL, is sent and never shown.
func TestObtainPasswordInURL(t *testing.T) {
	t.Parallel()
	var user, password string
	reg := newRegistry(t, func(w http.ResponseWriter, r *http.Request, _ int64) bool {
		user, password, _ = r.BasicAuth()
		return false
	})
	good := reg.URL
	reg.URL = strings.Replace(good, "//", "//me:s3cret@", 1)
	o := reg.options(t)
	var logs bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&logs, nil))
	if _, err := opencode.Obtain(t.Context(), o); err != nil || user != "me" || password != "s3cret" {
		t.Errorf("%v; the registry got %q and %q", err, user, password)
	}
	reg.Close()
	o.Home = t.TempDir()
	_, err := opencode.Obtain(t.Context(), o)
	wantCode(t, err, opencode.CodeRegistryUnreachable)
	if all := err.Error() + logs.String(); strings.Contains(all, "s3cret") || logs.Len() == 0 {
		t.Errorf("the password is shown: %s", all)
	}
}

func repin(tarball []byte) func(*testing.T, *registry, *opencode.ObtainOptions) {
	return func(_ *testing.T, r *registry, _ *opencode.ObtainOptions) {
		r.tarball = tarball
		r.pkg.Integrity, r.pkg.Size, r.pkg.BinarySize = sri(tarball), int64(len(tarball)), 0
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
