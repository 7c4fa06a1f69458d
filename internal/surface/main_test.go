package surface_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// The test binary plays the guest when this variable is set: a guest owns all children of its process.
const playGuest = "TONGS_TEST_PLAY_GUEST"

func TestMain(m *testing.M) {
	if os.Getenv(playGuest) != "" {
		os.Exit(beGuest())
	}
	goleak.VerifyTestMain(m)
}

func beGuest() int {
	b, err := guest.ReadBoot(os.NewFile(4, "boot"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b.Guest.Exclusive = true
	b.Guest.Version = "test"
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := guest.Run(context.Background(), b.Guest, log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// patience bounds each test.
const patience = 2 * time.Minute

// box is a guest that runs as a child of the test, without isolation.
type box struct {
	*sandbox.Client
	dir     string // holds project and home
	project string
	socket  string
	exited  chan struct{}
	pid     int
	stderr  syncBuffer
}

// newBox starts a guest and connects to it. It may be called from any goroutine.
func newBox(ctx context.Context) (*box, error) {
	b, err := startBox()
	if err != nil {
		return nil, err
	}
	b.Client, err = sandbox.Connect(ctx, b.dial)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, b.stderr.String())
	}
	return b, nil
}

// startBox starts a guest.
func startBox() (*box, error) {
	dir, err := os.MkdirTemp("", "ts")
	if err != nil {
		return nil, err
	}
	b := &box{dir: dir, project: filepath.Join(dir, "project"), socket: filepath.Join(dir, "s"), exited: make(chan struct{})}
	for _, d := range []string{"project", "home", "out"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	cfg := guest.Config{
		ListenerFD: 3, Project: b.project, OutputDir: filepath.Join(dir, "out"),
		User: guest.User{Root: os.Geteuid() == 0, Home: filepath.Join(dir, "home")},
		Env:  []string{"BASE=base", "PATH=" + os.Getenv("PATH")},
	}
	if err := b.launch(cfg); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *box) launch(cfg guest.Config) error {
	ln, err := net.Listen("unix", b.socket)
	if err != nil {
		return err
	}
	lf, err := ln.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	defer lf.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	doc, err := json.Marshal(guest.Boot{Guest: cfg})
	if err != nil {
		return err
	}
	if _, err := w.Write(doc); err != nil {
		return err
	}
	w.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), playGuest+"=1")
	cmd.ExtraFiles = []*os.File{lf, r}
	cmd.Stdout, cmd.Stderr = &b.stderr, &b.stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	b.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait()
		close(b.exited)
	}()
	return nil
}

func (b *box) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", b.socket)
}

// end shuts the guest down and removes its files.
func (b *box) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var err error
	if b.Client == nil {
		if b.Client, err = sandbox.Connect(ctx, b.dial); err != nil {
			return err
		}
	}
	err = b.Shutdown(ctx)
	_ = b.Close()
	select {
	case <-b.exited:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if rerr := os.RemoveAll(b.dir); err == nil {
		err = rerr
	}
	return err
}

// open is newBox for one test.
func open(t testing.TB) *box {
	t.Helper()
	b, err := newBox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.end(); err != nil {
			t.Errorf("ending the sandbox: %v\n%s", err, b.stderr.String())
		}
	})
	return b
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

type syncBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = append(s.b, p...)
	return len(p), nil
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.b)
}
