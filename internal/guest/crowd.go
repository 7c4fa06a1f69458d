package guest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// When the sandbox's limit on processes is reached nothing can be started any
// more, so nobody inside could end what fills it: a fork bomb would make the
// sandbox useless. The guest is outside the limit and makes room by itself.
const (
	crowdSession = 16                     // processes of one session that are taken for a crowd
	crowdForks   = 64                     // processes begun between two looks that make a look worth while
	crowdOrphans = 512                    // orphans reaped between two looks
	crowdSamples = 8                      // looks that must all find room
	crowdRounds  = 32                     // passes over all processes to catch those that go on forking
	clearRounds  = 4                      // times each way to make room is gone
	roomTimeout  = 250 * time.Millisecond // for killed processes to be gone, after each time
	peakTimeout  = 500 * time.Millisecond // for a peak of commands that run to pass
)

// room is a way to make room, from the one that harms least.
type room int

const (
	// crowds kills the large sessions of commands that are over, each process
	// group at one stroke.
	crowds room = iota
	// leftovers kills everything that commands which are over have left.
	leftovers
	// orphans kills what has lost its parents, of the running command that has
	// most of it. The command itself and its descendants stay.
	orphans
)

// spawn starts a program. When the limit on processes is reached it makes room
// and tries again, for a bounded time. Commands that run are not killed for it.
func (g *engine) spawn(path string, argv []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (*child, error) {
	g.look()
	ch, err := g.children.start(path, argv, attr, ended)
	if !errors.Is(err, unix.EAGAIN) || !g.children.init {
		return ch, err
	}
	g.making.Lock() // whoever comes second finds room made
	defer g.making.Unlock()
	again := func() bool {
		ch, err = g.children.start(path, argv, attr, ended)
		return !errors.Is(err, unix.EAGAIN)
	}
	if !g.makeRoom(orphans, again) {
		g.within(peakTimeout, again)
	}
	return ch, err
}

// makeRoom goes through the ways up to most until enough is said to be there.
func (g *engine) makeRoom(most room, enough func() bool) bool {
	if enough() {
		return true
	}
	ended := map[int]bool{}
	defer func() { g.notice.Add(int64(len(ended))) }()
	for way := crowds; way <= most; way++ {
		for range clearRounds {
			if !g.children.clear(way, ended) {
				break
			}
			if g.within(roomTimeout, enough) {
				return true
			}
		}
	}
	return false
}

// within asks until the answer is yes, the time is over or the guest ends.
func (g *engine) within(d time.Duration, ask func() bool) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-late.C:
			return ask()
		case <-g.closing:
			return false
		}
		if ask() {
			return true
		}
	}
}

// relieve looks, after signs of a fork bomb, whether the limit is reached or
// nearly so (seven eighths of it), and ends what commands that are over have left.
// hit says that it was reached since the last look: then a quarter will do, since
// the shells of a bomb wait for seconds before they try to fork again, and some end.
// It doesn't wait for the next command to fail, since a bomb uses all the processor
// that it is allowed, and a command that starts may need more than one place.
//
// The caller holds making.
func (g *engine) relieve(hit bool) {
	if most := g.cfg.Cgroup.Tasks; most > 0 {
		few := int(min(crowdSession, most/4)) // fewer are no bomb
		g.makeRoom(leftovers, func() bool {
			// A bomb's numbers may go up and down by the millisecond, and
			// its processes end before they are read. Many different ones
			// are a bomb too.
			seen := map[int]bool{}
			for range crowdSamples {
				before, left := len(seen), 0
				tenants, places := g.children.survey(nil)
				for _, t := range tenants {
					if t.owner == 0 {
						seen[t.pid] = true
						left++
					}
				}
				switch {
				case left == 0:
					return true
				case left >= few && int64(places) > most-most/8,
					hit && int64(left) >= most/4,
					len(seen) > before && int64(len(seen)) > most/2 && before > 0:
					return false
				case len(seen) == before, before == 0 && left < crowdSession:
					return true
				}
				time.Sleep(2 * time.Millisecond)
			}
			return true
		})
		return
	}
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}
	g.confine(attr)
	if cred, err := g.credential(""); err == nil {
		attr.Sys.Credential = cred
	}
	g.makeRoom(leftovers, func() bool {
		// A directory can't be executed: what is asked is whether the fork
		// before that goes well.
		_, err := g.children.start("/", []string{"/"}, attr, func(unix.WaitStatus) {})
		return !errors.Is(err, unix.EAGAIN)
	})
}

// confine lets a command be born in the control group of version 2.
func (g *engine) confine(attr *syscall.ProcAttr) {
	if g.cfg.Cgroup.Version == 2 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, g.cfg.Cgroup.DirFD
	}
}

// notices gives what the next caller must be told, once.
func (g *engine) notices() []string {
	n := g.notice.Swap(0)
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("The sandbox's limit on processes was reached; %d background processes that earlier commands had left were ended.", n)}
}

// crowded says who holds the places, when none could be made.
func (g *engine) crowded() error {
	all, _ := g.children.survey(nil)
	var top *process
	most := 0
	g.mu.Lock()
	for _, p := range g.byID {
		if p == nil || p.child == nil {
			continue
		}
		n := 0
		for _, s := range all {
			if s.owner == p.child.pid {
				n++
			}
		}
		if n > most {
			top, most = p, n
		}
	}
	g.mu.Unlock()
	msg := "the sandbox's limit on processes is reached"
	if top != nil {
		msg += fmt.Sprintf("; %d belong to a command that is still running, process %s: %.100q", most, top.id, top.argv)
	}
	return sandbox.Errf(sandbox.CodeTooManyProcesses, "start", msg, "wait until it has ended, or cancel it; start fewer processes at a time")
}

// tenant is a process below this one.
type tenant struct {
	procStat
	owner   int  // the living child it belongs to, 0 when none
	related bool // descends from the owner; otherwise is of its session only
}

// survey lists the living processes below this one, and counts the places that they
// take, a thread each, together with those that have ended and that nobody has waited
// for (cgroup-v1/pids.rst): the shells of a bomb leave many of them when they wait to
// fork again. do is called with the lock held: no child can be started or reaped
// meanwhile.
func (c *children) survey(do func([]tenant)) (all []tenant, places int) {
	self := os.Getpid()
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := map[int]procStat{}
	eachProcess(func(s procStat) { stats[s.pid] = s })
	for _, s := range stats {
		if s.state == 'Z' {
			places++
		}
		if s.state == 'Z' || s.state == 'X' || s.pid == self {
			continue
		}
		t := tenant{procStat: s}
		p, ours := s, false
		for range len(stats) { // a chain read while it changed may be a ring
			if c.live[p.pid] != nil {
				t.owner, t.related = p.pid, true
			}
			if p.ppid == self {
				ours = true
				break
			}
			next, ok := stats[p.ppid]
			if !ok && p.ppid != 0 {
				// The parent ended while the list was read: its
				// children have another one now.
				if p, ok = readProcess(strconv.Itoa(p.pid)); ok {
					if p.ppid == self {
						ours = true
						break
					}
					next, ok = stats[p.ppid]
				}
			}
			if !ok {
				break
			}
			p = next
		}
		if !ours {
			continue // put here from outside
		}
		if t.owner == 0 && c.live[s.session] != nil {
			t.owner = s.session
		}
		all = append(all, t)
		places += t.threads
	}
	if do != nil {
		do(all)
	}
	return all, places
}

// clear makes room in one way, and adds the processes that it ends to those
// ended. It reports whether there were any.
func (c *children) clear(way room, ended map[int]bool) bool {
	victims := map[int]bool{}
	defer func() { maps.Copy(ended, victims) }()
	pick := func(all []tenant) []tenant {
		return slices.DeleteFunc(all, func(t tenant) bool { return t.owner != 0 })
	}
	switch way {
	case crowds:
		c.survey(func(all []tenant) {
			size := map[int]int{}
			for _, t := range all {
				if t.owner == 0 {
					size[t.session]++
				}
			}
			groups := map[int]bool{}
			for _, t := range all {
				if t.owner == 0 && size[t.session] >= crowdSession {
					victims[t.pid] = true
					if t.group > 1 && !groups[t.group] {
						groups[t.group] = true
						// All at once: none is left that could fork.
						_ = unix.Kill(-t.group, unix.SIGKILL)
					}
				}
			}
		})
		return len(victims) > 0
	case leftovers:
		alone := false
		c.survey(func(all []tenant) {
			if alone = os.Getpid() == 1 && len(c.live) == 0; alone {
				for _, t := range all {
					victims[t.pid] = true
				}
				_ = unix.Kill(-1, unix.SIGKILL) // at one stroke, whatever their groups
			}
		})
		if alone {
			return len(victims) > 0
		}
	case orphans:
		owner := 0
		pick = func(all []tenant) []tenant {
			all = slices.DeleteFunc(all, func(t tenant) bool { return t.owner == 0 || t.related })
			if owner == 0 {
				size := map[int]int{}
				for _, t := range all {
					size[t.owner]++
				}
				for o, n := range size {
					if n >= crowdSession && (owner == 0 || cmp.Or(n-size[owner], owner-o) > 0) {
						owner = o
					}
				}
			}
			return slices.DeleteFunc(all, func(t tenant) bool { return t.owner != owner })
		}
	}
	c.freeze(victims, pick)
	c.survey(func(all []tenant) {
		for _, t := range pick(all) {
			victims[t.pid] = true
			_ = unix.Kill(t.pid, unix.SIGKILL)
		}
	})
	return len(victims) > 0
}

// freeze stops the processes that pick names, and those that they still fork,
// until no new one is found. What is stopped keeps its place, so that the rest
// can't multiply; killing them one after the other would let it.
func (c *children) freeze(found map[int]bool, pick func([]tenant) []tenant) {
	clean := 0
	for range crowdRounds {
		fresh := 0
		c.survey(func(all []tenant) {
			for _, t := range pick(all) {
				if !found[t.pid] {
					found[t.pid] = true
					fresh++
				}
				if t.state != 'T' {
					_ = unix.Kill(t.pid, unix.SIGSTOP)
				}
			}
		})
		if clean++; fresh > 0 {
			clean = 0
		}
		if clean == 2 { // one may have missed those whose parents ended just then
			return
		}
	}
}

// pidGauge reads the number of the process that was begun last.
type pidGauge struct{ fd int }

func newPIDGauge() pidGauge {
	fd, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return pidGauge{fd}
}

// last is that number, 0 if unknown.
func (p pidGauge) last() int {
	var buf [128]byte
	n, _ := unix.Pread(p.fd, buf[:], 0) // interrupted: unknown this time
	b := buf[:max(n, 0)]
	// 0.20 0.18 0.12 1/80 11206
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	i := len(b)
	for i > 0 && b[i-1] != ' ' {
		i--
	}
	pid, _ := strconv.Atoi(string(b[i:]))
	return pid
}

func (p pidGauge) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}

// look looks for a fork bomb when there is a sign of one: the limit was reached since the last look, or many processes
// were begun. Fewer will do when that look found new ones that commands which are over have left, since a bomb may just
// have begun then. What stays the same, a server in the background, costs no further looks.
func (g *engine) look() {
	if !g.children.init {
		return
	}
	calm := func() bool {
		last := int64(g.pids.last())
		since := last - g.forked.Load()
		enough := int64(crowdForks)
		if most := g.cfg.Cgroup.Tasks; most > 0 { // fewer than fill a sandbox that was empty at the last look
			enough = min(enough, max(most/2, crowdSession))
		}
		if g.wary.Load() {
			enough = crowdSession
		}
		return (last == 0 || since >= 0 && since < enough) && !g.full.grew()
	}
	if calm() {
		return
	}
	g.making.Lock()
	defer g.making.Unlock()
	if calm() {
		return // somebody has looked meanwhile
	}
	g.inspect(againAfter)
}

// looks is look at any rate.
func (g *engine) looks() {
	g.making.Lock()
	defer g.making.Unlock()
	g.inspect(againAfter)
}

// How long after a look that found something new another one follows, for a bomb that no command comes after. Each
// time that there is something new again it is twice as long as before.
const (
	againAfter  = 250 * time.Millisecond
	againAtMost = 4 * time.Second
)

// inspect ends a bomb if there is one, notes what is left, and looks again after a while if that is something new.
//
// The caller holds making.
func (g *engine) inspect(after time.Duration) {
	count := g.full.count()
	hit := count > g.full.known.Load()
	g.relieve(hit)
	g.forked.Store(int64(g.pids.last()))
	left := map[int]bool{}
	tenants, places := g.children.survey(nil)
	if most := g.cfg.Cgroup.Tasks; most <= 0 || int64(places) <= most-most/8 {
		// Else what runs fills the sandbox, and may be over in a moment: then it is the time to look.
		g.full.known.Store(count)
	}
	for _, t := range tenants {
		if t.owner == 0 {
			left[t.pid] = true
		}
	}
	more := hit && len(left) > 0
	for pid := range left {
		more = more || !g.left[pid]
	}
	g.left = left
	g.wary.Store(more)
	if !more || g.again {
		return
	}
	g.again = g.later(after, func() {
		g.making.Lock()
		defer g.making.Unlock()
		g.again = false
		g.inspect(min(2*after, againAtMost))
	}) != nil
}
