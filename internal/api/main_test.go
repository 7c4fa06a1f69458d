package api_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/api"
	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// patience bounds each test.
const patience = 90 * time.Second

// guestDir is where the guest was built; it is removed at the end.
var guestDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if guestDir != "" {
		os.RemoveAll(guestDir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// guestOnce keeps the directory of the guest for TestMain.
var guestOnce sync.Once

func guestBinary(t testing.TB) driver.Guest {
	g := drivertest.GuestBinary(t)
	guestOnce.Do(func() {
		if os.Getenv(driver.GuestEnv) == "" {
			guestDir = filepath.Dir(g.Path)
		}
	})
	return g
}

// endpoint is an endpoint over real sandboxes.
type endpoint struct {
	url    string
	token  string
	home   string
	fleet  *fleet.Fleet
	server *api.Server
	driver driver.Driver
}

// needSandboxes skips where no sandboxes can be made.
func needSandboxes(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("there is no driver for " + runtime.GOOS)
	}
	if n, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); os.Geteuid() != 0 && (err != nil || strings.TrimSpace(string(n)) == "0") {
		t.Skip("this machine allows no user namespaces to ordinary users")
	}
}

// begin starts an endpoint with a home of its own.
func begin(t testing.TB, change ...func(*api.Config)) *endpoint {
	t.Helper()
	needSandboxes(t)
	home := filepath.Join(idmaptest.TempDir(t), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	guest := guestBinary(t)
	d, err := linux.New(linux.Config{Home: home, Guest: &guest})
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(home, "images")})
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{home: home, driver: d}
	e.fleet = fleet.New(fleet.Config{Driver: d, Recipe: driver.Spec{Image: root}, Logger: slog.New(slog.DiscardHandler), Reserved: []string{"agent-host"}})
	tokens, err := api.OpenTokens(home)
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.Config{Fleet: e.fleet, Tokens: tokens, Logger: slog.New(slog.DiscardHandler), Version: "test"}
	for _, f := range change {
		f(&cfg)
	}
	e.server = api.New(cfg)
	server := httptest.NewServer(e.server)
	e.url = server.URL
	if e.token, err = api.ReadToken(filepath.Join(home, api.TokenFile)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e.server.Close()
		server.Close()
		tokens.Close()
		if err := e.fleet.DestroyAll(ctx); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// connect opens a connection with the host's token.
func (e *endpoint) connect(t testing.TB, token string) *remote.Host {
	t.Helper()
	h, err := remote.Connect(t.Context(), e.url, remote.DialOptions{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// create makes a sandbox that is destroyed at the end.
func create(t testing.TB, h *remote.Host, opts remote.CreateOptions) *remote.Info {
	t.Helper()
	info, err := h.Create(deadline(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func command(argv ...string) sandbox.ExecSpec {
	return sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: argv}}
}
