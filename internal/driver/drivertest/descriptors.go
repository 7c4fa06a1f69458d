package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// manyFDs is how many descriptors of a guest are looked at if there is no reason for more.
const manyFDs = 64

// testDescriptors looks through what the guest has open, in the guest's own name, for the host's files.
func testDescriptors(t *testing.T, s Suite) {
	b := newBed(t, s)
	dir := t.TempDir()
	secret := filepath.Join(dir, "canary")
	must(t, os.Chmod(dir, 0o755))
	must(t, os.WriteFile(secret, []byte(canaryText), 0o644))
	fds := manyFDs
	for _, p := range []string{dir, secret, "/"} {
		fds = max(fds, LeaveOpen(t, p)+1)
	}
	// The control: by the same ways, this process reaches the secret.
	if n := len(reached(t, hostFiles{}, fds, secret)); n < 3 {
		t.Fatalf("the control reaches the secret by %d ways only, so this test shows nothing", n)
	}
	b.create(t, b.spec("pockets"))
	c := b.connect(t, "pockets")
	if data, _, err := c.ReadFile(t.Context(), "/etc/passwd", sandbox.ReadOptions{}); err != nil || len(data) == 0 {
		t.Fatalf("the guest's files can't be read at all: %v", err)
	}
	for _, p := range reached(t, guestFiles{c}, fds, secret) {
		t.Errorf("possible: %s", p)
	}
}

// LeaveOpen opens a file until the end of the test as careless code does, without O_CLOEXEC, at a number
// that no guest is given anything at. It gives the number.
func LeaveOpen(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, manyFDs/2)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

const canaryText = "a secret of the host's"

// files are read and listed by somebody.
type files interface {
	read(ctx context.Context, path string) ([]byte, error)
	list(ctx context.Context, path string) ([]string, error)
}

// reached gives the paths by which a secret of the host can be read or seen through descriptors.
func reached(t *testing.T, f files, fds int, secret string) (all []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	look := func(p string, err error, found bool) {
		if found {
			all = append(all, p)
		}
		var e *sandbox.Error
		if err != nil && (ctx.Err() != nil || errors.As(err, &e) && e.Code == sandbox.CodeConnectionLost) {
			t.Fatalf("%s: %v", p, err)
		}
	}
	up := strings.Repeat("/..", 16)
	for n := range fds {
		for _, who := range []string{"1", "self", "thread-self"} {
			fd := fmt.Sprintf("/proc/%s/fd/%d", who, n)
			for _, p := range []string{fd, fd + "/canary", fd + up + secret} {
				data, err := f.read(ctx, p)
				look(p, err, bytes.Contains(data, []byte(canaryText)))
			}
			for _, p := range []string{fd, fd + up + filepath.Dir(secret)} {
				names, err := f.list(ctx, p)
				look(p, err, strings.Contains(strings.Join(names, "\n"), "canary"))
			}
		}
	}
	return all
}

type hostFiles struct{}

func (hostFiles) read(_ context.Context, p string) ([]byte, error) {
	if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	return os.ReadFile(p)
}

func (hostFiles) list(_ context.Context, p string) (names []string, err error) {
	all, err := os.ReadDir(p)
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names, err
}

type guestFiles struct{ c *sandbox.Client }

func (g guestFiles) read(ctx context.Context, p string) ([]byte, error) {
	data, _, err := g.c.ReadFile(ctx, p, sandbox.ReadOptions{})
	return data, err
}

func (g guestFiles) list(ctx context.Context, p string) (names []string, err error) {
	res, err := g.c.ListFiles(ctx, p, sandbox.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, e := range res.Entries {
		names = append(names, e.Name)
	}
	return names, nil
}
