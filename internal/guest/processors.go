package guest

import (
	"runtime"
	"sync"
	"time"
)

// processors are those that the Go runtime uses. Mostly it is one: whatever the guest
// does is a few short steps one after the other, and with a second one each step wakes
// another thread, which takes longer than the step (measured: an exec is a tenth slower). What has
// much to compute at once asks for more.
type processors struct {
	most int // 0: the process isn't the guest's alone, and its number is left alone

	mu    sync.Mutex
	uses  int
	until time.Time // when what hold has asked for ends; zero: it asks for nothing
	timer *time.Timer
}

// crowdHold is how long commands that overlapped are taken to go on overlapping.
const crowdHold = 100 * time.Millisecond

// maxProcessors bounds them, since there are many guests on a machine.
const maxProcessors = 4

func newProcessors(exclusive bool) *processors {
	p := &processors{}
	if exclusive {
		p.most = min(runtime.NumCPU(), maxProcessors)
		runtime.GOMAXPROCS(1)
	}
	return p
}

// use gives the number there is for work that can be divided, until done is called.
func (p *processors) use() (n int, done func()) {
	if p.most == 0 {
		return runtime.GOMAXPROCS(0), func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.more()
	return p.most, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.less()
	}
}

func (p *processors) more() {
	if p.uses++; p.uses == 1 {
		runtime.GOMAXPROCS(p.most)
	}
}

func (p *processors) less() {
	if p.uses--; p.uses == 0 {
		runtime.GOMAXPROCS(1)
	}
}

// hold uses all of them for crowdHold from now on.
func (p *processors) hold() {
	if p.most <= 1 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held := !p.until.IsZero()
	p.until = time.Now().Add(crowdHold)
	if held {
		return // the timer looks again when it fires
	}
	p.more()
	if p.timer == nil {
		p.timer = time.AfterFunc(crowdHold, p.release)
	} else {
		p.timer.Reset(crowdHold)
	}
}

func (p *processors) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := time.Until(p.until); left > 0 {
		p.timer.Reset(left)
		return
	}
	p.until = time.Time{}
	p.less()
}
