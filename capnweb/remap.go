package capnweb

import (
	"sync/atomic"
)

// remap evaluates ["remap",id,path,captures,instructions].
func (ev *evaluator) remap(n int32) (any, error) {
	d := ev.d
	nd := &d.nodes[n]
	if nd.count != 5 {
		return nil, ev.unknown(n)
	}
	idn := d.child(n, 1)
	pathNode := d.nodes[idn].next
	capsNode := d.nodes[pathNode].next
	insNode := d.nodes[capsNode].next
	id, ok := ev.id(idn)
	if !ok || d.nodes[capsNode].kind != kindArray || d.nodes[insNode].kind != kindArray {
		return nil, ev.unknown(n)
	}
	h, err := ev.scope.lookup(id)
	if err != nil {
		return nil, err
	}
	path, ok := ev.path(pathNode)
	if !ok {
		return nil, ev.unknown(n)
	}
	m := &mapping{origin: ev.origin, calls: ev.mapCalls}
	if m.calls == nil {
		m.calls = new(atomic.Int64)
		m.calls.Store(int64(ev.limits.MaxMapCalls))
	}
	for c := d.nodes[capsNode].first; c >= 0; c = d.nodes[c].next {
		cap, err := ev.captured(c)
		if err != nil {
			m.close()
			return nil, err
		}
		m.captures = append(m.captures, cap)
	}
	m.instructions = d.raw(insNode)
	if ev.mapCalls == nil { // else it is part of a copy already
		m.instructions = append([]byte(nil), m.instructions...)
	} else {
		m.calls.Add(-int64(len(m.instructions)) / 256)
	}
	return ev.p.addPromise(h.remap(path, m), nil), nil
}

func (ev *evaluator) captured(n int32) (hook, error) {
	d := ev.d
	nd := &d.nodes[n]
	if nd.kind == kindArray && nd.count == 2 && d.isString(nd.first) {
		id, ok := ev.id(d.nodes[nd.first].next)
		switch {
		case !ok:
		case d.is(nd.first, "export"):
			return ev.scope.introduce(id, false)
		case d.is(nd.first, "import"):
			h, err := ev.scope.lookup(id)
			if err != nil {
				return nil, err
			}
			return h.dup(), nil
		}
	}
	return nil, typeErrorf("unknown map capture: %s", clip(d.raw(n)))
}

// mapScope is what references in a recorded function refer to.
type mapScope struct {
	captures  []hook
	variables []hook
}

func (s *mapScope) lookup(id int64) (hook, error) {
	if id < 0 && -id <= int64(len(s.captures)) {
		return s.captures[-id-1], nil
	}
	if id >= 0 && id < int64(len(s.variables)) {
		return s.variables[id], nil
	}
	return nil, plainErrorf("no such entry on exports table: %d", id)
}

func (s *mapScope) introduce(int64, bool) (hook, error) {
	return nil, plainErrorf("A mapper function cannot refer to exports.")
}

func (s *mapScope) readable(int64) (*ReadableStream, error) {
	return nil, plainErrorf("A mapper function cannot use pipe readables.")
}

func (s *mapScope) writable(int64) (*WritableStream, error) {
	return nil, plainErrorf("A mapper function cannot refer to exports.")
}

// run applies the function to one value, whose hook it owns.
func (m *mapping) run(d *document, input hook, limits *Limits) (*payload, error) {
	sc := &mapScope{captures: m.captures, variables: []hook{input}}
	defer func() {
		for _, h := range sc.variables {
			h.close()
		}
	}()
	root := &d.nodes[0]
	if root.count == 0 {
		return nil, plainErrorf("Invalid empty mapper function.")
	}
	for c := root.first; c >= 0; c = d.nodes[c].next {
		// What an instruction says can be repeated for each element: its length counts.
		if m.calls.Add(-1-int64(d.nodes[c].end-d.nodes[c].start)/256) < 0 {
			return nil, limitf("A map makes too many calls (limit %d).", limits.MaxMapCalls)
		}
		ev := evaluator{d: d, scope: sc, limits: limits, p: &payload{origin: m.origin}, origin: m.origin, mapCalls: m.calls}
		v, err := ev.value(c, 0)
		if err != nil {
			ev.p.close()
			return nil, err
		}
		ev.p.v = v
		if d.nodes[c].next < 0 {
			return ev.p, nil
		}
		sc.variables = append(sc.variables, hookOf(ev.p))
	}
	return nil, plainErrorf("Invalid empty mapper function.")
}

// apply applies the function to a value, which it owns, and returns the result's hook.
func (m *mapping) apply(in *payload) hook {
	defer m.close()
	defer in.close()
	limits := &defaultLimits
	if m.origin != nil {
		limits = &m.origin.limits
	}
	if m.calls == nil {
		m.calls = new(atomic.Int64)
		m.calls.Store(int64(limits.MaxMapCalls))
	}
	var d document
	if err := d.parse(m.instructions, 3*limits.MaxDepth+16); err != nil {
		return errorHook{err}
	}
	switch x := in.v.(type) {
	case nil, UndefinedType:
		return hookOf(&payload{v: in.v})
	case []any:
		out := &payload{origin: m.origin, whole: true}
		list := make([]any, 0, len(x))
		for i := range x {
			e := &payload{}
			e.v = e.copyValue(x[i])
			r, err := m.run(&d, hookOf(e), limits)
			if err != nil {
				out.close()
				return errorHook{err}
			}
			list = append(list, r.v)
			out.refs = append(out.refs, r.refs...)
			out.streams = append(out.streams, r.streams...)
			out.sinks = append(out.sinks, r.sinks...)
			out.pending += r.pending
			out.blobs = out.blobs || r.blobs
			out.shared = out.shared || r.shared
		}
		out.v = list
		return hookOf(out)
	}
	e := &payload{}
	e.v = e.copyValue(in.v)
	r, err := m.run(&d, hookOf(e), limits)
	if err != nil {
		return errorHook{err}
	}
	r.whole = true
	return hookOf(r)
}

func (e *importEntry) remap(path []key, m *mapping) hook { return e.s.send(e, path, nil, m) }

func (h errorHook) remap(_ []key, m *mapping) hook {
	m.close()
	return h
}

func (h *valueHook) remap(path []key, m *mapping) hook {
	v, r, rest, err := h.follow(path)
	switch {
	case err != nil:
		m.close()
		return errorHook{err}
	case r != nil:
		return r.remap(rest, m)
	}
	in := &payload{}
	in.v = in.copyValue(v)
	if in.pending == 0 {
		return m.apply(in)
	}
	// The value has promises in it: the elements are those they resolve to.
	d := newDeferred()
	in.settle(newBudget(), func(err error) {
		if err != nil {
			m.close()
			d.reject(err)
			return
		}
		d.resolve(m.apply(in))
	})
	return d
}

func (t *Target) remap(path []key, m *mapping) hook {
	if len(path) == 0 {
		in := &payload{}
		in.v = in.addStub(t.dup())
		return m.apply(in)
	}
	h := t.getFrom(m.origin, path)
	if x, ok := final(h).(*Target); ok {
		in := &payload{}
		in.v = in.addStub(x.dup())
		h.close()
		return m.apply(in)
	}
	r := h.remap(nil, m)
	h.close()
	return r
}

func (h *methodHook) remap(_ []key, m *mapping) hook {
	in := &payload{}
	in.v = in.addStub(h.dup())
	return m.apply(in)
}
