package capnweb

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

// Bind gives the methods of r Go signatures. T is a struct of functions:
//
//	type Counter struct {
//		Increment func(ctx context.Context, by int) (int, error)
//		Value     func(ctx context.Context) (int, error) `rpc:"value,get"`
//		Another   func(start int) *capnweb.Promise // begun, not awaited: for pipelining
//	}
//	counter, err := capnweb.Bind[Counter](stub)
//	n, err := counter.Increment(ctx, 2)
//
// Each exported field calls the method named by its rpc tag, or by its own name
// with the first word in lower case (Increment is increment, HTTPGet is httpGet).
// With the option get it reads the property of that name; rpc:"-" leaves a field
// alone. A function takes a context first and returns an error last, with at most
// one result before it; its parameters may be variadic. One that returns only a
// *Promise takes no context and does not wait.
//
// The functions borrow r, which stays the caller's to close; r may be a promise
// that has not arrived. A nil r, and a T of any other shape, is an error of Bind
// that names the field. Whether the peer has the methods shows when they are called.
func Bind[T any](r Ref) (T, error) {
	var bound T
	v := reflect.ValueOf(&bound).Elem()
	if r == nil || reflect.ValueOf(r).IsNil() {
		return bound, bindError(v.Type(), "the reference is nil")
	}
	if v.Kind() != reflect.Struct {
		return bound, bindError(v.Type(), "it is not a struct of functions")
	}
	functions := 0
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag := f.Tag.Get("rpc")
		if !f.IsExported() || tag == "-" {
			continue
		}
		m, err := newBinding(f.Type, tag)
		if err != nil {
			return *new(T), bindError(v.Type(), "field %s: %w", f.Name, err)
		}
		if m.name == "" {
			m.name = lowerFirstWord(f.Name)
		}
		if onPrototype(m.name) {
			return *new(T), bindError(v.Type(), "field %s: the method name %q is reserved", f.Name, m.name)
		}
		functions++
		v.Field(i).Set(reflect.MakeFunc(f.Type, func(in []reflect.Value) []reflect.Value { return m.call(r, in) }))
	}
	if functions == 0 {
		return bound, bindError(v.Type(), "it has no exported functions")
	}
	return bound, nil
}

func bindError(t reflect.Type, format string, args ...any) error {
	return fmt.Errorf("capnweb.Bind: %s: "+format, append([]any{t}, args...)...)
}

// binding is how one field of a bound struct calls.
type binding struct {
	name     string
	get      bool
	variadic bool
	promise  bool
	result   reflect.Type // nil when only an error is wanted
	out      int
}

func newBinding(t reflect.Type, tag string) (*binding, error) {
	if t.Kind() != reflect.Func {
		return nil, fmt.Errorf("%s is not a function (leave it out with `rpc:\"-\"`)", t)
	}
	name, option, _ := strings.Cut(tag, ",")
	if option != "" && option != "get" {
		return nil, fmt.Errorf("unknown option %q in its tag (there is get)", option)
	}
	m := &binding{name: name, get: option == "get", variadic: t.IsVariadic(), out: t.NumOut()}
	first := 0
	if m.out == 1 && t.Out(0) == promiseType {
		m.promise = true
		if t.NumIn() > 0 && t.In(0) == contextType {
			return nil, fmt.Errorf("%s returns a promise, and so takes no context: it does not wait", t)
		}
	} else {
		if t.NumIn() == 0 || t.In(0) != contextType {
			return nil, fmt.Errorf("%s does not take a context.Context first", t)
		}
		if m.out == 0 || m.out > 2 || t.Out(m.out-1) != errorType {
			return nil, fmt.Errorf("%s does not return an error, or a result and an error", t)
		}
		if first = 1; m.out == 2 {
			m.result = t.Out(0)
			if what := untransportable(m.result); what != "" {
				return nil, fmt.Errorf("%s returns a %s, which cannot be decoded", t, what)
			}
		}
	}
	if m.get && t.NumIn() > first {
		return nil, fmt.Errorf("%s reads a property, and so takes no arguments", t)
	}
	for i := first; i < t.NumIn(); i++ {
		if what := untransportable(t.In(i)); what != "" {
			return nil, fmt.Errorf("%s takes a %s, which cannot be sent (a callback is a *capnweb.Target, made by Func)", t, what)
		}
	}
	return m, nil
}

func (m *binding) call(r Ref, in []reflect.Value) []reflect.Value {
	ctx := context.Background()
	if !m.promise {
		ctx, _ = in[0].Interface().(context.Context)
		in = in[1:]
	}
	var args []any
	for i, v := range in {
		if m.variadic && i == len(in)-1 {
			for j := range v.Len() {
				args = append(args, v.Index(j).Interface())
			}
			break
		}
		args = append(args, v.Interface())
	}
	if m.promise {
		if m.get {
			return []reflect.Value{reflect.ValueOf(r.Get(m.name))}
		}
		return []reflect.Value{reflect.ValueOf(r.Call(m.name, args...))}
	}
	var result reflect.Value // a pointer
	var out any
	if m.result != nil {
		result = reflect.New(m.result)
		out = result.Interface()
	}
	err := reflect.New(errorType).Elem()
	if e := m.await(ctx, r, args, out); e != nil {
		err.Set(reflect.ValueOf(e))
	}
	if m.result != nil {
		return []reflect.Value{result.Elem(), err}
	}
	return []reflect.Value{err}
}

func (m *binding) await(ctx context.Context, r Ref, args []any, out any) error {
	if m.get {
		p := r.Get(m.name)
		defer p.Close()
		return p.Await(ctx, out)
	}
	p, err := r.reference().callAndWait(ctx, m.name, args)
	if err != nil {
		return err
	}
	return p.deliver(out)
}

// untransportable names the type within t that no message can carry.
func untransportable(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Complex64, reflect.Complex128:
		return t.String()
	case reflect.Slice, reflect.Array, reflect.Map:
		return untransportable(t.Elem())
	}
	return ""
}

// lowerFirstWord makes the JavaScript name of an exported Go name.
func lowerFirstWord(name string) string {
	letters := []rune(name)
	for i, c := range letters {
		if !unicode.IsUpper(c) || i > 0 && i+1 < len(letters) && unicode.IsLower(letters[i+1]) {
			break
		}
		letters[i] = unicode.ToLower(c)
	}
	return string(letters)
}
