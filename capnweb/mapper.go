package capnweb

import (
	"strconv"
	"sync/atomic"
)

// mapping is a recorded function, to be applied where the data is.
type mapping struct {
	captures []hook
	// instructions is the JSON text of the list of instructions.
	instructions []byte
	origin       *Session
	// calls is what is left of the number of instructions that may be carried out.
	calls *atomic.Int64
}

func (m *mapping) close() {
	if m == nil {
		return
	}
	for _, h := range m.captures {
		h.close()
	}
	m.captures = nil
}

// Map applies f to what r refers to, on the side where the value is: to each
// element of an array, to nothing if it is null or undefined, else to the value itself.
// f is called once, here, to record what it does; x stands for the element. It may
// make calls on x, on results of such calls, and on references from outside that it
// got from [Mapper.Use]; what it returns, which may contain them, is the result for
// the element. It cannot wait, and cannot pass targets or streams.
//
// One message carries the whole function, and one the result.
func Map(r Ref, f func(m *Mapper, x *Promise) any) *Promise {
	x := r.reference()
	h, err := x.current()
	if err != nil {
		return newPromise(errorHook{err})
	}
	m := &Mapper{}
	v, outer := final(h).(*mapVariable)
	if outer {
		if v.m.done {
			return newPromise(errorHook{errMapUse})
		}
		m.parent = v.m
	}
	defer func() { m.done = true }()
	p, err := buildResult(f(m, newPromise(&mapVariable{m: m, index: 0})))
	if err == nil {
		err = m.add(p, nil, nil, false)
	}
	if err == nil {
		err = m.err
	}
	if err != nil {
		m.close()
		return newPromise(errorHook{err})
	}
	text := append(append([]byte{'['}, m.text...), ']')
	if outer {
		return newPromise(m.parent.nested(v.index, x.path, m.outer, text))
	}
	return newPromise(h.remap(x.path, &mapping{captures: m.captures, instructions: text}))
}

// Mapper records the function of a [Map].
type Mapper struct {
	parent   *Mapper
	text     []byte // instructions, separated by commas
	count    int
	captures []hook // of the outermost mapper
	outer    []int  // of a nested one: indexes in its parent
	done     bool
	err      error
}

// Use makes a reference from outside usable inside the mapped function.
func (m *Mapper) Use(r Ref) *Promise {
	x := r.reference()
	h, err := x.current()
	if err != nil {
		return newPromise(errorHook{err})
	}
	return newPromise(&mapVariable{m: m, index: m.capture(h)}).Get(pathArgs(x.path)...)
}

func pathArgs(path []key) []any {
	out := make([]any, len(path))
	for i, k := range path {
		if k.isNum {
			out[i] = k.index
		} else {
			out[i] = k.name
		}
	}
	return out
}

var errMapUse = &Error{Name: "Error", Message: "Attempted to use an abstract placeholder from a mapper function. Please make sure your map function has no side effects."}

// capture returns the index of h, which is borrowed.
func (m *Mapper) capture(h hook) int {
	h = final(h)
	if v, ok := h.(*mapVariable); ok && v.m == m {
		return v.index
	}
	if m.parent != nil {
		i := m.parent.capture(h)
		for n, o := range m.outer {
			if o == i {
				return -n - 1
			}
		}
		m.outer = append(m.outer, i)
		return -len(m.outer)
	}
	if v, ok := h.(*mapVariable); ok {
		m.captures = append(m.captures, errorHook{errMapUse})
		m.err = errMapUse
		_ = v
		return -len(m.captures)
	}
	for n, c := range m.captures {
		if c == h {
			return -n - 1
		}
	}
	m.captures = append(m.captures, h.dup())
	return -len(m.captures)
}

func (m *Mapper) close() {
	for _, h := range m.captures {
		h.close()
	}
	m.captures = nil
}

// add records an instruction: a call of (subject, path) with p as arguments, or,
// without a subject, the value p. It owns p.
func (m *Mapper) add(p *payload, subject *mapVariable, path []key, get bool) error {
	defer p.close()
	if m.done {
		return errMapUse
	}
	e := &encoder{m: m}
	if m.count > 0 {
		e.lit(",")
	}
	var err error
	switch {
	case p != nil && (len(p.streams) > 0 || len(p.sinks) > 0):
		err = plainErrorf("Cannot send ReadableStream inside a mapper function.")
	case subject == nil:
		err = e.value(p.v, 0)
	default:
		e.lit(`["pipeline",`)
		e.b = strconv.AppendInt(e.b, int64(subject.index), 10)
		e.lit(",")
		e.path(path)
		if !get {
			e.lit(",")
			list, _ := p.v.([]any)
			err = e.list(list, 0)
		}
		e.lit("]")
	}
	if err != nil {
		if m.err == nil {
			m.err = err
		}
		return err
	}
	m.text = append(m.text, e.b...)
	m.count++
	return nil
}

// nested records a map within the mapped function.
func (m *Mapper) nested(subject int, path []key, captures []int, text []byte) hook {
	e := &encoder{m: m}
	if m.count > 0 {
		e.lit(",")
	}
	e.lit(`["remap",`)
	e.b = strconv.AppendInt(e.b, int64(subject), 10)
	e.lit(",")
	e.path(path)
	e.lit(",[")
	for i, c := range captures {
		if i > 0 {
			e.lit(",")
		}
		e.lit(`["import",`)
		e.b = strconv.AppendInt(e.b, int64(c), 10)
		e.lit("]")
	}
	e.lit("],")
	e.b = append(e.b, text...)
	e.lit("]")
	m.text = append(m.text, e.b...)
	m.count++
	return &mapVariable{m: m, index: m.count}
}

// reference writes a reference inside a recorded function.
func (m *Mapper) reference(e *encoder, r *ref, promise bool) error {
	h, err := r.current()
	if err != nil {
		return err
	}
	if _, ok := final(h).(*Target); ok {
		return plainErrorf("Can't construct an RpcTarget or RPC callback inside a mapper function. Try creating a new RpcStub outside the callback first, then using it inside the callback.")
	}
	i := m.capture(h)
	if promise {
		e.lit(`["pipeline",`)
	} else {
		e.lit(`["import",`)
	}
	e.b = strconv.AppendInt(e.b, int64(i), 10)
	if len(r.path) > 0 {
		e.lit(",")
		e.path(r.path)
	}
	e.lit("]")
	return nil
}

// mapVariable is a value that a mapped function will have: its input, the result
// of an instruction, or something captured.
type mapVariable struct {
	m     *Mapper
	index int
}

func (v *mapVariable) call(path []key, args *payload) hook {
	if err := v.m.add(args, v, path, false); err != nil {
		return errorHook{err}
	}
	return &mapVariable{m: v.m, index: v.m.count}
}

func (v *mapVariable) get(path []key) hook {
	if len(path) == 0 {
		return v
	}
	if err := v.m.add(nil, v, path, true); err != nil {
		return errorHook{err}
	}
	return &mapVariable{m: v.m, index: v.m.count}
}

func (v *mapVariable) remap(_ []key, m *mapping) hook {
	m.close()
	return errorHook{errMapUse}
}

func (v *mapVariable) pull(_ budget, f func(*payload, error)) { f(nil, errMapUse) }
func (v *mapVariable) dup() hook                              { return v }
func (v *mapVariable) close()                                 {}
func (v *mapVariable) onBroken(func(error)) func()            { return func() {} }

// remap writes ["push",["remap",id,path,captures,instructions]]. Captures that are
// not the peer's are exported.
func (e *encoder) remap(id int64, path []key, m *mapping) error {
	e.lit(`["push",["remap",`)
	e.b = strconv.AppendInt(e.b, id, 10)
	e.lit(",")
	e.path(path)
	e.lit(",[")
	for i, h := range m.captures {
		if i > 0 {
			e.lit(",")
		}
		if imp, ok := final(h).(*importEntry); ok && imp.s == e.s {
			e.lit(`["import",`)
			e.b = strconv.AppendInt(e.b, imp.id, 10)
			e.lit("]")
			continue
		}
		id, err := e.s.export(h)
		if err != nil {
			return err
		}
		m.captures[i] = errorHook{errStubClosed} // the table has it now
		e.made = append(e.made, id)
		e.lit(`["export",`)
		e.b = strconv.AppendInt(e.b, id, 10)
		e.lit("]")
	}
	e.lit("],")
	e.b = append(e.b, m.instructions...)
	e.lit("]]")
	return nil
}
