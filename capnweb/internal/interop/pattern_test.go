package interop_test

import (
	"context"
	"hash"
	"hash/fnv"
	"io"

	"github.com/tongs-dev/tongs/capnweb"
)

// The bytes of every test stream, as in js/api.mjs.
func pattern(i int) byte { return byte(i*31 + (i>>8)*7) }

func patternBytes(size, from int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = pattern(from + i)
	}
	return b
}

// Sum tells whether bytes came whole and in order. Hash is FNV-1a of 32 bits.
type Sum struct {
	Size int    `json:"size"`
	Hash uint32 `json:"hash"`
}

// hasher makes a sum of what is written to it.
type hasher struct {
	h    hash.Hash32
	size int
}

func newHasher() *hasher { return &hasher{h: fnv.New32a()} }

func (h *hasher) Write(b []byte) (int, error) {
	h.size += len(b)
	return h.h.Write(b)
}

func (h *hasher) sum() Sum { return Sum{h.size, h.h.Sum32()} }

func hashOf(b []byte) Sum {
	h := newHasher()
	_, _ = h.Write(b)
	return h.sum()
}

func readAll(r io.Reader) (Sum, error) {
	h := newHasher()
	_, err := io.Copy(h, r)
	return h.sum(), err
}

// patternStream makes a stream of chunks of the given size.
func patternStream(size, chunk int) *capnweb.ReadableStream {
	at := 0
	return capnweb.NewSource(func(context.Context) (any, error) {
		if at >= size {
			return nil, io.EOF
		}
		b := patternBytes(min(chunk, size-at), at)
		at += len(b)
		return b, nil
	}, nil)
}
