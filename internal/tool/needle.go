package tool

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"sync"
	"unicode/utf8"
)

// A needle is plain text that is in every line which matches an expression, if the case of letters does not
// count. Looking for it first is many times faster than an expression that has no plain beginning, such as one
// without regard to case.
type needle struct {
	text []byte // ASCII, in lower case; nil: there is none
	// folds: letters beyond ASCII (the Kelvin sign, the long s) are the same as one of these without regard
	// to case.
	folds bool
}

// minNeedle is how long a needle must be to be worth the search.
const minNeedle = 3

// needleOf finds the longest needle of an expression. tree is what re was made from.
func needleOf(re *regexp.Regexp, tree *syntax.Regexp) needle {
	if prefix, _ := re.LiteralPrefix(); len(prefix) >= minNeedle || ofWholeText(tree) {
		return needle{} // the expression looks for its beginning itself, and as fast
	}
	text := required(tree)
	if len(text) < minNeedle {
		return needle{}
	}
	return needle{text: text, folds: bytes.ContainsAny(text, "ks")}
}

// ofWholeText reports whether an expression asks for the beginning or the end of the whole text.
func ofWholeText(tree *syntax.Regexp) bool {
	if tree.Op == syntax.OpBeginText || tree.Op == syntax.OpEndText {
		return true
	}
	for _, sub := range tree.Sub {
		if ofWholeText(sub) {
			return true
		}
	}
	return false
}

// required gives the longest text that every match holds.
func required(tree *syntax.Regexp) (text []byte) {
	switch tree.Op {
	case syntax.OpLiteral:
		for _, r := range tree.Rune {
			if r >= utf8.RuneSelf || r == '\n' {
				return nil
			}
			text = append(text, lower(byte(r)))
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(tree.Sub[0])
	case syntax.OpRepeat:
		if tree.Min > 0 {
			return required(tree.Sub[0])
		}
	case syntax.OpConcat:
		for _, sub := range tree.Sub {
			if t := required(sub); len(t) > len(text) {
				text = t
			}
		}
	}
	return text
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// lowered are buffers for text in lower case.
var lowered = sync.Pool{New: func() any { b := make([]byte, firstChunk); return &b }}

// in gives data in lower case, and what to call when it isn't needed any more; nil where the needle says
// nothing about the data.
func (n needle) in(data []byte) (low []byte, done func()) {
	done = func() {}
	if n.text == nil {
		return nil, done
	}
	if len(data) <= firstChunk {
		pooled := lowered.Get().(*[]byte)
		low, done = (*pooled)[:len(data)], func() { lowered.Put(pooled) }
	} else {
		low = make([]byte, len(data))
	}
	var all byte
	for i, c := range data {
		all |= c
		low[i] = lower(c)
	}
	if n.folds && all >= utf8.RuneSelf {
		done()
		return nil, func() {}
	}
	return low, done
}
