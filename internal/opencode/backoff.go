package opencode

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff gives pauses that double from first to limit, each shortened by up to
// a quarter at random.
type backoff struct {
	first, limit, next time.Duration
}

func newBackoff(first, limit time.Duration) *backoff {
	return &backoff{first: first, limit: limit, next: first}
}

func (b *backoff) reset() { b.next = b.first }

// step returns the pause to make now.
func (b *backoff) step() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.limit)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// wait pauses. It returns false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool {
	return sleep(ctx, b.step())
}

// sleep pauses for d. It returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
