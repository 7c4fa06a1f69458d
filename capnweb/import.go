package capnweb

import "strconv"

// importEntry is an object, or a promised result, of the peer.
type importEntry struct {
	s  *Session
	id int64
	// The session's lock guards these:
	refs      int   // local holders
	remote    int64 // how often the peer introduced it: what a release must give back
	promise   bool
	stream    bool // of a stream message: the peer releases it by itself
	permanent bool // the main object: its local holders are not counted
	pulled    bool
	expected  bool  // the peer will settle it
	called    bool  // somebody has called and waits, and nobody else knows of it
	dead      error // why it is unusable, other than by resolving
	waiters   []waiter
	watchers  watchers

	res resolution
}

type waiter struct {
	b budget
	f func(*payload, error)
}

func (e *importEntry) resolved() hook { return e.res.get() }

// unusable is the error of using e now, if any; the session is locked.
func (e *importEntry) unusable() error {
	switch {
	case e.s.err != nil:
		return e.s.err
	case e.dead != nil:
		return e.dead
	case e.refs <= 0:
		return errStubClosed
	}
	return nil
}

func (e *importEntry) call(path []key, args *payload) hook {
	return e.s.send(e, path, args, nil)
}

func (e *importEntry) get(path []key) hook {
	if len(path) == 0 {
		return e.dup()
	}
	return e.s.send(e, path, nil, nil)
}

func (e *importEntry) dup() hook {
	if h := e.res.get(); h != nil {
		return h.dup()
	}
	e.s.mu.Lock()
	if e.refs > 0 && !e.permanent {
		e.refs++
		// Resolved or not: this reference is counted on the entry.
	}
	dead := e.refs <= 0
	e.s.mu.Unlock()
	if dead {
		return errorHook{errStubClosed}
	}
	return e
}

func (e *importEntry) close() {
	s := e.s
	s.mu.Lock()
	if e.permanent || e.refs <= 0 {
		s.mu.Unlock()
		return
	}
	e.refs--
	if e.refs > 0 {
		s.mu.Unlock()
		return
	}
	res := e.res.get()
	var ws []waiter
	if res == nil && s.imports[e.id] == e {
		s.release(e)
		ws, e.waiters = e.waiters, nil
	}
	s.mu.Unlock()
	if res != nil {
		res.close()
	}
	for _, w := range ws {
		w.f(nil, errPromiseClosed)
	}
}

// release forgets e and tells the peer; the session is locked.
func (s *Session) release(e *importEntry) {
	s.forget(e)
	b := append(s.out.buf, `["release",`...)
	b = strconv.AppendInt(b, e.id, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, e.remote, 10)
	s.commitBytes(append(b, ']'), true)
}

func (e *importEntry) pull(b budget, f func(*payload, error)) {
	s := e.s
	s.mu.Lock()
	if h := e.res.get(); h != nil {
		s.mu.Unlock()
		final(h).pull(b, f)
		return
	}
	if err := e.unusable(); err != nil {
		s.mu.Unlock()
		f(nil, err)
		return
	}
	if !e.promise {
		if !e.permanent {
			e.refs++
		}
		s.mu.Unlock()
		p := &payload{}
		p.v = p.addStub(e)
		f(p, nil)
		return
	}
	e.waiters = append(e.waiters, waiter{b, f})
	if !e.pulled {
		s.sendPull(e)
	}
	s.mu.Unlock()
}

// sendPull asks for the result of e; the session is locked.
func (s *Session) sendPull(e *importEntry) {
	e.pulled = true
	s.expect(e)
	if e.id <= 0 {
		return
	}
	b := append(s.out.buf, `["pull",`...)
	b = strconv.AppendInt(b, e.id, 10)
	s.commit(&encoder{s: s, b: append(b, ']')})
}

// settle gives e its resolution, which it owns, and releases it.
func (e *importEntry) settle(h hook) {
	if final(h) == hook(e) {
		h.close()
		h = errorHook{plainErrorf("A promise resolves to itself.")}
	}
	s := e.s
	s.mu.Lock()
	if s.imports[e.id] != e || !e.promise {
		s.mu.Unlock()
		h.close()
		return
	}
	e.res.set(h)
	if e.called && s.turns.expected == 1 {
		s.turns.alone++
	} else {
		s.turns.alone = 0
	}
	if e.stream {
		s.forget(e)
	} else {
		s.release(e)
	}
	waiters, ws := e.waiters, e.watchers.takeAll()
	e.waiters = nil
	unused := e.refs <= 0
	if !unused {
		e.refs++ // a caller that gives up in this moment must not close what another one is about to get
	}
	s.mu.Unlock()
	for _, w := range waiters {
		final(h).pull(w.b, w.f)
	}
	for _, w := range ws {
		w.attach(h)
	}
	if unused {
		h.close()
	} else {
		e.close()
	}
}

// lose is called when the session is over.
func (e *importEntry) lose(err error) {
	e.s.mu.Lock()
	e.dead = err
	waiters := e.waiters
	e.waiters = nil
	e.s.mu.Unlock()
	for _, w := range waiters {
		w.f(nil, err)
	}
}

// onBroken watches the session, and the promise. The session calls its
// watchers in the order in which they were registered.
func (e *importEntry) onBroken(f func(error)) func() {
	s := e.s
	s.mu.Lock()
	if h := e.res.get(); h != nil {
		s.mu.Unlock()
		return h.onBroken(f)
	}
	if err := e.unusable(); err != nil {
		s.mu.Unlock()
		f(err)
		return func() {}
	}
	if !e.promise {
		w := s.watch.add(f)
		s.mu.Unlock()
		return w.stop
	}
	w := e.watchers.add(f)
	onEnd := s.watch.add(w.fire)
	s.mu.Unlock()
	return func() {
		w.stop()
		onEnd.stop()
	}
}

// send pushes a call (args), a read (neither), or a map (m) of what path leads to
// below e, and returns the promised result. It owns args and m.
func (s *Session) send(e *importEntry, path []key, args *payload, m *mapping) hook {
	args.prepare(s)
	for {
		s.mu.Lock()
		if h := e.res.get(); h != nil {
			s.mu.Unlock()
			switch {
			case m != nil:
				return final(h).remap(path, m)
			case args == nil:
				return final(h).get(path)
			}
			return final(h).call(path, args)
		}
		if err := e.unusable(); err != nil {
			s.mu.Unlock()
			args.close()
			m.close()
			return errorHook{err}
		}
		if args.ready(s) {
			break
		}
		s.mu.Unlock()
		args.prepare(s)
	}
	var refused error
	switch {
	case len(s.imports) >= s.limits.MaxImports:
		refused = limitf("Too many imports on this session (limit %d).", s.limits.MaxImports)
	case s.out.queued() > s.limits.MaxQueuedBytes/2 && forwarded(args, m):
		// Our own callers wait for room. The reader of another session cannot, and must
		// not end this one either.
		refused = limitf("Too much waits to be written: the peer of this call does not keep up (limit %d bytes).", s.limits.MaxQueuedBytes)
	}
	if refused != nil {
		s.mu.Unlock()
		args.close()
		m.close()
		return errorHook{refused}
	}
	enc := &encoder{s: s}
	err := enc.streams(args)
	enc.begin()
	if err == nil {
		if m != nil {
			err = enc.remap(e.id, path, m)
		} else {
			err = enc.push("push", e.id, path, args)
		}
	}
	if err == nil {
		err = enc.fits()
	}
	if err != nil {
		hooks := s.undo(enc)
		s.mu.Unlock()
		for _, h := range hooks {
			h.close()
		}
		enc.dropPipes()
		args.close()
		m.close()
		return errorHook{err}
	}
	r := &importEntry{s: s, id: s.nextOut, refs: 1, remote: 1, promise: true}
	s.nextOut++
	s.imports[r.id] = r
	s.commit(enc)
	s.mu.Unlock()
	enc.after(args)
	args.close()
	m.close()
	return r
}

// forwarded reports whether a call came in on a session.
func forwarded(args *payload, m *mapping) bool {
	return args != nil && args.origin != nil || m != nil && m.origin != nil
}

// push writes ["push"|"stream",["pipeline",id,path,args]].
func (e *encoder) push(kind string, id int64, path []key, args *payload) error {
	e.lit(`["`)
	e.lit(kind)
	e.lit(`",["pipeline",`)
	e.b = strconv.AppendInt(e.b, id, 10)
	if len(path) > 0 || args != nil {
		e.b = append(e.b, ',')
		e.path(path)
	}
	if args != nil {
		e.b = append(e.b, ',')
		list, _ := args.v.([]any)
		if err := e.list(list, 0); err != nil {
			return err
		}
	}
	e.lit("]]")
	return nil
}

// prepare makes the references in p ready to be written on s: a property of
// something that is not the peer's is read here.
func (p *payload) prepare(s *Session) {
	if p == nil {
		return
	}
	for _, r := range p.refs {
		if len(r.path) == 0 || r.gone.Load() {
			continue
		}
		if e, ok := final(r.h).(*importEntry); ok && e.s == s {
			continue
		}
		old := r.h
		r.h = old.get(r.path)
		r.path = nil
		old.close()
	}
}

// ready reports whether prepare has nothing left to do; the session is locked.
func (p *payload) ready(s *Session) bool {
	if p == nil {
		return true
	}
	for _, r := range p.refs {
		if len(r.path) == 0 || r.gone.Load() {
			continue
		}
		if e, ok := final(r.h).(*importEntry); !ok || e.s != s {
			return false
		}
	}
	return true
}

// after does what has to wait until the message is on its way: the promises in
// it are resolved for the peer, and its streams begin to flow.
func (e *encoder) after(p *payload) {
	e.s.resolveExports(e.promises)
	e.flow(p)
}
