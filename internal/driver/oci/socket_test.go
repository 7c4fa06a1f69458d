//go:build linux

package oci_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/oci"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestSocketReplaced lets the root of a sandbox with a kernel of its own put a link to a socket of the host's in the place
// of the guest's: the host doesn't go there.
func TestSocketReplaced(t *testing.T) {
	t.Parallel()
	dir, home, guest, root := gvisorPlace(t)
	ctx := t.Context()
	d, err := oci.New(oci.Config{Home: home, Guest: &guest, Runtime: oci.GVisor, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.Create(ctx, driver.Spec{ID: "one", Image: root, Root: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.WithoutCancel(ctx), "one"); err != nil {
			t.Error(err)
		}
	})
	target := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", target)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan struct{})
	go func() {
		if c, err := ln.Accept(); err == nil {
			c.Close()
			close(accepted)
		}
	}()
	// The control: the guest is there, and its root may change the directory.
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "one") })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{
		Argv: []string{"sh", "-c", `rm /dev/tongs/guest && ln -s "$1" /dev/tongs/guest && readlink /dev/tongs/guest`, "sh", target}, User: "root",
	}})
	if err != nil || !res.Exit.Success() {
		t.Fatalf("the control: the socket can't be replaced: %+v, %v", res, err)
	}
	conn, err := d.Dial(ctx, "one")
	if sandbox.CodeOf(err) != driver.CodeGuestFailed {
		t.Errorf("the host connected: %v", err)
	}
	if conn != nil {
		conn.Close()
	}
	select {
	case <-accepted:
		t.Error("the host's socket was reached")
	default:
	}
	if err := d.Stop(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	again, err := d.Dial(ctx, "one")
	if err != nil {
		t.Fatalf("after a new start: %v", err)
	}
	again.Close()
}
