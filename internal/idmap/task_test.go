//go:build linux

package idmap_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/sandbox"
)

// The tasks of these tests.
var (
	chown = idmap.Task{Name: "idmap_test.chown"}
	fails = idmap.Task{Name: "idmap_test.fails"}
	waits = idmap.Task{Name: "idmap_test.waits"}
	dies  = idmap.Task{Name: "idmap_test.dies"}
)

type chownArgument struct {
	Path     string
	UID, GID int
}

func init() {
	chown.Serve(func(_ context.Context, argument func(any) error) error {
		var a chownArgument
		if err := argument(&a); err != nil {
			return err
		}
		fmt.Println(os.Getuid(), os.Getgid(), os.Getenv("SECRET"))
		return os.Lchown(a.Path, a.UID, a.GID)
	})
	fails.Serve(func(_ context.Context, argument func(any) error) error {
		var code string
		if err := argument(&code); err != nil {
			return err
		}
		if code == "" {
			return &os.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}
		}
		return &sandbox.Error{Code: sandbox.Code(code), Op: "try", Message: "it failed", Hint: "do better"}
	})
	waits.Serve(func(ctx context.Context, _ func(any) error) error {
		fmt.Println("waiting")
		<-ctx.Done()
		return ctx.Err()
	})
	dies.Serve(func(context.Context, func(any) error) error {
		fmt.Fprintln(os.Stderr, "goodbye")
		os.Exit(0)
		return nil
	})
}

// insideEnv tells the test binary that it runs as an ordinary user with ranges.
const insideEnv = "TONGS_IDMAP_TEST_INSIDE"

// TestTasks runs TestInside as an ordinary user.
func TestTasks(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir := t.TempDir()
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) { // the user has to get there
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tmp := filepath.Join(dir, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o700), os.Chown(tmp, idmaptest.Alice.ID, idmaptest.Alice.ID)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	binary := filepath.Join(dir, "test")
	data, err := os.ReadFile(self)
	if err := errors.Join(err, os.WriteFile(binary, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^TestInside$", "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tmp, insideEnv + "=1", "SECRET=secret"}
	out, err := idmaptest.Alice.CombinedOutput(t, cmd)
	if err != nil || strings.Count(string(out), "--- PASS") != 6 {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestInside(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("TestTasks runs it")
	}
	m, err := idmap.Find()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("Find", func(t *testing.T) {
		if m.IDs() != idmap.Full || len(m.UIDs) != 2 || m.UIDs[1].Inside != 40_000 || m.UIDs[1].Outside != 2_000_200_000 {
			t.Error(m)
		}
	})
	t.Run("Owners", func(t *testing.T) {
		for _, id := range []int{0, 1000, 40_001, 65_534} {
			p := filepath.Join(t.TempDir(), "f") // in a directory that only the user may enter
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if err := chown.Run(t.Context(), m, chownArgument{p, id, id}, idmap.Streams{Stdout: &out}); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(p, &st); err != nil {
				t.Fatal(err)
			}
			want := uint32(2_000_000_000 + id)
			if id >= 40_000 {
				want = uint32(2_000_200_000 + id - 40_000)
			}
			if st.Uid != want || st.Gid != uint32(2_111_000_000+id) {
				t.Errorf("id %d: the host's %d and %d", id, st.Uid, st.Gid)
			}
			if out.String() != "0 0 \n" {
				t.Errorf("ids in the task, and what it has of the environment: %q", out.String())
			}
		}
		// What isn't the user's to give isn't given: the host's root has no id there.
		p := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := chown.Run(t.Context(), m, chownArgument{p, 70_000, 0}, idmap.Streams{}); !errors.Is(err, unix.EINVAL) {
			t.Errorf("an id beyond the map: %v", err)
		}
		if err := chown.Run(t.Context(), m, chownArgument{"/etc/hostname", 1000, 1000}, idmap.Streams{}); !errors.Is(err, unix.EPERM) {
			t.Errorf("a file of the host's root: %v", err)
		}
	})
	t.Run("Errors", func(t *testing.T) {
		err := fails.Run(t.Context(), m, string(sandbox.CodeUnsafeArchive), idmap.Streams{})
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != sandbox.CodeUnsafeArchive || e.Op != "try" || e.Hint != "do better" {
			t.Errorf("%#v", err)
		}
		if err := fails.Run(t.Context(), m, "", idmap.Streams{}); !errors.Is(err, unix.ENOSPC) || err.Error() != "open /x: no space left on device" {
			t.Errorf("%v", err)
		}
		if err := dies.Run(t.Context(), m, nil, idmap.Streams{}); err == nil || !strings.Contains(err.Error(), "goodbye") {
			t.Errorf("a task that ends early: %v", err)
		}
	})
	t.Run("Cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		err := waits.Run(ctx, m, nil, idmap.Streams{Stdout: writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })})
		if !errors.Is(err, context.Canceled) || time.Since(began) > 4*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
	t.Run("Foreign", func(t *testing.T) {
		foreign := idmap.Map{UIDs: []idmap.Extent{{Outside: 100_000, Size: 65_536}}, GIDs: m.GIDs}
		p := filepath.Join(t.TempDir(), "f")
		err := chown.Run(t.Context(), foreign, chownArgument{p, 0, 0}, idmap.Streams{})
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != sandbox.CodeMachineNotSupported || !strings.Contains(e.Hint, "sudo usermod --add-subuids 100000-165535 --add-subgids 2111000000-2111065535 alice") {
			t.Errorf("another's ids: %v", err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
