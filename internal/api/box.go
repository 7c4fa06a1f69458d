package api

import (
	"context"
	"errors"
	"strings"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// Dispatch implements capnweb.Dispatcher.
func (b *box) Dispatch(ctx context.Context, in capnweb.Invocation) (any, error) {
	if len(in.Path) == 0 || len(in.Path) > maxPath {
		return nil, &capnweb.Error{Name: "TypeError", Message: "a sandbox is no function"}
	}
	switch in.Path[0] {
	case "describe":
		if !in.Get && len(in.Path) == 1 {
			return b.o.describe(ctx, b.entry, false)
		}
	case "destroy":
		if !in.Get && len(in.Path) == 1 && b.o.p.sandbox != "" {
			return nil, b.o.wholeHost("destroy sandbox")
		}
	case "native":
		target, err := b.native(ctx)
		if err != nil {
			return nil, err
		}
		if len(in.Path) == 1 && in.Get {
			return target, nil
		}
		stub := capnweb.NewStub(target)
		defer stub.Close()
		return pass(ctx, stub, in.Path[1:], in)
	}
	surface, err := b.reach(ctx)
	if err != nil {
		return nil, err
	}
	if surface == nil {
		return nil, sandbox.Errf(sandbox.CodeNotSupported, strings.Join(in.Path, "."), "this endpoint has no such method", "native has the sandbox's own contract")
	}
	defer surface.Close()
	return pass(ctx, surface, in.Path, in)
}

// maxPath is how deep a path into a sandbox's object may go.
const maxPath = 16

// reach returns a stub of the surface, over a connection that lives; nil if there is no surface.
func (b *box) reach(ctx context.Context) (*capnweb.Stub, error) {
	s := b.o.s
	if s.cfg.Surface == nil {
		return nil, nil
	}
	reached, err := s.cfg.Fleet.Open(ctx, b.entry)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.client != reached.Client {
		if b.surface != nil {
			b.surface.Close()
		}
		b.client = reached.Client
		b.surface = capnweb.NewStub(s.cfg.Surface(b.entry, reached.Client, func(ctx context.Context) error {
			if err := b.o.wholeHost("destroy sandbox"); err != nil {
				return err
			}
			return s.remove(ctx, b.entry)
		}))
	}
	return b.surface.Dup(), nil
}

func (b *box) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.surface != nil {
		b.surface.Close()
		b.surface = nil
	}
	b.client = nil
}

// pass makes a call or a read on another object and returns what that gives: references and streams
// in it are passed on.
func pass(ctx context.Context, to *capnweb.Stub, path []string, in capnweb.Invocation) (any, error) {
	if len(path) == 0 {
		return nil, &capnweb.Error{Name: "TypeError", Message: "'" + strings.Join(in.Path, ".") + "' is not a function."}
	}
	names := make([]any, len(path))
	for i := range path {
		names[i] = path[i]
	}
	var p *capnweb.Promise
	if in.Get {
		p = to.Get(names...)
	} else {
		args := make([]any, in.Args.Len())
		for i := range args {
			var v capnweb.Value
			if err := in.Args.Decode(i, &v); err != nil {
				return nil, err
			}
			args[i] = v
		}
		if len(path) == 1 {
			p = to.Call(path[0], args...)
		} else {
			p = to.Get(names[:len(names)-1]...).Call(path[len(path)-1], args...)
		}
	}
	defer p.Close()
	var result capnweb.Value
	if err := p.Await(ctx, &result); err != nil {
		if ctx.Err() == nil && errors.Is(err, capnweb.ErrDisconnected) {
			return nil, &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: path[0], Message: "the connection to the sandbox broke",
				Hint: "ask again; what was running in the sandbox still is", Err: err}
		}
		return nil, err
	}
	return result, nil
}
