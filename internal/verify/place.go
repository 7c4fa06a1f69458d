package verify

import (
	"context"
	"net"
	"sync"

	"github.com/tongs-dev/tongs/sandbox"
)

// lasting is a place that is reached anew when the connection to it has broken.
type lasting struct {
	reach func(ctx context.Context) (Place, error)

	mu  sync.Mutex
	now Place
}

// do calls f, and once more if the connection broke. What is done through it can be repeated.
func (l *lasting) do(ctx context.Context, f func(Place) error) error {
	l.mu.Lock()
	place := l.now
	l.mu.Unlock()
	for again := false; ; again = true {
		if place == nil {
			var err error
			if place, err = l.reach(ctx); err != nil {
				return err
			}
			l.mu.Lock()
			l.now = place
			l.mu.Unlock()
		}
		err := f(place)
		if again || ctx.Err() != nil || sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
			return err
		}
		place = nil
	}
}

func (l *lasting) Exec(ctx context.Context, spec sandbox.ExecSpec) (out *sandbox.ExecResult, err error) {
	err = l.do(ctx, func(p Place) error { out, err = p.Exec(ctx, spec); return err })
	return out, err
}

func (l *lasting) WriteFile(ctx context.Context, path string, data []byte, opts sandbox.WriteOptions) (out *sandbox.FileInfo, err error) {
	err = l.do(ctx, func(p Place) error { out, err = p.WriteFile(ctx, path, data, opts); return err })
	return out, err
}

func (l *lasting) Mkdir(ctx context.Context, path string, parents bool) error {
	return l.do(ctx, func(p Place) error { return p.Mkdir(ctx, path, parents) })
}

func (l *lasting) RemoveFile(ctx context.Context, path string, recursive bool) error {
	return l.do(ctx, func(p Place) error { return p.RemoveFile(ctx, path, recursive) })
}

func (l *lasting) Symlink(ctx context.Context, target, path string) error {
	return l.do(ctx, func(p Place) error { return p.Symlink(ctx, target, path) })
}

func (l *lasting) Dial(ctx context.Context, network, address string) (out net.Conn, err error) {
	err = l.do(ctx, func(p Place) error { out, err = p.Dial(ctx, network, address); return err })
	return out, err
}

func (l *lasting) Listen(ctx context.Context, name, address string) (out net.Listener, err error) {
	err = l.do(ctx, func(p Place) error { out, err = p.Listen(ctx, name, address); return err })
	return out, err
}

func (l *lasting) Unlisten(ctx context.Context, name string) error {
	return l.do(ctx, func(p Place) error { return p.Unlisten(ctx, name) })
}
