package guest

import (
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tongs-dev/tongs/sandbox"
)

// sink is the reader of a log who has caught up. While it is installed in the
// log, the goroutine that reads the command's pipe writes to the reader's
// connection too, so that bytes are not handed from one goroutine to another.
type sink struct {
	log    *outputLog
	conn   *net.UnixConn
	w      *sandbox.FrameWriter
	dirty  atomic.Bool
	failed chan struct{} // closed at the first error

	mu  sync.Mutex
	off int64 // what has been written
	err error
}

func newSink(l *outputLog, conn *net.UnixConn, off int64) *sink {
	return &sink{log: l, conn: conn, w: sandbox.NewFrameWriter(conn), off: off, failed: make(chan struct{})}
}

// push writes what the log has got. When another goroutine is writing already,
// that one does it.
func (k *sink) push() {
	k.dirty.Store(true)
	for k.dirty.Load() && k.mu.TryLock() {
		k.dirty.Store(false)
		k.drain()
		k.mu.Unlock()
	}
}

// drain writes until there is nothing more; k.mu is held.
func (k *sink) drain() {
	for k.err == nil {
		v := k.log.read(k.off)
		if v.dropped > 0 {
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], uint64(v.dropped))
			k.err = k.w.Write(sandbox.FrameDropped, b[:])
			k.off += v.dropped
		}
		if len(v.data) == 0 {
			break
		}
		if k.err == nil {
			kind := sandbox.FrameStdout
			if v.stream == sandbox.Stderr {
				kind = sandbox.FrameStderr
			}
			k.err = k.w.Write(kind, v.data)
			k.off += int64(len(v.data))
		}
		k.log.release(v)
	}
	if k.err != nil {
		k.log.sink.CompareAndSwap(k, nil)
		select {
		case <-k.failed:
		default:
			close(k.failed)
		}
	}
}

// next writes what there is, and reports up to where, and whether that went well.
func (k *sink) next() (off int64, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drain()
	return k.off, k.err == nil
}
