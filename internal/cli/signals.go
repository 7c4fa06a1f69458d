package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// impatience is how long after the first signal another one means "at once". Terminals, timeout(1) and
// supervisors send the first to the process and again to its group.
const impatience = time.Second

// ObeySignals returns a context that ends at the first signal that asks the process to; at a later one
// the process ends at once. Commands that want signals for themselves take them over. It is for main,
// and called once.
func ObeySignals(parent context.Context) context.Context {
	ctx, end := context.WithCancel(parent)
	takers := &signalTakers{}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		var first time.Time
		for sig := range signals {
			switch {
			case takers.give(sig):
			case first.IsZero():
				first = time.Now()
				end()
			case time.Since(first) >= impatience:
				fmt.Fprintln(os.Stderr, "tongs: left at once; what runs in sandboxes goes on: `tongs down` ends it")
				os.Exit(130)
			}
		}
	}()
	return context.WithValue(ctx, signalsKey{}, takers)
}

type signalsKey struct{}

// signalTakers hands signals to the command that wants them.
type signalTakers struct {
	mu    sync.Mutex
	taker func(os.Signal)
}

// give reports whether a command has taken a signal.
func (s *signalTakers) give(sig os.Signal) bool {
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
	s, ok := ctx.Value(signalsKey{}).(*signalTakers)
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
