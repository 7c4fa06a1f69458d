package capnweb

import (
	"context"
	"sync"
)

// pipe is a stream within the process: its writing end is a hook with the methods
// write, close and abort, its reading end a source. A write is acknowledged when
// the reader is done with the chunk, which is what holds the writer back.
type pipe struct {
	mu       sync.Mutex
	queue    []chunkItem
	bytes    int
	limit    int
	refs     int
	closed   bool  // the writer said close
	err      error // what the reader gets
	canceled error // what the writer gets
	wake     chan struct{}
	s        *Session
	// start, if set, is called once, at the first use of the writing end.
	start     func()
	startOnce sync.Once
}

type chunkItem struct {
	p    *payload
	size int
	ack  *deferred
	eof  bool
}

func newPipe(s *Session, limit int) *pipe {
	return &pipe{s: s, limit: limit, refs: 1, wake: make(chan struct{}, 1)}
}

func (p *pipe) begin() {
	p.startOnce.Do(func() {
		if p.start != nil {
			p.start()
		}
	})
}

func (p *pipe) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next implements source.
func (p *pipe) next(ctx context.Context) (chunk, error) {
	for {
		p.mu.Lock()
		if p.canceled != nil {
			err := p.canceled
			p.mu.Unlock()
			return chunk{}, err
		}
		if len(p.queue) > 0 {
			it := p.queue[0]
			p.queue[0] = chunkItem{}
			p.queue = p.queue[1:]
			p.bytes -= it.size
			more := len(p.queue) > 0
			p.mu.Unlock()
			return chunk{p: it.p, eof: it.eof, done: func(err error) { p.finish(it, more, err) }}, nil
		}
		if p.err != nil {
			err := p.err
			p.mu.Unlock()
			return chunk{}, err
		}
		p.mu.Unlock()
		select {
		case <-p.wake:
		case <-ctx.Done():
			return chunk{}, context.Cause(ctx)
		}
	}
}

// finish acknowledges an item. With the last chunk, a close that waits behind it
// is acknowledged too: a reader that knows its length need not read the end. With
// more behind it, the acknowledgement waits a moment for theirs.
func (p *pipe) finish(it chunkItem, more bool, err error) {
	if it.p != nil && it.p.origin != nil && more {
		it.p.origin.expectKick()
		settleAck(it.ack, err)
		it.p.origin.kick(true, true)
	} else {
		settleAck(it.ack, err)
	}
	if it.eof || err != nil || p.start != nil {
		return
	}
	p.mu.Lock()
	var last *deferred
	if len(p.queue) == 1 && p.queue[0].eof {
		last = p.queue[0].ack
	}
	p.mu.Unlock()
	if last != nil {
		settleAck(last, nil)
	}
}

func settleAck(d *deferred, err error) {
	if err != nil {
		d.reject(err)
		return
	}
	d.resolve(hookOf(&payload{v: Undefined}))
}

// cancel implements source: the reader wants no more.
func (p *pipe) cancel(err error) {
	p.mu.Lock()
	if p.canceled != nil {
		p.mu.Unlock()
		return
	}
	if err == nil {
		err = errNotConsumed
	}
	p.canceled = err
	items := p.queue
	p.queue, p.bytes = nil, 0
	p.mu.Unlock()
	p.signal()
	p.discard(items, err)
}

func (p *pipe) discard(items []chunkItem, err error) {
	for _, it := range items {
		it.p.close()
		if it.eof && p.start == nil {
			settleAck(it.ack, nil) // a reader may leave before the end; a sink that has failed has lost something
		} else {
			settleAck(it.ack, err)
		}
	}
}

// breakOff gives the reader an error instead of what is queued.
func (p *pipe) breakOff(err error) {
	p.mu.Lock()
	if p.err != nil || p.canceled != nil {
		p.mu.Unlock()
		return
	}
	p.err = err
	items := p.queue
	p.queue, p.bytes = nil, 0
	p.mu.Unlock()
	p.signal()
	p.discard(items, err)
}

func (p *pipe) call(path []key, args *payload) hook {
	if len(path) != 1 || path[0].isNum {
		args.close()
		return errorHook{plainErrorf("WritableStream stub only supports direct method calls")}
	}
	p.begin()
	name := path[0].name
	if args.pending > 0 {
		d := newDeferred()
		args.settle(newBudget(), func(err error) {
			if err != nil {
				d.reject(err)
			} else {
				d.resolve(p.method(name, args))
			}
		})
		return d
	}
	return p.method(name, args)
}

func (p *pipe) method(name string, args *payload) hook {
	list, _ := args.v.([]any)
	first := any(Undefined)
	if len(list) > 0 {
		first = list[0]
	}
	switch name {
	case "write":
		size := estimate(first)
		args.v = first
		return p.push(chunkItem{p: args, size: size})
	case "close":
		args.close()
		return p.push(chunkItem{eof: true})
	case "abort":
		d := decoder{p: args}
		err, ok := d.any(first).(error)
		if !ok {
			if first == any(Undefined) {
				err = plainErrorf("WritableStream was aborted")
			} else {
				err = Thrown(d.ordered(first))
			}
		}
		args.close()
		p.breakOff(err)
		return hookOf(&payload{v: Undefined})
	}
	args.close()
	return errorHook{plainErrorf("Unknown WritableStream method: %s", name)}
}

var errStreamClosed = &Error{Name: "TypeError", Message: "Invalid state: WritableStream is closed"}

func (p *pipe) push(it chunkItem) hook {
	p.mu.Lock()
	var err error
	switch {
	case p.canceled != nil:
		err = p.canceled
	case p.err != nil:
		err = p.err
	case p.closed:
		err = errStreamClosed
	case p.bytes+it.size > p.limit && p.bytes > 0:
		err = limitf("Too much of a stream is waiting to be read (limit %d bytes).", p.limit)
	}
	if err != nil {
		overflow := isLimit(err)
		p.mu.Unlock()
		it.p.close()
		if overflow {
			p.breakOff(err)
		}
		return errorHook{err}
	}
	it.ack = &deferred{refs: 2} // the caller's and ours
	p.queue = append(p.queue, it)
	p.bytes += it.size
	alone := it.eof && len(p.queue) == 1 && p.start == nil
	if it.eof {
		p.closed = true
	}
	p.mu.Unlock()
	p.signal()
	if alone {
		settleAck(it.ack, nil)
	}
	return it.ack
}

func (p *pipe) get(path []key) hook {
	if len(path) == 0 {
		return p.dup()
	}
	return errorHook{plainErrorf("Cannot access properties on a WritableStream stub")}
}

func (p *pipe) remap(_ []key, m *mapping) hook {
	m.close()
	return errorHook{plainErrorf("Cannot use map() on a WritableStream")}
}

func (p *pipe) pull(_ budget, f func(*payload, error)) {
	f(nil, plainErrorf("Cannot pull a WritableStream stub"))
}

func (p *pipe) dup() hook {
	p.mu.Lock()
	p.refs++
	p.mu.Unlock()
	return p
}

var errNotClosed = &Error{Name: "Error", Message: "WritableStream RPC stub was disposed without calling close()"}

func (p *pipe) close() {
	p.mu.Lock()
	p.refs--
	last := p.refs == 0 && !p.closed
	p.mu.Unlock()
	if !last {
		return
	}
	err := error(errNotClosed)
	if p.s != nil {
		if e := p.s.Err(); e != nil {
			err = e
		}
	}
	p.breakOff(err)
	p.begin()
}

func (p *pipe) onBroken(func(error)) func() { return func() {} }

// estimate is about how many bytes a value takes.
func estimate(v any) int {
	switch x := v.(type) {
	case string:
		return len(x) + 2
	case []byte:
		return len(x)
	case TypedArray:
		return len(x.Data)
	case []any:
		n := 16
		for i := range x {
			n += estimate(x[i])
		}
		return n
	case Object:
		n := 16
		for i := range x {
			n += len(x[i].Key) + estimate(x[i].Value)
		}
		return n
	}
	return 16
}
