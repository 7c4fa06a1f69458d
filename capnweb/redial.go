package capnweb

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Redialer keeps a session to one peer: it makes a new one when the old one is
// over. References do not survive that; [Redialer.Main] hands out a fresh one. It
// repeats no call: only the caller knows whether that is safe.
type Redialer struct {
	// Dial makes a session. ctx bounds the dialling: it ends with it, and when the redialer
	// is closed.
	Dial func(ctx context.Context) (*Session, error)
	// OnSession, if set, is called with each session that was made.
	OnSession func(*Session)
	// MinDelay and MaxDelay bound the pause after a failure, which doubles from one to
	// the other and is shortened at random by up to half: 100 ms and 10 s. A session that
	// ended within MinDelay counts as a failure.
	MinDelay, MaxDelay time.Duration

	mu      sync.Mutex
	session *Session
	dialing chan struct{} // closed when an attempt is over
	err     error         // of the last attempt
	wait    time.Duration
	since   time.Time
	closed  bool
	cancel  context.CancelFunc
}

// ErrRedialerClosed is returned by a [Redialer] after its Close.
var ErrRedialerClosed = errors.New("capnweb: redialer is closed")

// Session returns a session that is not over, waiting for one if need be. The
// error is that of ctx, with the last failure, or [ErrRedialerClosed].
func (r *Redialer) Session(ctx context.Context) (*Session, error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, ErrRedialerClosed
		}
		if r.session != nil && r.session.Err() == nil {
			s := r.session
			r.mu.Unlock()
			return s, nil
		}
		if r.dialing == nil {
			r.dialing = make(chan struct{})
			dctx, cancel := context.WithCancel(context.Background())
			r.cancel = cancel
			go r.attempt(dctx, cancel)
		}
		done := r.dialing
		r.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			r.mu.Lock()
			last := r.err
			r.mu.Unlock()
			return nil, errors.Join(context.Cause(ctx), last)
		}
	}
}

// Main returns the main object of a session that is not over; see [Redialer.Session].
func (r *Redialer) Main(ctx context.Context) (*Stub, error) {
	s, err := r.Session(ctx)
	if err != nil {
		return nil, err
	}
	return s.Main(), nil
}

// attempt makes one session, after the pause that is due.
func (r *Redialer) attempt(ctx context.Context, cancel context.CancelFunc) {
	defer cancel()
	low, high := r.MinDelay, r.MaxDelay
	if low <= 0 {
		low = 100 * time.Millisecond
	}
	if high < low {
		high = max(10*time.Second, low)
	}
	r.mu.Lock()
	if !r.since.IsZero() && time.Since(r.since) < low {
		r.wait = min(max(2*r.wait, low), high)
	} else if r.err == nil {
		r.wait = 0
	}
	pause := r.wait
	r.mu.Unlock()
	if pause > 0 {
		t := time.NewTimer(pause - rand.N(pause/2+1))
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	var s *Session
	err := ctx.Err()
	if err == nil {
		s, err = r.Dial(ctx)
	}
	r.mu.Lock()
	r.err = err
	if err != nil {
		r.wait = min(max(2*r.wait, low), high)
	} else {
		r.since = time.Now()
	}
	stray := s != nil && r.closed
	if !stray {
		r.session = s
	}
	done := r.dialing
	r.dialing = nil
	r.mu.Unlock()
	if stray {
		_ = s.Close(nil)
	} else if s != nil && r.OnSession != nil {
		r.OnSession(s)
	}
	close(done)
}

// Close ends the present session and makes no more.
func (r *Redialer) Close() error {
	r.mu.Lock()
	r.closed = true
	s, cancel := r.session, r.cancel
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if s != nil {
		_ = s.Close(nil)
	}
	return nil
}
