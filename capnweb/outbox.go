package capnweb

import (
	"sync"
)

// outbox holds the messages that wait to be written, one after the other, each
// ended by a newline. The session's lock guards it.
type outbox struct {
	mu      *sync.Mutex
	wake    *sync.Cond
	room    *sync.Cond
	buf     []byte
	ends    []int
	spare   []byte
	spareN  []int
	writing int // bytes taken by the writer and not written yet
	closed  bool
}

// keepBuffer is the capacity above which a buffer is not kept after a burst.
const keepBuffer = 1 << 20

func (o *outbox) init(mu *sync.Mutex) {
	o.mu = mu
	o.wake = sync.NewCond(mu)
	o.room = sync.NewCond(mu)
}

func (o *outbox) queued() int { return len(o.buf) + o.writing }

// start is where the next message begins.
func (o *outbox) start() int {
	if n := len(o.ends); n > 0 {
		return o.ends[n-1] + 1
	}
	return 0
}

// commit ends the message at the end of buf.
func (o *outbox) commit() {
	if o.closed {
		o.buf = o.buf[:o.start()]
		return
	}
	o.ends = append(o.ends, len(o.buf))
	o.buf = append(o.buf, '\n')
	if len(o.ends) == 1 {
		o.wake.Signal()
	}
}

func (o *outbox) close() {
	o.closed = true
	o.wake.Signal()
	o.room.Broadcast()
}

// take waits for messages. It returns false when there will be none.
func (o *outbox) take() ([]byte, []int, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.ends) == 0 && !o.closed {
		o.wake.Wait()
	}
	if len(o.ends) == 0 {
		return nil, nil, false
	}
	buf, ends := o.buf, o.ends
	o.buf, o.ends = o.spare[:0], o.spareN[:0]
	o.spare, o.spareN = nil, nil
	o.writing = len(buf)
	return buf, ends, true
}

// written gives the buffers of take back.
func (o *outbox) written(buf []byte, ends []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writing = 0
	if cap(buf) <= keepBuffer {
		o.spare, o.spareN = buf, ends
	}
	o.room.Broadcast()
}

// write is the writing goroutine of a session: it writes bursts of messages
// until the session ends, and closes the transport.
func (s *Session) write() {
	var msgs [][]byte
	lines, _ := s.t.(lineWriter)
	for {
		buf, ends, ok := s.out.take()
		if !ok {
			break
		}
		var err error
		if lines != nil {
			err = lines.writeLines(buf)
		} else {
			msgs = msgs[:0]
			start := 0
			for _, end := range ends {
				msgs = append(msgs, buf[start:end])
				start = end + 1
			}
			err = s.t.WriteMessages(msgs)
			clear(msgs)
		}
		if o := s.opts.observer; o != nil {
			start := 0
			for _, end := range ends {
				o.Message(s, true, buf[start:end])
				start = end + 1
			}
		}
		s.out.written(buf, ends)
		if err != nil {
			s.fail(&transportError{err}, false)
			break
		}
	}
	var reason error
	if err := s.Err(); err != nil {
		reason = err
	}
	_ = s.t.Close(reason)
}

// waitForRoom holds callers back while too much waits to be written.
func (s *Session) waitForRoom() {
	s.mu.Lock()
	for s.err == nil && s.out.queued() > s.limits.MaxQueuedBytes/2 {
		s.out.room.Wait()
	}
	s.mu.Unlock()
}

// commit ends the message that e wrote; the session is locked.
func (s *Session) commit(e *encoder) {
	before := s.out.queued()
	s.out.buf = e.b
	s.out.commit()
	if before > s.limits.MaxQueuedBytes && s.err == nil {
		// Only what the peer itself causes gets here: callers wait for room.
		go s.fail(limitf("Too much waits to be written: the peer does not read (limit %d bytes).", s.limits.MaxQueuedBytes), false)
	}
}

// undo takes back the message that e began, with its exports; the session is locked.
// The hooks are to be closed without the lock.
func (s *Session) undo(e *encoder) []hook {
	hooks := e.lost
	for _, id := range e.made {
		if x := s.exports[id]; x != nil {
			delete(s.exports, id)
			hooks = append(hooks, x.h)
		}
	}
	return hooks
}
