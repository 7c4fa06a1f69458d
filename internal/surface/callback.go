package surface

import (
	"context"
	"errors"

	"github.com/tongs-dev/tongs/capnweb"
)

// maxCallsAhead is how many calls of a caller's function may be under way. A caller
// that is slower than its command slows the command down.
const maxCallsAhead = 16

// window makes calls of one caller's functions, in order. A function that fails is
// not called again, and nobody else hears of it: it is the caller's own.
type window struct {
	ctx    context.Context
	ahead  []*capnweb.Promise
	failed bool
}

func (w *window) call(f *capnweb.Stub, args ...any) {
	if f == nil || w.failed {
		return
	}
	w.ahead = append(w.ahead, f.Call("", args...))
	if len(w.ahead) > maxCallsAhead {
		w.one()
	}
}

func (w *window) one() {
	p := w.ahead[0]
	w.ahead = w.ahead[1:]
	if p.Await(w.ctx, nil) != nil {
		w.failed = true
	}
	p.Close()
}

// wait returns when all calls have ended.
func (w *window) wait() {
	for len(w.ahead) > 0 {
		w.one()
	}
}

// told calls a caller's function with a result and waits for it.
func (b *box) told(ctx context.Context, f *capnweb.Stub, args ...any) {
	w := window{ctx: ctx}
	w.call(f, args...)
	w.wait()
}

// tell calls a caller's function with an error.
func (b *box) tell(ctx context.Context, f *capnweb.Stub, err error) {
	if f == nil {
		return
	}
	var wire capnweb.WireError
	if !errors.As(asFailure("command.execute", nil, err), &wire) {
		return
	}
	b.told(ctx, f, wire.RPCError())
}
