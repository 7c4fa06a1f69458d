package capnweb

import (
	"reflect"
	"strings"
	"sync"
)

// field is one member of the object that a struct is on the wire.
type field struct {
	name      string
	index     []int
	omitEmpty bool
	omitZero  bool
}

// structPlan is how a struct type travels: worked out once per type.
type structPlan struct {
	fields []field
	byName map[string]int
	err    error
}

var plans sync.Map // reflect.Type → *structPlan

func planOf(t reflect.Type) *structPlan {
	if p, ok := plans.Load(t); ok {
		return p.(*structPlan)
	}
	p := &structPlan{byName: map[string]int{}}
	p.collect(t, nil, 0)
	if len(p.fields) == 0 && t.NumField() > 0 && p.err == nil {
		p.err = typeErrorf("Cannot serialize value: %s has no exported fields", t)
	}
	stored, _ := plans.LoadOrStore(t, p)
	return stored.(*structPlan)
}

// collect adds the fields of t. Names follow the rpc tag, else the json tag, else
// the field's own name; outer fields win over embedded ones.
func (p *structPlan) collect(t reflect.Type, index []int, depth int) {
	if depth > 16 {
		p.err = typeErrorf("Cannot serialize value: %s embeds itself", t)
		return
	}
	var embedded []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("rpc")
		if !tagged {
			tag, tagged = f.Tag.Lookup("json")
		}
		name, opts, _ := strings.Cut(tag, ",")
		if name == "-" && opts == "" && tagged {
			continue
		}
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if f.Anonymous && name == "" && ft.Kind() == reflect.Struct && !isLeaf(f.Type) {
			if f.IsExported() || f.Type.Kind() == reflect.Struct {
				embedded = append(embedded, f)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if _, taken := p.byName[name]; taken {
			continue
		}
		x := field{name: name, index: append(append([]int(nil), index...), i)}
		for opts != "" {
			var o string
			o, opts, _ = strings.Cut(opts, ",")
			x.omitEmpty = x.omitEmpty || o == "omitempty"
			x.omitZero = x.omitZero || o == "omitzero"
		}
		p.byName[name] = len(p.fields)
		p.fields = append(p.fields, x)
	}
	for _, f := range embedded {
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		p.collect(ft, append(append([]int(nil), index...), f.Index...), depth+1)
	}
}

// isLeaf reports types that are one value on the wire though they are structs.
func isLeaf(t reflect.Type) bool {
	if t.Implements(exporterType) || t.Implements(jsonMarshalerType) || t.Implements(textMarshalerType) {
		return true
	}
	switch t {
	case stubType, promiseType, targetType, timeType, bigIntType, bigIntType.Elem(), valueType:
		return true
	}
	return false
}

// read gets the field of a struct value; not ok when an embedded pointer is nil.
func (f *field) read(v reflect.Value) (reflect.Value, bool) {
	for i, x := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return reflect.Value{}, false
			}
			v = v.Elem()
		}
		v = v.Field(x)
	}
	return v, true
}

// place is the field to store into; it makes embedded pointers.
func (f *field) place(v reflect.Value) (reflect.Value, bool) {
	for i, x := range f.index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !v.CanSet() {
					return reflect.Value{}, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(x)
	}
	return v, v.CanSet()
}

func (f *field) omits(v reflect.Value) bool {
	if f.omitZero {
		if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
			if v.Kind() == reflect.Pointer && v.IsNil() || z.IsZero() {
				return true
			}
		} else if v.IsZero() {
			return true
		}
	}
	if f.omitEmpty {
		switch v.Kind() {
		case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
			return v.Len() == 0
		case reflect.Struct:
			return false
		default:
			return v.IsZero()
		}
	}
	return false
}
