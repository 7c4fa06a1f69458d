package guest

import (
	"fmt"
	"runtime"
	"sync"
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

func (plainForker) run(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usualSlack()
	f()
	return nil
}
func (plainForker) begin()                  {}
func (plainForker) failed() <-chan struct{} { return nil }
func (plainForker) close()                  {}

// threadForker forks on one operating system thread that has written itself into
// the commands' control groups (version 1, where a group holds threads), and is
// restricted as they shall be. Its
// children are born there, so nothing has to be moved: moving costs a grace
// period, and leaves a moment in which a command is without limits.
type threadForker struct {
	tasks    []int // descriptors of the groups' files, closed when the thread is ready
	restrict func() error

	once sync.Once
	work chan func()
	done chan struct{} // closed when the thread has ended, by close or
	err  error         // because of this
}

func newThreadForker(tasks []int, restrict func() error) *threadForker {
	return &threadForker{tasks: tasks, restrict: restrict, work: make(chan func()), done: make(chan struct{})}
}

// begin makes the thread ready. The first that shall be forked does so, in the guest's first milliseconds: to change
// to another thread takes as long there as what this one has to do.
func (t *threadForker) begin() { t.once.Do(func() { go t.loop() }) }

func (t *threadForker) loop() {
	// Never unlocked: the thread ends with the goroutine, since no other one
	// may run in these groups.
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// Not the first thread: by that one the kernel judges to which group
		// the whole process belongs when memory is short. While it is held
		// here, another goroutine gets another thread.
		held := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(held)
			t.serve()
		}()
		<-held
		runtime.UnlockOSThread()
		return
	}
	t.serve()
}

func (t *threadForker) serve() {
	defer close(t.done)
	for _, fd := range t.tasks {
		// "0" is the writing thread.
		_, err := unix.Write(fd, []byte("0"))
		unix.Close(fd)
		if err != nil && t.err == nil {
			t.err = fmt.Errorf("guest: enter the commands' control group: %w", err)
		}
	}
	if t.restrict != nil && t.err == nil {
		if err := t.restrict(); err != nil {
			t.err = fmt.Errorf("guest: restrict commands: %w", err)
		}
	}
	if t.err != nil {
		return
	}
	usualSlack()
	for f := range t.work {
		f()
	}
}

func (t *threadForker) run(f func()) error {
	t.begin()
	done := make(chan struct{})
	select {
	case t.work <- func() { f(); close(done) }:
		<-done
		return nil
	case <-t.done:
		return t.err
	}
}

func (t *threadForker) failed() <-chan struct{} { return t.done }

func (t *threadForker) close() {
	close(t.work)
	t.begin() // or it would never end
	<-t.done
}
