package capnweb

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// outbox holds the messages that wait to be written, one after the other, each
// ended by a newline. The session's lock guards it.
//
// Who writes: normally the goroutine that has the last word for now (the reader when
// it has handled what has arrived, a handler when it has returned, a caller who begins to
// wait) writes what can be written without waiting. What is left, and everything on
// transports that cannot do that, is written by the session's writing goroutine.
// Either way a burst of messages is one write.
type outbox struct {
	mu      *sync.Mutex
	wake    *sync.Cond // of the writing goroutine
	room    *sync.Cond
	buf     []byte
	ends    []int
	spare   []byte
	spareN  []int
	writing int  // bytes taken and not written yet
	busy    bool // somebody writes
	stuck   bool // the transport keeps a part that it could not write at once
	broken  bool // the transport takes nothing any more
	urgent  bool // somebody waits for a message in buf
	kickers int  // how many will call kick soon
	closed  bool
	timer   *time.Timer
	armed   arming
}

const (
	// keepBuffer is the capacity above which a buffer is not kept after a burst.
	keepBuffer = bufpool.Keep
	// lazyDelay is how long a message may wait for company when nobody waits for it.
	lazyDelay = 5 * time.Millisecond
	// companyDelay is how long one that somebody waits for may, when others are about to follow.
	companyDelay = 200 * time.Microsecond
	// inlineBytes is how much is written without the writing goroutine.
	inlineBytes = 128 << 10
)

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

// commit ends the message at the end of buf. A lazy one may wait a moment.
func (o *outbox) commit(lazy bool) {
	if o.closed {
		o.buf = o.buf[:o.start()]
		return
	}
	o.ends = append(o.ends, len(o.buf))
	o.buf = append(o.buf, '\n')
	o.urgent = o.urgent || !lazy
	switch {
	case o.busy || o.kickers > 0: // will be seen
	case lazy:
		o.arm()
	default:
		o.wake.Signal()
	}
}

// arming is what a timer was set to.
type arming uint8

const (
	unarmed arming = iota
	armedLazily
	armedForCompany
)

// arm makes sure that what waits is written in the end.
func (o *outbox) arm() {
	want, delay := armedLazily, lazyDelay
	if o.urgent {
		want, delay = armedForCompany, companyDelay
	}
	if o.armed >= want || o.closed {
		return
	}
	o.armed = want
	if o.timer == nil {
		o.timer = time.AfterFunc(delay, func() {
			o.mu.Lock()
			o.armed = unarmed
			if len(o.ends) > 0 && !o.busy {
				o.wake.Signal()
			}
			o.mu.Unlock()
		})
		return
	}
	o.timer.Reset(delay)
}

func (o *outbox) close() {
	o.closed = true
	if o.timer != nil {
		o.timer.Stop()
	}
	o.wake.Signal()
	o.room.Broadcast()
}

// grab takes all messages; the session is locked, and nobody writes.
func (o *outbox) grab() ([]byte, []int) {
	buf, ends := o.buf, o.ends
	o.buf, o.ends = o.spare[:0], o.spareN[:0]
	o.spare, o.spareN = nil, nil
	o.writing = len(buf)
	o.busy = true
	o.urgent = false
	return buf, ends
}

// take waits for messages, or a rest to be written. It returns false when there
// will be none.
func (o *outbox) take() ([]byte, []int, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.busy || len(o.ends) == 0 && !o.stuck && !o.closed {
		o.wake.Wait()
	}
	if len(o.ends) == 0 && !o.stuck {
		return nil, nil, false
	}
	o.stuck = false
	buf, ends := o.grab()
	return buf, ends, true
}

// written gives the buffers back; the session is locked.
func (o *outbox) written(buf []byte, ends []int) {
	o.writing = 0
	o.busy = false
	if cap(buf) <= keepBuffer {
		o.spare, o.spareN = buf, ends
	} else {
		bufpool.Put(buf)
	}
	o.room.Broadcast()
	if o.closed {
		o.wake.Signal()
	}
}

// split cuts a buffer of messages into msgs.
func split(msgs [][]byte, buf []byte, ends []int) [][]byte {
	msgs = msgs[:0]
	start := 0
	for _, end := range ends {
		msgs = append(msgs, buf[start:end])
		start = end + 1
	}
	return msgs
}

func (s *Session) observeSent(buf []byte, ends []int) {
	if o := s.opts.observer; o != nil {
		for _, m := range split(nil, buf, ends) {
			o.Message(s, true, m)
		}
	}
}

// write is the writing goroutine of a session: it writes what nobody else does
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
			msgs = split(msgs, buf, ends)
			err = s.t.WriteMessages(msgs)
			clear(msgs)
		}
		s.observeSent(buf, ends)
		s.mu.Lock()
		s.out.written(buf, ends)
		s.mu.Unlock()
		if err != nil {
			s.writeFailed(err)
			break
		}
	}
	_ = s.t.Close(s.closeReason())
}

// lastWords is how long a session whose transport doesn't take anything any more goes on reading: a peer
// that ends it says why in its last message, which may have arrived already.
const lastWords = 250 * time.Millisecond

// writeFailed ends the session, with the peer's reason if there is one.
func (s *Session) writeFailed(err error) {
	t := time.NewTimer(lastWords)
	defer t.Stop()
	s.mu.Lock()
	s.attend()
	s.mu.Unlock()
	select {
	case <-s.ctx.Done():
	case <-t.C:
		s.fail(&transportError{err}, false)
	}
}

// expectKick announces a call of kick.
func (s *Session) expectKick() {
	s.mu.Lock()
	s.out.kickers++
	s.mu.Unlock()
}

// kick writes what waits, as far as that is possible without waiting. announced
// says that expectKick was called; if others have announced themselves too, the last
// one writes. With more, further messages are about to follow, and writing may wait a
// moment for them.
func (s *Session) kick(announced, more bool) {
	o := &s.out
	s.mu.Lock()
	if announced {
		o.kickers--
	}
	for n := 0; ; n++ {
		switch {
		case len(o.ends) == 0 || o.busy || o.closed || o.broken:
			s.mu.Unlock()
			return
		case announced && o.kickers > 0: // who will see it too
			s.mu.Unlock()
			return
		case more && len(o.buf) < inlineBytes || !o.urgent:
			o.arm()
			s.mu.Unlock()
			return
		case s.try == nil || o.stuck || len(o.buf) > inlineBytes || n == 4:
			o.wake.Signal()
			s.mu.Unlock()
			return
		}
		buf, ends := o.grab()
		s.mu.Unlock()
		var done bool
		var err error
		if l, ok := s.try.(tryLineWriter); ok {
			done, err = l.tryLines(buf)
		} else {
			var msgs [16][]byte
			done, err = s.try.TryWriteMessages(split(msgs[:], buf, ends))
		}
		s.observeSent(buf, ends)
		s.mu.Lock()
		o.written(buf, ends)
		if err != nil {
			o.broken = true
			s.mu.Unlock()
			go s.writeFailed(err) // not from here: we may be anywhere
			return
		}
		if !done {
			o.stuck = true
			o.wake.Signal()
		}
	}
}

// kickSoon is kick, after an expectKick; it lets others add their messages first.
func (s *Session) kickSoon() {
	runtime.Gosched()
	s.kick(true, false)
}

// kickLater takes an expectKick back: a kick follows in a moment.
func (s *Session) kickLater() {
	s.mu.Lock()
	s.out.kickers--
	if len(s.out.ends) > 0 && !s.out.busy {
		s.out.arm()
	}
	s.mu.Unlock()
}

// waitForRoom holds callers back while too much waits to be written.
func (s *Session) waitForRoom(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := func() bool { return s.err == nil && s.out.queued() > s.limits.MaxQueuedBytes/2 }
	if !full() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.out.room.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	for full() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.out.wake.Signal()
		s.out.room.Wait()
	}
	return nil
}

// begin begins a message; the session is locked.
func (e *encoder) begin() {
	e.b = e.s.out.buf
	e.start = len(e.b)
}

// commit ends the message that e wrote; the session is locked.
func (s *Session) commit(e *encoder) { s.commitBytes(e.b, false) }

// commitBytes is commit for a message that nobody may be waiting for.
func (s *Session) commitBytes(b []byte, lazy bool) {
	before := s.out.queued()
	s.out.buf = b
	s.out.commit(lazy)
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
