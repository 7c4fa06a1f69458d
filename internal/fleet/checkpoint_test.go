package fleet_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/fleet"
	"github.com/tongs-dev/tongs/sandbox"
)

// frozen is a driver with checkpoints. One takes until gate is closed; the connections break before, as they do.
type frozen struct {
	*machines
	gone, gate chan struct{}
	fail       error
}

func (f *frozen) Name() string { return "frozen" }

func (f *frozen) Checkpoint(_ context.Context, id string) error {
	if f.fail != nil {
		return f.fail
	}
	if err := f.crash(id); err != nil {
		return err
	}
	close(f.gone)
	<-f.gate
	return nil
}

func (f *frozen) Restore(ctx context.Context, id string) error { return f.Start(ctx, id) }
func (f *frozen) DropCheckpoint(context.Context, string) error { return nil }

var _ driver.Checkpointer = (*frozen)(nil)

// A call that comes while a sandbox is being written down neither fails nor starts it too early.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	d := &frozen{machines: newMachines(), gone: make(chan struct{}), gate: make(chan struct{})}
	f := fleet.New(fleet.Config{Driver: d, Recipe: driver.Spec{Hostname: "box"}, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() {
		if err := f.DestroyAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
	e, err := f.Create(t.Context(), fleet.CreateOptions{Name: "box"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := f.Open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- f.Checkpoint(t.Context(), e) }()
	<-d.gone
	<-before.Done()
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = f.Open(impatient, e)
	if _, starts := d.count(); err == nil || starts != 0 {
		t.Errorf("a call was served meanwhile: %v, %d starts", err, starts)
	}
	called := make(chan error, 1)
	go func() { _, err := f.Open(t.Context(), e); called <- err }()
	close(d.gate)
	for what, ch := range map[string]chan error{"checkpoint": written, "the call": called} {
		if err := <-ch; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, starts := d.count(); starts != 1 {
		t.Errorf("%d starts", starts)
	}
	if _, err := f.Restore(t.Context(), e); err != nil {
		t.Error(err)
	}
	// One that fails keeps the connection that there is.
	d.fail = sandbox.Errf(sandbox.CodeCheckpointFailed, "checkpoint sandbox", "no", "")
	now, err := f.Open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Checkpoint(t.Context(), e); sandbox.CodeOf(err) != sandbox.CodeCheckpointFailed || now.Err() != nil {
		t.Errorf("%v; the connection: %v", err, now.Err())
	}
	if err := f.Remove(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if err := f.Checkpoint(t.Context(), e); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
		t.Errorf("of a sandbox that is gone: %v", err)
	}
}
