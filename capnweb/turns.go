package capnweb

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"
)

// A caller that waits for the only answer which is expected reads it itself. To be woken by the session's reader
// means another thread that is woken too, which takes longer than the call. It goes on like this:
//
// When a few calls in a row were alone, the reader rests after the last of them, and nobody reads. The
// next caller takes its turn: it writes its call, reads one message, and goes. A message that is not its answer, an error,
// and everything that makes a message likely (a second call, an export, the end of the session) has the
// reader go on. So does a time without calls: a timer looks whether there were any.
//
// That is only done where nothing but answers can come: the peer was given no main object and has no other reference, and
// the connection lets a reader give up without loss, as the caller's context demands.
type turns struct {
	can interruptible // the transport; nil: the reader alone reads

	// Of whoever reads:
	alone int // answers in a row that were the only ones expected

	// The session's lock guards these:
	who      turn
	woken    *sync.Cond // the reader, when it rests
	expected int        // promises of the peer that it will settle
	left     leftover
	taken    int // counts the turns of callers
	seen     int // the timer's
	timer    *time.Timer
	armed    bool
}

// turn says who reads.
type turn uint8

const (
	readerReads turn = iota
	callerReads
	nobodyReads
)

// leftover is what a caller has read for the reader.
type leftover struct {
	msg []byte
	err error
}

const (
	// restAfter is how many calls in a row are alone before the reader rests.
	restAfter = 4
	// restTime is how long nobody reads when no call comes; it can be twice as long.
	restTime = 4 * time.Millisecond
)

// interruptible is a transport from which a caller may read.
type interruptible interface {
	// interruptRead ends the present ReadMessage, and all later ones, with os.ErrDeadlineExceeded. Nothing is lost.
	interruptRead() error
	// resumeRead lets ReadMessage read again.
	resumeRead() error
	Buffered() bool
}

func (t *turns) init(s *Session, main any) {
	t.woken = sync.NewCond(&s.mu)
	if main == nil {
		t.can, _ = s.t.(interruptible)
	}
}

// quiet reports whether nothing is expected from the peer; the session is locked.
func (s *Session) quiet() bool {
	return s.turns.expected == 0 && len(s.exports) == 1 && s.err == nil
}

// expect notes that the peer will settle e; the session is locked.
func (s *Session) expect(e *importEntry) {
	e.expected = true
	s.turns.expected++
	s.attend()
}

// forget takes e out of the table; the session is locked.
func (s *Session) forget(e *importEntry) {
	delete(s.imports, e.id)
	if e.expected {
		e.expected = false
		s.turns.expected--
	}
}

// attend has the reader read, if nobody does; the session is locked.
func (s *Session) attend() {
	if s.turns.who == nobodyReads {
		s.goOn(leftover{})
	}
}

// goOn gives the turn to the reader; the session is locked.
func (s *Session) goOn(l leftover) {
	t := &s.turns
	t.who = readerReads
	t.left = l
	t.woken.Signal()
}

// rest is called by the reader before it waits for a message, and returns when it is its turn.
func (s *Session) rest() leftover {
	t := &s.turns
	if t.can == nil || t.alone < restAfter {
		return leftover{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.quiet() {
		return leftover{}
	}
	s.leave()
	for t.who != readerReads {
		t.woken.Wait()
	}
	t.alone = 0
	l := t.left
	t.left = leftover{}
	return l
}

// leave has nobody read for a while; the session is locked.
func (s *Session) leave() {
	t := &s.turns
	t.who = nobodyReads
	if t.armed {
		return
	}
	t.armed = true
	t.seen = t.taken
	if t.timer == nil {
		t.timer = time.AfterFunc(restTime, s.lookAfter)
	} else {
		t.timer.Reset(restTime)
	}
}

// lookAfter has the reader go on if there was no call for a while.
func (s *Session) lookAfter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.turns
	switch {
	case t.who != nobodyReads:
		t.armed = false
	case t.seen == t.taken:
		t.armed = false
		s.attend()
	default:
		t.seen = t.taken
		t.timer.Reset(restTime)
	}
}

// lonely reports whether one answer is expected at most.
func (s *Session) lonely() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns.expected <= 1
}

// takeTurn gives the caller that waits for e the turn to read, if nobody has it.
func (s *Session) takeTurn(e *importEntry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.called = true
	if s.turns.who != nobodyReads {
		return false
	}
	s.turns.who = callerReads
	s.turns.taken++
	return true
}

// giveUpTurn is for a caller that has taken the turn and need not read.
func (s *Session) giveUpTurn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goOn(leftover{})
}

// readAnswer reads one message, which should settle e, and ends the caller's turn. It gives up with ctx.
func (s *Session) readAnswer(ctx context.Context, e *importEntry) {
	t := &s.turns
	var msg []byte
	var err error
	if ctx.Done() == nil {
		msg, err = s.t.ReadMessage()
	} else {
		interrupted := make(chan error, 1)
		stop := context.AfterFunc(ctx, func() { interrupted <- t.can.interruptRead() })
		msg, err = s.t.ReadMessage()
		if !stop() {
			ierr := <-interrupted
			if rerr := t.can.resumeRead(); ierr == nil && rerr == nil && errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
		}
	}
	if err != nil {
		err = readError(err)
	}
	own := msg != nil && err == nil && len(msg) <= s.limits.MaxMessageBytes && e.settledBy(msg)
	if own {
		if o := s.opts.observer; o != nil {
			o.Message(s, false, msg)
		}
		err = s.receive(msg)
		msg = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if own && err == nil && s.quiet() && !t.can.Buffered() {
		s.leave()
		return
	}
	s.goOn(leftover{msg, err})
}

// settledBy reports whether a message is the result of e.
func (e *importEntry) settledBy(msg []byte) bool {
	rest, ok := bytes.CutPrefix(msg, []byte(`["resolve",`))
	if !ok {
		rest, ok = bytes.CutPrefix(msg, []byte(`["reject",`))
	}
	if !ok {
		return false
	}
	var digits [20]byte
	rest, ok = bytes.CutPrefix(rest, strconv.AppendInt(digits[:0], e.id, 10))
	return ok && len(rest) > 0 && rest[0] == ','
}
