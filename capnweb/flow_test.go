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

// link is a connection of a given bandwidth and round trip, and a sender that keeps its
// window full. Chunks have sizes of all kinds, always the same ones.
type link struct {
	f         *capnweb.Flow
	clock     *flowClock
	rtt       float64 // ms
	bandwidth float64 // bytes per ms
	free      float64 // when the last chunk has left
	underWay  []struct {
		tok capnweb.Token
		at  float64
	}
	blocked bool
}

func newLink() *link {
	c := &flowClock{}
	return &link{f: capnweb.NewFlow(c.now), clock: c, rtt: 100, bandwidth: 10 * kib}
}

func (l *link) send(size int) {
	l.free = max(l.free, l.clock.ms) + float64(size)/l.bandwidth
	tok, full := l.f.Send(size)
	l.underWay = append(l.underWay, struct {
		tok capnweb.Token
		at  float64
	}{tok, l.free + l.rtt})
	l.blocked = full
}

func (l *link) ack() {
	next := l.underWay[0]
	l.underWay = l.underWay[1:]
	l.clock.ms = next.at
	if l.f.Ack(next.tok) {
		l.blocked = false
	}
}

func (l *link) saturate(ms float64) {
	sizes := []int{32 * kib, 4 * kib, 16000, 12345, 16, 9999, 4321, 8}
	for i, end := 0, l.clock.ms+ms; l.clock.ms < end; {
		if l.blocked {
			l.ack()
		} else {
			l.send(sizes[i%len(sizes)])
			i++
		}
	}
	for len(l.underWay) > 0 {
		l.ack()
	}
}

// TestFlowControllerOnALink has the numbers of the reference's tests of its flow controller, on the
// same link: 10 KiB/ms and 100 ms, so that 1 MB is under way when it is full.
func TestFlowControllerOnALink(t *testing.T) {
	t.Parallel()
	const bdp = 100 * 10 * kib
	settled := func() *link {
		l := newLink()
		l.saturate(l.rtt * 50)
		return l
	}
	t.Run("four chunks of 64 KiB fill the first window", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		n := 0
		for ; !l.blocked; n++ {
			l.send(64 * kib)
		}
		if n != 4 || l.f.InFlight() != 256*kib || l.f.Window() != 256*kib {
			t.Error(n, l.f.InFlight(), l.f.Window())
		}
	})
	t.Run("an acknowledgement leaves three of four under way", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		for i := range 4 {
			if l.blocked {
				t.Fatalf("blocked after %d chunks", i)
			}
			l.clock.ms = float64(i)
			l.send(64 * kib)
		}
		if !l.blocked {
			t.Error("not blocked")
		}
		l.ack()
		if l.f.InFlight() != 192*kib || l.blocked {
			t.Error(l.f.InFlight(), l.blocked)
		}
	})
	t.Run("five round trips grow the window past the product", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		l.saturate(l.rtt * 5)
		if w := l.f.Window(); w <= bdp {
			t.Error(w)
		}
	})
	t.Run("fifty round trips end the startup", func(t *testing.T) {
		t.Parallel()
		if !newLink().f.Startup() || settled().f.Startup() {
			t.Error("the startup does not begin, or does not end")
		}
	})
	t.Run("the window stays at 1.2 to 1.3 times the product", func(t *testing.T) {
		t.Parallel()
		l := settled()
		for _, ms := range []float64{0, 20 * l.rtt} {
			l.saturate(ms)
			if w := l.f.Window(); w <= 1.2*bdp || w >= 1.3*bdp {
				t.Errorf("%.3f times the product", w/bdp)
			}
		}
	})
	t.Run("fifty small chunks change nothing", func(t *testing.T) {
		t.Parallel()
		l := settled()
		before := l.f.Window()
		for range 50 {
			l.send(kib)
			l.ack()
		}
		if w := l.f.Window(); w != before {
			t.Errorf("from %v to %v", before, w)
		}
	})
	t.Run("a quarter of the bandwidth brings the window below twice the new product", func(t *testing.T) {
		t.Parallel()
		l := settled()
		l.bandwidth /= 4
		l.saturate(l.rtt * 200)
		if w := l.f.Window(); w >= 2*bdp/4 {
			t.Error(w)
		}
	})
	t.Run("a failed chunk is no longer under way", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		tok, _ := l.f.Send(64 * kib)
		if l.f.InFlight() != 64*kib {
			t.Error(l.f.InFlight())
		}
		l.f.Fail(tok)
		if l.f.InFlight() != 0 || l.f.Window() != 256*kib {
			t.Error(l.f.InFlight(), l.f.Window())
		}
	})
	t.Run("a round trip at most doubles the window", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		fill := func() {
			for !l.blocked {
				l.send(64 * kib)
			}
		}
		fill()
		l.ack()
		before := l.f.Window()
		fill()
		for len(l.underWay) > 0 {
			l.ack()
		}
		if w := l.f.Window(); w > 2*before+1 {
			t.Errorf("from %v to %v", before, w)
		}
	})
	t.Run("a byte per millisecond brings the window to 64 KiB, and not below", func(t *testing.T) {
		t.Parallel()
		l := newLink()
		l.rtt, l.bandwidth = 1, 1
		l.saturate(10_000_000)
		if w := l.f.Window(); w != 64*kib {
			t.Error(w)
		}
	})
}
