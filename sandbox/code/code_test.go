package code

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// However a stream is cut into pieces, the mark goes and everything else stays.
func TestScanner(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		mark := []byte("\x00tongs:ab\x00")
		noise := rapid.SliceOfN(rapid.SampledFrom([]byte("\x00tongs:ab")), 0, 40)
		before, after := noise.Draw(t, "before"), noise.Draw(t, "after")
		if bytes.Contains(before, mark) {
			t.Skip("the noise is the mark")
		}
		whole := append(append(append([]byte(nil), before...), mark...), after...)
		at := bytes.Index(whole, mark)
		want := string(whole[:at]) + string(whole[at+len(mark):])
		s := &scanner{mark: mark}
		var got []byte
		marks := 0
		for rest := whole; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			out, found := s.feed(append([]byte(nil), rest[:n]...))
			got = append(got, out...)
			if found {
				marks++
			}
			rest = rest[n:]
		}
		if marks != 1 || string(got) != want {
			t.Fatalf("%d marks, %q of %q", marks, got, whole)
		}
	})
}

func TestLinesAreBounded(t *testing.T) {
	t.Parallel()
	r := bufio.NewReaderSize(io.LimitReader(endless{}, maxMessage+1<<20), 1<<20)
	if _, err := readLine(r); !errors.Is(err, errLongLine) {
		t.Errorf("%v", err)
	}
	line, err := readLine(bufio.NewReaderSize(strings.NewReader(strings.Repeat("x", 100)+"\nrest"), 16))
	if err != nil || len(line) != 101 {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// What an interpreter says is what the code may have made it say.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"event":"result","id":"1","final":true,"data":{"text/plain":"1","image/png":"iVBO","application/json":"[1]"}}`))
	f.Add([]byte(`{"event":"result","data":{"image/png":"?","application/json":"{"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var m message
		if json.Unmarshal(line, &m) != nil {
			return
		}
		r := resultOf(m)
		if r.JSON != nil && !json.Valid(r.JSON) {
			t.Errorf("%q is no JSON", r.JSON)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}
