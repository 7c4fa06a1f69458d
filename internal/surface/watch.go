package surface

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

type watchOptions struct {
	Recursive *bool `json:"recursive"` // default true
	Include   any   `json:"include"`   // a pattern or a list of them
	Exclude   any   `json:"exclude"`
}

func patterns(op, name string, v any) ([]string, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{x}, nil
	case []any:
		list := make([]string, len(x))
		for i := range x {
			s, ok := x[i].(string)
			if !ok {
				return nil, invalid(op, name+" is neither a pattern nor a list of patterns", "")
			}
			list[i] = s
		}
		return list, nil
	}
	return nil, invalid(op, name+" is neither a pattern nor a list of patterns", "")
}

// watch gives a stream of events: watching, event for each change, overflow where some were lost, and stopped
// when the watched thing is gone. What happens after watch has returned is not missed.
func (b *box) watch(ctx context.Context, name string, o *watchOptions) (*capnweb.ReadableStream, error) {
	const op = "watch"
	if o == nil {
		o = &watchOptions{}
	}
	opts := sandbox.WatchOptions{Recursive: o.Recursive == nil || *o.Recursive}
	var err error
	if opts.Include, err = patterns(op, "include", o.Include); err != nil {
		return nil, err
	}
	if opts.Exclude, err = patterns(op, "exclude", o.Exclude); err != nil {
		return nil, err
	}
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	w, err := b.Watch(ctx, at, opts)
	if err != nil {
		return nil, err
	}
	began, over := false, false
	next := func(ctx context.Context) (event, error) {
		if !began {
			began = true
			return event{"type": "watching", "path": name, "watchId": rand.Text()}, nil
		}
		if over {
			return nil, io.EOF
		}
		e, err := w.Next(ctx)
		now := timestamp(time.Now())
		switch {
		case errors.Is(err, io.EOF):
			over = true
			return event{"type": "stopped", "reason": "what was watched is gone", "timestamp": now}, nil
		case err != nil:
			return nil, err
		case e.Type == sandbox.FileOverflow:
			return event{"type": "overflow", "path": e.Path, "reason": e.Reason, "timestamp": now}, nil
		}
		out := event{"type": "event", "eventType": string(e.Type), "path": e.Path, "isDirectory": e.Directory, "timestamp": now}
		if e.From != "" {
			out["from"] = e.From
		}
		return out, nil
	}
	return eventStream("file.watch", next, func() { _ = w.Close() }), nil
}

// alive is what a stream of objects sends when it has had nothing to say for a while, because a reader that has
// gone is noticed by what is sent to it.
var alive = map[string]any{"type": "alive"}

// objectStream is a stream of what next returns, with signs of life in between. next must be able to be
// called again after its context has ended.
func objectStream(operation string, next func(context.Context) (any, error), stop func()) *capnweb.ReadableStream {
	return capnweb.NewSource(func(ctx context.Context) (any, error) {
		wait, cancel := context.WithTimeout(ctx, heartbeat)
		defer cancel()
		v, err := next(wait)
		switch {
		case err == nil:
			return v, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case ctx.Err() == nil && wait.Err() != nil:
			return alive, nil
		}
		return nil, asFailure(operation, nil, err)
	}, func(error) { stop() })
}

// watch gives a stream of sandbox.FileEvent, and of {type: "alive"}.
func (f files) watch(ctx context.Context, path string, o *sandbox.WatchOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &sandbox.WatchOptions{}
	}
	w, err := f.b.Watch(ctx, path, *o)
	if err != nil {
		return nil, err
	}
	return objectStream("file.watch", func(ctx context.Context) (any, error) { return w.Next(ctx) }, func() { _ = w.Close() }), nil
}
