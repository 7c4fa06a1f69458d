package bufpool

import (
	"math/bits"
	"sync"
)

// Chunks of streams come and go by the thousand, all of about one size. Made anew,
// they would have the garbage collector run all the time in a program whose memory is
// small otherwise.

const (
	// minChunk and maxChunk are the sizes between which chunks are lent.
	minChunk = 4 << 10
	maxChunk = 1 << 20
	minBits  = 12
	// perDoubling is how many sizes there are between one power of two and the next.
	perDoubling = 4
)

// chunks has a pool of *[]byte for each size, which is the capacity.
var (
	chunks [(20-minBits)*perDoubling + 1]sync.Pool
	boxes  sync.Pool // of empty *[]byte
)

// class is the size of chunk that n bytes fit in, and its place in chunks.
func class(n int) (place, size int) {
	if n <= minChunk {
		return 0, minChunk
	}
	doublings := bits.Len(uint(n-1)) - 1 // 1<<doublings < n
	step := 1 << doublings / perDoubling
	steps := (n - 1<<doublings + step - 1) / step
	return (doublings-minBits)*perDoubling + steps, 1<<doublings + steps*step
}

// GetChunk returns n bytes, with anything in them. Whoever knows that nobody else
// has them can give them back with PutChunk.
func GetChunk(n int) []byte {
	if n < minChunk || n > maxChunk {
		return make([]byte, n)
	}
	place, size := class(n)
	if box, ok := chunks[place].Get().(*[]byte); ok {
		b := *box
		*box = nil
		boxes.Put(box)
		return b[:n]
	}
	return make([]byte, size)[:n]
}

// PutChunk takes a chunk that nobody uses any more. It need not be one of GetChunk's.
func PutChunk(b []byte) {
	if cap(b) < minChunk || cap(b) > maxChunk {
		return
	}
	place, size := class(cap(b))
	if size != cap(b) {
		return
	}
	box, ok := boxes.Get().(*[]byte)
	if !ok {
		box = new([]byte)
	}
	*box = b
	chunks[place].Put(box)
}
