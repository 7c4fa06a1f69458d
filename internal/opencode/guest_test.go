package opencode_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// newGuest runs a guest in this process, without isolation, and connects to it. What it is told of
// users and commands is the test's; its socket and where it keeps long outputs are not.
func newGuest(t *testing.T, cfg guest.Config) *sandbox.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "tg") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := ln.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ln.Close()
	if cfg.ListenerFD, err = syscall.Dup(int(f.Fd())); err != nil { // the guest closes it
		t.Fatal(err)
	}
	if cfg.OutputDir == "" {
		cfg.OutputDir = filepath.Join(dir, "output")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- guest.Run(ctx, cfg, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the guest: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the guest does not end")
		}
	})
	dialCtx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	client, err := sandbox.Connect(dialCtx, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// guests are Sandboxes: one guest for all sessions, or one of its own for some.
type guests struct {
	all *sandbox.Client

	mu  sync.Mutex
	own map[string]*sandbox.Client // by root session
}

func (g *guests) Agent(_ context.Context, root string) (*capnweb.Stub, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.own[root]; c != nil {
		return c.Agent(), nil
	}
	return g.all.Agent(), nil
}

func (g *guests) give(root string, c *sandbox.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own == nil {
		g.own = map[string]*sandbox.Client{}
	}
	g.own[root] = c
}
