package guest

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// engine starts processes and remembers them.
type engine struct {
	cfg      *Config
	root     bool // this process can become another user
	children *children
	oom      *oomCounter
	meminfo  *meminfo
	orphan   time.Duration
	procs    *processors
	worked   func()        // told after each process
	closing  chan struct{} // closed when the guest ends
	wg       sync.WaitGroup

	replacing sync.Mutex // one file is put in place at a time
	pages     namesCache // of listings
	watches   atomic.Int32

	pids   pidGauge
	full   *fullGroup
	making sync.Mutex   // room for processes
	left   map[int]bool // processes of commands that are over, at the last look; making guards it
	forked atomic.Int64 // the number of the last process when it was last looked at
	again  bool         // another look follows by itself; making guards it
	wary   atomic.Bool  // there were new ones among them
	notice atomic.Int64 // how many were ended for it, and not told yet

	mu      sync.Mutex
	serial  int
	running int
	latest  *process // that was started last
	byID    map[string]*process
	past    []*process // ended, oldest first
	janitor *time.Timer
	timers  map[*time.Timer]struct{} // of later
	closed  bool
}

func newEngine(cfg *Config, root bool, c *children) *engine {
	g := &engine{
		cfg: cfg, root: root, children: c, procs: newProcessors(cfg.Exclusive), oom: newOOMCounter(cfg.Cgroup.OOMFD), pids: newPIDGauge(), full: newFullGroup(cfg.Cgroup.PidsFD),
		orphan: seconds(cfg.Limits.OrphanSeconds), closing: make(chan struct{}),
		byID: map[string]*process{}, timers: map[*time.Timer]struct{}{},
	}
	c.mu.Lock() // it reaps already
	c.many = func() { g.wg.Go(g.looks) }
	c.mu.Unlock()
	return g
}

// reserve takes an id and a place for a process that is about to start.
func (g *engine) reserve(id string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return "", sandbox.Errf(sandbox.CodeShuttingDown, "start", "the sandbox is shutting down", "")
	}
	if g.running >= g.cfg.Limits.Processes {
		return "", sandbox.Errf(sandbox.CodeTooManyProcesses, "start",
			fmt.Sprintf("%d commands are running, and no more are allowed", g.running), "wait for one to end, or kill one")
	}
	if id == "" {
		for {
			g.serial++
			id = fmt.Sprintf("p%d-%.6s", g.serial, g.cfg.Incarnation)
			if _, taken := g.byID[id]; !taken {
				break
			}
		}
	} else if _, taken := g.byID[id]; taken {
		return "", sandbox.Errf(sandbox.CodeProcessExists, "start", fmt.Sprintf("there is a process %q already", id), "choose another id, or remove that process")
	}
	g.byID[id] = nil
	g.running++
	return id, nil
}

func (g *engine) unreserve(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byID, id)
	g.running--
}

func (g *engine) enter(p *process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, kept := g.byID[p.id]; kept {
		g.byID[p.id] = p
	}
	if q := g.latest; q != nil && p.started.Sub(q.started) < overlap && !q.over() {
		g.procs.hold()
	}
	g.latest = p
}

// overlap is how soon after another, which still runs, a command must start for both to be taken for
// some of many that start at once.
const overlap = 2 * time.Millisecond

// get finds a process by id.
func (g *engine) get(op, id string) (*process, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.byID[id]; p != nil {
		return p, nil
	}
	return nil, sandbox.Errf(sandbox.CodeProcessNotFound, op, fmt.Sprintf("there is no process %q", id), "ended processes are remembered for a while only; list shows those there are")
}

func (g *engine) list() []sandbox.ProcessInfo {
	g.mu.Lock()
	all := make([]*process, 0, len(g.byID))
	for _, p := range g.byID {
		if p != nil {
			all = append(all, p)
		}
	}
	g.mu.Unlock()
	infos := make([]sandbox.ProcessInfo, len(all))
	for i, p := range all {
		infos[i] = p.info()
	}
	slices.SortFunc(infos, func(a, b sandbox.ProcessInfo) int {
		return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID))
	})
	return infos
}

func (g *engine) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// finished moves a process among those that are remembered.
func (g *engine) finished(p *process) {
	defer g.worked()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	if g.latest == p {
		g.latest = nil
	}
	if g.byID[p.id] != p {
		return // removed while it ran
	}
	g.past = append(g.past, p)
	g.sweep()
}

// sweep forgets ended processes that are too many, too large or too old, and
// arranges to be called again while there are any.
func (g *engine) sweep() {
	lim := g.cfg.Limits
	keep := seconds(lim.FinishedSeconds)
	k := max(0, len(g.past)-lim.FinishedProcesses)
	var held int64
	for i := len(g.past) - 1; i >= k; i-- {
		held += g.past[i].log.held()
		if held > lim.FinishedBytes && i < len(g.past)-1 || time.Since(g.past[i].ended) >= keep {
			k = i + 1
			break
		}
	}
	for _, p := range g.past[:k] {
		delete(g.byID, p.id)
	}
	g.past = slices.Delete(g.past, 0, k)
	if g.janitor != nil {
		g.janitor.Stop()
		g.janitor = nil
	}
	if len(g.past) > 0 && !g.closed {
		g.janitor = time.AfterFunc(keep-time.Since(g.past[0].ended)+time.Second, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.sweep()
		})
	}
}

// remove forgets a process, killing it first if it runs.
func (g *engine) remove(p *process) {
	g.mu.Lock()
	if g.byID[p.id] == p {
		delete(g.byID, p.id)
	}
	if i := slices.Index(g.past, p); i >= 0 {
		g.past = slices.Delete(g.past, i, i+1)
	}
	g.mu.Unlock()
	p.log.follow() // nothing waits for a reader any more
	p.kill(false)
}

// later calls f after a while, unless the guest ends first. It is nil when that ends.
func (g *engine) later(after time.Duration, f func()) *time.Timer {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.closing:
		return nil
	default:
	}
	g.wg.Add(1)
	var t *time.Timer
	t = time.AfterFunc(after, func() {
		defer g.wg.Done()
		g.mu.Lock()
		delete(g.timers, t)
		g.mu.Unlock()
		f()
	})
	g.timers[t] = struct{}{}
	return t
}

// close kills everything: SIGTERM, then SIGKILL after the grace or when all have
// ended, whichever is sooner; then it waits for the pumps.
func (g *engine) close(grace time.Duration) {
	g.pages.forget()
	g.mu.Lock()
	g.closed = true
	if g.janitor != nil {
		g.janitor.Stop()
	}
	all := make([]*process, 0, len(g.byID))
	for _, p := range g.byID {
		if p != nil {
			all = append(all, p)
		}
	}
	g.mu.Unlock()
	for _, p := range all {
		p.log.follow()
		p.kill(false)
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
wait:
	for _, p := range all {
		select {
		case <-p.exited:
		case <-patience.C:
			break wait
		}
	}
	close(g.closing)
	g.mu.Lock()
	g.full.stop()
	for t := range g.timers {
		if t.Stop() { // all are killed here
			g.wg.Done()
		}
	}
	g.mu.Unlock()
	for _, p := range all {
		p.killNow()
	}
	g.children.killAll()
	for _, p := range all {
		for _, m := range p.pumps {
			m.f.Close()
		}
		if k := p.log.sink.Load(); k != nil {
			k.conn.Close() // a pump may be writing to somebody who doesn't read
		}
	}
	g.children.close()
	g.wg.Wait()
	g.meminfo.close()
	g.pids.close()
	g.full.close()
}
