package surface

import (
	"context"
	"sync"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// life is how long anybody holds something of a surface: the object itself, a process handle,
// a session. Waits end with it. The handler of a wait returns at once, with a promise, so that the
// wait does not itself hold what it belongs to; that also ends it where calls come through a
// relay, which has no other way to say that its caller has gone.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	held  int
	waits int
}

// maxWaits bounds what waits on one surface at a time.
const maxWaits = 1024

func newLife() *life {
	l := &life{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *life) hold() {
	l.mu.Lock()
	l.held++
	l.mu.Unlock()
}

func (l *life) leave() {
	l.mu.Lock()
	l.held--
	last := l.held == 0
	l.mu.Unlock()
	if last {
		l.cancel()
	}
}

func (l *life) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waits >= maxWaits {
		return false
	}
	l.waits++
	return true
}

// await begins a wait and returns the promise of its result.
func await[T any](l *life, operation string, about capnweb.Object, wait func(context.Context) (T, error)) (*capnweb.Promise, error) {
	if !l.enter() {
		return nil, sandbox.Errf(sandbox.CodeTooManyConnections, operation, "too many calls wait already", "let some of them end")
	}
	p, r := capnweb.NewPromise()
	go func() {
		defer func() {
			l.mu.Lock()
			l.waits--
			l.mu.Unlock()
		}()
		v, err := wait(l.ctx)
		if err == nil {
			err = r.Resolve(v)
		}
		if err != nil {
			r.Reject(asFailure(operation, about, err))
		}
	}()
	return p, nil
}

// part is an object that belongs to a surface and keeps it alive.
type part struct{ b *box }

func (p part) Close() error {
	p.b.life.leave()
	return nil
}

func (b *box) part() part {
	b.life.hold()
	return part{b}
}
