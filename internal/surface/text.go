package surface

import (
	"strings"
	"time"
	"unicode/utf8"
)

// timestamp is JavaScript's toISOString.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// milliseconds as the SDK gives durations.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// millis reads a number of milliseconds that has been checked, or is the contract's to check.
func millis(ms int64) time.Duration {
	return time.Duration(min(max(ms, 0), maxTimeout)) * time.Millisecond
}

// valid is text that can travel: what is not UTF-8 is replaced.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// textDecoder turns pieces of a stream into text without cutting a character
// in two: the beginning of one at the end of a piece is kept for the next.
type textDecoder struct{ rest []byte }

func (d *textDecoder) decode(b []byte) string {
	if len(d.rest) > 0 {
		b = append(d.rest, b...)
		d.rest = nil
	}
	if cut := incomplete(b); cut > 0 {
		d.rest = append([]byte(nil), b[len(b)-cut:]...)
		b = b[:len(b)-cut]
	}
	return valid(b)
}

// end gives what is left: half a character, which is none.
func (d *textDecoder) end() string {
	b := d.rest
	d.rest = nil
	return valid(b)
}

// incomplete is the length of the beginning of a character at the end of b.
func incomplete(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		c := b[len(b)-n]
		if utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// exact is decode for text that must not change; false where it is no UTF-8.
func (d *textDecoder) exact(b []byte) (string, bool) {
	if len(d.rest) > 0 {
		b = append(d.rest, b...)
		d.rest = nil
	}
	if cut := incomplete(b); cut > 0 {
		d.rest = append([]byte(nil), b[len(b)-cut:]...)
		b = b[:len(b)-cut]
	}
	return string(b), utf8.Valid(b)
}

// maxText is how long the text of one answer may be once it is JSON. A message may have 32 MiB; one
// that has more ends the connection of the program that gets it.
const maxText = 24 << 20

// fitting is the beginning of s that takes at most limit bytes as JSON, and whether that is not all of it.
func fitting(s string, limit int) (string, bool) {
	if len(s) <= limit/6 {
		return s, false
	}
	n := 0
	for i, r := range s {
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\t' || r == '\r':
			n += 2
		case r < ' ' || r == '\u2028' || r == '\u2029' || r == '<' || r == '>' || r == '&' || r == 0x7f:
			n += 6
		default:
			n += utf8.RuneLen(r)
		}
		if n > limit {
			return s[:i], true
		}
	}
	return s, false
}
