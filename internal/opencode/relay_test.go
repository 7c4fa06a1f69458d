package opencode_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestBridgeAsksTheSurface holds who answers what a plugin asks of a sandbox: tools are the sandbox's
// own, all else is its surface's; and that the surface is made when it is needed, once, and let go.
func TestBridgeAsksTheSurface(t *testing.T) {
	t.Parallel()
	server, sessions := peer(t)
	boxes := newFakeSandboxes(t)
	var made atomic.Int32
	gone := make(chan struct{})
	events := make(chan opencode.CallEvent, 10)
	b := runBridge(t, server, func(c *opencode.BridgeConfig) {
		c.Sandboxes = boxes
		c.OnCall = func(e opencode.CallEvent) { events <- e }
		c.Surface = func(_ context.Context, root string) (*capnweb.Target, error) {
			made.Add(1)
			return capnweb.NewTarget(capnweb.Methods{
				"exec": func(command string, told *capnweb.Stub) (map[string]any, error) {
					if told != nil {
						if _, err := capnweb.Call[any](context.Background(), told, "", "stdout", "piece"); err != nil {
							return nil, err
						}
					}
					return map[string]any{"stdout": root + ": " + command}, nil
				},
				"files": capnweb.Getter(func() *capnweb.Target {
					return capnweb.NewTarget(capnweb.Methods{
						"readStream": func(path string) *capnweb.ReadableStream {
							return capnweb.NewReader(strings.NewReader("content of " + path))
						},
					})
				}),
				"cancel":  func() string { return "the surface's" },
				"destroy": func() error { return sandbox.Errf(sandbox.CodePermissionDenied, "destroy", "no", "") },
			}, capnweb.Concurrent(), capnweb.OnClose(func() { close(gone) })), nil
		}
	})
	ctx := deadline(t, 30*time.Second)
	if err := b.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	main := (<-sessions).Main()
	defer main.Close()
	box := main.Call("sandbox", "ses_1")

	ask, progress := capnweb.Func(func(any) {}), capnweb.Func(func(any) {})
	out, err := capnweb.Call[map[string]any](ctx, box, "tool", map[string]any{"ask": ask, "progress": progress, "name": "bash", "args": map[string]any{"command": "echo the tool"}, "callID": "c1", "sessionID": "ses_1"})
	if err != nil || out["output"] != "the tool\n" {
		t.Errorf("tool: %v, %v", out, err)
	}
	if ok, err := capnweb.Call[any](ctx, box, "cancel", "c1"); err != nil || ok != true {
		t.Errorf("cancel: %v, %v", ok, err)
	}
	if n := made.Load(); n != 0 {
		t.Errorf("the surface was made %d times before it was needed", n)
	}

	var pieces []string
	told := capnweb.NewStub(capnweb.Func(func(stream, data string) { pieces = append(pieces, stream+" "+data) }))
	defer told.Close()
	out, err = capnweb.Call[map[string]any](ctx, box, "exec", "ls", told)
	if err != nil || out["stdout"] != "ses_1: ls" || !slices.Equal(pieces, []string{"stdout piece"}) {
		t.Errorf("exec: %v, %v, told %q", out, err, pieces)
	}
	files := box.Get("files")
	stream, err := capnweb.Call[*capnweb.ReadableStream](ctx, files, "readStream", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 100)
	if n, err := stream.Read(text); string(text[:n]) != "content of a.txt" {
		t.Errorf("a stream: %q, %v", text[:n], err)
	}
	stream.Close()
	var wire *capnweb.Error
	if _, err := capnweb.Call[any](ctx, box, "destroy"); !errors.As(err, &wire) || wire.Code() != string(sandbox.CodePermissionDenied) {
		t.Errorf("destroy: %v, want code %s", err, sandbox.CodePermissionDenied)
	}
	if _, err := capnweb.Call[any](ctx, box, "teleport"); err == nil || !strings.Contains(err.Error(), "not a function") {
		t.Errorf("an unknown method: %v", err)
	}
	deep := make([]any, 40)
	for i := range deep {
		deep[i] = "x"
	}
	if err := box.Get(deep...).Await(ctx, nil); err == nil {
		t.Error("a path of 40 names was followed")
	}
	if n := made.Load(); n != 1 {
		t.Errorf("the surface was made %d times", n)
	}
	var methods []string
	for range 6 {
		methods = append(methods, (<-events).Method)
	}
	if want := []string{"tool", "cancel", "exec", "files.readStream", "destroy", "teleport"}; !slices.Equal(methods, want) {
		t.Errorf("reported %q, want %q", methods, want)
	}
	box.Close()
	select {
	case <-gone:
	case <-ctx.Done():
		t.Error("the surface is still held")
	}
}
