package capnweb

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
)

// Methods says what a target exports: JavaScript names to Go functions. Nothing
// else of a value can be reached from outside.
//
// A function may take a context.Context first, then any number of decodable
// parameters, the last of them variadic, and may return a result, an error,
// both or neither. Parameters that the caller left out are a TypeError there, unless they
// are pointers, slices, maps, any, or variadic; superfluous ones are ignored. A
// single parameter of type [Args] gets the arguments as they came.
//
// References in parameters are lent for the duration of the call: they are closed
// when the function returns, unless it returns them; to keep one, Dup it.
// References in the result are given away: to keep one, return its Dup.
type Methods map[string]any

// Getter marks a function without parameters (but for the context, and in a
// [Class] the receiver) as a property: reading it calls the function.
func Getter(f any) any { return getter{f} }

type getter struct{ f any }

// Target is an object that peers can hold references to. Passing a *Target in
// arguments or results passes a reference.
//
// Calls on one target run one at a time, in the order in which they were made
// (see [Concurrent] and [Unblock]). A function that waits for another call
// with its own context lets the next one begin, as an await does in JavaScript.
type Target struct {
	methods  map[string]*method
	fn       *method // of a function
	receiver reflect.Value
	dispatch Dispatcher
	onClose  func()
	parallel bool
	lane     lane
	refs     atomic.Int64
	dead     atomic.Bool
}

// TargetOption configures a target.
type TargetOption func(*Target)

// Concurrent lets calls on the target run in parallel. They still begin in order.
func Concurrent() TargetOption { return func(t *Target) { t.parallel = true } }

// OnClose has f called when the last reference to the target is gone. After that
// the target cannot be passed again. Hold a [NewStub] of it to keep it alive
// between peers.
func OnClose(f func()) TargetOption { return func(t *Target) { t.onClose = f } }

// NewTarget makes a target of functions. It panics when one of them cannot be
// exported, as that is a mistake in the program.
func NewTarget(m Methods, opts ...TargetOption) *Target {
	t := &Target{methods: compile(m, nil)}
	for _, o := range opts {
		o(t)
	}
	return t
}

// Func makes a target of one function, for callbacks. See [Methods] for what f may
// be; Func panics when it is something else.
func Func(f any, opts ...TargetOption) *Target {
	m, err := newMethod(f, nil)
	if err != nil {
		panic("capnweb.Func: " + err.Error())
	}
	t := &Target{fn: m}
	for _, o := range opts {
		o(t)
	}
	return t
}

// Class exports many values of one type with the same methods, at the cost of
// working them out once.
type Class[T any] struct {
	methods map[string]*method
	opts    []TargetOption
}

// NewClass makes a class of method expressions:
//
//	var counters = capnweb.NewClass[*Counter](capnweb.Methods{
//		"increment": (*Counter).Increment,
//		"value":     capnweb.Getter((*Counter).Value),
//	})
//
// A class whose methods make objects of the same class refers to itself: declare the
// variable, and set it in func init. NewClass panics when one of the functions cannot
// be exported.
func NewClass[T any](m Methods, opts ...TargetOption) *Class[T] {
	return &Class[T]{methods: compile(m, reflect.TypeFor[T]()), opts: opts}
}

// New makes a target of v. When T has a method Close() error, it is called when
// the last reference is gone; its error is ignored.
func (c *Class[T]) New(v T, opts ...TargetOption) *Target {
	t := &Target{methods: c.methods, receiver: reflect.ValueOf(&v).Elem()}
	if x, ok := any(v).(io.Closer); ok {
		t.onClose = func() { _ = x.Close() }
	}
	for _, o := range c.opts {
		o(t)
	}
	for _, o := range opts {
		o(t)
	}
	return t
}

// Dispatcher handles every call and every property of a target itself.
type Dispatcher interface {
	// Dispatch answers one call or read. See [Methods] for the ownership of
	// references in arguments and results.
	Dispatch(ctx context.Context, in Invocation) (any, error)
}

// Invocation is a call or a read that a [Dispatcher] gets.
type Invocation struct {
	// Path leads from the target to what is called; it is empty for a call of
	// the target itself.
	Path []string
	// Get is true for a read of a property.
	Get  bool
	Args Args
}

// NewDispatcher makes a target whose calls d answers.
func NewDispatcher(d Dispatcher, opts ...TargetOption) *Target {
	t := &Target{dispatch: d}
	for _, o := range opts {
		o(t)
	}
	return t
}

func compile(m Methods, receiver reflect.Type) map[string]*method {
	out := make(map[string]*method, len(m))
	for name, f := range m {
		if name == "" || onPrototype(name) {
			panic(fmt.Sprintf("capnweb: method name %q is reserved", name))
		}
		g, isGetter := f.(getter)
		if isGetter {
			f = g.f
		}
		x, err := newMethod(f, receiver)
		if err != nil {
			panic(fmt.Sprintf("capnweb: method %q: %s", name, err))
		}
		x.getter = isGetter
		if isGetter && (len(x.in) > 0 || x.raw) {
			panic(fmt.Sprintf("capnweb: getter %q has parameters", name))
		}
		out[name] = x
	}
	return out
}

var errTargetClosed = &Error{Name: "Error", Message: "the target was closed when its last reference went away; hold a stub of it to pass it again"}

// acquire takes one reference.
func (t *Target) acquire() bool {
	for {
		n := t.refs.Load()
		if t.dead.Load() {
			return false
		}
		if t.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (t *Target) dup() hook {
	t.refs.Add(1)
	return t
}

func (t *Target) close() {
	if t.refs.Add(-1) > 0 || t.onClose == nil {
		return
	}
	if t.dead.CompareAndSwap(false, true) {
		// Never on the goroutine that reads a session.
		go func() {
			defer func() { _ = recover() }()
			t.onClose()
		}()
	}
}

func (t *Target) onBroken(func(error)) func() { return func() {} }

func (t *Target) pull(_ budget, f func(*payload, error)) {
	p := &payload{}
	p.v = p.addStub(t.dup())
	f(p, nil)
}

func (t *Target) get(path []key) hook { return t.getFrom(nil, path) }

func (t *Target) getFrom(origin *Session, path []key) hook {
	if len(path) == 0 {
		return t.dup()
	}
	if t.dispatch != nil {
		return t.start(&job{method: dispatchMethod, path: path, get: true, args: &payload{origin: origin, v: []any{}}})
	}
	m := t.lookup(path[0])
	switch {
	case m == nil:
		return (&valueHook{p: &payload{v: Undefined}}).get(path[1:])
	case !m.getter && len(path) == 1:
		return &methodHook{t: t, name: path[0], refs: 1, target: t.dup()}
	case !m.getter:
		return (&valueHook{p: &payload{v: Object{}}}).get(path[1:])
	}
	h := t.start(&job{method: m, path: path[:1], args: &payload{origin: origin, v: []any{}}})
	if len(path) == 1 {
		return h
	}
	g := h.get(path[1:])
	h.close()
	return g
}

func (t *Target) lookup(k key) *method {
	if k.isNum || t.methods == nil {
		return nil
	}
	return t.methods[k.name]
}

func (t *Target) call(path []key, args *payload) hook {
	var m *method
	switch {
	case t.dispatch != nil:
		m = dispatchMethod
	case len(path) == 0:
		m = t.fn
	default:
		m = t.lookup(path[0])
		if m != nil && m.getter {
			h := t.getFrom(args.origin, path[:1])
			r := callBelow(h, path, 1, args)
			h.close()
			return r
		}
		if m != nil && len(path) > 1 {
			args.close()
			return errorHook{notAFunction(path)}
		}
	}
	if m == nil {
		args.close()
		if len(path) > 1 {
			return errorHook{typeErrorf("undefined is not an object (evaluating 'value[part]')")}
		}
		return errorHook{notAFunction(path)}
	}
	if args.pending == 0 {
		return t.start(&job{method: m, path: path, args: args})
	}
	// The call waits for its arguments; later ones overtake it.
	d := newDeferred()
	t.dup()
	args.settle(newBudget(), func(err error) {
		if err != nil {
			d.reject(err)
		} else {
			d.resolve(t.start(&job{method: m, path: path, args: args}))
		}
		t.close()
	})
	return d
}

// start queues a call. The target stays referenced until it has run.
func (t *Target) start(j *job) hook {
	if s := j.args.origin; s != nil && !s.beginCall() {
		j.args.close()
		return errorHook{limitf("Too many calls are in flight on this session (limit %d).", s.limits.MaxCallsInFlight)}
	}
	t.dup()
	j.t = t
	j.result.refs = 2 // ours and the caller's
	if t.parallel {
		if s := j.args.origin; s == nil || !j.method.quick() || !s.offer(j) {
			go j.runAlone()
		}
	} else {
		t.lane.add(j)
	}
	return &j.result
}

// methodHook is a method apart from its object: what reading a method yields.
type methodHook struct {
	t      *Target
	target hook
	name   key
	mu     sync.Mutex
	refs   int
}

func (h *methodHook) call(path []key, args *payload) hook {
	if len(path) > 0 {
		args.close()
		return errorHook{notAFunction(path)}
	}
	return h.t.call([]key{h.name}, args)
}

func (h *methodHook) get(path []key) hook {
	if len(path) == 0 {
		return h.dup()
	}
	return (&valueHook{p: &payload{v: Object{}}}).get(path)
}

func (h *methodHook) pull(_ budget, f func(*payload, error)) {
	p := &payload{}
	p.v = p.addStub(h.dup())
	f(p, nil)
}

func (h *methodHook) dup() hook {
	h.mu.Lock()
	h.refs++
	h.mu.Unlock()
	return h
}

func (h *methodHook) close() {
	h.mu.Lock()
	h.refs--
	last := h.refs == 0
	h.mu.Unlock()
	if last {
		h.target.close()
	}
}

func (h *methodHook) onBroken(func(error)) func() { return func() {} }
