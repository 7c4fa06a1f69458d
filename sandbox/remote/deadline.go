package remote

import (
	"context"
	"net"
	"os"
	"sync"
	"time"
)

// deadline gives contexts of a connection's deadline, which can be moved.
type deadline struct {
	mu     sync.Mutex
	now    *moment
	timer  *time.Timer
	closed bool
}

// moment is a context that ends when a deadline passes.
type moment struct {
	context.Context
	done chan struct{}
	mu   sync.Mutex
	err  error
}

func newMoment() *moment { return &moment{Context: context.Background(), done: make(chan struct{})} }

func (m *moment) Done() <-chan struct{} { return m.done }

func (m *moment) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func (m *moment) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
		close(m.done)
	}
}

// current is the context of the deadline as it is now; d is locked.
func (d *deadline) current() *moment {
	if d.now == nil {
		d.now = newMoment()
	}
	return d.now
}

func (d *deadline) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current()
}

// set moves the deadline; the zero time is none. What waits is interrupted when it
// passes. What begins after it was moved on is not.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.current().Err() != nil {
		d.now = newMoment()
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.now.end(os.ErrDeadlineExceeded)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.timer == timer { // it was not moved meanwhile
			d.now.end(os.ErrDeadlineExceeded)
		}
	})
	d.timer = timer
}

// close ends what waits, and all that comes.
func (d *deadline) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.closed = true
	if d.current().Err() != nil {
		d.now = newMoment()
	}
	d.now.end(net.ErrClosed)
}
