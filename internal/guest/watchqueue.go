package guest

import (
	"net"
	"sync"

	"github.com/tongs-dev/tongs/sandbox"
)

// eventQueue holds events for a reader. It is bounded: a reader that is too slow
// gets one event that says so, in the place of those it would have got.
type eventQueue struct {
	mu     sync.Mutex
	events []sandbox.FileEvent
	bytes  int
	over   bool
	wake   chan struct{} // has one element when there is something to look at
	root   string
}

func newEventQueue() *eventQueue { return &eventQueue{wake: make(chan struct{}, 1)} }

func (q *eventQueue) put(e sandbox.FileEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.events); n > 0 {
		last := q.events[n-1]
		if last.Path == e.Path && (e.Type == sandbox.FileChanged && (last.Type == sandbox.FileChanged || last.Type == sandbox.FileCreated) ||
			e.Type == sandbox.FileAttrib && last.Type == sandbox.FileAttrib) {
			return // nobody has seen the other yet
		}
	}
	size := len(e.Path) + len(e.From) + len(e.Reason)
	if len(q.events) >= sandbox.MaxWatchQueue || q.bytes+size > sandbox.MaxWatchQueueBytes {
		q.events, q.bytes = append(q.events[:0], sandbox.FileEvent{
			Type: sandbox.FileOverflow, Path: q.root, Directory: true, Reason: "the reader is too slow: events that waited for it were dropped",
		}), 0
		if e.Type == sandbox.FileOverflow {
			return
		}
	}
	q.events, q.bytes = append(q.events, e), q.bytes+size
	q.signal()
}

func (q *eventQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// end says that no more will come.
func (q *eventQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	q.signal()
}

// maxEventFrame bounds the paths in one frame.
const maxEventFrame = 64 << 10

// take gives the next events, at most one frame's; over says that there will be no
// more after them.
func (q *eventQueue) take() (events []sandbox.FileEvent, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, n := 0, 0
	for n < len(q.events) && size < maxEventFrame {
		size += 64 + len(q.events[n].Path) + len(q.events[n].From)
		n++
	}
	events = append(events, q.events[:n]...)
	if q.events = q.events[n:]; len(q.events) == 0 {
		q.events, q.bytes = nil, 0
	} else {
		for _, e := range events {
			q.bytes -= min(q.bytes, len(e.Path)+len(e.From)+len(e.Reason))
		}
		q.signal()
	}
	return events, q.over && len(q.events) == 0
}

// serveFileWatch sends the events of a watch.
func (s *server) serveFileWatch(conn *net.UnixConn, w *fileWatch) {
	gone := make(chan struct{})
	s.wg.Go(func() {
		defer close(gone)
		var b [1]byte
		_, _ = conn.Read(b[:]) // nothing is ever sent: this ends with the connection
		w.close()
	})
	defer func() { conn.Close(); <-gone }()
	out := sandbox.NewFrameWriter(conn)
	for {
		select {
		case <-w.queue.wake:
		case <-gone:
			return
		case <-s.stopped:
			_ = out.WriteError(sandbox.Errf(sandbox.CodeShuttingDown, watchOp, "the sandbox is shutting down", ""))
			return
		}
		events, over := w.queue.take()
		if len(events) > 0 && out.WriteJSON(sandbox.FrameData, events) != nil {
			return
		}
		if over {
			s.finishFrames(conn, gone, out.Write(sandbox.FrameEnd, nil))
			return
		}
	}
}
