package surface

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// FuzzText holds that text which is decoded in pieces is the text, however it is cut, and that what fits
// is a beginning of it.
func FuzzText(f *testing.F) {
	f.Add([]byte("grün\x00\xff€"), 3)
	f.Add([]byte("\xf0\x9f\x98\x80\xf0\x9f"), 1)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		size = max(1, min(size, 64))
		var d, x textDecoder
		var got, exact strings.Builder
		ok := true
		for i := 0; i < len(data); i += size {
			piece := data[i:min(i+size, len(data))]
			got.WriteString(d.decode(piece))
			s, good := x.exact(piece)
			exact.WriteString(s)
			ok = ok && good
		}
		got.WriteString(d.end())
		ok = ok && x.end() == ""
		if utf8.Valid(data) && (got.String() != string(data) || !ok || exact.String() != string(data)) {
			t.Errorf("%q in pieces of %d became %q, %q, %t", data, size, got.String(), exact.String(), ok)
		}
		if !utf8.Valid(data) && ok {
			t.Errorf("%q in pieces of %d passed as text", data, size)
		}
		if !utf8.ValidString(got.String()) {
			t.Errorf("%q became %q, which is no text", data, got.String())
		}
	})
}

func TestFitting(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Repeat(rapid.String().Draw(t, "text"), rapid.IntRange(0, 30).Draw(t, "times"))
		limit := rapid.IntRange(0, 4000).Draw(t, "limit")
		fit, cut := fitting(s, limit)
		if !strings.HasPrefix(s, fit) || cut == (fit == s) && len(s) > 0 {
			t.Fatalf("fitting(%q, %d) = %q, %t", s, limit, fit, cut)
		}
		if e := encodeEvent(event{"": fit}); len(e)-len(encodeEvent(event{"": ""})) > limit && len(s) > limit/6 {
			t.Fatalf("%q takes %d bytes, over %d", fit, len(e), limit)
		}
	})
}
