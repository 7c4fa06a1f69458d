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
