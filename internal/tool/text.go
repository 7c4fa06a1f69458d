package tool

import (
	"strings"
	"unicode/utf8"
)

// What OpenCode does with text it does in JavaScript: lengths are counted in
// UTF-16 units and white space is ECMAScript's. Where that shows, so do we.

const byteOrderMark = "\ufeff"

// isSpace reports ECMAScript's white space and line terminators (ECMA-262,
// WhiteSpace and LineTerminator: what trim and \s take).
func isSpace(c rune) bool {
	switch c {
	case '\t', '\n', '\v', '\f', '\r', ' ', 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0xfeff:
		return true
	}
	return c >= 0x2000 && c <= 0x200a
}

func trim(s string) string      { return strings.TrimFunc(s, isSpace) }
func trimRight(s string) string { return strings.TrimRightFunc(s, isSpace) }

// indentLen gives the length in bytes of the white space a line begins with.
func indentLen(s string) int { return len(s) - len(strings.TrimLeftFunc(s, isSpace)) }

// utf16Len counts UTF-16 units.
func utf16Len(s string) int {
	n := 0
	for _, c := range s {
		n++
		if c > 0xffff {
			n++
		}
	}
	return n
}

// utf16Cut gives the longest prefix of s of at most n UTF-16 units that does
// not split a character.
func utf16Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i, c := range s {
		if c > 0xffff {
			n--
		}
		if n--; n < 0 {
			return s[:i]
		}
	}
	return s
}

// splitBOM takes a leading byte order mark off.
func splitBOM(s string) (text string, bom bool) {
	text, bom = strings.CutPrefix(s, byteOrderMark)
	return text, bom
}

func withBOM(text string, bom bool) string {
	text, _ = splitBOM(text)
	if bom {
		return byteOrderMark + text
	}
	return text
}

// shorten keeps a text given by somebody else small enough to quote.
func shorten(s string, n int) string {
	if cut := utf16Cut(s, n); cut != s {
		return cut + "…"
	}
	return s
}

// clean makes text valid UTF-8, as the wire needs it. Each maximal part of an
// invalid sequence becomes one U+FFFD (WHATWG Encoding, "UTF-8 decode").
func clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if c != utf8.RuneError || n > 1 {
			b.WriteString(s[i : i+n])
			i += n
			continue
		}
		b.WriteRune(utf8.RuneError)
		i += invalidPrefix(s[i:])
	}
	return b.String()
}

// invalidPrefix gives the length of the maximal subpart of the ill-formed
// sequence that s begins with (Unicode 3.9, U+FFFD substitution): at least 1.
func invalidPrefix(s string) int {
	lead, low, high, want := s[0], byte(0x80), byte(0xbf), 0
	switch {
	case lead >= 0xc2 && lead <= 0xdf:
		want = 1
	case lead >= 0xe0 && lead <= 0xef:
		want = 2
		if lead == 0xe0 {
			low = 0xa0
		} else if lead == 0xed {
			high = 0x9f
		}
	case lead >= 0xf0 && lead <= 0xf4:
		want = 3
		if lead == 0xf0 {
			low = 0x90
		} else if lead == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for ; n <= want && n < len(s) && s[n] >= low && s[n] <= high; n++ {
		low, high = 0x80, 0xbf
	}
	return n
}

func cleanStrings(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = clean(s)
	}
	return out
}

func cleanMap(m map[string]any) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = cleanValue(v)
	}
	return out
}

func cleanValue(v any) any {
	switch v := v.(type) {
	case string:
		return clean(v)
	case []string:
		return cleanStrings(v)
	case map[string]any:
		return cleanMap(v)
	case []map[string]any:
		out := make([]map[string]any, len(v))
		for i, m := range v {
			out[i] = cleanMap(m)
		}
		return out
	}
	return v
}

func cleanResult(res Result) Result {
	res.Title = clean(res.Title)
	res.Output = clean(res.Output)
	res.Metadata = cleanMap(res.Metadata)
	return res
}
