package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// forkBegin bounds how long it may take until the new session of a fork is known. Sandboxes of other new
	// sessions wait that long at most.
	forkBegin = 30 * time.Second
	// forkTimeout bounds the copying of a sandbox's files.
	forkTimeout = 5 * time.Minute
)

// Fork gives a new root session a sandbox that starts with the files of another one's, as they are while they are
// copied; processes are not copied. begin makes the session and returns its id. From its call to its
// return, sandboxes of sessions that have none yet wait: whoever hears of the new session before its id is known here
// must not make an empty one for it. A root session without a sandbox is forked into one without.
//
// When the copy fails the new session has no sandbox, and whoever asks for it has the copy tried again;
// [Fleet.Forget] ends that.
func (f *Fleet) Fork(ctx context.Context, from string, begin func(context.Context) (string, error)) (root string, err error) {
	const op = "fork sandbox"
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return "", errStopping(op)
	}
	source := f.members[key{labelSession, from}]
	if f.forks == 0 {
		f.begun = make(chan struct{})
	}
	f.forks++
	f.mu.Unlock()

	limited, cancel := context.WithTimeoutCause(ctx, forkBegin, fmt.Errorf("the new session was not made within %v", forkBegin))
	root, err = begin(limited)
	cancel()

	f.mu.Lock()
	if f.forks--; f.forks == 0 {
		close(f.begun)
		f.begun = nil
	}
	if err != nil || source == nil {
		f.mu.Unlock()
		return root, err
	}
	k := key{labelSession, root}
	switch _, taken := f.members[k]; {
	case f.closed:
		err = errStopping(op)
	case taken || root == "":
		err = sandbox.Errf(sandbox.CodeAlreadyExists, op, "the new session "+root+" has a sandbox of its own already", "fork it once more")
	}
	if err != nil {
		f.mu.Unlock()
		return root, err
	}
	m := f.newMember(k, newID(), false)
	m.from, m.project = source.id, source.takenIn()
	f.members[k] = m
	f.mu.Unlock()
	_, err = m.reach(ctx, f.cfg.Recipe)
	return root, err
}

// forked waits until the sessions of forks that are under way are known, when the sandbox of k may be one of
// them. f.mu is held, also when it returns; not while it waits.
func (f *Fleet) forked(ctx context.Context, k key) error {
	if k.label != labelSession {
		return nil
	}
	timer := time.NewTimer(forkBegin)
	defer timer.Stop()
	for f.begun != nil && f.members[k] == nil {
		begun := f.begun
		f.mu.Unlock()
		var err error
		late := false
		select {
		case <-begun:
		case <-timer.C:
			late = true
		case <-ctx.Done():
			err = ctx.Err()
		}
		f.mu.Lock()
		if late || err != nil {
			return err
		}
	}
	return nil
}
