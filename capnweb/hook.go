package capnweb

import (
	"sync"
	"sync/atomic"
)

// hook is the inside of a reference: something calls can be made on. There is
// one kind per place where the referent can be: on the peer (importEntry), here
// (Target, writableHook, pipe), not known yet (deferred), a value (valueHook),
// or nowhere (errorHook).
//
// No method blocks, and none is called with a lock held that another hook
// could want: a chain of hooks may lead through several sessions.
type hook interface {
	// call invokes what path leads to. It owns args. The result is owned by the caller.
	call(path []key, args *payload) hook
	// get returns a reference to what path leads to; for an empty path, a duplicate.
	get(path []key) hook
	// remap applies a recorded function to what path leads to. It owns m.
	remap(path []key, m *mapping) hook
	// pull asks for the value. f is called once, perhaps at once, owns the
	// payload, and must not block.
	pull(b budget, f func(*payload, error))
	// dup returns a hook for the same referent with a lifetime of its own.
	dup() hook
	// close gives up one reference.
	close()
	// onBroken calls f once when the referent is known to be lost.
	onBroken(f func(error)) (stop func())
}

// budget bounds the work of delivering one value: how deep promises may resolve
// to values with promises in them, and how many there may be.
type budget struct {
	depth int
	left  *atomic.Int64 // promises
	bytes *atomic.Int64 // what they resolve to, about
	// raw asks for the value with the promises in it as they are, to pass it on.
	raw bool
}

const (
	maxPromiseDepth  = 64
	maxPromiseCount  = 1 << 15
	maxPromiseBytes  = 64 << 20
	maxResolveLength = 1 << 12
)

func newBudget() budget { return budget{} }

func (b *budget) spend(n int) bool {
	if b.left == nil {
		b.left = new(atomic.Int64)
		b.left.Store(maxPromiseCount)
		b.bytes = new(atomic.Int64)
		b.bytes.Store(maxPromiseBytes)
	}
	return b.depth < maxPromiseDepth && b.left.Add(int64(-n)) >= 0
}

func (b budget) deeper() budget {
	b.depth++
	return b
}

// resolution is the part of a hook that becomes another one.
type resolution struct{ next atomic.Pointer[hook] }

func (r *resolution) set(h hook) { r.next.Store(&h) }

func (r *resolution) get() hook {
	if p := r.next.Load(); p != nil {
		return *p
	}
	return nil
}

type resolver interface{ resolved() hook }

// final follows resolutions to their end. The result borrows from h.
func final(h hook) hook {
	for range maxResolveLength {
		r, ok := h.(resolver)
		if !ok {
			return h
		}
		n := r.resolved()
		if n == nil {
			return h
		}
		h = n
	}
	return errorHook{plainErrorf("A promise resolves to itself.")}
}

// pullPath pulls what path leads to, below h.
func pullPath(h hook, path []key, b budget, f func(*payload, error)) {
	if len(path) == 0 {
		h.pull(b, f)
		return
	}
	g := h.get(path)
	g.pull(b, func(p *payload, err error) {
		f(p, err)
		g.close()
	})
}

// errorHook fails everything.
type errorHook struct{ err error }

func (h errorHook) call(_ []key, args *payload) hook { args.close(); return h }
func (h errorHook) get([]key) hook                   { return h }
func (h errorHook) dup() hook                        { return h }
func (h errorHook) close()                           {}

func (h errorHook) pull(_ budget, f func(*payload, error)) { f(nil, h.err) }

func (h errorHook) onBroken(f func(error)) func() {
	f(h.err)
	return func() {}
}

// valueHook holds a value that is known.
type valueHook struct {
	p    *payload
	refs atomic.Int64
	mu   sync.Mutex // the end of a session closes it while its reader may be about to copy it
}

// hookOf makes a hook of a payload, which it owns.
func hookOf(p *payload) hook {
	switch x := p.v.(type) {
	case *Stub:
		if h := x.take(); h != nil {
			p.close()
			return h
		}
		return errorHook{errStubClosed}
	case *Promise:
		if h := x.take(); h != nil {
			p.close()
			if len(x.path) == 0 {
				return h
			}
			g := h.get(x.path)
			h.close()
			return g
		}
		return errorHook{errPromiseClosed}
	}
	v := &valueHook{p: p}
	v.refs.Store(1)
	return v
}

func (h *valueHook) dup() hook {
	h.refs.Add(1)
	return h
}

func (h *valueHook) close() {
	if h.refs.Add(-1) == 0 {
		h.mu.Lock()
		end := h.p.part()
		h.mu.Unlock()
		end()
	}
}

// stubbedValue is what a stub of a plain value refers to. It is passed by reference, as
// a whole; what is in the value is found below it.
type stubbedValue struct{ *valueHook }

func (h stubbedValue) dup() hook {
	h.valueHook.dup()
	return h
}

func (h stubbedValue) get(path []key) hook {
	if len(path) == 0 {
		return h.dup()
	}
	return h.valueHook.get(path)
}

func (h stubbedValue) pull(_ budget, f func(*payload, error)) {
	p := &payload{}
	p.v = p.addStub(h.dup())
	f(p, nil)
}

func (h *valueHook) onBroken(func(error)) func() { return func() {} }

func (h *valueHook) pull(b budget, f func(*payload, error)) {
	h.mu.Lock()
	c := h.p.clone()
	h.mu.Unlock()
	if c.pending == 0 || b.raw && !h.p.whole {
		f(c, nil)
		return
	}
	c.settle(b, func(err error) {
		if err != nil {
			f(nil, err)
			return
		}
		f(c, nil)
	})
}

// follow walks path inside the value. It stops at a reference, with the rest of
// the path; the hook it then returns is borrowed.
func (h *valueHook) follow(path []key) (v any, r hook, rest []key, err error) {
	v = h.p.v
	for i, k := range path {
		if x := refOf(v); x != nil {
			cur, err := x.current()
			if err != nil {
				return nil, nil, nil, err
			}
			return nil, cur, append(x.path[:len(x.path):len(x.path)], path[i:]...), nil
		}
		if !k.isNum && onPrototype(k.name) {
			v = any(Undefined) // whatever it is a property of
			continue
		}
		switch x := v.(type) {
		case Object:
			v = any(Undefined)
			if m, ok := x.Get(k.String()); ok {
				v = m
			}
		case []any:
			v = any(Undefined)
			if n, ok := k.arrayIndex(); ok && n < len(x) {
				v = x[n]
			}
		case UndefinedType:
			return nil, nil, nil, typeErrorf("undefined is not an object (evaluating 'value[part]')")
		default: // null among them
			v = any(Undefined)
		}
	}
	if x := refOf(v); x != nil {
		cur, err := x.current()
		if err != nil {
			return nil, nil, nil, err
		}
		return v, cur, x.path, nil
	}
	return v, nil, nil, nil
}

func refOf(v any) *ref {
	switch x := v.(type) {
	case *Stub:
		return &x.ref
	case *Promise:
		return &x.ref
	}
	return nil
}

func (h *valueHook) get(path []key) hook {
	if len(path) == 0 {
		return h.dup()
	}
	v, r, rest, err := h.follow(path)
	switch {
	case err != nil:
		return errorHook{err}
	case r != nil:
		return r.get(rest)
	}
	part := &payload{v: v}
	if h.p.hasRefs() {
		part = &payload{shared: true}
		part.v = part.copyValue(v)
	} else {
		part.pending, part.blobs = h.p.pending, h.p.blobs
		part.shared = true
	}
	return hookOf(part)
}

func (h *valueHook) call(path []key, args *payload) hook { return h.callPart(path, 0, args) }

// callPart calls what path leads to, whose first n elements led to h.
func (h *valueHook) callPart(path []key, n int, args *payload) hook {
	_, r, rest, err := h.follow(path[n:])
	switch {
	case err != nil:
		args.close()
		return errorHook{err}
	case r != nil:
		return r.call(rest, args)
	}
	args.close()
	return errorHook{notAFunction(path)}
}

// callBelow calls what path leads to, whose first n elements led to h. Errors name all of path.
func callBelow(h hook, path []key, n int, args *payload) hook {
	switch x := final(h).(type) {
	case *valueHook:
		return x.callPart(path, n, args)
	case stubbedValue:
		return x.callPart(path, n, args)
	case *deferred:
		r := newDeferred()
		x.when(func(h hook) { r.resolve(callBelow(h, path, n, args)) })
		return r
	}
	return h.call(path[n:], args)
}

func notAFunction(path []key) error {
	return typeErrorf("'%s' is not a function.", pathString(path))
}
