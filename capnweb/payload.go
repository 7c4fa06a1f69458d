package capnweb

import (
	"math/big"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// payload is a value on its way: a tree of plain values, and the references in
// it, which the payload owns until it is closed or they are moved out of it.
//
// The tree consists of nil, bool, float64, int64, string, []any, Object,
// UndefinedType, *big.Int, time.Time, InvalidDateType, []byte, TypedArray, URL,
// Headers, *Error, *Request, *Response, *Blob, *ReadableStream, *WritableStream,
// *Stub and *Promise. Trees without references are never changed, so they
// may be shared.
type payload struct {
	v    any
	refs []*ref
	// streams are the readable ends in the tree, of bodies and blobs too.
	streams []*ReadableStream
	sinks   []*WritableStream
	// pending counts the nodes that must be replaced before delivery:
	// promises, and blobs that are still arriving.
	pending int
	// origin is the session on which the payload arrived, nil for a local call.
	origin *Session
	// shared is set when another payload has the same tree, or bytes in it.
	shared bool
	// whole says that the value is only useful when its promises are resolved: the
	// result of a map, which would take one message per promise otherwise.
	whole bool
	// blobs says that there may be blobs in the tree.
	blobs bool
}

func (p *payload) hasRefs() bool {
	return len(p.refs) > 0 || len(p.streams) > 0 || len(p.sinks) > 0
}

// close gives up every reference that was not moved out. It is idempotent.
func (p *payload) close() {
	if p != nil {
		p.part()()
	}
}

func nothing() {}

// part takes the references out; the function that it gives, gives them up.
func (p *payload) part() (end func()) {
	if !p.hasRefs() {
		return nothing
	}
	refs, streams, sinks := p.refs, p.streams, p.sinks
	p.refs, p.streams, p.sinks = nil, nil, nil
	return func() {
		for _, r := range refs {
			if h := r.take(); h != nil {
				h.close()
			}
		}
		for _, s := range streams {
			s.dropUnused()
		}
		for _, s := range sinks {
			s.dropUnused()
		}
	}
}

// recycle gives the bytes back that p is, if p alone has them: they came on a
// session, and nobody was given them to keep.
func (p *payload) recycle() {
	if p.origin == nil || p.shared {
		return
	}
	v := p.v
	if list, ok := v.([]any); ok && len(list) == 1 { // the arguments of a write
		v = list[0]
	}
	if b, ok := v.([]byte); ok {
		p.v = nil
		bufpool.PutChunk(b)
	}
}

func (p *payload) addStub(h hook) *Stub {
	s := &Stub{}
	s.h = h
	p.refs = append(p.refs, &s.ref)
	return s
}

func (p *payload) addPromise(h hook, path []key) *Promise {
	pr := &Promise{}
	pr.h, pr.path = h, path
	p.refs = append(p.refs, &pr.ref)
	p.pending++
	return pr
}

// clone makes a second payload. Streams cannot be in two places: the first
// clone gets them.
func (p *payload) clone() *payload {
	if !p.hasRefs() {
		return &payload{v: p.v, pending: p.pending, origin: p.origin, blobs: p.blobs, shared: true}
	}
	c := &payload{origin: p.origin, blobs: p.blobs, shared: true} // the bytes in it are
	c.v = c.copyValue(p.v)
	return c
}

// copyValue copies a tree into p, duplicating the references.
func (p *payload) copyValue(v any) any {
	switch x := v.(type) {
	case *Stub:
		return p.addStub(x.dupHook())
	case *Promise:
		return p.addPromise(x.dupHook(), x.path)
	case []any:
		c := make([]any, len(x))
		for i := range x {
			c[i] = p.copyValue(x[i])
		}
		return c
	case Object:
		c := make(Object, len(x))
		for i := range x {
			c[i] = Member{x[i].Key, p.copyValue(x[i].Value)}
		}
		return c
	case *Error:
		if !errorHasRefs(x) {
			return x
		}
		c := *x
		c.Props, _ = p.copyValue(x.Props).(Object)
		c.Cause = p.copyValue(x.Cause)
		c.Errors, _ = p.copyValue(x.Errors).([]any)
		return &c
	}
	return p.copyMedia(v)
}

// errorHasRefs: errors on the wire have their references stripped, but an error
// as a plain value may carry them.
func errorHasRefs(e *Error) bool {
	return e.Cause != nil || len(e.Props) > 0 || len(e.Errors) > 0
}

// slots calls f with the place of every node that must be replaced.
func slots(v *any, f func(*any)) {
	switch x := (*v).(type) {
	case *Promise:
		f(v)
	case *Blob:
		if x.arriving() {
			f(v)
		}
	case []any:
		for i := range x {
			slots(&x[i], f)
		}
	case Object:
		for i := range x {
			slots(&x[i].Value, f)
		}
	case *Error:
		for i := range x.Props {
			slots(&x.Props[i].Value, f)
		}
		slots(&x.Cause, f)
		for i := range x.Errors {
			slots(&x.Errors[i], f)
		}
	}
}

// settle replaces every promise in p by what it resolves to, then calls done,
// once, perhaps before settle returns. With an error, p is closed.
// It ends early when one of the promises rejects.
func (p *payload) settle(b budget, done func(error)) {
	if p.pending == 0 {
		done(nil)
		return
	}
	var list []*any
	slots(&p.v, func(v *any) { list = append(list, v) })
	if len(list) == 0 {
		p.pending = 0
		done(nil)
		return
	}
	if !b.spend(len(list)) {
		p.close()
		done(limitf("Promises are nested too deeply or too widely to be delivered."))
		return
	}
	w := &settling{p: p, left: len(list), done: done, bytes: b.bytes}
	for _, v := range list {
		switch x := (*v).(type) {
		case *Promise:
			h, err := x.current()
			if err != nil {
				w.one(v, nil, err)
				continue
			}
			pullPath(h, x.path, b.deeper(), func(r *payload, err error) { w.one(v, r, err) })
		case *Blob:
			x.collect(p.limits(), func(r *payload, err error) { w.one(v, r, err) })
		}
	}
}

func (p *payload) limits() *Limits {
	if p.origin != nil {
		return &p.origin.limits
	}
	return &defaultLimits
}

func errPromisesTooBig() error {
	return limitf("The promises in a value resolve to more than %d bytes together.", maxPromiseBytes)
}

type settling struct {
	mu     sync.Mutex
	p      *payload
	left   int
	failed bool
	done   func(error)
	bytes  *atomic.Int64
}

// one takes the resolution of one node.
func (w *settling) one(v *any, r *payload, err error) {
	w.mu.Lock()
	w.left--
	if err == nil && !w.failed && w.bytes.Add(int64(-estimate(r.v))) < 0 {
		err = errPromisesTooBig()
	}
	if w.failed {
		w.mu.Unlock()
		r.close()
		return
	}
	if err != nil {
		w.failed = true
		w.mu.Unlock()
		r.close()
		w.p.close()
		w.done(err)
		return
	}
	if v != nil {
		*v = r.v
		w.p.refs = append(w.p.refs, r.refs...)
		w.p.streams = append(w.p.streams, r.streams...)
		w.p.sinks = append(w.p.sinks, r.sinks...)
		w.p.blobs = w.p.blobs || r.blobs
		w.p.shared = w.p.shared || r.shared
	}
	finished := w.left == 0
	w.mu.Unlock()
	if finished {
		w.p.pending = 0
		w.done(nil)
	}
}

// plain turns a tree into what an any holds: objects become map[string]any and
// undefined becomes nil.
func plain(v any) any {
	switch x := v.(type) {
	case []any:
		c := make([]any, len(x))
		for i := range x {
			c[i] = plain(x[i])
		}
		return c
	case Object:
		c := make(map[string]any, len(x))
		for i := range x {
			c[x[i].Key] = plain(x[i].Value)
		}
		return c
	case UndefinedType:
		return nil
	case int64:
		return float64(x)
	}
	return v
}

// kindName names a tree value for error messages.
func kindName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case UndefinedType:
		return "undefined"
	case bool:
		return "boolean"
	case float64, int64:
		return "number"
	case string:
		return "string"
	case *big.Int:
		return "bigint"
	case []any:
		return "array"
	case Object:
		return "object"
	case []byte, TypedArray:
		return "bytes"
	case time.Time, InvalidDateType:
		return "date"
	case *Stub:
		return "stub"
	case *Promise:
		return "promise"
	case *Error:
		return "error"
	case *ReadableStream:
		return "readable stream"
	case *WritableStream:
		return "writable stream"
	case URL:
		return "url"
	}
	return kindNameMedia(v)
}
