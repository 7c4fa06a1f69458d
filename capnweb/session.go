package capnweb

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// Session is one Cap'n Web connection: two peers that hold references to each
// other's objects. It ends when its transport does, when a peer breaks the
// protocol, or by [Session.Close]; everything that came through it is then broken for
// good, and a new session has to be made.
type Session struct {
	t      Transport
	limits Limits
	opts   options
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}

	mu      sync.Mutex
	err     error // why the session is over
	exports map[int64]*export
	imports map[int64]*importEntry
	main    *importEntry
	nextIn  int64 // ID of the peer's next push, stream or pipe
	nextOut int64 // ID of our next one
	nextNeg int64 // ID of our next export
	watch   watchers
	calls   int // handlers running or queued for this session
	owed    int // results that the peer asked for and did not get yet
	idle    *sync.Cond

	unresolved []int64 // exported promises that are about to be pulled
	resolving  bool
	guard      *time.Timer // ends a closing that takes too long

	out outbox
	try TryWriter // t, if it can

	writerDone chan struct{}
	inline     inline
	turns      turns
	in         document // of the reading goroutine
}

// export is what the peer can refer to.
type export struct {
	h      hook
	refs   int64
	pulled bool
	auto   bool // of a stream message: released when its result is sent
	pipe   *ReadableStream
}

// NewSession begins a session over t, which it owns. The peer gets main as its
// main object: a [*Target], a [*Stub] (duplicated), any other value, or nil for
// nothing. It starts two goroutines, which end with the session.
func NewSession(t Transport, main any, opts ...Option) *Session {
	s := &Session{
		t:       t,
		done:    make(chan struct{}),
		exports: map[int64]*export{},
		imports: map[int64]*importEntry{},
		nextIn:  1, nextOut: 1, nextNeg: -1,
	}
	s.opts = defaultOptions()
	for _, o := range opts {
		o(&s.opts)
	}
	s.limits = s.opts.limits.withDefaults()
	parent := s.opts.ctx
	if parent == nil {
		parent = context.Background()
	}
	s.ctx, s.cancel = context.WithCancelCause(parent)
	s.idle = sync.NewCond(&s.mu)
	s.out.init(&s.mu)
	s.try, _ = t.(TryWriter)
	s.turns.init(s, main)

	h := hook(errorHook{errNoMain})
	if main != nil {
		if p, err := buildArg(main); err != nil {
			h = errorHook{err}
		} else {
			h = hookOf(p)
		}
	}
	s.exports[0] = &export{h: h, refs: 1}
	s.main = &importEntry{s: s, id: 0, refs: 1, remote: 1, permanent: true}
	s.imports[0] = s.main

	writerDone := make(chan struct{})
	go func() {
		defer close(writerDone)
		s.write()
	}()
	s.writerDone = writerDone
	go s.readLoop()
	return s
}

// readLoop is the reading goroutine.
func (s *Session) readLoop() {
	err := s.read()
	if err == errHandedOver {
		return // another goroutine reads on
	}
	s.fail(err, !errors.Is(err, errTransport))
	<-s.writerDone
	s.mu.Lock()
	s.guard.Stop()
	s.mu.Unlock()
	close(s.done)
}

// Main returns the peer's main object. Each call returns a handle of its own;
// closing it does not end the session.
func (s *Session) Main() *Stub { return newStub(s.main) }

// Close ends the session: the peer is told the reason, if there is one, every
// reference is broken, and the transport is closed. It returns when all of that
// is done, within a few seconds even if the peer does not read.
func (s *Session) Close(reason error) error {
	if s.fail(closedBy(reason), reason != nil) {
		<-s.done
	}
	return nil
}

var errClosedHere = errors.New("closed on this side")

func closedBy(reason error) error {
	if reason == nil {
		return errClosedHere
	}
	return reason
}

// closeReason is what a transport tells the peer at the end: the bare message of
// what went wrong, or nil.
func (s *Session) closeReason() error {
	var b *brokenError
	if !errors.As(s.Err(), &b) || errors.Is(b.reason, errClosedHere) {
		return nil
	}
	var lost *transportError
	if errors.As(b.reason, &lost) {
		return nil
	}
	return errors.New(toWire(b.reason).Message)
}

// Done is closed when the session is over and its goroutines have ended.
func (s *Session) Done() <-chan struct{} {
	s.mu.Lock()
	s.attend() // somebody wants to know
	s.mu.Unlock()
	return s.done
}

// Err is nil while the session lives, and afterwards says why it ended. It matches
// [ErrDisconnected].
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Context is the parent of the contexts of all handlers of this session. It is
// cancelled when the session ends, with [Session.Err] as its cause.
func (s *Session) Context() context.Context { return s.ctx }

// Stats are the sizes of a session's tables.
type Stats struct {
	// Imports and Exports count live references; both are 1 when nothing but the
	// main objects is referred to.
	Imports, Exports int
	// Calls is the number of handlers running or queued for the peer.
	Calls int
	// QueuedBytes is what waits to be written.
	QueuedBytes int
}

// Stats returns the sizes of the session's tables.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Imports: len(s.imports), Exports: len(s.exports), Calls: s.calls, QueuedBytes: s.out.queued()}
}

// Drain waits until the peer has every result that it asked for.
func (s *Session) Drain(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.idle.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.owed > 0 && s.err == nil && ctx.Err() == nil {
		s.idle.Wait()
	}
	if s.err != nil {
		return s.err
	}
	return context.Cause(ctx)
}

// errTransport marks ends of which the peer need not, or cannot, be told.
var errTransport = errors.New("transport")

type transportError struct{ err error }

func (e *transportError) Error() string {
	if errors.Is(e.err, io.EOF) {
		return "the peer closed the connection"
	}
	return e.err.Error()
}
func (e *transportError) Unwrap() error        { return e.err }
func (e *transportError) Is(target error) bool { return target == errTransport }

// fail ends the session, once. It reports whether this call did.
func (s *Session) fail(reason error, tell bool) bool {
	err := broken(reason)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	if tell {
		e := &encoder{s: s, b: s.out.buf}
		e.lit(`["abort",`)
		b := builder{p: &payload{}}
		if e.error(b.err(reason, 0), 0) == nil {
			e.lit("]")
			s.out.buf = e.b
			s.out.commit(false)
		}
	}
	s.err = err
	s.out.close()
	s.attend()
	imports, exports := s.imports, s.exports
	s.imports, s.exports = map[int64]*importEntry{}, map[int64]*export{}
	ws := s.watch.takeAll()
	s.idle.Broadcast()
	// A peer that does not read must not keep the transport open.
	s.guard = time.AfterFunc(s.opts.closeGrace, func() { _ = s.t.Close(nil) })
	s.mu.Unlock()

	s.cancel(err)
	for _, w := range ws {
		w.fire(err)
	}
	for _, e := range imports {
		e.lose(err)
	}
	for _, x := range exports {
		x.h.close()
		if x.pipe != nil {
			x.pipe.dropUnused()
		}
	}
	if o := s.opts.observer; o != nil {
		o.SessionEnd(s, err)
	}
	return true
}

// export adds to the table of exports; the session is locked.
func (s *Session) export(h hook) (int64, error) {
	if len(s.exports) >= s.limits.MaxExports {
		return 0, limitf("Too many exports on this session (limit %d).", s.limits.MaxExports)
	}
	id := s.nextNeg
	s.nextNeg--
	s.exports[id] = &export{h: h, refs: 1}
	s.attend()
	return id, nil
}

// beginCall counts a handler; false when there are too many.
func (s *Session) beginCall() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls >= s.limits.MaxCallsInFlight {
		return false
	}
	s.calls++
	return true
}

func (s *Session) endCall(j *job, err error) {
	s.mu.Lock()
	s.calls--
	s.out.kickers++ // run calls kick when the result is queued
	s.mu.Unlock()
	if o := s.opts.observer; o != nil {
		o.CallEnd(s, pathString(j.path), err)
	}
}

// PullAll asks the peer for the results of all calls that were made and not
// closed, without waiting for them, and returns how many that are. Results are
// otherwise asked for when they are awaited. A session over an HTTP batch needs it, as
// nothing can be asked later there.
func (s *Session) PullAll() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0
	}
	var ids []int64
	for id, e := range s.imports {
		if e.promise && !e.pulled && id > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		s.sendPull(s.imports[id])
	}
	return len(ids)
}
