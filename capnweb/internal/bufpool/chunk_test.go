package bufpool_test

import (
	"testing"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// Chunks have the length that was asked for, and at most a quarter more room.
func TestChunk(t *testing.T) {
	t.Parallel()
	for n := 0; n < 2<<20; n += 1 + n/50 {
		for range 3 {
			b := bufpool.GetChunk(n)
			if len(b) != n || n > 4<<10 && cap(b) > n+n/4+1 {
				t.Fatalf("%d: %d of %d bytes", n, len(b), cap(b))
			}
			bufpool.PutChunk(b)
		}
	}
	bufpool.PutChunk(nil)
	bufpool.PutChunk(make([]byte, 5000)) // a size that is none of ours is not kept
	if b := bufpool.GetChunk(5000); cap(b) < 5000 {
		t.Errorf("%d bytes", cap(b))
	}
}

func BenchmarkChunk(b *testing.B) {
	for b.Loop() {
		bufpool.PutChunk(bufpool.GetChunk(64 << 10))
	}
}
