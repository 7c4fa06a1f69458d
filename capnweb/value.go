package capnweb

import (
	"math"
	"strconv"
)

// UndefinedType is the type of [Undefined].
type UndefinedType struct{}

// Undefined is JavaScript's undefined. A method without a result returns it, and
// a missing member reads as it. Decoded into an any it becomes nil; keep it apart
// from null by decoding into a [Value].
var Undefined UndefinedType

func (UndefinedType) String() string { return "undefined" }

// InvalidDateType is the type of [InvalidDate].
type InvalidDateType struct{}

// InvalidDate is JavaScript's Invalid Date (a Date whose time value is NaN).
var InvalidDate InvalidDateType

func (InvalidDateType) String() string { return "Invalid Date" }

// Member is one entry of an [Object].
type Member struct {
	Key   string
	Value any
}

// Object is a JavaScript object whose members keep their order. Pass it where
// the order matters; decode into it (or into [Value]) to see the order in which
// the peer sent.
type Object []Member

// Get returns the value of the member named key.
func (o Object) Get(key string) (any, bool) {
	for i := range o {
		if o[i].Key == key {
			return o[i].Value, true
		}
	}
	return nil, false
}

// Value holds a decoded value as the wire gave it: null is nil, numbers are
// float64, arrays are []any, objects are [Object], and undefined is [Undefined].
type Value struct{ V any }

// URL is a URL in its text form. net/url is left to the caller, so that the
// core stays small.
type URL string

// TypedArray is a JavaScript buffer other than Uint8Array, which is a []byte.
// Data is little endian.
type TypedArray struct {
	// Type is the JavaScript constructor: ArrayBuffer, DataView, Int8Array,
	// Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array,
	// BigInt64Array, BigUint64Array, Float32Array or Float64Array.
	Type string
	Data []byte
}

// elementSize gives the bytes per element of each buffer type the wire knows.
func elementSize(kind string) (int, bool) {
	switch kind {
	case "ArrayBuffer", "DataView", "Int8Array", "Uint8Array", "Uint8ClampedArray":
		return 1, true
	case "Int16Array", "Uint16Array":
		return 2, true
	case "Int32Array", "Uint32Array", "Float32Array":
		return 4, true
	case "BigInt64Array", "BigUint64Array", "Float64Array":
		return 8, true
	}
	return 0, false
}

// key is one element of a property path: a name or an array index.
type key struct {
	name  string
	index int
	isNum bool
}

func (k key) String() string {
	if k.isNum {
		return strconv.Itoa(k.index)
	}
	return k.name
}

// arrayIndex reports the index that k stands for. Clients in JavaScript send
// "0" for stub[0], so canonical decimal strings count too.
func (k key) arrayIndex() (int, bool) {
	if k.isNum {
		return k.index, k.index >= 0
	}
	if k.name == "0" {
		return 0, true
	}
	if len(k.name) == 0 || len(k.name) > 9 || k.name[0] == '0' {
		return 0, false
	}
	n := 0
	for i := range len(k.name) {
		c := k.name[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func pathString(path []key) string {
	s := ""
	for i, k := range path {
		if i > 0 {
			s += "."
		}
		s += k.String()
	}
	return s
}

// onPrototype reports whether name is a member of every JavaScript object.
// Such names are never followed and never delivered.
func onPrototype(name string) bool {
	switch name {
	case "constructor", "__proto__", "toString", "valueOf", "hasOwnProperty",
		"isPrototypeOf", "propertyIsEnumerable", "toLocaleString",
		"__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__":
		return true
	}
	return false
}

// maxSafeInteger is the largest integer that a JavaScript number holds exactly.
const maxSafeInteger = 1<<53 - 1

// appendNumber writes f the way JavaScript's JSON.stringify does.
func appendNumber(b []byte, f float64) []byte {
	if f == 0 {
		return append(b, '0')
	}
	if i := int64(f); float64(i) == f && i > -maxSafeInteger && i < maxSafeInteger {
		return strconv.AppendInt(b, i, 10)
	}
	abs := math.Abs(f)
	if abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	// Go writes e-07 where JavaScript writes e-7.
	if n := len(b); n-start >= 4 && b[n-4] == 'e' && b[n-2] == '0' {
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}
