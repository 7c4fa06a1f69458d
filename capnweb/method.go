package capnweb

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"
)

var (
	contextType = reflect.TypeFor[context.Context]()
	argsType    = reflect.TypeFor[Args]()
)

// Args are the arguments of a call, not decoded yet.
type Args struct{ p *payload }

// Len is the number of arguments.
func (a Args) Len() int {
	if a.p == nil {
		return 0
	}
	list, _ := a.p.v.([]any)
	return len(list)
}

// Decode stores the i-th argument in out, a non-nil pointer. An argument that was
// left out reads as undefined.
func (a Args) Decode(i int, out any) error {
	d := decoder{p: a.p}
	return d.into(a.at(i), out)
}

// Value returns the i-th argument in its natural Go form.
func (a Args) Value(i int) any {
	d := decoder{p: a.p}
	return d.any(a.at(i))
}

func (a Args) at(i int) any {
	if a.p != nil {
		if list, _ := a.p.v.([]any); i >= 0 && i < len(list) {
			return list[i]
		}
	}
	return any(Undefined)
}

// method is one exported function.
type method struct {
	fn       reflect.Value
	in       []reflect.Type // without receiver and context
	receiver bool
	ctx      bool
	variadic bool
	raw      bool
	result   bool
	err      bool
	getter   bool
	streak   atomic.Int32 // how many runs in a row were quick
}

// dispatchMethod stands for whatever a Dispatcher answers.
var dispatchMethod = &method{}

func newMethod(f any, receiver reflect.Type) (*method, error) {
	v := reflect.ValueOf(f)
	if !v.IsValid() || v.Kind() != reflect.Func || v.IsNil() {
		return nil, fmt.Errorf("%T is not a function", f)
	}
	t := v.Type()
	m := &method{fn: v, variadic: t.IsVariadic()}
	i := 0
	if receiver != nil {
		if t.NumIn() == 0 || !receiver.AssignableTo(t.In(0)) {
			return nil, fmt.Errorf("%s does not take a %s first: use a method expression", t, receiver)
		}
		m.receiver = true
		i++
	}
	if i < t.NumIn() && t.In(i) == contextType {
		m.ctx = true
		i++
	}
	for ; i < t.NumIn(); i++ {
		m.in = append(m.in, t.In(i))
	}
	if len(m.in) == 1 && m.in[0] == argsType {
		m.raw = true
		m.in = nil
	}
	for _, in := range m.in {
		if in == argsType {
			return nil, fmt.Errorf("%s: capnweb.Args must be the only parameter", t)
		}
		switch in.Kind() {
		case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
			return nil, fmt.Errorf("%s: a %s cannot be decoded", t, in)
		}
	}
	n := t.NumOut()
	if n > 0 && t.Out(n-1) == errorType {
		m.err = true
		n--
	}
	if n > 1 {
		return nil, fmt.Errorf("%s has more than one result", t)
	}
	m.result = n == 1
	return m, nil
}

// invoke decodes the arguments and calls the function.
func (m *method) invoke(ctx context.Context, t *Target, args *payload) (any, error) {
	in := make([]reflect.Value, 0, len(m.in)+2)
	if m.receiver {
		in = append(in, t.receiver)
	}
	if m.ctx {
		in = append(in, reflect.ValueOf(ctx))
	}
	if m.raw {
		in = append(in, reflect.ValueOf(Args{args}))
	} else {
		var err error
		if in, err = m.decode(in, args); err != nil {
			return nil, err
		}
	}
	var out []reflect.Value
	if m.variadic {
		out = m.fn.CallSlice(in)
	} else {
		out = m.fn.Call(in)
	}
	var err error
	if m.err {
		err, _ = out[len(out)-1].Interface().(error)
	}
	if !m.result {
		return Undefined, err
	}
	return out[0].Interface(), err
}

func (m *method) decode(in []reflect.Value, args *payload) ([]reflect.Value, error) {
	list, _ := args.v.([]any)
	d := decoder{p: args, own: args.origin != nil} // what came on a session, came for this call
	for i, t := range m.in {
		rv := reflect.New(t).Elem()
		if m.variadic && i == len(m.in)-1 {
			if len(list) > i {
				rest := reflect.MakeSlice(t, len(list)-i, len(list)-i)
				for j := range rest.Len() {
					if err := d.store(list[i+j], rest.Index(j), argName(i+j)); err != nil {
						return nil, err
					}
				}
				rv = rest
			}
			in = append(in, rv)
			continue
		}
		v := any(Undefined)
		if i < len(list) {
			v = list[i]
		}
		if err := d.argument(v, rv, i); err != nil {
			return nil, err
		}
		in = append(in, rv)
	}
	return in, nil
}

func argName(i int) string { return fmt.Sprintf("argument %d", i+1) }

func (d *decoder) argument(v any, rv reflect.Value, i int) error {
	// The common cases, without a name to build.
	switch rv.Kind() {
	case reflect.Int, reflect.Int64:
		if n, ok := integer(v); ok && rv.Type().PkgPath() == "" {
			rv.SetInt(n)
			return nil
		}
	case reflect.String:
		if s, ok := v.(string); ok && rv.Type().PkgPath() == "" {
			rv.SetString(s)
			return nil
		}
	}
	if v == any(Undefined) {
		switch rv.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
			if rv.Type() != valueType {
				return nil
			}
		}
	}
	return d.store(v, rv, argName(i))
}
