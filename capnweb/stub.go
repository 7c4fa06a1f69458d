package capnweb

import (
	"context"
	"sync"
	"sync/atomic"
)

// Ref is what calls can be made on and what can be passed by reference: a
// [*Stub] or a [*Promise].
type Ref interface {
	// Call begins a call of a method and returns at once; see [Stub.Call].
	Call(method string, args ...any) *Promise
	// Get refers to a property; see [Stub.Get].
	Get(path ...any) *Promise
	// Close gives the reference up.
	Close() error

	reference() *ref
}

var (
	_ Ref = (*Stub)(nil)
	_ Ref = (*Promise)(nil)
)

// ref is a handle: a hook, a path below it, and whether it was given up.
type ref struct {
	h    hook
	path []key
	// parent is set when the handle borrows the hook of another (a property).
	parent *ref
	gone   atomic.Bool
}

func (r *ref) reference() *ref { return r }

// take moves the hook out of the handle; nil if it is gone already.
func (r *ref) take() hook {
	if r.parent != nil || r.h == nil || !r.gone.CompareAndSwap(false, true) {
		return nil
	}
	return r.h
}

// current is the hook, borrowed.
func (r *ref) current() (hook, error) {
	if r == nil || r.h == nil {
		return nil, errNilRef
	}
	if r.gone.Load() {
		return nil, errStubClosed
	}
	if r.parent != nil {
		return r.parent.current()
	}
	return r.h, nil
}

var errNilRef = &Error{Name: "TypeError", Message: "nil *Stub or *Promise used as a reference"}

// dupHook duplicates the hook; an error becomes a hook that fails.
func (r *ref) dupHook() hook {
	h, err := r.current()
	if err != nil {
		return errorHook{err}
	}
	return h.dup()
}

func (r *ref) close() {
	if h := r.take(); h != nil {
		h.close()
	} else {
		r.gone.Store(true)
	}
}

func newPromise(h hook) *Promise {
	p := &Promise{}
	p.h = h
	return p
}

func newStub(h hook) *Stub {
	s := &Stub{}
	s.h = h
	return s
}

// callAndWait calls a method and waits for its result. The call and the request for its result are
// written together.
func (r *ref) callAndWait(ctx context.Context, method string, args []any) (*payload, error) {
	h, err := r.current()
	if err != nil {
		return nil, err
	}
	e, ok := final(h).(*importEntry)
	if !ok {
		p := r.call(ctx, r.join(method), args)
		defer p.close()
		return p.wait(ctx)
	}
	if err := e.s.waitForRoom(ctx); err != nil {
		return nil, err
	}
	e.s.expectKick()
	p := r.call(ctx, r.join(method), args)
	defer p.close()
	if x, ok := p.h.(*importEntry); ok && x.s == e.s && ctx.Err() == nil {
		return x.answer(ctx)
	}
	e.s.kickLater()
	return p.wait(ctx)
}

// call begins a call below r.
func (r *ref) call(ctx context.Context, path []key, args []any) *Promise {
	h, err := r.current()
	if err != nil {
		return newPromise(errorHook{err})
	}
	p, err := buildArgs(args)
	if err != nil {
		return newPromise(errorHook{err})
	}
	h = final(h)
	if e, ok := h.(*importEntry); ok {
		if err := e.s.waitForRoom(ctx); err != nil {
			p.close()
			return newPromise(errorHook{err})
		}
	}
	return newPromise(h.call(path, p))
}

func (r *ref) join(method string) []key {
	if len(r.path) == 0 {
		if method == "" {
			return nil
		}
		return []key{{name: method}}
	}
	path := append(make([]key, 0, len(r.path)+1), r.path...)
	if method != "" {
		path = append(path, key{name: method})
	}
	return path
}

func (r *ref) get(path []any) *Promise {
	p := &Promise{}
	p.h, p.parent = r.h, r
	if r.parent != nil {
		p.parent = r.parent
	}
	p.path = append(make([]key, 0, len(r.path)+len(path)), r.path...)
	for _, x := range path {
		switch k := x.(type) {
		case string:
			p.path = append(p.path, key{name: k})
		case int:
			p.path = append(p.path, key{index: k, isNum: true})
		default:
			return newPromise(errorHook{typeErrorf("a path element must be a string or an int, not %T", x)})
		}
	}
	if h, err := p.parent.current(); err == nil && len(p.path) > 0 {
		if e, ok := final(h).(*importEntry); ok && e.s.opts.eagerGets {
			if err := e.s.waitForRoom(context.Background()); err != nil {
				return newPromise(errorHook{err})
			}
			return newPromise(e.get(p.path))
		}
	}
	return p
}

// dup makes a hook for exactly what r refers to.
func (r *ref) dup() hook {
	h, err := r.current()
	if err != nil {
		return errorHook{err}
	}
	return h.get(r.path)
}

func (r *ref) onBroken(f func(error)) func() {
	h, err := r.current()
	if err != nil {
		f(err)
		return func() {}
	}
	return h.onBroken(f)
}

// Stub is a reference to an object or function that lives elsewhere: on the
// peer, or here. It must be closed when it is no longer needed, so that its
// owner can let go of the object; closing twice is harmless. All methods can be
// used by several goroutines.
type Stub struct{ ref }

// NewStub makes a stub of a value of this process: a [*Target], a function made
// by [Func], another reference (which is duplicated), or a plain value, which is
// then passed by reference, too.
// Passing one stub many times shares one reference to the target.
func NewStub(v any) *Stub {
	p, err := buildArg(v)
	if err != nil {
		return newStub(errorHook{err})
	}
	h := hookOf(p)
	if v, ok := h.(*valueHook); ok {
		h = stubbedValue{v}
	}
	return newStub(h)
}

// Call begins a call of a method and returns a promise for its result. The call
// is sent at once; its result is only asked for when the promise is awaited or
// passed on. An empty method name calls the referent itself, as a function.
//
// Arguments are plain values (see the package comment), or references, which
// stay the caller's. Call never waits for the peer's answer. It waits only when the
// session's queue of unsent messages is full, until there is room or the session ends.
// Errors of any kind are delivered by the promise.
func (s *Stub) Call(method string, args ...any) *Promise {
	return s.call(context.Background(), s.join(method), args)
}

// Get refers to a property, or an element of an array: each path element is a
// string or an int. Nothing is sent until the property is used (but see
// [WithEagerGets]). It borrows the stub, which must stay open meanwhile.
func (s *Stub) Get(path ...any) *Promise { return s.get(path) }

// Send makes a call whose result nobody wants. The error says only whether the
// call could be begun.
func (s *Stub) Send(method string, args ...any) error { return send(s.Call(method, args...)) }

// Dup returns a second reference, to be closed on its own.
func (s *Stub) Dup() *Stub { return newStub(s.dup()) }

// Close gives the reference up. Closing the stub of a session's main object does not
// end the session; [Session.Close] does.
func (s *Stub) Close() error {
	if s != nil {
		s.close()
	}
	return nil
}

// OnBroken calls f once when the object is lost: the session ended, or the
// promise behind the stub was rejected. If that has happened already, f is called
// at once. f must not block. The returned function takes f back.
func (s *Stub) OnBroken(f func(error)) (stop func()) { return s.onBroken(f) }

// Promise is the result of a call that need not have arrived yet. Calls can be
// made on it at once (they travel with the first call: pipelining), it can be
// passed as an argument, and it can be awaited. It must be closed when it is no
// longer needed; [Await] and [Call] do that themselves.
type Promise struct{ ref }

// Call begins a call on what the promise will resolve to; see [Stub.Call].
func (p *Promise) Call(method string, args ...any) *Promise {
	return p.call(context.Background(), p.join(method), args)
}

// Get refers to a property of what the promise will resolve to; see [Stub.Get].
func (p *Promise) Get(path ...any) *Promise { return p.get(path) }

// Send makes a call whose result nobody wants; see [Stub.Send].
func (p *Promise) Send(method string, args ...any) error { return send(p.Call(method, args...)) }

// Stub returns a stub for what the promise will resolve to. It is to be closed on its own.
func (p *Promise) Stub() *Stub { return newStub(p.dup()) }

// Close gives the promise up. A result that has not arrived is not waited for;
// the call itself is not cancelled.
func (p *Promise) Close() error {
	if p != nil {
		p.close()
	}
	return nil
}

// OnBroken calls f once when the promise is rejected or its session ends; see [Stub.OnBroken].
func (p *Promise) OnBroken(f func(error)) (stop func()) { return p.onBroken(f) }

// Await waits for the result and stores it in out, a non-nil pointer, or drops
// it when out is nil. References in the result become the caller's, who closes them.
// The promise stays usable. Errors: what the peer threw ([*Error]), the context's
// error, or one that matches [ErrDisconnected].
func (p *Promise) Await(ctx context.Context, out any) error {
	pl, err := p.wait(ctx)
	if err != nil {
		return err
	}
	return pl.deliver(out)
}

func send(p *Promise) error {
	h, err := p.current()
	if err != nil {
		return err
	}
	if e, ok := h.(errorHook); ok {
		return e.err
	}
	p.close()
	return nil
}

type outcome struct {
	p   *payload
	err error
}

// waiting is one goroutine that waits for an outcome, until it gives up.
type waiting struct {
	mu   sync.Mutex
	ch   chan outcome
	gone bool
}

func (w *waiting) take(p *payload, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone {
		p.close()
		return
	}
	w.ch <- outcome{p, err}
}

// abandon drops the outcome, also one that comes later.
func (w *waiting) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	select {
	case o := <-w.ch:
		o.p.close()
	default:
	}
}

// wait pulls what r refers to.
func (r *ref) wait(ctx context.Context) (*payload, error) {
	h, err := r.current()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	w := &waiting{ch: make(chan outcome, 1)}
	h = final(h)
	e, _ := h.(*importEntry)
	if e != nil {
		e.s.expectKick()
	}
	pullPath(h, r.path, newBudget(), w.take)
	if e != nil {
		e.s.kickSoon()
	}
	return w.wait(ctx, nil)
}

// answer pulls the result of a call that was made just now, after an expectKick, and that nobody else knows.
func (e *importEntry) answer(ctx context.Context) (*payload, error) {
	w := &waiting{ch: make(chan outcome, 1)}
	s := e.s
	ours := s.takeTurn(e)
	e.pull(newBudget(), w.take)
	if ours || s.lonely() {
		s.kick(true, false)
	} else {
		s.kickSoon()
	}
	if !ours {
		return w.wait(ctx, nil)
	}
	return w.wait(ctx, e)
}

// wait waits for the outcome. If e is not nil, it is the caller's turn to read, and e what it waits for.
func (w *waiting) wait(ctx context.Context, e *importEntry) (*payload, error) {
	select {
	case o := <-w.ch:
		if e != nil {
			e.s.giveUpTurn()
		}
		return o.p, o.err
	default:
	}
	// While a handler waits for something, its target takes the next call.
	if c := FromContext(ctx); c != nil {
		c.unblock()
	}
	if e != nil {
		e.s.readAnswer(ctx, e)
	}
	select {
	case o := <-w.ch:
		return o.p, o.err
	case <-ctx.Done():
		w.abandon()
		return nil, context.Cause(ctx)
	}
}

// Await waits for the value of r and returns it as a T. It closes r when r
// is a promise: to use a promise after waiting for it, call its Await method.
func Await[T any](ctx context.Context, r Ref) (T, error) {
	var out T
	x := r.reference()
	p, err := x.wait(ctx)
	if _, ok := r.(*Promise); ok {
		x.close()
	}
	if err == nil {
		err = p.deliver(&out)
	}
	return out, err
}

// Call calls a method and waits for its result. When ctx ends first, the call is
// given up: its result will be dropped, but it is not undone or stopped.
func Call[T any](ctx context.Context, r Ref, method string, args ...any) (T, error) {
	var out T
	p, err := r.reference().callAndWait(ctx, method, args)
	if err == nil {
		err = p.deliver(&out)
	}
	return out, err
}
