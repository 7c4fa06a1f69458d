package capnweb

import (
	"errors"
	"strconv"

	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

// read is the reading goroutine of a session. It handles messages in order and
// never waits for a handler, a peer or another session. The error says why it ended.
func (s *Session) read() error {
	buffered, _ := s.t.(interface{ Buffered() bool })
	handling := 0
	defer func() {
		if handling > 0 {
			s.abandonBatch()
		}
	}()
	more := false
	for {
		if handling > 0 && (!more || handling >= maxBatch) {
			// Everything that has arrived is handled: send what came of it.
			handling = 0
			if s.endBatch() {
				return errHandedOver
			}
		}
		msg, err := s.next(more)
		if err != nil {
			return err
		}
		if o := s.opts.observer; o != nil {
			o.Message(s, false, msg)
		}
		if len(msg) > s.limits.MaxMessageBytes {
			return limitf("Incoming message exceeds maximum size of %d bytes.", s.limits.MaxMessageBytes)
		}
		if handling == 0 && len(msg) < inlineBytes { // others do not wait for a long one
			s.beginBatch()
		}
		handling++
		if err := s.receive(msg); err != nil {
			return err
		}
		more = buffered != nil && buffered.Buffered()
		if s.Err() != nil {
			return s.Err()
		}
	}
}

// next waits for a message. With more, there is one.
func (s *Session) next(more bool) ([]byte, error) {
	if !more {
		if l := s.rest(); l.msg != nil || l.err != nil {
			return l.msg, l.err
		}
	}
	msg, err := s.t.ReadMessage()
	if err != nil {
		return nil, readError(err)
	}
	return msg, nil
}

// readError is what it means for the session that no message could be read.
func readError(err error) error {
	var fault *Error
	if isLimit(err) || errors.As(err, &fault) {
		return err // the peer's fault, of which it is told
	}
	return &transportError{err}
}

// peerAbort is the reason that the peer gave for ending the session.
type peerAbort struct{ err error }

func (e *peerAbort) Error() string        { return e.err.Error() }
func (e *peerAbort) Unwrap() error        { return e.err }
func (e *peerAbort) Is(target error) bool { return target == errTransport }

// receive handles one message.
func (s *Session) receive(msg []byte) error {
	d := &s.in
	defer d.dropDecoded()
	if len(msg) > bufpool.Most {
		if g, ok := s.t.(MessageGiver); ok && g.GiveMessage() {
			d.own = true
			defer func() {
				if d.own { // nobody was given a part of it
					bufpool.Put(msg)
				}
				d.own = false
				d.src = nil
			}()
		}
	}
	if err := d.parse(msg, 3*s.limits.MaxDepth+16); err != nil {
		if err == errTooDeep {
			return limitf("Deserialization exceeded maximum allowed message depth of %d.", s.limits.MaxDepth)
		}
		return err
	}
	root := &d.nodes[0]
	bad := func() error { return plainErrorf("bad RPC message: %s", clip(d.src)) }
	if root.kind != kindArray || root.count == 0 || !d.isString(root.first) {
		return bad()
	}
	tag := root.first
	a := d.nodes[tag].next
	b := int32(-1)
	if a >= 0 {
		b = d.nodes[a].next
	}
	switch d.text(tag) {
	case "push":
		if a >= 0 {
			return s.receivePush(a, false)
		}
	case "stream":
		if a >= 0 {
			return s.receivePush(a, true)
		}
	case "pull":
		if id, ok := s.number(a); ok {
			return s.receivePull(id)
		}
	case "resolve", "reject":
		if id, ok := s.number(a); ok && b >= 0 {
			return s.receiveResult(id, b, d.is(tag, "reject"))
		}
	case "release":
		if id, ok := s.number(a); ok && b >= 0 {
			if n, ok := s.number(b); ok && n >= 0 {
				return s.receiveRelease(id, n)
			}
		}
	case "pipe":
		return s.receivePipe()
	case "abort":
		if a >= 0 {
			return s.receiveAbort(a)
		}
	}
	return bad()
}

func (s *Session) number(n int32) (int64, bool) {
	if n < 0 {
		return 0, false
	}
	return s.in.integer(n)
}

func (s *Session) receivePush(n int32, stream bool) error {
	p, err := evaluate(&s.in, n, s, &s.limits, s, 0)
	if err != nil {
		return err
	}
	h := hookOf(p)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		h.close()
		return s.err
	}
	if len(s.exports) >= s.limits.MaxExports {
		s.mu.Unlock()
		h.close()
		return limitf("Too many exports on this session (limit %d).", s.limits.MaxExports)
	}
	id := s.nextIn
	s.nextIn++
	s.exports[id] = &export{h: h, refs: 1, auto: stream}
	s.mu.Unlock()
	if stream {
		return s.receivePull(id)
	}
	return nil
}

func (s *Session) receivePull(id int64) error {
	s.mu.Lock()
	x := s.exports[id]
	if x == nil {
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
		return plainErrorf("no such export ID: %d", id)
	}
	if x.pulled {
		s.mu.Unlock()
		return nil
	}
	x.pulled = true
	s.owed++
	h := x.h
	s.mu.Unlock()
	h.pull(budget{raw: true}, func(p *payload, err error) { s.answer(id, x, p, err) })
	return nil
}

// resolveExports has promises that we introduced resolved for the peer. Their
// resolutions may have further promises in them: a queue keeps that from nesting.
func (s *Session) resolveExports(ids []int64) {
	if len(ids) == 0 {
		return
	}
	s.mu.Lock()
	s.unresolved = append(s.unresolved, ids...)
	if s.resolving {
		s.mu.Unlock()
		return
	}
	s.resolving = true
	for len(s.unresolved) > 0 {
		id := s.unresolved[0]
		s.unresolved = s.unresolved[1:]
		s.mu.Unlock()
		s.resolveExport(id)
		s.mu.Lock()
	}
	s.unresolved = nil
	s.resolving = false
	s.mu.Unlock()
}

// resolveExport sends the resolution of a promise that we introduced, without
// being asked.
func (s *Session) resolveExport(id int64) {
	s.mu.Lock()
	x := s.exports[id]
	if x == nil || x.pulled {
		s.mu.Unlock()
		return
	}
	x.pulled = true
	s.owed++
	h := x.h
	s.mu.Unlock()
	h.pull(budget{raw: true}, func(p *payload, err error) { s.answer(id, x, p, err) })
}

// answer sends the result of export x, unless the peer has released it. It owns p.
func (s *Session) answer(id int64, x *export, p *payload, err error) {
	p.prepare(s)
	for {
		s.mu.Lock()
		if s.exports[id] != x {
			s.paid()
			s.mu.Unlock()
			p.close()
			return
		}
		if p.ready(s) {
			break
		}
		s.mu.Unlock()
		p.prepare(s)
	}
	enc := &encoder{s: s}
	var undone []hook
	var failed *encoder
	if err == nil {
		err = enc.streams(p)
		enc.begin()
		if err == nil {
			err = enc.result("resolve", id, p.v)
		}
		if err == nil {
			err = enc.fits()
		}
		if err != nil {
			undone = s.undo(enc)
			failed = enc
			enc = &encoder{s: s}
		}
	}
	if err != nil {
		enc.begin()
		b := builder{p: &payload{}}
		_ = enc.result("reject", id, b.err(err, 0)) // cannot fail: nested too deep is cut off when built
		if long := enc.fits(); long != nil {
			undone = append(undone, s.undo(enc)...)
			enc = &encoder{s: s}
			enc.begin()
			_ = enc.result("reject", id, b.err(long, 0))
		}
	}
	if x.auto {
		s.out.kickers++ // the writer of a stream waits for this
	}
	s.commit(enc)
	var h hook
	if x.auto {
		x.refs--
		if x.refs <= 0 {
			delete(s.exports, id)
			h = x.h
		}
	}
	s.paid()
	s.mu.Unlock()
	for _, u := range undone {
		u.close()
	}
	if failed != nil {
		failed.dropPipes()
	}
	if h != nil {
		h.close()
	}
	if x.auto {
		s.kick(true, false)
	}
	enc.after(p)
	p.close()
}

// paid counts one result less that is owed; the session is locked.
func (s *Session) paid() {
	if s.owed--; s.owed == 0 {
		s.idle.Broadcast()
	}
}

func (e *encoder) result(kind string, id int64, v any) error {
	e.lit(`["`)
	e.lit(kind)
	e.lit(`",`)
	e.b = strconv.AppendInt(e.b, id, 10)
	e.lit(",")
	if err := e.value(v, 0); err != nil {
		return err
	}
	e.lit("]")
	return nil
}

func (s *Session) receiveResult(id int64, n int32, reject bool) error {
	s.mu.Lock()
	e := s.imports[id]
	s.mu.Unlock()
	if e == nil && reject {
		return nil // of something we gave up: the reference does not look at it either
	}
	if e != nil && !e.promise {
		e = nil
	}
	p, err := evaluate(&s.in, n, s, &s.limits, s, 0)
	if err != nil {
		return err
	}
	if e == nil {
		p.close()
		return nil
	}
	if reject {
		e.settle(errorHook{errorOf(p)})
		return nil
	}
	e.settle(hookOf(p))
	return nil
}

// errorOf is the error that a rejection carries. References in it are given back.
func errorOf(p *payload) error {
	defer p.close()
	d := decoder{p: &payload{shared: true}}
	if e, ok := p.v.(*Error); ok {
		return d.err(e, d.any)
	}
	return Thrown(d.ordered(p.v))
}

func (s *Session) receiveRelease(id, n int64) error {
	s.mu.Lock()
	x := s.exports[id]
	if x == nil {
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
		return plainErrorf("no such export ID: %d", id)
	}
	if x.refs < n {
		s.mu.Unlock()
		return plainErrorf("refcount would go negative: %d < %d", x.refs, n)
	}
	x.refs -= n
	last := x.refs == 0
	if last {
		delete(s.exports, id)
	}
	s.mu.Unlock()
	if last {
		x.h.close()
		if x.pipe != nil {
			x.pipe.dropUnused()
		}
	}
	return nil
}

func (s *Session) receiveAbort(n int32) error {
	p, err := evaluate(&s.in, n, s, &s.limits, s, 0)
	if err != nil {
		return err
	}
	return &peerAbort{errorOf(p)}
}

// lookup implements scope.
func (s *Session) lookup(id int64) (hook, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.exports[id]; x != nil {
		return x.h, nil
	}
	if s.err != nil {
		return nil, s.err
	}
	return nil, plainErrorf("no such entry on exports table: %d", id)
}

// introduce implements scope.
func (s *Session) introduce(id int64, promise bool) (hook, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if e := s.imports[id]; e != nil {
		if promise || e.promise || e.permanent {
			return errorHook{plainErrorf("Bug in RPC system: The peer sent a promise reusing an existing export ID.")}, nil
		}
		e.remote++
		e.refs++
		return e, nil
	}
	if id >= 0 {
		return nil, plainErrorf("export IDs of the sender are negative, not %d", id)
	}
	if len(s.imports) >= s.limits.MaxImports {
		return nil, limitf("Too many imports on this session (limit %d).", s.limits.MaxImports)
	}
	e := &importEntry{s: s, id: id, refs: 1, remote: 1, promise: promise, pulled: promise}
	s.imports[id] = e
	if promise {
		s.expect(e)
	}
	return e, nil
}
