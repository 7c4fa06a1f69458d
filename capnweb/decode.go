package capnweb

import (
	"encoding/base64"
	"math/big"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// scope is what references in an expression refer to.
type scope interface {
	// lookup finds what the receiver exported; the hook is borrowed.
	lookup(id int64) (hook, error)
	// introduce makes an import of what the sender exports.
	introduce(id int64, promise bool) (hook, error)
	// readable is the reading end of a pipe that the sender opened.
	readable(id int64) (*ReadableStream, error)
	// writable is a writable stream of the sender.
	writable(id int64) (*WritableStream, error)
}

// evaluator turns an expression into a payload. Calls in the expression are made
// as they are met. An error means that the sender broke the protocol.
type evaluator struct {
	d      *document
	scope  scope
	limits *Limits
	p      *payload
	// origin is given to the payload and to the arguments of calls.
	origin *Session
	// mapCalls is set inside a recorded function: what is left of its calls.
	mapCalls *atomic.Int64
}

// evaluate evaluates node n.
func evaluate(d *document, n int32, sc scope, limits *Limits, origin *Session, depth int) (*payload, error) {
	ev := evaluator{d: d, scope: sc, limits: limits, p: &payload{origin: origin}, origin: origin}
	v, err := ev.value(n, depth)
	if err != nil {
		ev.p.close()
		return nil, err
	}
	ev.p.v = v
	return ev.p, nil
}

func (ev *evaluator) value(n int32, depth int) (any, error) {
	d := ev.d
	nd := &d.nodes[n]
	if depth >= ev.limits.MaxDepth {
		return nil, limitf("Deserialization exceeded maximum allowed message depth of %d.", ev.limits.MaxDepth)
	}
	switch nd.kind {
	case kindNull:
		return nil, nil
	case kindTrue:
		return true, nil
	case kindFalse:
		return false, nil
	case kindNumber:
		return d.float(n), nil
	case kindString, kindStringEscaped:
		return d.text(n), nil
	case kindObject:
		return ev.object(n, depth)
	}
	if nd.count == 1 && d.nodes[nd.first].kind == kindArray {
		return ev.array(nd.first, depth)
	}
	if nd.count == 0 || !d.isString(nd.first) {
		return nil, ev.unknown(n)
	}
	return ev.special(n, depth)
}

func (ev *evaluator) unknown(n int32) error {
	return typeErrorf("unknown special value: %s", clip(ev.d.raw(n)))
}

// clip bounds what of a peer's text is put in an error.
func clip(b []byte) string {
	const most = 1024
	if len(b) > most {
		return strings.ToValidUTF8(string(b[:most]), "") + "…"
	}
	return string(b)
}

func (ev *evaluator) array(n int32, depth int) (any, error) {
	nd := &ev.d.nodes[n]
	out := make([]any, 0, nd.count)
	for c := nd.first; c >= 0; c = ev.d.nodes[c].next {
		v, err := ev.value(c, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// object evaluates an object. Members that would shadow what every JavaScript
// object has are evaluated, for their references, and dropped.
func (ev *evaluator) object(n int32, depth int) (Object, error) {
	d := ev.d
	nd := &d.nodes[n]
	out := make(Object, 0, nd.count/2)
	var index map[string]int
	for c := nd.first; c >= 0; {
		vn := d.nodes[c].next
		name := d.text(c)
		c = d.nodes[vn].next
		if onPrototype(name) || name == "toJSON" {
			if err := ev.drop(vn, depth+1); err != nil {
				return nil, err
			}
			continue
		}
		v, err := ev.value(vn, depth+1)
		if err != nil {
			return nil, err
		}
		at := -1
		if len(out) < 16 {
			for i := range out {
				if out[i].Key == name {
					at = i
				}
			}
		} else {
			if index == nil {
				index = make(map[string]int, nd.count/2)
				for i := range out {
					index[out[i].Key] = i
				}
			}
			if i, ok := index[name]; ok {
				at = i
			} else {
				index[name] = len(out)
			}
		}
		if at >= 0 { // a name given twice: the last one counts
			out[at].Value = v
			continue
		}
		out = append(out, Member{name, v})
	}
	return out, nil
}

// drop evaluates an expression and gives its references back.
func (ev *evaluator) drop(n int32, depth int) error {
	p, err := evaluate(ev.d, n, ev.scope, ev.limits, ev.origin, depth)
	if err != nil {
		return err
	}
	p.close()
	return nil
}

func (ev *evaluator) special(n int32, depth int) (any, error) {
	d := ev.d
	nd := &d.nodes[n]
	tag := nd.first
	arg := d.nodes[tag].next // -1 when there is none
	switch string(d.src[d.nodes[tag].start:d.nodes[tag].end]) {
	case "undefined":
		if nd.count == 1 {
			return Undefined, nil
		}
	case "inf":
		return inf(1), nil
	case "-inf":
		return inf(-1), nil
	case "nan":
		return nan(), nil
	case "bigint":
		if arg >= 0 && d.isString(arg) {
			return ev.bigint(d.text(arg))
		}
	case "date":
		if arg >= 0 && d.nodes[arg].kind == kindNumber {
			return dateOf(d.float(arg)), nil
		}
		if arg >= 0 && d.nodes[arg].kind == kindNull {
			return InvalidDate, nil
		}
	case "bytes":
		if arg >= 0 && d.isString(arg) {
			return ev.bytes(arg)
		}
	case "error":
		if nd.count >= 3 && d.isString(arg) && d.isString(d.nodes[arg].next) {
			return ev.error(arg, depth)
		}
	case "import", "pipeline":
		return ev.reference(n, depth)
	case "export", "promise":
		if id, ok := ev.id(arg); ok {
			promise := d.is(tag, "promise")
			h, err := ev.scope.introduce(id, promise)
			if err != nil {
				return nil, err
			}
			if promise {
				return ev.p.addPromise(h, nil), nil
			}
			return ev.p.addStub(h), nil
		}
	default:
		return ev.media(n, depth)
	}
	return nil, ev.unknown(n)
}

func (ev *evaluator) id(n int32) (int64, bool) {
	if n < 0 {
		return 0, false
	}
	return ev.d.integer(n)
}

func (ev *evaluator) bigint(s string) (any, error) {
	if len(s) > ev.limits.MaxBigIntDigits {
		return nil, limitf("Deserialized bigint exceeds maximum length of %d digits.", ev.limits.MaxBigIntDigits)
	}
	t := strings.TrimSpace(s)
	if t == "" {
		return new(big.Int), nil
	}
	base := 10
	if len(t) > 2 && t[0] == '0' {
		switch t[1] {
		case 'x', 'X':
			base, t = 16, t[2:]
		case 'o', 'O':
			base, t = 8, t[2:]
		case 'b', 'B':
			base, t = 2, t[2:]
		}
	}
	if strings.ContainsRune(t, '_') || base != 10 && (t[0] == '-' || t[0] == '+') {
		return nil, &Error{Name: "SyntaxError", Message: "Cannot convert " + clip([]byte(s)) + " to a BigInt"}
	}
	x, ok := new(big.Int).SetString(t, base)
	if !ok {
		return nil, &Error{Name: "SyntaxError", Message: "Cannot convert " + clip([]byte(s)) + " to a BigInt"}
	}
	return x, nil
}

// dateOf is the time that a number of milliseconds since 1970 stands for.
func dateOf(ms float64) any {
	if !(ms >= -8.64e15 && ms <= 8.64e15) {
		return InvalidDate
	}
	whole := int64(ms)
	return time.UnixMilli(whole).Add(time.Duration((ms - float64(whole)) * 1e6)).UTC()
}

// bytes decodes base64, as liberally as the reference on node does: with or
// without padding, in the standard or the URL alphabet, skipping what is neither.
func (ev *evaluator) bytes(arg int32) (any, error) {
	d := ev.d
	data := decodeBase64(d, arg)
	mark := d.nodes[arg].next
	if mark < 0 {
		return data, nil
	}
	if !d.isString(mark) {
		return nil, typeErrorf("Unknown bytes type marker type: %s", jsonKind(d.nodes[mark].kind))
	}
	kind := d.text(mark)
	size, ok := elementSize(kind)
	if !ok {
		return nil, typeErrorf("Unknown bytes type marker: %s", clip([]byte(kind)))
	}
	if len(data)%size != 0 {
		return nil, typeErrorf("Invalid byte length %d for %s; expected a multiple of %d", len(data), kind, size)
	}
	if kind == "Uint8Array" {
		return data, nil
	}
	return TypedArray{kind, data}, nil
}

func jsonKind(k nodeKind) string {
	switch k {
	case kindNumber:
		return "number"
	case kindTrue, kindFalse:
		return "boolean"
	case kindString, kindStringEscaped:
		return "string"
	}
	return "object"
}

func decodeBase64(d *document, n int32) []byte {
	nd := &d.nodes[n]
	if b := d.takeDecoded(n); b != nil {
		return b
	}
	text := d.src[nd.start:nd.end]
	if nd.kind == kindStringEscaped {
		text = []byte(d.text(n))
	}
	for len(text) > 0 && text[len(text)-1] == '=' {
		text = text[:len(text)-1]
	}
	out := bufpool.GetChunk(base64.RawStdEncoding.DecodedLen(len(text)))
	if decodeStrict(out, text) && (nd.kind == kindString || !hasNewline(text)) {
		return out
	}
	clean := make([]byte, 0, len(text))
	for _, c := range text {
		switch {
		case c == '-':
			clean = append(clean, '+')
		case c == '_':
			clean = append(clean, '/')
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '+', c == '/':
			clean = append(clean, c)
		case c == '=':
			goto done
		}
	}
done:
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	k, _ := base64.RawStdEncoding.Decode(out, clean)
	return out[:k]
}

func hasNewline(b []byte) bool {
	for _, c := range b {
		if c == '\n' || c == '\r' {
			return true
		}
	}
	return false
}

// error evaluates ["error", name, message, stack?, props?].
func (ev *evaluator) error(name int32, depth int) (any, error) {
	d := ev.d
	msg := d.nodes[name].next
	e := &Error{Name: d.text(name), Message: d.text(msg)}
	stack := d.nodes[msg].next
	if stack < 0 {
		return e, nil
	}
	if d.isString(stack) {
		e.Stack = d.text(stack)
	}
	props := d.nodes[stack].next
	if props < 0 {
		return e, nil
	}
	if d.nodes[props].kind != kindObject {
		return nil, ev.unknown(props)
	}
	list, err := ev.object(props, depth+1)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		switch m.Key {
		case "name", "message", "stack":
		case "cause":
			e.Cause = m.Value
		case "errors":
			if x, ok := m.Value.([]any); ok {
				e.Errors = x
			}
		default:
			e.Props = append(e.Props, m)
		}
	}
	return e, nil
}

// reference evaluates ["import"|"pipeline", id, path?, args?]: a reference to
// something of ours, a property of it, or a call.
func (ev *evaluator) reference(n int32, depth int) (any, error) {
	d := ev.d
	nd := &d.nodes[n]
	tag := nd.first
	idn := d.nodes[tag].next
	id, ok := ev.id(idn)
	if !ok || nd.count > 4 {
		return nil, ev.unknown(n)
	}
	promise := d.is(tag, "pipeline")
	pathNode := d.nodes[idn].next
	var path []key
	argsNode := int32(-1)
	if pathNode >= 0 {
		if path, ok = ev.path(pathNode); !ok {
			return nil, ev.unknown(n)
		}
		if argsNode = d.nodes[pathNode].next; argsNode >= 0 && d.nodes[argsNode].kind != kindArray {
			return nil, ev.unknown(n)
		}
	}
	h, err := ev.scope.lookup(id)
	if err != nil {
		return nil, err
	}
	var r hook
	switch {
	case argsNode >= 0:
		sub := evaluator{d: d, scope: ev.scope, limits: ev.limits, p: &payload{origin: ev.origin}, origin: ev.origin, mapCalls: ev.mapCalls}
		list, err := sub.array(argsNode, depth)
		if err != nil {
			sub.p.close()
			return nil, err
		}
		sub.p.v = list
		r = h.call(path, sub.p)
	case len(path) > 0:
		if t, ok := final(h).(*Target); ok {
			r = t.getFrom(ev.origin, path)
		} else {
			r = h.get(path)
		}
	default:
		r = h.dup()
	}
	if promise {
		return ev.p.addPromise(r, nil), nil
	}
	return ev.p.addStub(r), nil
}

func (ev *evaluator) path(n int32) ([]key, bool) {
	d := ev.d
	nd := &d.nodes[n]
	if nd.kind != kindArray {
		return nil, false
	}
	if nd.count == 0 {
		return nil, true
	}
	path := make([]key, 0, nd.count)
	for c := nd.first; c >= 0; c = d.nodes[c].next {
		switch {
		case d.isString(c):
			path = append(path, key{name: d.text(c)})
		case d.nodes[c].kind == kindNumber:
			i, ok := d.integer(c)
			if !ok || int64(int32(i)) != i {
				i = -1 // no element has this index
			}
			path = append(path, key{index: int(i), isNum: true})
		default:
			return nil, false
		}
	}
	return path, true
}
