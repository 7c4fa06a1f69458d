package fleet

import (
	"context"

	"github.com/tongs-dev/tongs/sandbox"
)

// Running reaches the sandbox that match accepts, if it runs: it starts and makes none. match sees
// the ID, Name and Session of each that is not reserved; the first it accepts counts. Errors:
// SANDBOX_NOT_FOUND, and the driver's SANDBOX_NOT_RUNNING.
func (f *Fleet) Running(ctx context.Context, match func(Entry) bool) (Sandbox, error) {
	const op = "find sandbox"
	f.mu.Lock()
	var found *member
	var entry Entry
	for k, m := range f.members {
		if e := entryOf(k, m.id); !f.reserved(k) && match(e) {
			found, entry = m, e
			break
		}
	}
	f.mu.Unlock()
	if found == nil {
		return Sandbox{}, sandbox.Errf(sandbox.CodeSandboxNotFound, op, "there is no such sandbox", "`tongs sandbox list` shows those there are")
	}
	if client := found.connected(); client != nil {
		return Sandbox{ID: found.id, Client: client}, nil
	}
	conn, err := f.cfg.Driver.Dial(ctx, found.id)
	if err != nil {
		return Sandbox{}, err
	}
	_ = conn.Close() // it was to see whether somebody is there
	return f.Open(ctx, entry)
}

// connected gives the connection, if there is a live one.
func (m *member) connected() *sandbox.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return nil
	}
	select {
	case <-m.client.Done():
		return nil
	default:
		return m.client
	}
}
