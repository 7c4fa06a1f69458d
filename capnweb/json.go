package capnweb

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// nodeKind is the JSON kind of a node.
type nodeKind uint8

const (
	kindNull nodeKind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindStringEscaped // contains escapes or bytes that are not UTF-8
	kindArray
	kindObject
)

// node is one JSON value of a document. Its children are linked by index, so
// that a document is two slices, however deep it is.
type node struct {
	start, end int32 // text; of a string, without its quotes
	first      int32 // first child, or -1
	next       int32 // next sibling, or -1
	// count is the number of children; an object's members count two each (key,
	// value). Of a string, it is 1 + the place in decoded of the bytes that it is the
	// base64 of, or encodedOnly, or 0.
	count int32
	kind  nodeKind
}

// document is one parsed message. It can be used again for the next.
type document struct {
	src   []byte
	nodes []node
	// decoded are the long ["bytes", …] of the message, until they are taken.
	decoded [][]byte
	// own says that src may be overwritten, and given away. It is false once it was.
	own bool
}

// syntaxError has the text of V8's SyntaxError, which is what peers expect to read.
func (d *document) syntaxError(pos int) error {
	if pos >= len(d.src) {
		return &Error{Name: "SyntaxError", Message: "Unexpected end of JSON input"}
	}
	r, _ := utf8.DecodeRune(d.src[pos:])
	text := string(d.src)
	if len(text) > 40 {
		lo, hi := max(0, pos-10), min(len(text), pos+10)
		text = "..." + text[lo:hi] + "..."
		if lo == 0 {
			text = text[3:]
		}
	}
	return &Error{Name: "SyntaxError", Message: fmt.Sprintf("Unexpected token '%c', \"%s\" is not valid JSON", r, text)}
}

// parse reads src, which must be one JSON text, nested at most maxDepth levels.
// The document keeps src; the caller may overwrite it when done with the document.
func (d *document) parse(src []byte, maxDepth int) error {
	if len(src) > math.MaxInt32 {
		return limitf("Message is larger than 2 GiB.")
	}
	d.src = src
	if cap(d.nodes) > 1<<16 {
		d.nodes = nil
	}
	d.nodes = d.nodes[:0]
	d.dropDecoded()
	_, pos, err := d.value(d.space(0), maxDepth)
	if err != nil {
		return err
	}
	if pos = d.space(pos); pos != len(src) {
		return d.syntaxError(pos)
	}
	return nil
}

func (d *document) space(pos int) int {
	for pos < len(d.src) {
		switch d.src[pos] {
		case ' ', '\t', '\n', '\r':
			pos++
		default:
			return pos
		}
	}
	return pos
}

func (d *document) add(n node) int32 {
	d.nodes = append(d.nodes, n)
	return int32(len(d.nodes) - 1)
}

func (d *document) value(pos, depth int) (int32, int, error) {
	if pos >= len(d.src) {
		return 0, 0, d.syntaxError(pos)
	}
	switch c := d.src[pos]; {
	case c == '"':
		return d.str(pos)
	case c == '[':
		return d.array(pos, depth)
	case c == '{':
		return d.object(pos, depth)
	case c == 'n':
		return d.literal(pos, "null", kindNull)
	case c == 't':
		return d.literal(pos, "true", kindTrue)
	case c == 'f':
		return d.literal(pos, "false", kindFalse)
	case c == '-' || c >= '0' && c <= '9':
		return d.number(pos)
	}
	return 0, 0, d.syntaxError(pos)
}

func (d *document) literal(pos int, text string, kind nodeKind) (int32, int, error) {
	for i := range len(text) {
		if pos+i >= len(d.src) || d.src[pos+i] != text[i] {
			return 0, 0, d.syntaxError(pos + i)
		}
	}
	end := pos + len(text)
	return d.add(node{start: int32(pos), end: int32(end), first: -1, next: -1, kind: kind}), end, nil
}

func (d *document) digits(pos int) (int, error) {
	start := pos
	for pos < len(d.src) && d.src[pos] >= '0' && d.src[pos] <= '9' {
		pos++
	}
	if pos == start {
		return 0, d.syntaxError(pos)
	}
	return pos, nil
}

func (d *document) number(pos int) (int32, int, error) {
	start := pos
	if d.src[pos] == '-' {
		pos++
	}
	var err error
	if pos < len(d.src) && d.src[pos] == '0' {
		pos++
	} else if pos, err = d.digits(pos); err != nil {
		return 0, 0, err
	}
	if pos < len(d.src) && d.src[pos] == '.' {
		if pos, err = d.digits(pos + 1); err != nil {
			return 0, 0, err
		}
	}
	if pos < len(d.src) && (d.src[pos] == 'e' || d.src[pos] == 'E') {
		pos++
		if pos < len(d.src) && (d.src[pos] == '+' || d.src[pos] == '-') {
			pos++
		}
		if pos, err = d.digits(pos); err != nil {
			return 0, 0, err
		}
	}
	return d.add(node{start: int32(start), end: int32(pos), first: -1, next: -1, kind: kindNumber}), pos, nil
}

func (d *document) str(pos int) (int32, int, error) {
	pos++
	start := pos
	kind := kindString
	for pos < len(d.src) {
		// Eight ordinary bytes at a time.
		for pos+8 <= len(d.src) && ordinary(binary.LittleEndian.Uint64(d.src[pos:])) {
			pos += 8
		}
		if pos >= len(d.src) {
			break
		}
		switch c := d.src[pos]; {
		case c == '"':
			n := d.add(node{start: int32(start), end: int32(pos), first: -1, next: -1, kind: kind})
			return n, pos + 1, nil
		case c == '\\':
			kind = kindStringEscaped
			end, err := d.escape(pos)
			if err != nil {
				return 0, 0, err
			}
			pos = end
		case c < 0x20:
			return 0, 0, d.syntaxError(pos)
		case c < utf8.RuneSelf:
			pos++
		default:
			r, size := utf8.DecodeRune(d.src[pos:])
			if r == utf8.RuneError && size == 1 {
				kind = kindStringEscaped
			}
			pos += size
		}
	}
	return 0, 0, d.syntaxError(pos)
}

// ordinary reports whether each of eight bytes is ASCII and neither a quote, a
// backslash nor a control character.
func ordinary(w uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return (w|(w-ones*0x20)|(quote-ones)|(slash-ones))&tops == 0
}

// escape checks the escape sequence at pos and returns where it ends.
func (d *document) escape(pos int) (int, error) {
	if pos+1 >= len(d.src) {
		return 0, d.syntaxError(pos + 1)
	}
	switch d.src[pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return pos + 2, nil
	case 'u':
		for i := pos + 2; i < pos+6; i++ {
			if i >= len(d.src) {
				return 0, d.syntaxError(i)
			}
			if hexDigit(d.src[i]) < 0 {
				return 0, d.syntaxError(i)
			}
		}
		return pos + 6, nil
	}
	return 0, d.syntaxError(pos + 1)
}

func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// link appends child to the children of parent.
func (d *document) link(parent, last, child int32) {
	if last < 0 {
		d.nodes[parent].first = child
	} else {
		d.nodes[last].next = child
	}
	d.nodes[parent].count++
}

func (d *document) array(pos, depth int) (int32, int, error) {
	if depth <= 0 {
		return 0, 0, errTooDeep
	}
	self := d.add(node{start: int32(pos), first: -1, next: -1, kind: kindArray})
	pos = d.space(pos + 1)
	if pos < len(d.src) && d.src[pos] == ']' {
		d.nodes[self].end = int32(pos + 1)
		return self, pos + 1, nil
	}
	last := int32(-1)
	for {
		var child int32
		var end int
		var err error
		if pos = d.space(pos); last == self+1 && d.isBytes(last) {
			child, end, err = d.encodedBytes(pos, depth-1)
		} else {
			child, end, err = d.value(pos, depth-1)
		}
		if err != nil {
			return 0, 0, err
		}
		d.link(self, last, child)
		last = child
		pos = d.space(end)
		if pos >= len(d.src) {
			return 0, 0, d.syntaxError(pos)
		}
		switch d.src[pos] {
		case ',':
			pos++
		case ']':
			d.nodes[self].end = int32(pos + 1)
			return self, pos + 1, nil
		default:
			return 0, 0, d.syntaxError(pos)
		}
	}
}

func (d *document) object(pos, depth int) (int32, int, error) {
	if depth <= 0 {
		return 0, 0, errTooDeep
	}
	self := d.add(node{start: int32(pos), first: -1, next: -1, kind: kindObject})
	pos = d.space(pos + 1)
	if pos < len(d.src) && d.src[pos] == '}' {
		d.nodes[self].end = int32(pos + 1)
		return self, pos + 1, nil
	}
	last := int32(-1)
	for {
		pos = d.space(pos)
		if pos >= len(d.src) || d.src[pos] != '"' {
			return 0, 0, d.syntaxError(pos)
		}
		name, end, err := d.str(pos)
		if err != nil {
			return 0, 0, err
		}
		d.link(self, last, name)
		pos = d.space(end)
		if pos >= len(d.src) || d.src[pos] != ':' {
			return 0, 0, d.syntaxError(pos)
		}
		child, end, err := d.value(d.space(pos+1), depth-1)
		if err != nil {
			return 0, 0, err
		}
		d.link(self, name, child)
		last = child
		pos = d.space(end)
		if pos >= len(d.src) {
			return 0, 0, d.syntaxError(pos)
		}
		switch d.src[pos] {
		case ',':
			pos++
		case '}':
			d.nodes[self].end = int32(pos + 1)
			return self, pos + 1, nil
		default:
			return 0, 0, d.syntaxError(pos)
		}
	}
}

// raw is the text of a node as it was sent.
func (d *document) raw(n int32) []byte {
	nd := &d.nodes[n]
	if nd.kind == kindString || nd.kind == kindStringEscaped {
		return d.src[nd.start-1 : nd.end+1]
	}
	return d.src[nd.start:nd.end]
}

// text is the value of a string node.
func (d *document) text(n int32) string {
	nd := &d.nodes[n]
	if nd.kind == kindString {
		return string(d.src[nd.start:nd.end])
	}
	return unescape(d.src[nd.start:nd.end])
}

// is reports whether a node is the string s.
func (d *document) is(n int32, s string) bool {
	nd := &d.nodes[n]
	switch nd.kind {
	case kindString:
		return string(d.src[nd.start:nd.end]) == s
	case kindStringEscaped:
		return unescape(d.src[nd.start:nd.end]) == s
	}
	return false
}

func (d *document) isString(n int32) bool {
	k := d.nodes[n].kind
	return k == kindString || k == kindStringEscaped
}

// float is the value of a number node, rounded as JavaScript rounds.
func (d *document) float(n int32) float64 {
	b := d.raw(n)
	if len(b) <= 15 {
		i, neg := 0, false
		if b[0] == '-' {
			i, neg = 1, true
		}
		v := int64(0)
		for ; i < len(b); i++ {
			c := b[i]
			if c < '0' || c > '9' {
				v = -1
				break
			}
			v = v*10 + int64(c-'0')
		}
		if v >= 0 {
			if neg {
				return -float64(v)
			}
			return float64(v)
		}
	}
	f, _ := strconv.ParseFloat(string(b), 64) // out of range is ±Inf, as in JavaScript
	return f
}

// integer is the value of a number node that is a whole number within ±2^53.
func (d *document) integer(n int32) (int64, bool) {
	if d.nodes[n].kind != kindNumber {
		return 0, false
	}
	f := d.float(n)
	i := int64(f)
	if float64(i) != f || i > maxSafeInteger || i < -maxSafeInteger {
		return 0, false
	}
	return i, true
}

// child returns the i-th child of an array node.
func (d *document) child(n int32, i int) int32 {
	c := d.nodes[n].first
	for ; i > 0 && c >= 0; i-- {
		c = d.nodes[c].next
	}
	return c
}

// unescape decodes the inside of a JSON string that parse accepted.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		c := b[i]
		if c != '\\' {
			if c < utf8.RuneSelf {
				out = append(out, c)
				i++
				continue
			}
			r, size := utf8.DecodeRune(b[i:])
			out = utf8.AppendRune(out, r)
			i += size
			continue
		}
		switch b[i+1] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(b[i+2:])
			i += 6
			if r >= 0xD800 && r < 0xDC00 && i+6 <= len(b) && b[i] == '\\' && b[i+1] == 'u' {
				if low := hex4(b[i+2:]); low >= 0xDC00 && low < 0xE000 {
					out = utf8.AppendRune(out, 0x10000+(r-0xD800)<<10+(low-0xDC00))
					i += 6
					continue
				}
			}
			out = utf8.AppendRune(out, r) // a lone surrogate becomes U+FFFD
			continue
		default:
			out = append(out, b[i+1])
		}
		i += 2
	}
	return string(out)
}

func hex4(b []byte) rune {
	return hexDigit(b[0])<<12 | hexDigit(b[1])<<8 | hexDigit(b[2])<<4 | hexDigit(b[3])
}

const hexLower = "0123456789abcdef"

// appendString writes s as a JSON string, escaped as JSON.stringify does.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexLower[c>>4], hexLower[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = append(b, "\uFFFD"...)
			i++
			start = i
			continue
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
