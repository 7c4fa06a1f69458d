package guest

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// outputLog holds what a process wrote, in order, with byte offsets counted from
// its first byte and a mark wherever the stream changes. It takes memory only
// for what it holds: nothing before the first byte.
//
// When it is full, a lossless log makes its writers wait until a reader has
// confirmed something, and a following log gives up its oldest chunk. Memory is
// at most the limit plus one chunk, marks included.
type outputLog struct {
	mu       sync.Mutex
	limit    int64
	biggest  int64 // chunk
	size     int64 // of the chunk made last
	lossless bool

	chunks []*chunk
	free   []*chunk // of the largest size, to be used again
	start  int64    // first byte held
	end    int64
	marks  []mark
	ended  bool // no byte will come any more

	over    chan struct{} // closed when it has ended
	sink    atomic.Pointer[sink]
	changed chan struct{} // closed at the next append or end; nil: nobody waits
	space   chan struct{} // closed at the next confirmation; nil: nobody waits

	readers  int
	detached time.Time // when the last reader went away
}

type chunk struct {
	off  int64
	buf  []byte // only ever appended to within its capacity
	pins int    // views that are in use
	gone bool   // no longer in the log
}

// view is a piece of the log that a reader looks at without copying it.
type view struct {
	stream  sandbox.Stream
	data    []byte // empty: there is nothing at this offset yet
	dropped int64  // bytes between the offset asked for and data
	ended   bool   // and there never will be
	chunk   *chunk
}

type mark struct {
	off    int64
	stream sandbox.Stream
}

const (
	minChunk  = 4 << 10
	maxChunk  = 256 << 10
	markBytes = 16 // what a mark counts for, so that switching streams is no way around the limit
)

func newLog(limit int64, lossless bool) *outputLog {
	return &outputLog{limit: limit, biggest: max(min(limit/4, maxChunk), minChunk), lossless: lossless, over: make(chan struct{}), detached: time.Now()}
}

func (l *outputLog) fullness() int64 { return l.end - l.start + int64(len(l.marks))*markBytes }

// fill hands read a place for bytes of a stream and keeps what it got. full says
// that a lossless log has no room; read was not called then.
func (l *outputLog) fill(stream sandbox.Stream, read func([]byte) (int, error)) (n int, full bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := l.limit - l.fullness()
	if l.lossless {
		if room <= 0 {
			return 0, true, nil
		}
	} else {
		room = maxChunk
	}
	tail := l.tail()
	space := tail.buf[len(tail.buf):cap(tail.buf)]
	if int64(len(space)) > room {
		space = space[:room]
	}
	n, err = read(space)
	if n <= 0 {
		return 0, false, err
	}
	if len(l.marks) == 0 || l.marks[len(l.marks)-1].stream != stream {
		l.marks = append(l.marks, mark{l.end, stream})
	}
	tail.buf = tail.buf[:len(tail.buf)+n]
	l.end += int64(n)
	if !l.lossless {
		l.trim()
	}
	l.wake()
	return n, false, err
}

// tail is the last chunk, with room in it. Chunks grow with what is written.
func (l *outputLog) tail() *chunk {
	if k := len(l.chunks); k > 0 {
		if c := l.chunks[k-1]; len(c.buf) < cap(c.buf) {
			return c
		}
	}
	if k := len(l.free); k > 0 {
		c := l.free[k-1]
		l.free = l.free[:k-1]
		*c = chunk{off: l.end, buf: c.buf[:0]}
		l.chunks = append(l.chunks, c)
		return c
	}
	l.size = max(minChunk, min(l.size*4, l.biggest))
	c := &chunk{off: l.end, buf: make([]byte, 0, l.size)}
	l.chunks = append(l.chunks, c)
	return c
}

// trim drops the oldest chunks of a log that is over its limit.
func (l *outputLog) trim() {
	k := 0
	for k < len(l.chunks)-1 && l.fullness() > l.limit {
		k++
		l.start = l.chunks[k].off
		l.dropMarks()
	}
	l.dropChunks(k)
	// One chunk full of marks: drop bytes of it.
	if extra := l.fullness() - l.limit; extra > 0 && len(l.marks) > 1 {
		half := l.marks[len(l.marks)/2].off
		l.start = max(l.start, half)
		l.dropMarks()
	}
}

// dropChunks takes the first k chunks out.
func (l *outputLog) dropChunks(k int) {
	for i, c := range l.chunks[:k] {
		c.gone = true
		l.recycle(c)
		l.chunks[i] = nil
	}
	l.chunks = append(l.chunks[:0], l.chunks[k:]...)
}

// recycle keeps a chunk that nobody uses for the next bytes: a command that
// writes gigabytes needs no more memory than its log, and no collecting.
func (l *outputLog) recycle(c *chunk) {
	if c.gone && c.pins == 0 && int64(cap(c.buf)) == l.biggest && !l.ended && int64(len(l.free)+len(l.chunks))*l.biggest < l.limit+2*l.biggest {
		l.free = append(l.free, c)
	}
}

// release ends the use of a view.
func (l *outputLog) release(v view) {
	if v.chunk == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.chunk.pins--
	l.recycle(v.chunk)
}

// dropMarks forgets marks that lie wholly before start.
func (l *outputLog) dropMarks() {
	k := 0
	for k+1 < len(l.marks) && l.marks[k+1].off <= l.start {
		k++
	}
	if k > 0 {
		l.marks = append(l.marks[:0], l.marks[k:]...)
	}
}

// confirm says that a reader has all bytes before off. Only a lossless log
// forgets them.
func (l *outputLog) confirm(off int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	off = min(off, l.end)
	if !l.lossless || off <= l.start {
		return
	}
	l.start = off
	k := 0
	for k < len(l.chunks) && l.chunks[k].off+int64(len(l.chunks[k].buf)) <= off {
		k++
	}
	if k == len(l.chunks) && k > 0 && len(l.chunks[k-1].buf) < cap(l.chunks[k-1].buf) {
		k-- // the tail has room left
	}
	l.dropChunks(k)
	l.dropMarks()
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
}

// read looks at bytes of one stream from off on. The view must be released, which
// may be later than its bytes are dropped: they stay as they are until then.
func (l *outputLog) read(off int64) (v view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if off < l.start {
		v.dropped = l.start - off
		off = l.start
	}
	if off >= l.end {
		v.ended = l.ended
		return v
	}
	limit := l.end
	for i := len(l.marks) - 1; i >= 0; i-- {
		if l.marks[i].off <= off || i == 0 {
			v.stream = l.marks[i].stream
			break
		}
		limit = l.marks[i].off
	}
	for _, c := range l.chunks {
		if off >= c.off && off < c.off+int64(len(c.buf)) {
			v.data = c.buf[off-c.off : min(int64(len(c.buf)), limit-c.off)]
			v.chunk = c
			c.pins++
			break
		}
	}
	return v
}

// waitChange gives a channel that closes at the next append or end.
func (l *outputLog) waitChange(off int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if off < l.end || l.ended {
		return closedChan
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// waitSpace gives a channel that closes when a full log may have room.
func (l *outputLog) waitSpace() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lossless || l.fullness() < l.limit {
		return closedChan
	}
	if l.space == nil {
		l.space = make(chan struct{})
	}
	return l.space
}

// orphaned turns a lossless log that nobody has read for the given time into a
// following one, and reports how long to wait before asking again.
func (l *outputLog) orphaned(after time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.readers > 0 {
		return after
	}
	if left := after - time.Since(l.detached); left > 0 {
		return left
	}
	l.loosen()
	return after
}

// follow turns a lossless log into a following one.
func (l *outputLog) follow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loosen()
}

func (l *outputLog) loosen() {
	l.lossless = false
	if l.space != nil {
		close(l.space)
		l.space = nil
	}
}

func (l *outputLog) attach() {
	l.mu.Lock()
	l.readers++
	l.mu.Unlock()
}

func (l *outputLog) detach() {
	l.mu.Lock()
	l.readers--
	l.detached = time.Now()
	l.mu.Unlock()
}

func (l *outputLog) viewers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readers
}

func (l *outputLog) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.free = nil
	close(l.over)
	l.wake()
}

func (l *outputLog) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// flush passes new bytes on to the sink, if there is one.
func (l *outputLog) flush() {
	if k := l.sink.Load(); k != nil {
		k.push()
	}
}

// install makes k the sink, unless there is one, or the log isn't lossless: then
// nothing that waits for a reader may be in the way of the command.
func (l *outputLog) install(k *sink) bool {
	l.mu.Lock()
	ok := l.lossless && !l.ended && l.sink.CompareAndSwap(nil, k)
	l.mu.Unlock()
	if ok {
		k.push() // what came in between
	}
	return ok
}

func (l *outputLog) span() (start, end int64, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start, l.end, l.ended
}

// held is the memory that the log's bytes take.
func (l *outputLog) held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, c := range l.chunks {
		n += int64(cap(c.buf))
	}
	return n + int64(len(l.free))*l.biggest + int64(cap(l.marks))*markBytes
}

var closedChan = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
