package httprpc

import "sync"

const (
	// keepBuffer is the size above which a session does not keep a buffer for itself.
	keepBuffer = 1 << 20
	// poolBuffer is the size above which nobody does.
	poolBuffer = 8 << 20

	// firstPiece and secondPiece are how much memory is taken for a long message at
	// once, at first and when that much has come. From then on it doubles.
	firstPiece  = 64 << 10
	secondPiece = 4 << 20

	// longFrame is the size from which a message is not put in the buffer of writing
	// as a whole, and writePiece that of one write.
	longFrame  = 32 << 10
	writePiece = 256 << 10
)

// bufferPool lends buffers for messages between keepBuffer and poolBuffer:
// clearing a new one for each message takes longer than reading it.
type bufferPool struct{ pool sync.Pool }

var bigBuffers bufferPool

// get returns an empty buffer with room for n bytes.
func (p *bufferPool) get(n int) []byte {
	if n > keepBuffer && n <= poolBuffer {
		if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
			return (*b)[:0]
		}
		n = (n + firstPiece - 1) &^ (firstPiece - 1) // the next message may be a little longer
	}
	return make([]byte, 0, n)
}

// put takes a buffer that nobody uses any more.
func (p *bufferPool) put(b []byte) {
	if cap(b) > keepBuffer && cap(b) <= poolBuffer {
		p.pool.Put(&b)
	}
}
