package capnweb

import "sync"

// deferred is a promise of this process: its outcome is not known yet. What is
// asked of it meanwhile waits, in order.
type deferred struct {
	mu       sync.Mutex
	refs     int
	queue    []func(hook)
	flushing bool
	res      resolution
	watchers watchers
	// onClose is called when nobody refers to the unresolved promise any more.
	onClose func()
}

func newDeferred() *deferred { return &deferred{refs: 1} }

func (d *deferred) resolved() hook { return d.res.get() }

// resolve settles the promise with h, which it owns. Only the first call counts.
func (d *deferred) resolve(h hook) {
	if t := final(h); t == hook(d) {
		h.close()
		h = errorHook{plainErrorf("A promise resolves to itself.")}
	}
	d.mu.Lock()
	if d.flushing || d.res.get() != nil {
		d.mu.Unlock()
		h.close()
		return
	}
	// Earlier requests first: until the queue is empty, new ones join it.
	d.flushing = true
	for len(d.queue) > 0 {
		q := d.queue
		d.queue = nil
		d.mu.Unlock()
		for _, f := range q {
			f(h)
		}
		d.mu.Lock()
	}
	d.res.set(h)
	d.flushing = false
	dead := d.refs == 0
	ws := d.watchers.takeAll()
	d.mu.Unlock()
	for _, w := range ws {
		w.attach(h)
	}
	if dead {
		h.close()
	}
}

func (d *deferred) reject(err error) { d.resolve(errorHook{err}) }

// when runs f with the outcome: now if it is known, else when it is.
func (d *deferred) when(f func(hook)) {
	if h := d.res.get(); h != nil {
		f(h)
		return
	}
	d.mu.Lock()
	if h := d.res.get(); h != nil {
		d.mu.Unlock()
		f(h)
		return
	}
	d.queue = append(d.queue, f)
	d.mu.Unlock()
}

func (d *deferred) call(path []key, args *payload) hook {
	if h := d.res.get(); h != nil {
		return final(h).call(path, args)
	}
	r := newDeferred()
	d.when(func(h hook) { r.resolve(h.call(path, args)) })
	return r
}

func (d *deferred) get(path []key) hook {
	if len(path) == 0 {
		return d.dup()
	}
	if h := d.res.get(); h != nil {
		return final(h).get(path)
	}
	r := newDeferred()
	d.when(func(h hook) { r.resolve(h.get(path)) })
	return r
}

func (d *deferred) remap(path []key, m *mapping) hook {
	if h := d.res.get(); h != nil {
		return final(h).remap(path, m)
	}
	r := newDeferred()
	d.when(func(h hook) { r.resolve(h.remap(path, m)) })
	return r
}

func (d *deferred) pull(b budget, f func(*payload, error)) {
	if h := d.res.get(); h != nil {
		final(h).pull(b, f)
		return
	}
	d.when(func(h hook) { h.pull(b, f) })
}

func (d *deferred) dup() hook {
	d.mu.Lock()
	d.refs++
	d.mu.Unlock()
	return d
}

func (d *deferred) close() {
	d.mu.Lock()
	d.refs--
	var h hook
	var onClose func()
	if d.refs == 0 {
		h = d.res.get()
		if h == nil && !d.flushing {
			onClose = d.onClose
		}
	}
	d.mu.Unlock()
	if h != nil {
		h.close()
	}
	if onClose != nil {
		onClose()
	}
}

func (d *deferred) onBroken(f func(error)) func() {
	d.mu.Lock()
	if h := d.res.get(); h != nil {
		d.mu.Unlock()
		return h.onBroken(f)
	}
	w := d.watchers.add(f)
	d.mu.Unlock()
	return w.stop
}

// watchers are the functions to call when a referent is lost, in order of
// registration. Its owner's lock guards it.
type watchers struct{ list []*watcher }

type watcher struct {
	mu      sync.Mutex
	f       func(error)
	stopped bool
	detach  func()
}

func (ws *watchers) add(f func(error)) *watcher {
	w := &watcher{f: f}
	live := ws.list[:0]
	for _, x := range ws.list {
		if !x.isStopped() {
			live = append(live, x)
		}
	}
	ws.list = append(live, w)
	return w
}

func (ws *watchers) takeAll() []*watcher {
	l := ws.list
	ws.list = nil
	return l
}

func (w *watcher) isStopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped
}

// fire calls the function, unless it was stopped or has been called.
func (w *watcher) fire(err error) {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return
	}
	w.stopped = true
	w.mu.Unlock()
	w.f(err)
}

// attach goes on watching what the referent became.
func (w *watcher) attach(h hook) {
	if w.isStopped() {
		return
	}
	detach := h.onBroken(w.fire)
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		detach()
		return
	}
	w.detach = detach
	w.mu.Unlock()
}

func (w *watcher) stop() {
	w.mu.Lock()
	w.stopped = true
	detach := w.detach
	w.detach = nil
	w.mu.Unlock()
	if detach != nil {
		detach()
	}
}
