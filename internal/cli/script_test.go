package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/preview"
)

// guestDir is where the guest was built, for TestMain to remove.
var guestDir string

// cleaningUp removes what the tests of a process share.
type cleaningUp struct{ *testing.M }

func (m cleaningUp) Run() int {
	code := m.M.Run()
	if guestDir != "" {
		os.RemoveAll(guestDir)
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(cleaningUp{m}, map[string]func(){
		"tongs": func() {
			os.Exit(Main(ObeySignals(context.Background()), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

var guestOnce sync.Once

// TestScripts types what people type, at an endpoint over real sandboxes; OpenCode is not needed for that.
func TestScripts(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no driver for " + runtime.GOOS)
	}
	if n, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); os.Geteuid() != 0 && (err != nil || strings.TrimSpace(string(n)) == "0") {
		t.Skip("this machine allows no user namespaces to ordinary users")
	}
	guest := drivertest.GuestBinary(t)
	guestOnce.Do(func() {
		if os.Getenv(driver.GuestEnv) == "" {
			guestDir = filepath.Dir(guest.Path)
		}
	})
	cachedRuntime := cachedGVisor()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// sever breaks every connection to the endpoint, as the end of the host does.
			"sever": func(ts *testscript.TestScript, neg bool, args []string) {
				if n := ts.Value(wireKey{}).(*wire).sever(); n == 0 {
					ts.Fatalf("there was no connection to break")
				}
			},
		},
		Condition: func(cond string) (bool, error) {
			if cond != "gvisor" {
				return false, fmt.Errorf("there is no condition %q", cond)
			}
			return cachedRuntime != "", nil
		},
		Setup: func(e *testscript.Env) error {
			// A home of its own for each script, whose path is short enough for sockets.
			home, err := os.MkdirTemp("", "ts")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = idmap.Remove(context.Background(), home) })
			e.Setenv("TONGS_HOME", home)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TERM", "dumb")
			if cachedRuntime != "" {
				dir := filepath.Join(home, "runtimes")
				if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(cachedRuntime, filepath.Join(dir, filepath.Base(cachedRuntime)))); err != nil {
					return err
				}
			}
			return serveHome(e, home, guest)
		},
	})
}

// serveHome does for a home what `tongs up` does, without OpenCode.
func serveHome(e *testscript.Env, home string, guest driver.Guest) error {
	d, err := testDriver(home, guest)
	if err != nil {
		return err
	}
	root, _, err := image.Host(context.Background(), image.HostConfig{Dir: filepath.Join(home, "images")})
	if err != nil {
		return err
	}
	p := newProjects(&Config{Home: home}, d, slog.New(slog.DiscardHandler))
	f := fleet.New(fleet.Config{Driver: d, Recipe: driver.Spec{Image: root}, Logger: slog.New(slog.DiscardHandler), Reserved: []string{agentHostName}, Ended: func(string) { p.removed() }})
	tokens, err := api.OpenTokens(home)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	connections := &wire{Listener: listener}
	e.Values[wireKey{}] = connections
	store, err := openImages(&Config{Home: home})
	if err != nil {
		return err
	}
	made := &images{store: store, host: root}
	s := &service{fleet: f}
	if s.preview, err = preview.New(preview.Config{Boxes: previewBoxes{f}, Listen: "127.0.0.1:8787", Open: true}); err != nil {
		return err
	}
	server := api.New(api.Config{Fleet: f, Tokens: tokens, Logger: slog.New(slog.DiscardHandler), Version: "test", Surface: s.surface, Project: p.prepare, Image: made.root})
	web := api.NewServer(server, slog.New(slog.DiscardHandler))
	go web.Serve(connections)
	collecting, stop := context.WithCancel(context.Background())
	var collector sync.WaitGroup
	collector.Go(func() { p.collect(collecting) })
	e.Defer(func() {
		stop()
		collector.Wait()
		server.Close()
		web.Close()
		tokens.Close()
		made.close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := f.DestroyAll(ctx); err != nil {
			panic(err)
		}
		d.Close()
	})
	return os.WriteFile(filepath.Join(home, endpointFile), []byte("http://"+listener.Addr().String()+"\n"), 0o600)
}

// wire is a listener that can break what it has accepted.
type wire struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

type wireKey struct{}

func (w *wire) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// sever returns how many connections it broke.
func (w *wire) sever() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		if conn.Close() == nil {
			n++
		}
	}
	w.conns = nil
	return n
}
