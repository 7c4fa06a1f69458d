//go:build linux

package oci_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/oci"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// gvisorPlace gives what a driver for gVisor is made from, besides its settings, and the host's image.
func gvisorPlace(t *testing.T) (runtimes, home string, guest driver.Guest, root image.Root) {
	t.Helper()
	if reason := needed(oci.GVisor); reason != "" {
		t.Skip(reason)
	}
	runtimes, err := runtimesDir()
	if err != nil {
		t.Fatal(err)
	}
	home = filepath.Join(t.TempDir(), "home")
	root, _, err = image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(filepath.Dir(home), "images")})
	if err != nil {
		t.Fatal(err)
	}
	return runtimes, home, drivertest.GuestBinary(t), root
}

// TestOtherBuild holds that a checkpoint that another runsc has made is refused with the reason and kept.
func TestOtherBuild(t *testing.T) {
	t.Parallel()
	dir, home, guest, root := gvisorPlace(t)
	ctx := t.Context()
	same, err := oci.FindGVisor(dir)
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, filepath.Base(same.Path)), []byte("#!/bin/sh\necho runsc version release-of-tomorrow\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	open := func(runtimes string, platform oci.Platform) interface {
		driver.Driver
		driver.Checkpointer
	} {
		d, err := oci.New(oci.Config{Home: home, Guest: &guest, Runtime: oci.GVisor, Platform: platform, Dir: runtimes, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	d := open(dir, oci.Systrap)
	if err := d.Create(ctx, driver.Spec{ID: "one", Image: root}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.WithoutCancel(ctx), "one"); err != nil {
			t.Error(err)
		}
	})
	if err := d.Checkpoint(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]driver.Driver{"another version": open(other, oci.Systrap), "another platform": open(dir, oci.Ptrace)} {
		err := d.Start(ctx, "one")
		if sandbox.CodeOf(err) != sandbox.CodeRestoreFailed || !strings.Contains(err.Error(), "--fresh") || !strings.Contains(err.Error(), "was made by gvisor") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Start(ctx, "one"); err != nil {
		t.Fatalf("the same one: %v", err)
	}
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "one") })
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
