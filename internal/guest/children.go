package guest

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
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
type children struct {
	// init: this process is process 1, or acts like it (child subreaper), and
	// reaps whatever comes. Otherwise only its own are waited for, and other
	// code in the same process may have children too (tests).
	init bool

	mu   sync.Mutex
	live map[int]*child
	// strays counts the orphans that were reaped; many tells about each
	// crowdOrphans of them. It must not block.
	strays int
	many   func()
	closed bool

	started chan struct{} // capacity 1: there may be something to wait for
	stop    chan struct{}
	wg      sync.WaitGroup
	fork    forker
}

// child is one forked process. Its pid is its process group's and its session's
// number too.
type child struct {
	pid   int
	ended func(unix.WaitStatus)
}

// forker runs a function that forks on a thread that is fit for it.
type forker interface {
	run(f func())
	close()
}

func newChildren(init bool, f forker) *children {
	c := &children{init: init, live: map[int]*child{}, started: make(chan struct{}, 1), stop: make(chan struct{}), fork: f}
	if init {
		c.wg.Go(c.reap)
	}
	return c
}

// start forks and executes. ended is called once, on the reaper's goroutine
// without any lock held, after the process has been reaped; it must not block.
func (c *children) start(path string, argv []string, attr *syscall.ProcAttr, ended func(unix.WaitStatus)) (*child, error) {
	ch := &child{ended: ended}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, sandbox.Errf(sandbox.CodeShuttingDown, "start", "the sandbox is shutting down", "")
	}
	var err error
	c.fork.run(func() { ch.pid, err = syscall.ForkExec(path, argv, attr) })
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.live[ch.pid] = ch
	c.mu.Unlock()
	if c.init {
		select {
		case c.started <- struct{}{}:
		default:
		}
	} else {
		c.wg.Go(func() { c.waitOne(ch.pid) })
	}
	return ch, nil
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

// reap is the loop of process 1. It waits without taking (WNOWAIT), so that the
// taking can be done under the lock.
func (c *children) reap() {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	for {
		if _, err := waitAny(unix.P_ALL, 0); err != nil {
			// No child at all. An orphan may be handed to us later; its
			// end is announced by SIGCHLD.
			select {
			case <-c.started:
			case <-chld:
			case <-c.stop:
				return
			}
			continue
		}
		c.take(-1)
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
	c.mu.Unlock()
	close(c.stop)
	c.wg.Wait()
	c.fork.close()
}
