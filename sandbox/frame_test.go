package sandbox

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// FuzzFrameParts reads the same bytes by frames and by parts: both give the same.
func FuzzFrameParts(f *testing.F) {
	var b bytes.Buffer
	w := NewFrameWriter(&b)
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		kind := []FrameKind{FrameStdout, FrameStderr, FrameData, FrameDropped}[r.IntN(4)]
		payload := make([]byte, []int{0, 1, 5, 4090, 4091, 4096, 70_000}[r.IntN(7)])
		for i := range payload {
			payload[i] = byte(r.Uint32())
		}
		if err := w.Write(kind, payload); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-3])
	f.Add([]byte("O\x00\x00\x00\x03abcE\x00\x00\x00\x00.\x00\x00\x00\x02{}"))
	f.Add([]byte("O\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		want, werr := readAllFrames(NewFrameReader(bytes.NewReader(data)).Next)
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(data), "bytes": iotest.OneByteReader(bytes.NewReader(data)), "halves": iotest.HalfReader(bytes.NewReader(data))} {
			got, err := readAllFrames(NewFrameReader(r).NextPart)
			// Of a frame that is cut off, the parts that came are given.
			if !bytes.HasPrefix(got, want) || werr == nil && len(got) != len(want) || (err == nil) != (werr == nil) {
				t.Errorf("%s: %d bytes, %v; want %d, %v", name, len(got), err, len(want), werr)
			}
		}
	})
}

// readAllFrames puts each byte of a payload behind its kind, until the end.
func readAllFrames(next func() (FrameKind, []byte, error)) (all []byte, err error) {
	for {
		kind, data, err := next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		for _, b := range data {
			all = append(all, byte(kind), b)
		}
	}
}
