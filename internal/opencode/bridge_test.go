package opencode_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/sandbox"
)

// runBridge runs a bridge to a server until the end of the test.
func runBridge(t *testing.T, server *httptest.Server, change func(*opencode.BridgeConfig)) *opencode.Bridge {
	t.Helper()
	cfg := opencode.BridgeConfig{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		},
		Token: "the token", Root: func(_ context.Context, id string) (string, error) { return id, nil },
		Sandboxes: noSandboxes{}, Logger: testLogger(t),
	}
	if change != nil {
		change(&cfg)
	}
	b := opencode.NewBridge(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

// peer is a plugin; its sessions with the bridge come out of the channel.
func peer(t *testing.T) (*httptest.Server, <-chan *capnweb.Session) {
	sessions := make(chan *capnweb.Session, 100)
	rpc := &httprpc.Handler{
		Main: func(r *http.Request) (any, error) {
			if r.Header.Get("Authorization") != "Bearer the token" {
				return nil, &httprpc.StatusError{Code: http.StatusUnauthorized, Message: "no"}
			}
			return capnweb.NewTarget(capnweb.Methods{"hello": func() string { return "hello" }}), nil
		},
		OnSession: func(_ *http.Request, s *capnweb.Session) { sessions <- s },
	}
	server := httptest.NewServer(rpc)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return server, sessions
}

func TestBridgeReconnects(t *testing.T) {
	t.Parallel()
	server, sessions := peer(t)
	b := runBridge(t, server, nil)
	ctx := deadline(t, 20*time.Second)
	for range 5 {
		if err := b.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		s := <-sessions
		s.Close(errors.New("the line broke"))
		<-s.Done()
	}
}

func TestBridgeFindsAnotherWhenItsPeerIsSilent(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	live, sessions := peer(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if connections.Add(1) > 1 {
			live.Config.Handler.ServeHTTP(w, r)
			return
		}
		// It answers nothing, for ever.
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		for {
			if _, _, err := c.Read(r.Context()); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	b := runBridge(t, server, func(c *opencode.BridgeConfig) {
		c.PingInterval, c.PingTimeout = 20*time.Millisecond, 100*time.Millisecond
	})
	if err := b.Wait(deadline(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	<-sessions
}

func TestBridgeSaysWhyItIsDown(t *testing.T) {
	t.Parallel()
	server, _ := peer(t)
	b := runBridge(t, server, func(c *opencode.BridgeConfig) { c.Token = "another" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := b.Wait(ctx)
	if sandbox.CodeOf(err) != opencode.CodeBridgeDown || !strings.Contains(err.Error(), "401") {
		t.Errorf("%v, want code %s and the status", err, opencode.CodeBridgeDown)
	}
}

// TestBridgeErrors holds what a plugin sees of failures.
func TestBridgeErrors(t *testing.T) {
	t.Parallel()
	server, sessions := peer(t)
	boxes := newFakeSandboxes(t)
	b := runBridge(t, server, func(c *opencode.BridgeConfig) {
		c.Sandboxes = boxes
		c.Root = func(_ context.Context, id string) (string, error) {
			if id == "ses_none" {
				return "", sandbox.Errf(opencode.CodeSessionNotFound, "find", "there is no session", "make one")
			}
			return "ses_root", nil
		}
	})
	ctx := deadline(t, 20*time.Second)
	if err := b.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	main := (<-sessions).Main()
	defer main.Close()

	_, err := capnweb.Call[any](ctx, main.Call("sandbox", "ses_none"), "exec", "true", map[string]any{})
	var wire *capnweb.Error
	if !errors.As(err, &wire) || wire.Code() != string(opencode.CodeSessionNotFound) {
		t.Errorf("an unknown session: %v", err)
	}
	if hint, _ := wire.Props.Get("hint"); hint != "make one" {
		t.Errorf("hint %v", hint)
	}

	box := main.Call("sandbox", "ses_child")
	defer box.Close()
	if out, err := capnweb.Call[map[string]any](ctx, box, "exec", "pwd", map[string]any{}); err != nil || !strings.HasSuffix(strings.TrimSpace(out["stdout"].(string)), "ses_root") {
		t.Errorf("exec: %v, %v", out, err)
	}
	if _, err := capnweb.Call[any](ctx, box, "exec", "head -c 26000000 /dev/zero | tr '\\0' x", map[string]any{}); !errors.As(err, &wire) || wire.Code() != string(sandbox.CodeFileTooLarge) {
		t.Errorf("an answer of 26 MB: %v, want code %s", err, sandbox.CodeFileTooLarge)
	}
	if _, err := capnweb.Call[any](ctx, box, "teleport"); err == nil || !strings.Contains(err.Error(), "not a function") {
		t.Errorf("an unknown method: %v", err)
	}
	if err := box.Get("exec").Call("deeper").Await(ctx, nil); err == nil {
		t.Error("a method of a method was called")
	}
	boxes.cut()
	if _, err := capnweb.Call[any](ctx, box, "exec", "pwd", map[string]any{}); !errors.As(err, &wire) || wire.Code() != string(sandbox.CodeConnectionLost) {
		t.Errorf("after the sandbox's connection broke: %v, want code %s", err, sandbox.CodeConnectionLost)
	}
	again := main.Call("sandbox", "ses_child")
	defer again.Close()
	if _, err := capnweb.Call[any](ctx, again, "exec", "pwd", map[string]any{}); err != nil {
		t.Errorf("a new stub: %v", err)
	}
}

// TestBridgeSessionsDoNotBlockEachOther holds that one sandbox that takes long
// to start delays nobody else.
func TestBridgeSessionsDoNotBlockEachOther(t *testing.T) {
	t.Parallel()
	server, sessions := peer(t)
	boxes := newFakeSandboxes(t)
	release := make(chan struct{})
	b := runBridge(t, server, func(c *opencode.BridgeConfig) {
		c.Sandboxes = boxes
		c.Root = func(ctx context.Context, id string) (string, error) {
			if id == "ses_slow" {
				select {
				case <-release:
				case <-ctx.Done():
					return "", ctx.Err()
				}
			}
			return id, nil
		}
	})
	ctx := deadline(t, 20*time.Second)
	if err := b.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	main := (<-sessions).Main()
	defer main.Close()
	slow := main.Call("sandbox", "ses_slow").Call("exec", "echo slow", map[string]any{})
	if _, err := capnweb.Call[any](ctx, main.Call("sandbox", "ses_fast"), "exec", "true", map[string]any{}); err != nil {
		t.Errorf("the fast one: %v", err)
	}
	close(release)
	if out, err := capnweb.Await[map[string]any](ctx, slow); err != nil || out["stdout"] != "slow\n" {
		t.Errorf("the slow one: %v, %v", out, err)
	}
}
