package capnweb

import (
	"math"
	"math/big"
	"strconv"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// maxSendDepth is how deep a value may be nested when it is sent.
const maxSendDepth = 256

// encoder appends expressions to a session's outbox, under the session's lock.
type encoder struct {
	s *Session
	b []byte
	// start is where the message begins in b.
	start int
	// made are the exports introduced by this message, in case it fails.
	made []int64
	// promises are those of them whose resolution the peer is owed.
	promises []int64
	// pipes carry the readable streams of this message.
	pipes map[*ReadableStream]*importEntry
	// lost are hooks that could not be exported.
	lost []hook
	// m is set inside a recorded function, where there is no session.
	m *Mapper
}

func (e *encoder) newer() bool { return e.s != nil && e.s.opts.newer }

// fits says that the message may be sent, now that it is written. A long one is mostly noticed
// earlier, by value; not if its last text is what makes it long.
func (e *encoder) fits() error {
	if len(e.b)-e.start > e.s.limits.MaxQueuedBytes {
		return limitf("A message to be sent is larger than %d bytes.", e.s.limits.MaxQueuedBytes)
	}
	return nil
}

func (e *encoder) lit(s string) { e.b = append(e.b, s...) }

func (e *encoder) value(v any, depth int) error {
	if depth >= maxSendDepth {
		return plainErrorf(errDepth)
	}
	if e.s != nil && len(e.b)-e.start > e.s.limits.MaxQueuedBytes {
		return limitf("A message to be sent is larger than %d bytes.", e.s.limits.MaxQueuedBytes)
	}
	switch x := v.(type) {
	case nil:
		e.lit("null")
	case UndefinedType:
		e.lit(`["undefined"]`)
	case bool:
		e.b = strconv.AppendBool(e.b, x)
	case float64:
		if s, ok := finite(x); !ok {
			e.lit(s)
		} else {
			e.b = appendNumber(e.b, x)
		}
	case int64:
		e.b = strconv.AppendInt(e.b, x, 10)
	case string:
		e.b = appendString(e.b, x)
	case []any:
		e.lit("[")
		if err := e.list(x, depth); err != nil {
			return err
		}
		e.lit("]")
	case Object:
		return e.object(x, depth)
	case []byte:
		e.bytes(x, "")
	case TypedArray:
		e.bytes(x.Data, x.Type)
	case *big.Int:
		e.lit(`["bigint","`)
		e.b = x.Append(e.b, 10)
		e.lit(`"]`)
	case time.Time:
		e.lit(`["date",`)
		ms := float64(x.UnixMilli())
		if ns := x.Nanosecond() % 1e6; ns != 0 {
			ms += float64(ns) / 1e6
		}
		e.b = appendNumber(e.b, ms)
		e.lit("]")
	case InvalidDateType:
		e.lit(`["date",null]`)
	case URL:
		if e.newer() {
			e.lit(`["url",`)
			e.b = appendString(e.b, string(x))
			e.lit("]")
		} else {
			e.b = appendString(e.b, string(x))
		}
	case *Error:
		return e.error(x, depth)
	case *Stub:
		return e.reference(&x.ref, false)
	case *Promise:
		return e.reference(&x.ref, true)
	default:
		return e.media(v, depth)
	}
	return nil
}

// list writes the literal form of a list, without the outer bracket.
func (e *encoder) list(x []any, depth int) error {
	e.lit("[")
	for i := range x {
		if i > 0 {
			e.lit(",")
		}
		if err := e.value(x[i], depth+1); err != nil {
			return err
		}
	}
	e.lit("]")
	return nil
}

func (e *encoder) object(x Object, depth int) error {
	e.lit("{")
	for i := range x {
		if i > 0 {
			e.lit(",")
		}
		e.b = append(appendString(e.b, x[i].Key), ':')
		if err := e.value(x[i].Value, depth+1); err != nil {
			return err
		}
	}
	e.lit("}")
	return nil
}

// roomFor makes room for n bytes if they are so many that most of a new buffer
// would be cleared for nothing.
func (e *encoder) roomFor(n int) {
	if n > keepBuffer && n >= len(e.b) && n > cap(e.b)-len(e.b) {
		e.b = append(bufpool.Get(len(e.b)+n), e.b...)
	}
}

func (e *encoder) bytes(data []byte, kind string) {
	e.lit(`["bytes","`)
	e.roomFor(len(data) + len(data)/3 + 8)
	e.b = appendBase64(e.b, data)
	if kind == "" || kind == "Uint8Array" || !e.newer() {
		e.lit(`"]`)
		return
	}
	e.lit(`","`)
	e.lit(kind)
	e.lit(`"]`)
}

// error writes an error. It cannot fail but for its depth: properties that
// cannot travel were dropped when the error was built.
func (e *encoder) error(x *Error, depth int) error {
	if x.hasThrown {
		return e.value(x.thrown, depth)
	}
	var f func(*Error) *Error
	if e.s != nil {
		f = e.s.opts.errorHook
	}
	var chosen *Error
	if f != nil {
		chosen = f(x)
	}
	if chosen == nil {
		y := *x
		y.Stack = ""
		chosen = &y
	}
	x = chosen
	e.lit(`["error",`)
	name := x.Name
	if name == "" {
		name = "Error"
	}
	e.b = append(appendString(e.b, name), ',')
	e.b = appendString(e.b, x.Message)
	props := len(x.Props) > 0 || x.Cause != nil || len(x.Errors) > 0
	if x.Stack != "" {
		e.b = append(e.b, ',')
		e.b = appendString(e.b, x.Stack)
	} else if props {
		e.lit(",null")
	}
	if props {
		e.lit(",{")
		n := 0
		member := func(key string, v any) error {
			start, made := len(e.b), len(e.made)
			if n > 0 {
				e.lit(",")
			}
			e.b = append(appendString(e.b, key), ':')
			if err := e.value(v, depth+2); err != nil {
				if len(e.made) != made {
					return err
				}
				e.b = e.b[:start]
				return nil
			}
			n++
			return nil
		}
		for _, m := range x.Props {
			if err := member(m.Key, m.Value); err != nil {
				return err
			}
		}
		if x.Cause != nil {
			if err := member("cause", x.Cause); err != nil {
				return err
			}
		}
		if len(x.Errors) > 0 {
			if err := member("errors", x.Errors); err != nil {
				return err
			}
		}
		e.lit("}")
	}
	e.lit("]")
	return nil
}

// reference writes a stub or promise: as the peer's own object if it is, else as
// a new export, which takes the reference over.
func (e *encoder) reference(r *ref, promise bool) error {
	if e.m != nil {
		return e.m.reference(e, r, promise)
	}
	cur, err := r.current()
	if err != nil {
		return err
	}
	h := final(cur)
	if imp, ok := h.(*importEntry); ok && imp.s == e.s {
		if imp.refs <= 0 {
			return errStubClosed
		}
		if promise {
			e.lit(`["pipeline",`)
		} else {
			e.lit(`["import",`)
		}
		e.b = strconv.AppendInt(e.b, imp.id, 10)
		if len(r.path) > 0 {
			e.b = append(e.b, ',')
			e.path(r.path)
		}
		e.lit("]")
		return nil
	}
	if len(r.path) > 0 {
		return errNotReady
	}
	mine := r.take()
	if mine == nil {
		return errStubClosed
	}
	id, err := e.s.export(mine)
	if err != nil {
		e.lost = append(e.lost, mine)
		return err
	}
	e.made = append(e.made, id)
	if promise {
		e.promises = append(e.promises, id)
		e.lit(`["promise",`)
	} else {
		e.lit(`["export",`)
	}
	e.b = strconv.AppendInt(e.b, id, 10)
	e.lit("]")
	return nil
}

// path writes a property path.
func (e *encoder) path(path []key) {
	e.lit("[")
	for i, k := range path {
		if i > 0 {
			e.lit(",")
		}
		if k.isNum {
			e.b = strconv.AppendInt(e.b, int64(k.index), 10)
		} else {
			e.b = appendString(e.b, k.name)
		}
	}
	e.lit("]")
}

func inf(sign int) float64 { return math.Inf(sign) }
func nan() float64         { return math.NaN() }
