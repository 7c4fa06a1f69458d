package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// The test binary plays the guest when this variable is set, because a guest owns
// all children of its process, and the tests have some of their own; and it plays
// what the guest is measured beside.
const (
	playGuest = "TONGS_TEST_PLAY_GUEST"
	playRelay = "TONGS_TEST_PLAY_RELAY"
	// fewDescriptors is how many the guest that is played may have.
	fewDescriptors = "TONGS_TEST_DESCRIPTORS"
)

func TestMain(m *testing.M) {
	if os.Getenv(playGuest) != "" {
		os.Exit(beGuest())
	}
	if os.Getenv(playRelay) != "" {
		os.Exit(beRelay())
	}
	if os.Getenv(playClient) != "" {
		fmt.Fprintln(os.Stderr, beClient())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func beGuest() int {
	b, err := guest.ReadBoot(os.NewFile(4, "boot"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if n, err := strconv.ParseUint(os.Getenv(fewDescriptors), 10, 32); err == nil {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	b.Guest.Exclusive = true
	b.Guest.Version = "test"
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := guest.Run(context.Background(), b.Guest, log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// A search that is given up ends with the expression it is in the middle of, which takes a while with the
	// race detector on.
	for end := time.Now().Add(20 * time.Second); ; {
		err := goleak.Find(goleak.IgnoreAnyFunction("os/signal.signal_recv"), goleak.IgnoreAnyFunction("os/signal.loop"))
		if err == nil {
			return 0
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, err)
			return 3
		}
	}
}

// box is a guest that runs as a child of the test, without isolation.
type box struct {
	*sandbox.Client
	t       testing.TB
	dir     string // holds project, home, out
	project string
	socket  string
	cmd     *exec.Cmd
	stderr  *syncBuffer
	exited  chan struct{}
	exit    error
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// testTimeout is the deadline of each test.
const testTimeout = 90 * time.Second

func newBox(t testing.TB, change ...func(*guest.Config)) *box {
	t.Helper()
	b := launch(t, change...)
	b.Client = b.connect()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		select {
		case <-b.exited: // the test has ended it
		default:
			c := b.Client
			if c.Err() != nil {
				c = b.connect()
				defer c.Close()
			}
			if err := c.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		}
		_ = b.Close()
		b.mustExit(ctx)
	})
	return b
}

// firstExtraFD is the number that the first of a guest's further files has.
const firstExtraFD = 5

// launch starts a guest without connecting to it.
func launch(t testing.TB, change ...func(*guest.Config)) *box {
	t.Helper()
	return launchWith(t, nil, change...)
}

// launchWith is launch of a guest that has further files.
func launchWith(t testing.TB, extra []*os.File, change ...func(*guest.Config)) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, dir: dir, project: filepath.Join(dir, "project"), socket: filepath.Join(dir, "s"), stderr: &syncBuffer{}, exited: make(chan struct{})}
	for _, d := range []string{"project", "home", "out"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cfg := guest.Config{
		ListenerFD: 3, Project: b.project, OutputDir: filepath.Join(dir, "out"),
		User: guest.User{Root: os.Geteuid() == 0, Home: filepath.Join(dir, "home")},
		Env:  []string{"BASE=base", "PATH=" + os.Getenv("PATH")},
	}
	for _, f := range change {
		f(&cfg)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.cmd = exec.Command(exe)
	b.cmd.Env = append(os.Environ(), playGuest+"=1", "SECRET=not for commands")
	if _, measured := t.(*testing.B); measured { // as drivers start one (boot.Environ)
		b.cmd.Env = append(b.cmd.Env, "GOMAXPROCS=1", "GOGC=40", "GOMEMLIMIT=256MiB")
	}
	b.cmd.ExtraFiles = extra
	b.run(cfg)
	return b
}

// run starts the command with its listener and boot document.
func (b *box) run(cfg guest.Config) {
	t := b.t
	t.Helper()
	ln, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	lf, err := ln.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	defer lf.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(guest.Boot{Guest: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(doc); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	b.cmd.ExtraFiles = append([]*os.File{lf, r}, b.cmd.ExtraFiles...)
	b.cmd.Stdout, b.cmd.Stderr = b.stderr, b.stderr
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		b.exit = b.cmd.Wait()
		close(b.exited)
	}()
	t.Cleanup(func() {
		select {
		case <-b.exited:
		default:
			_ = b.cmd.Process.Kill()
			<-b.exited
		}
	})
}

func (b *box) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", b.socket)
}

func (b *box) connect() *sandbox.Client {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := sandbox.Connect(ctx, b.dial)
	if err != nil {
		b.t.Fatalf("connect: %v\n%s", err, b.stderr)
	}
	return c
}

// mustExit waits for the guest's own, clean end.
func (b *box) mustExit(ctx context.Context) {
	b.t.Helper()
	select {
	case <-b.exited:
		if b.exit != nil {
			b.t.Errorf("the guest ended with %v\n%s", b.exit, b.stderr)
		}
	case <-ctx.Done():
		b.t.Errorf("the guest did not end\n%s", b.stderr)
	}
}

func (b *box) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *box) path(name string) string { return filepath.Join(b.project, name) }

// sh runs a shell command and fails the test when that can't be done.
func (b *box) sh(ctx context.Context, script string) *sandbox.ExecResult {
	b.t.Helper()
	res, err := b.Exec(ctx, bash(script))
	if err != nil {
		b.t.Fatalf("exec %q: %v", script, err)
	}
	return res
}

func bash(script string) sandbox.ExecSpec {
	return sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", script}}}
}

func wantCode(t testing.TB, err error, code sandbox.Code) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error is %v (code %q), want code %s", err, sandbox.CodeOf(err), code)
		return
	}
	if e.Message == "" || e.Op == "" {
		t.Errorf("error %#v lacks a message or an operation", e)
	}
}
