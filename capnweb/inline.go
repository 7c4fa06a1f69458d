package capnweb

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A call costs two goroutine switches if another goroutine runs its handler, and
// waking a sleeping thread for that takes longer than most handlers. So the reading
// goroutine runs handlers itself, when it has read all there is, if they have been
// quick so far. Should one take long all the same, a new goroutine takes the
// reading over: handlers never keep a session from being read.
type inline struct {
	// The session's lock guards these:
	collecting bool     // the reader will look at next when it has read all there is
	draining   bool     // it is running what is in next, and will look again
	next       []runner // what it will run then

	state   atomic.Int32
	turn    atomic.Int64 // counts what the reader ran
	watched atomic.Bool
	seen    int64 // the monitor's
}

// runner is something to run: a lane, or a call that needs none.
type runner interface {
	runQuick() // while it is quick
	runAlone() // on a goroutine of its own
}

const (
	// quickRuns is how many runs in a row a method has to be quick to be run by the reader.
	quickRuns = 16
	// quickTime is what quick means.
	quickTime = 20 * time.Microsecond
	// soleTime is what it means in a process that has one processor for Go: there the reader goes on beside a
	// handler only while that waits for the kernel, and what comes meanwhile waits so long at most.
	soleTime = 500 * time.Microsecond
	// slowTime is what the system alone does not explain.
	slowTime = time.Millisecond
	// watchInterval is how often the monitor looks for readers that are kept from
	// reading; after one to two intervals, another goroutine reads.
	watchInterval = time.Millisecond
	// watchIdle is how many intervals without work the monitor stays.
	watchIdle = 50
	// maxBatch is how many messages are read before their handlers run.
	maxBatch = 256
)

// States of inline.state.
const (
	inlineIdle = iota
	inlineRunning
	inlineReplaced
)

var errHandedOver = errors.New("capnweb: handed over")

// beginBatch is called by the reader when a message has arrived.
func (s *Session) beginBatch() {
	s.mu.Lock()
	s.out.kickers++
	s.inline.collecting = true
	s.mu.Unlock()
}

// endBatch is called by the reader before it waits for messages. It reports
// whether another goroutine has taken the reading over.
func (s *Session) endBatch() bool {
	i := &s.inline
	s.mu.Lock()
	work := len(i.next) > 0
	announced := i.collecting
	i.collecting = false
	i.draining = work
	s.mu.Unlock()
	if !work {
		s.kick(announced, false)
		return false
	}
	i.turn.Add(1)
	i.state.Store(inlineRunning)
	readers.watch(s)
	s.kick(announced, true)
	for r := s.nextRunner(); r != nil; r = s.nextRunner() {
		r.runQuick()
		i.turn.Add(1)
	}
	kept := i.state.CompareAndSwap(inlineRunning, inlineIdle)
	s.kick(false, false)
	return !kept
}

// monitor watches all readers that run handlers. A timer for each would cost more
// than most handlers do.
type monitor struct {
	active  atomic.Bool // something ran since the last look
	mu      sync.Mutex
	running bool
	list    []*Session
}

var readers monitor

// watch makes sure that s is watched.
func (m *monitor) watch(s *Session) {
	if s.inline.watched.Load() {
		if !m.active.Load() {
			m.active.Store(true)
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active.Store(true)
	s.inline.watched.Store(true)
	m.list = append(m.list, s)
	if !m.running {
		m.running = true
		go m.run()
	}
}

func (m *monitor) run() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	idle := 0
	for range tick.C {
		idle++
		if m.active.Swap(false) {
			idle = 0
		}
		if m.look(idle >= watchIdle) {
			return
		}
	}
}

// look replaces readers that have run one thing since the last look. It reports
// whether nothing is left to watch.
func (m *monitor) look(leave bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := m.list[:0]
	for _, s := range m.list {
		i := &s.inline
		running := i.state.Load() == inlineRunning
		turn := i.turn.Load()
		switch {
		case running && turn == i.seen:
			s.handOver()
		case !running && leave:
			i.watched.Store(false)
			if i.state.Load() != inlineRunning { // it did not begin meanwhile
				continue
			}
			i.watched.Store(true)
		}
		i.seen = turn
		live = append(live, s)
	}
	clear(m.list[len(live):])
	m.list = live
	m.running = len(live) > 0
	return !m.running
}

// abandonBatch ends a batch when the reading ends with it.
func (s *Session) abandonBatch() {
	s.mu.Lock()
	announced := s.inline.collecting
	s.inline.collecting = false
	s.mu.Unlock()
	s.kick(announced, false)
	s.disperse()
}

// nextRunner takes the next of what the reader is to run.
func (s *Session) nextRunner() runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := &s.inline
	if len(i.next) == 0 {
		i.draining = false
		return nil
	}
	r := i.next[0]
	i.next[0] = nil
	i.next = i.next[1:]
	if len(i.next) == 0 {
		i.next = nil
	}
	return r
}

// moreRunners reports whether the reader will run more, and then write.
func (s *Session) moreRunners() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inline.next) > 0
}

// disperse gives what the reader was to run goroutines of their own.
func (s *Session) disperse() {
	for r := s.nextRunner(); r != nil; r = s.nextRunner() {
		go r.runAlone()
	}
}

// handOver starts another reading goroutine if the present one is running handlers.
func (s *Session) handOver() {
	if s.inline.state.CompareAndSwap(inlineRunning, inlineReplaced) {
		s.disperse()
		go s.readLoop()
	}
}

// offer gives the reader something to run; false if it does not want it.
func (s *Session) offer(r runner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.inline.collecting && !s.inline.draining || len(s.inline.next) >= maxBatch || s.err != nil {
		return false
	}
	s.inline.next = append(s.inline.next, r)
	return true
}

// quick reports whether a method has proven to be quick.
func (m *method) quick() bool { return m.streak.Load() >= quickRuns }

// took notes how long a run took. A run now and then that was merely interrupted
// by the system does not count much; one that really waited starts the count anew.
func (m *method) took(d time.Duration) {
	n := m.streak.Load()
	switch {
	case d > slowTime:
		n = 0
	case d > soleTime, d > quickTime && runtime.GOMAXPROCS(0) > 1:
		n = max(0, n-quickRuns)
	case n < 4*quickRuns:
		n++
	default:
		return
	}
	m.streak.Store(n)
}

func (l *lane) runAlone() { l.drain() }

// runQuick is drain, as long as the calls are quick.
func (l *lane) runQuick() {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 && !l.queue[0].method.quick() {
			l.mu.Unlock()
			go l.drain()
			return
		}
		l.mu.Unlock()
		if !l.one(true) {
			return
		}
	}
}

// runAlone runs a call on a target whose calls need not wait for each other.
func (j *job) runAlone() {
	j.timed()
	if s := j.origin; s != nil {
		runtime.Gosched() // let others add their results
		s.kick(true, false)
	}
}

func (j *job) runQuick() {
	j.timed()
	if s := j.origin; s != nil {
		s.kick(true, s.moreRunners()) // the reader writes when it has run all
	}
}

func (j *job) timed() {
	began := time.Now()
	j.run()
	j.method.took(time.Since(began))
}
