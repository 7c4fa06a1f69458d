package bufpool

import "sync"

const (
	// Keep is the size up to which a buffer is not worth lending: sessions keep
	// their own.
	Keep = 1 << 20
	// Most is the size above which a buffer is not kept: its memory is given back.
	Most = 8 << 20
	// step is what sizes are rounded up to: the next message may be a little longer.
	step = 64 << 10
)

var pool sync.Pool // of *[]byte

// Get returns an empty buffer with room for n bytes. Those above Keep come from
// the pool, with anything in them.
func Get(n int) []byte {
	if n > Keep && n <= Most {
		if b, ok := pool.Get().(*[]byte); ok && cap(*b) >= n {
			return (*b)[:0]
		}
		n = (n + step - 1) &^ (step - 1)
	}
	return make([]byte, 0, n)
}

// Put takes a buffer that nobody uses any more. It need not be one of Get's.
func Put(b []byte) {
	switch {
	case cap(b) > Most:
		release(b)
	case cap(b) > Keep:
		pool.Put(&b)
	}
}
