package guest_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	late := time.Now().Add(testTimeout / 3)
	for tick := time.NewTicker(time.Millisecond); !so(); <-tick.C {
		if time.Now().After(late) {
			t.Fatal(what)
		}
	}
}

func (b *box) socketThere() bool {
	c, err := net.Dial("unix", b.socket)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func suspendable(t *testing.T) *box {
	return newBox(t, func(c *guest.Config) { c.ListenPath = filepath.Join(filepath.Dir(c.Project), "s") })
}

// TestSuspend shuts a guest off: nobody is connected and the socket is gone, what runs goes on, and the guest comes
// back when it is told to, or by itself.
func TestSuspend(t *testing.T) {
	t.Parallel()
	for name, tell := range map[string]string{"resumed": sandbox.ResumedFile, "restored": sandbox.RestoredFile, "by itself": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := suspendable(t)
			first, life := b.Client, b.Incarnation()
			p, err := b.Start(t.Context(), sandbox.ProcessSpec{ID: "p", Mode: sandbox.Follow, Argv: []string{"sh", "-c", "echo before; until test -e on; do sleep 0.01; done; echo after; exit 5"}})
			if err != nil {
				t.Fatal(err)
			}
			other := b.connect() // another client, in the middle of a call
			waiting := make(chan error, 1)
			go func() { _, err := other.Wait(t.Context(), "p"); waiting <- err }()
			udp, err := b.ListenPacket(t.Context(), "datagrams", "0")
			if err == nil {
				udp.Close()
			}
			within := time.Minute
			if tell == "" {
				within = 300 * time.Millisecond
			}
			if err := b.Suspend(t.Context(), within); err != nil {
				t.Fatal(err)
			}
			<-first.Done()
			if err := <-waiting; sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
				t.Errorf("the other client got %v", err)
			}
			other.Close()
			if tell != "" {
				until(t, "the socket is still there", func() bool { _, err := os.Lstat(b.socket); return errors.Is(err, fs.ErrNotExist) })
				if b.socketThere() {
					t.Error("it can be reached")
				}
				if err := os.WriteFile(filepath.Join(filepath.Dir(b.socket), tell), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "it does not come back", b.socketThere)
			b.Client = b.connect()
			if b.Incarnation() != life {
				t.Errorf("it is another life: %s, then %s", life, b.Incarnation())
			}
			if err := os.WriteFile(filepath.Join(b.project, "on"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			end, err := b.Wait(t.Context(), "p")
			if err != nil || end.PID != p.PID || end.Exit == nil || end.Exit.Code != 5 {
				t.Errorf("%+v, %v", end, err)
			}
			for _, name := range []string{sandbox.ResumedFile, sandbox.RestoredFile} {
				if _, err := os.Lstat(filepath.Join(filepath.Dir(b.socket), name)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is left: %v", name, err)
				}
			}
		})
	}
}

// TestSuspendRefused holds who can't be shut off.
func TestSuspendRefused(t *testing.T) {
	t.Parallel()
	plain := newBox(t)
	if err := plain.Suspend(t.Context(), time.Second); sandbox.CodeOf(err) != sandbox.CodeNotSupported {
		t.Errorf("a socket that was inherited: %v", err)
	}
	b := suspendable(t)
	for _, within := range []time.Duration{0, -time.Second, 2 * sandbox.MaxSuspend} {
		if err := b.Suspend(t.Context(), within); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("within %v: %v", within, err)
		}
	}
	if _, err := b.Info(t.Context()); err != nil {
		t.Errorf("a refusal has broken the connection: %v", err)
	}
}

// TestSuspendedEnds ends a guest that can't be reached.
func TestSuspendedEnds(t *testing.T) {
	t.Parallel()
	b := suspendable(t)
	if err := b.Suspend(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	until(t, "the socket is still there", func() bool { _, err := os.Lstat(b.socket); return errors.Is(err, fs.ErrNotExist) })
	if err := b.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout/3)
	defer cancel()
	b.mustExit(ctx)
}
