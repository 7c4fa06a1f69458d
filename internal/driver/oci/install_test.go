//go:build linux

package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// The installed one goes before what is on PATH, and what isn't a program counts as nothing.
func TestFindGVisor(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin)
	_, err := FindGVisor(dir)
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != driver.CodeUnsupported || !strings.Contains(e.Hint, "tongs driver install gvisor") {
		t.Errorf("without any: %v", err)
	}
	script(t, filepath.Join(bin, "runsc"), "exit 0")
	if p, err := FindGVisor(dir); err != nil || p.Path != filepath.Join(bin, "runsc") || p.Pinned {
		t.Errorf("%+v, %v", p, err)
	}
	if err := os.Mkdir(installed(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if p, err := FindGVisor(dir); err != nil || p.Pinned {
		t.Errorf("a directory is taken for a program: %+v, %v", p, err)
	}
	if err := os.Remove(installed(dir)); err != nil {
		t.Fatal(err)
	}
	script(t, installed(dir), "exit 0")
	if p, err := FindGVisor(dir); err != nil || p.Path != installed(dir) || !p.Pinned {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := Install(t.Context(), dir, nil); err != nil || p.Path != installed(dir) {
		t.Errorf("Install of what is there: %+v, %v", p, err)
	}
}

// What a go command does that isn't Go's is told, and leaves nothing.
func TestInstallFails(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         string
	}{
		{"none", "", "there is no go command"},
		{"fails", "echo 'go: downloading a v1' >&2; echo a/b >&2; echo 'verifying module: checksum mismatch' >&2; exit 1", "checksum mismatch"},
		{"builds what fails", "printf '#!/bin/sh\\nexit 3\\n' >runsc; chmod 755 runsc", "doesn't run"},
		{"builds nothing", "exit 0", "doesn't run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, bin := t.TempDir(), t.TempDir()
			t.Setenv("PATH", bin+":/usr/bin:/bin")
			if c.script == "" {
				t.Setenv("PATH", bin)
			} else {
				script(t, filepath.Join(bin, "go"), c.script)
			}
			_, err := Install(t.Context(), dir, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestInstallCut(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	script(t, filepath.Join(bin, "go"), "echo a/b >&2; sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	var seen []int
	_, err := Install(ctx, dir, func(done, _ int) { seen = append(seen, done); cancel() })
	if !errors.Is(err, context.Canceled) || !slices.Equal(seen, []int{1}) {
		t.Errorf("%v after %v", err, seen)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWatchBuild(t *testing.T) {
	t.Parallel()
	last := 0
	said := watchBuild(strings.NewReader("go: downloading x v1\na\nb/c\n# b/c\nb/c/d.go:1:2: wrong\n"+strings.Repeat("long words ", 500)+"\ne\n"),
		func(done, of int) { last = done })
	if last != 3 || len(said) > maxSaid || !strings.HasSuffix(said, "long words") {
		t.Errorf("%d packages, %d bytes: …%.40q", last, len(said), said)
	}
}

// What is pinned is one version, and nothing comes without its hash.
func TestPinned(t *testing.T) {
	t.Parallel()
	if !strings.Contains(string(runscMod), "gvisor.dev/gvisor "+Version) {
		t.Errorf("mod.txt doesn't require %s", Version)
	}
	for line := range strings.Lines(string(runscMod)) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.Contains(f[0], ".") && !strings.Contains(string(runscSum), f[0]+" "+f[1]+" h1:") {
			t.Errorf("sum.txt has no hash of %s %s", f[0], f[1])
		}
	}
}
