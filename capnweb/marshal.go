package capnweb

import (
	"encoding"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Exporter is implemented by types that are passed by reference: where such a
// value stands in arguments or results, the peer gets a stub of its target.
type Exporter interface{ RPCTarget() *Target }

type jsonMarshaler interface{ MarshalJSON() ([]byte, error) }

// builder turns Go values into a payload.
type builder struct {
	p *payload
	// move: references in the value become the payload's (results). Otherwise they
	// are duplicated (arguments).
	move bool
}

func buildArgs(args []any) (*payload, error) {
	b := builder{p: &payload{}}
	list := make([]any, len(args))
	for i, a := range args {
		v, err := b.value(a, 1)
		if err != nil {
			b.p.close()
			return nil, err
		}
		list[i] = v
	}
	b.p.v = list
	return b.p, nil
}

func buildArg(v any) (*payload, error) {
	b := builder{p: &payload{}}
	x, err := b.value(v, 0)
	if err != nil {
		b.p.close()
		return nil, err
	}
	b.p.v = x
	return b.p, nil
}

// buildResult is for what a handler returned: references move into the payload.
func buildResult(v any) (*payload, error) {
	b := builder{p: &payload{}, move: true}
	x, err := b.value(v, 0)
	if err != nil {
		b.p.close()
		return nil, err
	}
	b.p.v = x
	return b.p, nil
}

func (b *builder) hookFrom(r *ref) (hook, error) {
	if b.move {
		if h := r.take(); h != nil {
			return h, nil
		}
		// The second mention of one reference in one result.
		for _, mine := range b.p.refs {
			if mine.h == r.h && r.parent == nil {
				return r.h.dup(), nil
			}
		}
	}
	h, err := r.current()
	if err != nil {
		return nil, err
	}
	return h.dup(), nil
}

func (b *builder) target(t *Target) (any, error) {
	if t == nil {
		return nil, nil
	}
	if !t.acquire() {
		return nil, errTargetClosed
	}
	return b.p.addStub(t), nil
}

const errDepth = "Serialization exceeded maximum allowed depth. (Does the message contain cycles?)"

func (b *builder) value(v any, depth int) (any, error) {
	if depth >= maxSendDepth {
		return nil, plainErrorf(errDepth)
	}
	switch x := v.(type) {
	case nil:
		return nil, nil
	case bool, string, float64, int64Safe, UndefinedType, InvalidDateType, URL, []byte:
		return v, nil
	case int:
		return safeInt(int64(x))
	case int64:
		return safeInt(x)
	case *Stub:
		if x == nil {
			return nil, nil
		}
		h, err := b.hookFrom(&x.ref)
		if err != nil {
			return nil, err
		}
		return b.p.addStub(h), nil
	case *Promise:
		if x == nil {
			return nil, nil
		}
		h, err := b.hookFrom(&x.ref)
		if err != nil {
			return nil, err
		}
		return b.p.addPromise(h, x.path), nil
	case *Target:
		return b.target(x)
	case []any:
		out := make([]any, len(x))
		for i := range x {
			e, err := b.value(x[i], depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = e
		}
		return out, nil
	case map[string]any:
		return b.stringMap(x, depth)
	case Object:
		out := make(Object, len(x))
		for i := range x {
			e, err := b.value(x[i].Value, depth+1)
			if err != nil {
				return nil, err
			}
			out[i] = Member{x[i].Key, e}
		}
		return out, nil
	case Value:
		return b.value(x.V, depth)
	case time.Time:
		return x, nil
	case *big.Int:
		if x == nil {
			return nil, nil
		}
		return new(big.Int).Set(x), nil
	case big.Int:
		return new(big.Int).Set(&x), nil
	case TypedArray:
		if size, ok := elementSize(x.Type); !ok || len(x.Data)%size != 0 {
			return nil, typeErrorf("Cannot serialize value: a %q of %d bytes", x.Type, len(x.Data))
		}
		return x, nil
	}
	if x, ok, err := b.media(v); ok || err != nil {
		return x, err
	}
	return b.reflected(v, depth)
}

// int64Safe only keeps the type switch in value short: no value has this type.
type int64Safe struct{ _ struct{} }

func safeInt(i int64) (any, error) {
	if i > maxSafeInteger || i < -maxSafeInteger {
		return nil, typeErrorf("the integer %d does not fit a JavaScript number; pass a *big.Int", i)
	}
	return i, nil
}

func (b *builder) stringMap(x map[string]any, depth int) (any, error) {
	keys := make([]string, 0, len(x))
	for k := range x {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make(Object, len(keys))
	for i, k := range keys {
		e, err := b.value(x[k], depth+1)
		if err != nil {
			return nil, err
		}
		out[i] = Member{k, e}
	}
	return out, nil
}

// reflected is the slow way, for every type that value does not name.
func (b *builder) reflected(v any, depth int) (any, error) {
	switch x := v.(type) {
	case Exporter:
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return nil, nil
		}
		return b.target(x.RPCTarget())
	case jsonMarshaler:
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return nil, nil
		}
		return b.json(x, depth)
	case error:
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return nil, nil
		}
		return b.err(x, depth), nil
	case encoding.TextMarshaler:
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return nil, nil
		}
		text, err := x.MarshalText()
		if err != nil {
			return nil, err
		}
		return string(text), nil
	}
	return b.kind(reflect.ValueOf(v), depth)
}

func (b *builder) kind(rv reflect.Value, depth int) (any, error) {
	switch rv.Kind() {
	case reflect.Bool:
		return rv.Bool(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return safeInt(rv.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		u := rv.Uint()
		if u > maxSafeInteger {
			return nil, typeErrorf("the integer %d does not fit a JavaScript number; pass a *big.Int", u)
		}
		return int64(u), nil
	case reflect.Float32:
		// The shortest decimal that reads back as the same float32, as people expect.
		f, _ := strconv.ParseFloat(strconv.FormatFloat(rv.Float(), 'g', -1, 32), 64)
		return f, nil
	case reflect.Float64:
		return rv.Float(), nil
	case reflect.String:
		return rv.String(), nil
	case reflect.Pointer, reflect.Interface:
		if rv.IsNil() {
			return nil, nil
		}
		return b.value(rv.Elem().Interface(), depth)
	case reflect.Slice:
		if rv.Type().Elem().Kind() == reflect.Uint8 {
			return rv.Bytes(), nil
		}
		return b.list(rv, depth)
	case reflect.Array:
		return b.list(rv, depth)
	case reflect.Map:
		return b.anyMap(rv, depth)
	case reflect.Struct:
		return b.structure(rv, depth)
	case reflect.Func:
		return nil, typeErrorf("Cannot serialize value: %s; wrap it in capnweb.Func to pass it by reference", rv.Type())
	}
	return nil, typeErrorf("Cannot serialize value: %s", rv.Type())
}

func (b *builder) list(rv reflect.Value, depth int) (any, error) {
	out := make([]any, rv.Len())
	for i := range out {
		e, err := b.value(rv.Index(i).Interface(), depth+1)
		if err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}

func (b *builder) anyMap(rv reflect.Value, depth int) (any, error) {
	out := make(Object, 0, rv.Len())
	for it := rv.MapRange(); it.Next(); {
		name, err := mapKey(it.Key())
		if err != nil {
			return nil, err
		}
		e, err := b.value(it.Value().Interface(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, Member{name, e})
	}
	slices.SortFunc(out, func(x, y Member) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}

func mapKey(k reflect.Value) (string, error) {
	if t, ok := k.Interface().(encoding.TextMarshaler); ok {
		text, err := t.MarshalText()
		return string(text), err
	}
	switch k.Kind() {
	case reflect.String:
		return k.String(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(k.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(k.Uint(), 10), nil
	}
	return "", typeErrorf("Cannot serialize value: map with keys of type %s", k.Type())
}

func (b *builder) structure(rv reflect.Value, depth int) (any, error) {
	plan := planOf(rv.Type())
	if plan.err != nil {
		return nil, plan.err
	}
	out := make(Object, 0, len(plan.fields))
	for i := range plan.fields {
		f := &plan.fields[i]
		fv, ok := f.read(rv)
		if !ok || f.omits(fv) {
			continue
		}
		e, err := b.value(fv.Interface(), depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, Member{f.name, e})
	}
	return out, nil
}

// json passes on what a type's own MarshalJSON says.
func (b *builder) json(m jsonMarshaler, depth int) (any, error) {
	text, err := m.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var d document
	if err := d.parse(text, maxSendDepth-depth); err != nil {
		return nil, err
	}
	return d.literalValue(0), nil
}

// literalValue is the tree of a node that is ordinary JSON, not an expression.
func (d *document) literalValue(n int32) any {
	nd := &d.nodes[n]
	switch nd.kind {
	case kindNull:
		return nil
	case kindTrue, kindFalse:
		return nd.kind == kindTrue
	case kindNumber:
		return d.float(n)
	case kindString, kindStringEscaped:
		return d.text(n)
	case kindArray:
		out := make([]any, 0, nd.count)
		for c := nd.first; c >= 0; c = d.nodes[c].next {
			out = append(out, d.literalValue(c))
		}
		return out
	}
	out := make(Object, 0, nd.count/2)
	for c := nd.first; c >= 0; {
		v := d.nodes[c].next
		out = append(out, Member{d.text(c), d.literalValue(v)})
		c = d.nodes[v].next
	}
	return out
}

// err makes the tree of an error. Properties that cannot travel are dropped: the
// error itself always goes.
func (b *builder) err(err error, depth int) *Error {
	e := toWire(err)
	out := &Error{Name: e.Name, Message: e.Message, Stack: e.Stack}
	sub := builder{p: &payload{}, move: b.move}
	keep := func(v any) (any, bool) {
		if v == nil {
			return nil, false
		}
		if c, ok := v.(error); ok {
			if depth+1 >= maxSendDepth {
				return nil, false
			}
			return sub.err(c, depth+1), true
		}
		x, err := sub.value(v, depth+1)
		if err != nil || sub.p.hasRefs() {
			sub.p.close()
			return nil, false
		}
		return x, true
	}
	for _, m := range e.Props {
		if m.Value == nil {
			out.Props = append(out.Props, m)
		} else if x, ok := keep(m.Value); ok {
			out.Props = append(out.Props, Member{m.Key, x})
		}
	}
	out.Cause, _ = keep(e.Cause)
	for _, x := range e.Errors {
		if y, ok := keep(x); ok {
			out.Errors = append(out.Errors, y)
		}
	}
	if e.hasThrown {
		out.hasThrown = true
		out.thrown, _ = keep(e.thrown)
	}
	return out
}

// finite reports the special form of a float64 that JSON cannot hold.
func finite(f float64) (special string, ok bool) {
	switch {
	case math.IsNaN(f):
		return `["nan"]`, false
	case math.IsInf(f, 1):
		return `["inf"]`, false
	case math.IsInf(f, -1):
		return `["-inf"]`, false
	}
	return "", true
}
