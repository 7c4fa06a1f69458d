package guest

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// children owns every wait and every fork of the process. Nothing else in it may
// start a child: os/exec's own waiting would race with the reaper for the exit
// status.
//
// One lock covers a fork together with the entry of its pid, a reap together
// with its removal, and every signal. So a pid in the table is that of a process
// that has not been reaped: it can't have become somebody else's, and an exit is
// never seen before its process is known.
//
// The end of a child is told by its pidfd, which waits in the runtime's poller
// beside the child's pipes: a short command wakes one thread, once. What else has to be
// reaped, orphans, is waited for by the patrol, on a thread of its own. It runs
// whenever there has been any child for patrolDelay.
type children struct {
	// init: this process is process 1, or acts like it (child subreaper), and
	// reaps whatever comes. Otherwise only its own are waited for, and other
	// code in the same process may have children too (tests).
	init bool
	// pidfds: the kernel has them (gVisor hasn't). Without, the patrol, or a
	// goroutine for each child, does all waiting.
	pidfds bool

	mu   sync.Mutex
	live map[int]*child
	// strays counts the orphans that were reaped; many tells about each
	// crowdOrphans of them. It must not block.
	strays int
	many   func()
	closed bool

	patrolling bool // or about to, when the timer fires
	timer      *time.Timer

	wg   sync.WaitGroup
	fork forker
}

// patrolDelay is how long an orphan that ends stays a zombie, at the most.
const patrolDelay = 5 * time.Millisecond

// child is one forked process. Its pid is its process group's and its session's
// number too.
type child struct {
	pid   int
	ended func(unix.WaitStatus)
}

// forker runs a function that forks on a thread that is fit for it.
type forker interface {
	// run calls f, or says why there is no thread for it.
	run(f func()) error
	// begin makes that thread ready, if it isn't.
	begin()
	// failed is closed when there won't be one.
	failed() <-chan struct{}
	close()
}

func newChildren(init bool, f forker) *children {
	c := &children{init: init, live: map[int]*child{}, fork: f}
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		unix.Close(fd)
		c.pidfds = true
	}
	if init {
		c.mu.Lock()
		c.patrol(0) // what a former program of this process has left
		c.mu.Unlock()
		// Nobody is told then, and children still stay to be waited for. The Go runtime catches it for
		// os/signal, so each end of a child would wake a thread that has nothing to do.
		defaultAction(unix.SIGCHLD)
	}
	return c
}

// start forks and executes. ended is called once, on a goroutine of the reaper's
// without any lock held, after the process has been reaped; it must not block.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (*child, error) {
	ch := &child{ended: ended}
	pidfd := -1
	if c.pidfds {
		attr.Sys.PidFD = &pidfd
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, sandbox.Errf(sandbox.CodeShuttingDown, "start", "the sandbox is shutting down", "")
	}
	var err error
	if ferr := c.fork.run(func() { ch.pid, err = syscall.ForkExec(path, argv, attr) }); ferr != nil {
		err = ferr
	}
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.live[ch.pid] = ch
	if c.init {
		c.patrol(patrolDelay)
	}
	c.mu.Unlock()
	if c.pidfds && pidfd >= 0 && unix.SetNonblock(pidfd, true) == nil {
		c.wg.Go(func() { c.await(ch.pid, os.NewFile(uintptr(pidfd), "pidfd")) })
		return ch, nil
	}
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
	if !c.init {
		c.wg.Go(func() { c.waitOne(ch.pid) })
	}
	return ch, nil
}

// await reaps a child when its descriptor says that it has ended.
func (c *children) await(pid int, f *os.File) {
	defer f.Close()
	rc, err := f.SyscallConn()
	if err == nil {
		err = rc.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
	}
	switch {
	case c.init: // and what else there is
		c.take(-1)
	case err == nil:
		c.take(pid)
	default:
		c.waitOne(pid)
	}
}

// signal signals the process group that a living child leads. It reports false
// when the child has been reaped.
func (c *children) signal(ch *child, sig syscall.Signal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live[ch.pid] != ch {
		return false
	}
	// ESRCH can't be: the leader is at least a zombie. EPERM is a program
	// that changed its user; nothing can be done about it.
	_ = syscall.Kill(-ch.pid, sig)
	return true
}

// patrol begins to wait for whatever ends, after a while, unless that is being
// done. The lock is held.
func (c *children) patrol(after time.Duration) {
	if c.patrolling {
		return
	}
	if !c.pidfds {
		after = 0 // nothing else waits
	}
	c.patrolling = true
	c.wg.Add(1)
	if after == 0 {
		go c.reap()
	} else {
		c.timer = time.AfterFunc(after, c.reap)
	}
}

// idle says that there is no child at all. The lock is held.
func (c *children) idle() {
	if c.patrolling && c.timer != nil && c.timer.Stop() {
		c.patrolling, c.timer = false, nil
		c.wg.Done()
	}
}

// reap is the patrol: it ends when there is no child left. It waits without
// taking (WNOWAIT), so that the taking can be done under the lock.
func (c *children) reap() {
	defer c.wg.Done()
	c.mu.Lock()
	c.timer = nil
	c.mu.Unlock()
	for {
		if _, err := waitAny(unix.P_ALL, 0); err == nil {
			c.take(-1)
			continue
		}
		c.mu.Lock()
		if len(c.live) == 0 { // else one was started just now
			c.patrolling = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// take reaps what has ended and tells those concerned.
func (c *children) take(pid int) {
	type end struct {
		child  *child
		status unix.WaitStatus
	}
	var ends []end
	c.mu.Lock()
	for {
		var st unix.WaitStatus
		got, err := unix.Wait4(pid, &st, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if c.init && err != nil {
			c.idle()
		} else if c.init && got == 0 && !c.closed {
			c.patrol(patrolDelay)
		}
		if err != nil || got <= 0 {
			break
		}
		if ch := c.live[got]; ch != nil {
			delete(c.live, got)
			ends = append(ends, end{ch, st})
		} else {
			c.strays++
		}
	}
	many := c.strays >= crowdOrphans && !c.closed && c.many != nil
	if many {
		c.strays = 0
	}
	c.mu.Unlock()
	if many {
		c.many()
	}
	for _, e := range ends {
		e.child.ended(e.status)
	}
}

func (c *children) waitOne(pid int) {
	if _, err := waitAny(unix.P_PID, pid); err == nil {
		c.take(pid)
	}
}

// waitAny blocks until a child has ended, and leaves it there.
func waitAny(which, id int) (int, error) {
	for {
		var si unix.Siginfo
		err := unix.Waitid(which, id, &si, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		// si_pid is the first field of the union, which starts at 16 on
		// 64-bit Linux and at 12 on 32-bit.
		off := uintptr(12)
		if unsafe.Sizeof(uintptr(0)) == 8 {
			off = 16
		}
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&si), off))), nil
	}
}

// close ends the reaper once there are no children; the caller has killed them.
func (c *children) close() {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil && c.timer.Stop() {
		c.timer = nil
		go c.reap()
	}
	c.mu.Unlock()
	c.wg.Wait()
	c.fork.close()
}
