package capnweb_test

import (
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

const (
	kib           = 1 << 10
	initialWindow = 256 * kib
	minWindow     = 64 * kib
)

// flowClock is a clock that the test sets.
type flowClock struct{ ms float64 }

func (c *flowClock) now() float64 { return c.ms }

func newFlow() (*capnweb.Flow, *flowClock) {
	c := &flowClock{ms: 1000}
	return capnweb.NewFlow(c.now), c
}

// Group FlowController of the reference's tests.
func TestFlowController(t *testing.T) {
	t.Parallel()
	t.Run("blocks when the window is full", func(t *testing.T) {
		t.Parallel()
		f, _ := newFlow()
		if _, full := f.Send(initialWindow - 1); full {
			t.Error("full one byte early")
		}
		if _, full := f.Send(1); !full {
			t.Error("not full at the window")
		}
	})
	t.Run("unblocks when an acknowledgement makes room", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		a, _ := f.Send(100 * kib)
		b, full := f.Send(200 * kib)
		if !full {
			t.Fatal("not full")
		}
		c.ms += 10
		if !f.Ack(a) { // 200 KiB of 256 are under way
			t.Error("still blocked")
		}
		if !f.Ack(b) || f.InFlight() != 0 {
			t.Error(f.InFlight())
		}
	})
	t.Run("doubles the window in the startup phase", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		// The first acknowledgement only sets the reference point.
		tok, _ := f.Send(initialWindow)
		c.ms += 10
		f.Ack(tok)
		if f.Window() != initialWindow {
			t.Fatal(f.Window())
		}
		w := float64(initialWindow)
		for range 3 {
			tok, _ := f.Send(int(w))
			c.ms += 10
			f.Ack(tok)
			// bandwidth · minRTT is exactly what was sent, times two.
			if w *= 2; f.Window() != w {
				t.Fatalf("window %v, want %v", f.Window(), w)
			}
		}
	})
	t.Run("leaves the startup phase after three flat rounds", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		send := func() {
			tok, _ := f.Send(100 * kib) // never fills the window: it does not grow
			c.ms += 10
			f.Ack(tok)
		}
		send()
		send() // the first round compares with nothing
		for i := range 3 {
			if !f.Startup() {
				t.Fatalf("left after %d flat rounds", i)
			}
			send()
		}
		if f.Startup() {
			t.Error("still in the startup phase")
		}
	})
	t.Run("converges to the bandwidth-delay product", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		// A link of 10 KiB/ms with a round trip of 50 ms: 500 KiB.
		const bandwidth, rtt, size = 10 * kib, 50.0, 10 * kib
		type sent struct {
			tok capnweb.Token
			at  float64
		}
		var queue []sent
		free := c.ms // when the link is free
		for c.ms < 20_000 {
			for f.InFlight() < f.Window() {
				tok, _ := f.Send(size)
				free = max(free, c.ms) + size/bandwidth
				queue = append(queue, sent{tok, free + rtt})
			}
			c.ms = queue[0].at
			f.Ack(queue[0].tok)
			queue = queue[1:]
		}
		if f.Startup() {
			t.Error("still in the startup phase")
		}
		bdp := bandwidth * rtt
		if w := f.Window(); w < bdp || w > 1.5*bdp {
			t.Errorf("window %v, want 1 to 1.5 times %v", w, bdp)
		}
	})
	t.Run("does not shrink when the application is the limit", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		for range 20 {
			tok, _ := f.Send(kib)
			c.ms += 100
			f.Ack(tok)
		}
		if f.Window() != initialWindow {
			t.Error(f.Window())
		}
	})
	t.Run("shrinks by a tenth at most when the bandwidth drops", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		full := func(rtt float64) {
			tok, _ := f.Send(int(f.Window()))
			c.ms += rtt
			f.Ack(tok)
		}
		full(10)
		full(10)
		before := f.Window()
		full(1000)
		if f.Window() != before*0.9 {
			t.Errorf("from %v to %v", before, f.Window())
		}
	})
	t.Run("an error only frees what was under way", func(t *testing.T) {
		t.Parallel()
		f, _ := newFlow()
		tok, _ := f.Send(100 * kib)
		f.Fail(tok)
		if f.InFlight() != 0 || f.Window() != initialWindow {
			t.Error(f.InFlight(), f.Window())
		}
	})
	t.Run("grows by no more than the factor in one acknowledgement", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		a, _ := f.Send(initialWindow)
		c.ms += 100
		f.Ack(a)
		b, _ := f.Send(initialWindow)
		c.ms += 0.001 // looks like a bandwidth without end
		f.Ack(b)
		if f.Window() > 2*initialWindow {
			t.Error(f.Window())
		}
	})
	t.Run("keeps a minimum", func(t *testing.T) {
		t.Parallel()
		f, c := newFlow()
		tok, _ := f.Send(initialWindow)
		c.ms += 0.1
		f.Ack(tok)
		for range 100 {
			tok, _ := f.Send(int(f.Window()) + 1)
			c.ms += 1e6
			f.Ack(tok)
		}
		if f.Window() != minWindow {
			t.Error(f.Window())
		}
	})
}
