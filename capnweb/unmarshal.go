package capnweb

import (
	"encoding"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"time"
)

var (
	stubType          = reflect.TypeFor[*Stub]()
	promiseType       = reflect.TypeFor[*Promise]()
	targetType        = reflect.TypeFor[*Target]()
	timeType          = reflect.TypeFor[time.Time]()
	bigIntType        = reflect.TypeFor[*big.Int]()
	valueType         = reflect.TypeFor[Value]()
	objectType        = reflect.TypeFor[Object]()
	errorPtrType      = reflect.TypeFor[*Error]()
	errorType         = reflect.TypeFor[error]()
	typedArrayType    = reflect.TypeFor[TypedArray]()
	undefinedType     = reflect.TypeFor[UndefinedType]()
	exporterType      = reflect.TypeFor[Exporter]()
	jsonMarshalerType = reflect.TypeFor[jsonMarshaler]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
)

type jsonUnmarshaler interface{ UnmarshalJSON([]byte) error }

// deliver stores the payload's value in out, a pointer, and moves the references
// that found a place there to their new owner. The rest is closed.
func (p *payload) deliver(out any) error {
	if out == nil {
		p.close()
		return nil
	}
	d := decoder{p: p, move: true}
	err := d.into(p.v, out)
	p.close()
	return err
}

// decoder stores trees in Go values.
type decoder struct {
	p *payload
	// move: references are handed over to the value decoded into (results).
	// Otherwise they are lent (parameters).
	move bool
	// own: nobody else will look at the tree.
	own bool
}

func (d *decoder) into(v any, out any) error {
	switch o := out.(type) {
	case *any:
		*o = d.any(v)
		return nil
	case *int:
		if f, ok := v.(float64); ok && float64(int(f)) == f && math.Abs(f) <= 1<<53 {
			*o = int(f)
			return nil
		}
	case *float64:
		if f, ok := v.(float64); ok {
			*o = f
			return nil
		}
	case *string:
		if s, ok := v.(string); ok {
			*o = s
			return nil
		}
	case *bool:
		if s, ok := v.(bool); ok {
			*o = s
			return nil
		}
	}
	rv := reflect.ValueOf(out)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return typeErrorf("results are stored in a non-nil pointer, not in a %T", out)
	}
	return d.store(v, rv.Elem(), "")
}

// lend gives a handle to the application: the payload's own, or, when the
// result is the application's to keep, a new owner of its hook.
func (d *decoder) stub(s *Stub) *Stub {
	if !d.move {
		return s
	}
	h := s.take()
	if h == nil { // asked for twice
		return newStub(s.h.dup())
	}
	return newStub(h)
}

// any is the natural Go form of a tree.
func (d *decoder) any(v any) any {
	switch x := v.(type) {
	case nil, UndefinedType:
		return nil
	case []any:
		c := make([]any, len(x))
		for i := range x {
			c[i] = d.any(x[i])
		}
		return c
	case Object:
		c := make(map[string]any, len(x))
		for i := range x {
			c[x[i].Key] = d.any(x[i].Value)
		}
		return c
	}
	return d.leaf(v, d.any)
}

// ordered is the form of a tree that keeps everything the wire said.
func (d *decoder) ordered(v any) any {
	switch x := v.(type) {
	case []any:
		c := make([]any, len(x))
		for i := range x {
			c[i] = d.ordered(x[i])
		}
		return c
	case Object:
		c := make(Object, len(x))
		for i := range x {
			c[i] = Member{x[i].Key, d.ordered(x[i].Value)}
		}
		return c
	}
	return d.leaf(v, d.ordered)
}

func (d *decoder) leaf(v any, nested func(any) any) any {
	switch x := v.(type) {
	case int64:
		return float64(x)
	case []byte:
		return d.bytes(x)
	case TypedArray:
		x.Data = d.bytes(x.Data)
		return x
	case *Stub:
		return d.stub(x)
	case *Error:
		return d.err(x, nested)
	}
	return d.media(v)
}

// bytes avoids a copy where nobody else holds the tree.
func (d *decoder) bytes(b []byte) []byte {
	if d.p.shared || !d.move && !d.own {
		return append([]byte{}, b...)
	}
	return b[:len(b):len(b)] // what is behind may be of an earlier message
}

func (d *decoder) err(e *Error, nested func(any) any) *Error {
	c := *e
	c.Props = nil
	for _, m := range e.Props {
		c.Props = append(c.Props, Member{m.Key, nested(m.Value)})
	}
	if e.Cause != nil {
		c.Cause = nested(e.Cause)
	}
	c.Errors = nil
	for _, x := range e.Errors {
		c.Errors = append(c.Errors, nested(x))
	}
	return &c
}

func mismatch(at string, want string, v any) error {
	if at == "" {
		at = "value"
	}
	return typeErrorf("%s: expected %s, got %s", at, want, kindName(v))
}

// store puts v into rv. at says where v stands, for error messages.
func (d *decoder) store(v any, rv reflect.Value, at string) error {
	t := rv.Type()
	switch t {
	case stubType:
		switch x := v.(type) {
		case *Stub:
			rv.Set(reflect.ValueOf(d.stub(x)))
			return nil
		case nil, UndefinedType:
			rv.SetZero()
			return nil
		}
		return mismatch(at, "stub", v)
	case promiseType:
		p := &payload{v: v}
		if d.p.hasRefs() {
			p = &payload{}
			p.v = p.copyValue(v)
		}
		rv.Set(reflect.ValueOf(newPromise(hookOf(p))))
		return nil
	case valueType:
		rv.Set(reflect.ValueOf(Value{d.ordered(v)}))
		return nil
	case timeType:
		if x, ok := v.(time.Time); ok {
			rv.Set(reflect.ValueOf(x))
			return nil
		}
	case bigIntType:
		if x := bigOf(v); x != nil {
			rv.Set(reflect.ValueOf(x))
			return nil
		}
	case bigIntType.Elem():
		if x := bigOf(v); x != nil {
			rv.Set(reflect.ValueOf(x).Elem())
			return nil
		}
	case objectType:
		if x, ok := v.(Object); ok {
			rv.Set(reflect.ValueOf(d.ordered(x)))
			return nil
		}
	case errorPtrType, errorType:
		if x, ok := v.(*Error); ok {
			rv.Set(reflect.ValueOf(d.err(x, d.any)))
			return nil
		}
	case undefinedType:
		return nil
	case typedArrayType:
		switch x := v.(type) {
		case TypedArray:
			x.Data = d.bytes(x.Data)
			rv.Set(reflect.ValueOf(x))
			return nil
		case []byte:
			rv.Set(reflect.ValueOf(TypedArray{"Uint8Array", d.bytes(x)}))
			return nil
		}
	}
	if done, err := d.storeMedia(v, rv, at); done || err != nil {
		return err
	}
	return d.storeKind(v, rv, at)
}

func (d *decoder) storeKind(v any, rv reflect.Value, at string) error {
	t := rv.Type()
	isNil := v == nil || v == any(Undefined)
	if t.Kind() == reflect.Pointer {
		if isNil {
			rv.SetZero()
			return nil
		}
		n := reflect.New(t.Elem())
		if err := d.store(v, n.Elem(), at); err != nil {
			return err
		}
		rv.Set(n)
		return nil
	}
	if rv.CanAddr() && !isNil {
		switch u := rv.Addr().Interface().(type) {
		case jsonUnmarshaler:
			text, err := appendPlainJSON(nil, v)
			if err != nil {
				return mismatch(at, t.String(), v)
			}
			return u.UnmarshalJSON(text)
		case encoding.TextUnmarshaler:
			if s, ok := v.(string); ok {
				if err := u.UnmarshalText([]byte(s)); err != nil {
					return typeErrorf("%s: %s", at, err)
				}
				return nil
			}
		}
	}
	switch t.Kind() {
	case reflect.Interface:
		return d.storeInterface(v, rv, at)
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			rv.SetBool(b)
			return nil
		}
		return mismatch(at, "boolean", v)
	case reflect.String:
		switch s := v.(type) {
		case string:
			rv.SetString(s)
			return nil
		case URL:
			rv.SetString(string(s))
			return nil
		}
		return mismatch(at, "string", v)
	case reflect.Float32, reflect.Float64:
		if f, ok := number(v); ok {
			rv.SetFloat(f)
			return nil
		}
		return mismatch(at, "number", v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, ok := integer(v)
		if !ok || rv.OverflowInt(i) {
			return badInteger(at, t, v)
		}
		rv.SetInt(i)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		u, ok := unsigned(v)
		if !ok || rv.OverflowUint(u) {
			return badInteger(at, t, v)
		}
		rv.SetUint(u)
		return nil
	case reflect.Slice:
		return d.storeSlice(v, rv, at)
	case reflect.Array:
		x, ok := v.([]any)
		if !ok || len(x) != rv.Len() {
			return mismatch(at, "array of "+strconv.Itoa(rv.Len()), v)
		}
		for i := range x {
			if err := d.store(x[i], rv.Index(i), indexed(at, i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		return d.storeMap(v, rv, at)
	case reflect.Struct:
		return d.storeStruct(v, rv, at)
	}
	return typeErrorf("%s: cannot decode into a %s", at, t)
}

func badInteger(at string, t reflect.Type, v any) error {
	if f, ok := number(v); ok {
		if at == "" {
			at = "value"
		}
		return typeErrorf("%s: %v does not fit %s", at, f, t.Kind())
	}
	return mismatch(at, "integer", v)
}

func indexed(at string, i int) string { return at + "[" + strconv.Itoa(i) + "]" }

func (d *decoder) storeInterface(v any, rv reflect.Value, at string) error {
	x := d.any(v)
	if x == nil {
		rv.SetZero()
		return nil
	}
	xv := reflect.ValueOf(x)
	if !xv.Type().AssignableTo(rv.Type()) {
		return mismatch(at, rv.Type().String(), v)
	}
	rv.Set(xv)
	return nil
}

func (d *decoder) storeSlice(v any, rv reflect.Value, at string) error {
	t := rv.Type()
	switch x := v.(type) {
	case nil, UndefinedType:
		rv.SetZero()
		return nil
	case []byte:
		if t.Elem().Kind() == reflect.Uint8 {
			rv.SetBytes(d.bytes(x))
			return nil
		}
	case TypedArray:
		if t.Elem().Kind() == reflect.Uint8 {
			rv.SetBytes(d.bytes(x.Data))
			return nil
		}
	case []any:
		out := reflect.MakeSlice(t, len(x), len(x))
		for i := range x {
			if err := d.store(x[i], out.Index(i), indexed(at, i)); err != nil {
				return err
			}
		}
		rv.Set(out)
		return nil
	}
	if t.Elem().Kind() == reflect.Uint8 {
		return mismatch(at, "bytes", v)
	}
	return mismatch(at, "array", v)
}

func (d *decoder) storeMap(v any, rv reflect.Value, at string) error {
	t := rv.Type()
	switch x := v.(type) {
	case nil, UndefinedType:
		rv.SetZero()
		return nil
	case Object:
		out := reflect.MakeMapWithSize(t, len(x))
		for i := range x {
			k := reflect.New(t.Key()).Elem()
			if err := storeKey(x[i].Key, k); err != nil {
				return typeErrorf("%s: %s", at, err)
			}
			e := reflect.New(t.Elem()).Elem()
			if err := d.store(x[i].Value, e, at+"."+x[i].Key); err != nil {
				return err
			}
			out.SetMapIndex(k, e)
		}
		rv.Set(out)
		return nil
	}
	return mismatch(at, "object", v)
}

func storeKey(s string, k reflect.Value) error {
	if u, ok := k.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch k.Kind() {
	case reflect.String:
		k.SetString(s)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(s, 10, k.Type().Bits())
		k.SetInt(i)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(s, 10, k.Type().Bits())
		k.SetUint(u)
		return err
	}
	return typeErrorf("cannot decode keys into %s", k.Type())
}

func (d *decoder) storeStruct(v any, rv reflect.Value, at string) error {
	x, ok := v.(Object)
	if !ok {
		if v == any(Undefined) && rv.NumField() == 0 { // struct{}: the result is not wanted
			return nil
		}
		return mismatch(at, "object", v)
	}
	plan := planOf(rv.Type())
	if plan.err != nil && rv.NumField() > 0 {
		return plan.err
	}
	for i := range x {
		n, ok := plan.byName[x[i].Key]
		if !ok {
			continue // fields that nobody here knows
		}
		f, ok := plan.fields[n].place(rv)
		if !ok {
			continue
		}
		if x[i].Value == nil || x[i].Value == any(Undefined) {
			if f.Type() != valueType {
				f.SetZero()
				continue
			}
		}
		if err := d.store(x[i].Value, f, at+"."+x[i].Key); err != nil {
			return err
		}
	}
	return nil
}
