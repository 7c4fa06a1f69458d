package guest

import (
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest real-time signal (signal(7)).
const lastSignal = 64

// acceptSignals puts every signal that was ignored when this process began to its default. What is
// ignored stays ignored over an execve, so a command would inherit it.
func acceptSignals() {
	const ignored = 1 // SIG_IGN
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		var now sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&now)), maskBytes, 0, 0); errno == 0 && now[0] == ignored {
			defaultAction(sig)
		}
	}
}

// sigaction is the kernel's struct, which begins with the handler. It has at most 32 bytes on Linux's 64-bit
// machines, and its mask has maskBytes.
type sigaction [8]uintptr

const maskBytes = 8

// defaultAction gives a signal its default again, behind the back of the Go runtime, which catches every
// signal from the start. It does nothing for SIGKILL and SIGSTOP, which have no other.
func defaultAction(sig syscall.Signal) {
	var dfl sigaction // SIG_DFL is 0
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, maskBytes, 0, 0)
}

// meaningless are the signals that shall do nothing to the guest.
var meaningless = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGUSR1, syscall.SIGUSR2}

// dropSignals lets the meaningless ones do nothing to the first process of a namespace: the kernel gives it no signal
// that is at its default (pid_namespaces(7)). To catch one takes the runtime two changes of thread.
func dropSignals() {
	for _, sig := range meaningless {
		defaultAction(sig.(syscall.Signal))
	}
}

// takeSignals lets SIGTERM and SIGINT end the guest, and others do nothing. What is caught here is at its
// default in commands.
func (s *server) takeSignals() (release func()) {
	ch := make(chan os.Signal, 4)
	if os.Getpid() != 1 {
		signal.Notify(ch, meaningless...)
	}
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-ch:
				if sig == syscall.SIGTERM || sig == syscall.SIGINT {
					s.stop("signal " + sig.String())
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(ch); close(done) }
}
