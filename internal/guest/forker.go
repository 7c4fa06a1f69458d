package guest

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// usualSlack gives the calling thread, and so what it forks, the kernel's usual timer slack: the guest's
// own may be coarser.
func usualSlack() {
	const usual = 50 * time.Microsecond // prctl(2); it can't fail
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usual), 0, 0, 0)
}

// plainForker forks on whatever thread it is called on.
type plainForker struct{}

func (plainForker) run(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usualSlack()
	f()
}
func (plainForker) close() {}

// threadForker forks on one operating system thread that has written itself into
// the commands' control groups (version 1, where a group holds threads), and is
// restricted as they shall be. Its
// children are born there, so nothing has to be moved: moving costs a grace
// period, and leaves a moment in which a command is without limits.
type threadForker struct {
	work chan func()
	done chan struct{}
}

func newThreadForker(tasks []int, restrict func() error) (*threadForker, error) {
	t := &threadForker{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go t.loop(tasks, restrict, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *threadForker) loop(tasks []int, restrict func() error, ready chan<- error) {
	// Never unlocked: the thread ends with the goroutine, since no other one
	// may run in these groups.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Not the first thread: by that one the kernel judges to which group
		// the whole process belongs when memory is short. While it is held
		// here, another goroutine gets another thread.
		other := make(chan error)
		go t.loop(tasks, restrict, other)
		ready <- <-other
		runtime.UnlockOSThread()
		return
	}
	for _, fd := range tasks {
		// "0" is the writing thread.
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			ready <- fmt.Errorf("guest: enter the commands' control group: %w", err)
			return
		}
	}
	if restrict != nil {
		if err := restrict(); err != nil {
			ready <- fmt.Errorf("guest: restrict commands: %w", err)
			return
		}
	}
	usualSlack()
	ready <- nil
	defer close(t.done)
	for f := range t.work {
		f()
	}
}

func (t *threadForker) run(f func()) {
	done := make(chan struct{})
	t.work <- func() { f(); close(done) }
	<-done
}

func (t *threadForker) close() {
	close(t.work)
	<-t.done
}
