package bufpool_test

import (
	"testing"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

func TestGet(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, bufpool.Keep, bufpool.Keep + 1, 3 << 20, 8 << 20, 9 << 20} {
		for range 3 {
			b := bufpool.Get(n)
			if len(b) != 0 || cap(b) < n {
				t.Errorf("%d: %d of %d bytes", n, len(b), cap(b))
			}
			bufpool.Put(b)
		}
	}
	bufpool.Put(nil)
}

// A short buffer in the pool does not stand for a long one.
func TestGetLonger(t *testing.T) {
	t.Parallel()
	for n := bufpool.Keep; n < 8<<20; n += 99_999 {
		bufpool.Put(make([]byte, n))
		if b := bufpool.Get(n + 1); cap(b) < n+1 {
			t.Fatalf("%d bytes for %d", cap(b), n+1)
		}
	}
}
