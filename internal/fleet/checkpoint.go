package fleet

import (
	"context"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Checkpoint writes what runs in a sandbox to its directory and ends it: the next call that uses the sandbox has
// it go on. Calls that come meanwhile wait. Errors: those of driver.Checkpointer.
func (f *Fleet) Checkpoint(ctx context.Context, e Entry) error {
	return f.atRest(ctx, e, "checkpoint sandbox", func(c driver.Checkpointer, id string) error { return c.Checkpoint(ctx, id) })
}

// DropCheckpoint removes a sandbox's checkpoint, so that it starts from its files the next time.
func (f *Fleet) DropCheckpoint(ctx context.Context, e Entry) error {
	return f.atRest(ctx, e, "drop checkpoint", func(c driver.Checkpointer, id string) error { return c.DropCheckpoint(ctx, id) })
}

// Restore has a sandbox go on from its checkpoint and reaches it.
func (f *Fleet) Restore(ctx context.Context, e Entry) (Sandbox, error) {
	err := f.atRest(ctx, e, "restore sandbox", func(c driver.Checkpointer, id string) error { return c.Restore(ctx, id) })
	if err != nil {
		return Sandbox{}, err
	}
	return f.Open(ctx, e)
}

// atRest does something with a sandbox while nobody reaches it anew.
func (f *Fleet) atRest(ctx context.Context, e Entry, op string, do func(driver.Checkpointer, string) error) error {
	f.mu.Lock()
	m, ok := f.members[e.key]
	closed := f.closed
	f.mu.Unlock()
	if closed {
		return errStopping(op)
	}
	if !ok || m.id != e.ID {
		return sandbox.Errf(sandbox.CodeSandboxNotFound, op, "the sandbox "+e.String()+" was destroyed", "make another one")
	}
	c, ok := f.cfg.Driver.(driver.Checkpointer)
	if !ok {
		return sandbox.Errf(sandbox.CodeNotSupported, op, "the driver "+f.cfg.Driver.Name()+" has no checkpoints", "")
	}
	free, err := m.rest(ctx)
	if err != nil {
		return err
	}
	defer free()
	return do(c, m.id)
}

// rest waits until nobody is reaching the sandbox, and keeps it so until free is called. The connection that there
// is stays.
func (m *member) rest(ctx context.Context) (free func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.attempt != nil {
		current := m.attempt
		m.mu.Unlock()
		select {
		case <-current.done:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if m.retired {
		return nil, errEnded()
	}
	// Whoever comes waits for this as for somebody who is reaching it, and then reaches it itself.
	resting := &attempt{done: make(chan struct{}), rest: true}
	m.attempt = resting
	return func() {
		m.mu.Lock()
		m.attempt = nil
		m.mu.Unlock()
		close(resting.done)
	}, nil
}
