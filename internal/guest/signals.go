package guest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest real-time signal (signal(7)).
const lastSignal = 64

// acceptSignals puts every signal that was ignored when this process began to its default. What is
// ignored stays ignored over an execve, so a command would inherit it.
func acceptSignals() {
	// struct sigaction of the kernel begins with the handler; SIG_IGN is 1, SIG_DFL 0. It has at most
	// 32 bytes on Linux's 64-bit machines, and its mask has 8.
	const ignored = 1
	for signal := uintptr(1); signal <= lastSignal; signal++ {
		var now, reset [8]uintptr
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0); errno != 0 || now[0] != ignored {
			continue
		}
		// It fails for SIGKILL and SIGSTOP, which can't be ignored either.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&reset)), 0, 8, 0, 0)
	}
}
