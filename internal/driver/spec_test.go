package driver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestSpecDefaults(t *testing.T) {
	t.Parallel()
	s := driver.Spec{ID: "x"}
	if err := s.Check("test"); err != nil {
		t.Fatal(err)
	}
	want := driver.Limits{MemoryBytes: 2 << 30, Pids: 512, TmpBytes: 1 << 30}
	if s.Limits != want || s.Hostname != "sandbox" || s.Lease != driver.DefaultLease {
		t.Errorf("got %+v", s)
	}
	s = driver.Spec{ID: "x", Limits: driver.Limits{MemoryBytes: -1, Pids: -1, TmpBytes: -1, CPUs: 0.5}, Lease: -1}
	if err := s.Check("test"); err != nil {
		t.Fatal(err)
	}
	if got := s.Limits.String(); got != "memory no limit, pids no limit, cpus 0.5, /tmp no limit" {
		t.Errorf("got %q", got)
	}
}

// TestIDsStayInside: whatever passes for an id is one plain name of a file.
func TestIDsStayInside(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.OneOf(rapid.String(), rapid.StringMatching(`[./A-Za-z0-9_~-]{0,140}`)).Draw(t, "id")
		if driver.CheckID("test", id) != nil {
			return
		}
		if p := filepath.Join("/a", id); filepath.Dir(p) != "/a" || filepath.Base(p) != id || strings.HasPrefix(id, ".") || len(id) > 128 {
			t.Errorf("%q passed", id)
		}
	})
}

func TestWrap(t *testing.T) {
	t.Parallel()
	if driver.Wrap("x", nil) != nil {
		t.Error("nil became an error")
	}
	for _, c := range []struct {
		err  error
		code sandbox.Code
	}{
		{&os.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}, sandbox.CodeNoSpace},
		{syscall.EACCES, sandbox.CodePermissionDenied},
		{fmt.Errorf("more: %w", syscall.EMFILE), sandbox.CodeTooManyFiles},
		{errors.New("strange"), sandbox.CodeInternal},
	} {
		err := driver.Wrap("make", c.err)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Op != "make" || !errors.Is(err, c.err) {
			t.Errorf("%v became %#v", c.err, err)
		}
		if again := driver.Wrap("more", err); again != err {
			t.Errorf("wrapped twice: %v", again)
		}
	}
	if err := driver.Wrap("x", context.Canceled); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestGuestBinary(t *testing.T) {
	p := filepath.Join(t.TempDir(), "guest")
	t.Setenv(driver.GuestEnv, p)
	if _, err := driver.GuestBinary(); sandbox.CodeOf(err) != sandbox.CodeFileNotFound || !strings.Contains(err.Error(), p) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(p, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	g, err := driver.GuestBinary()
	if err != nil || g.Path != p {
		t.Fatalf("got %+v, %v", g, err)
	}
	r, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Setenv(driver.GuestEnv, "")
	if g, err := driver.GuestBinary(); err == nil && g.Path != "" && filepath.Base(g.Path) != "tongs-guest" {
		t.Errorf("got %+v", g)
	}
}
