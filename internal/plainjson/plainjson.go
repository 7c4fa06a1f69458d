// Package plainjson reads the JSON that one part of Tongs writes for another when a sandbox starts: no blanks, no escapes,
// ASCII alone, whole numbers. It is for documents that are waited for. The standard library prepares itself for each type
// before it reads the first value of it, and in a process that has just begun that takes a fifth of a millisecond; this
// takes some microseconds.
//
// What it doesn't understand is no error: whoever reads falls back on encoding/json, which decides. So both must
// agree about everything that this understands, and the tests of those who use it compare them.
package plainjson

import "strconv"

// maxDepth bounds how deep values are nested.
const maxDepth = 16

// Reader reads one document. After the first thing that it doesn't understand every method gives a zero value, and OK is
// false.
type Reader struct {
	text  []byte
	pos   int
	depth int
	bad   bool
}

// New begins to read a document.
func New(text []byte) *Reader { return &Reader{text: text} }

// OK says that everything was understood, to the end of the document.
func (r *Reader) OK() bool { return !r.bad && r.pos == len(r.text) }

// Fail says that what was read is not understood: an unknown key, say.
func (r *Reader) Fail() { r.bad = true }

// peek is the next byte, 0 at the end.
func (r *Reader) peek() byte {
	if r.bad || r.pos >= len(r.text) {
		return 0
	}
	return r.text[r.pos]
}

// take goes on behind c if that comes next.
func (r *Reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.pos++
	return true
}

func (r *Reader) must(c byte) {
	if !r.take(c) {
		r.bad = true
	}
}

// list reads what is between two brackets; item reads one.
func (r *Reader) list(opening, closing byte, item func()) {
	r.must(opening)
	if r.depth++; r.depth > maxDepth {
		r.bad = true
	}
	if !r.take(closing) {
		for !r.bad {
			item()
			if !r.take(',') {
				r.must(closing)
				break
			}
		}
	}
	r.depth--
}

// Object reads an object. field is called for each key, and must read its value.
func (r *Reader) Object(field func(key string)) {
	r.list('{', '}', func() {
		key := r.quoted()
		r.must(':')
		if !r.bad {
			field(string(key))
		}
	})
}

// Array reads an array. item is called for each value, and must read it.
func (r *Reader) Array(item func()) { r.list('[', ']', item) }

// quoted reads a string, as a part of the document.
func (r *Reader) quoted() []byte {
	r.must('"')
	for start := r.pos; !r.bad && r.pos < len(r.text); r.pos++ {
		switch c := r.text[r.pos]; {
		case c == '"':
			r.pos++
			return r.text[start : r.pos-1]
		case c < ' ' || c >= 0x7f || c == '\\':
			r.bad = true
		}
	}
	r.bad = true
	return nil
}

// Text reads a string.
func (r *Reader) Text() string { return string(r.quoted()) }

// Int reads a whole number.
func (r *Reader) Int() int64 {
	start := r.pos
	r.take('-')
	digits := r.pos
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.pos++
	}
	if n := r.pos - digits; n == 0 || n > 1 && r.text[digits] == '0' {
		r.bad = true
	}
	switch r.peek() {
	case '.', 'e', 'E':
		r.bad = true
	}
	if r.bad {
		return 0
	}
	n, err := strconv.ParseInt(string(r.text[start:r.pos]), 10, 64)
	if err != nil {
		r.bad = true
		return 0
	}
	return n
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	yes := r.peek() == 't'
	word := "false"
	if yes {
		word = "true"
	}
	for i := range len(word) {
		r.must(word[i])
	}
	return yes && !r.bad
}

// Texts reads an array of strings; it is not nil.
func (r *Reader) Texts() []string {
	all := []string{}
	r.Array(func() { all = append(all, r.Text()) })
	return all
}

// Ints reads an array of whole numbers; it is not nil.
func (r *Reader) Ints() []int {
	all := []int{}
	r.Array(func() { all = append(all, int(r.Int())) })
	return all
}

// Raw reads any value, and gives it as it stands in the document.
func (r *Reader) Raw() []byte {
	start := r.pos
	r.skip()
	if r.bad {
		return nil
	}
	return r.text[start:r.pos]
}

func (r *Reader) skip() {
	switch c := r.peek(); c {
	case '{':
		r.Object(func(string) { r.skip() })
	case '[':
		r.Array(r.skip)
	case '"':
		r.quoted()
	case 't', 'f':
		r.Bool()
	default:
		r.Int()
	}
}
