package opencode_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
)

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
