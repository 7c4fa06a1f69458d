package cli

import (
	"context"
	"os"
	"sync"
)

// Signals hands the signals that the process gets to the command that wants them. Without one, they
// end the command: that is for main to do.
type Signals struct {
	mu    sync.Mutex
	taker func(os.Signal)
}

type signalsKey struct{}

// WithSignals lets commands take signals over.
func WithSignals(ctx context.Context, s *Signals) context.Context {
	return context.WithValue(ctx, signalsKey{}, s)
}

// Give hands a signal over. It reports whether a command has taken it.
func (s *Signals) Give(sig os.Signal) bool {
	s.mu.Lock()
	taker := s.taker
	s.mu.Unlock()
	if taker == nil {
		return false
	}
	taker(sig)
	return true
}

// takeSignals has f called with each signal, instead of the command being ended, until the returned
// function is called. f must not block.
func takeSignals(ctx context.Context, f func(os.Signal)) (giveBack func()) {
	s, ok := ctx.Value(signalsKey{}).(*Signals)
	if !ok {
		return func() {}
	}
	s.mu.Lock()
	before := s.taker
	s.taker = f
	s.mu.Unlock()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taker = before
	}
}
