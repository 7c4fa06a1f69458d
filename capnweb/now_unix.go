//go:build unix && !race

package capnweb

import (
	"syscall"
	"unsafe"
)

// writeNow and readNow are calls that cannot wait: the Go runtime leaves its sockets in the mode for that. So they are made
// without telling the runtime, which would wake the thread that watches for calls that do, each time in a process
// that has been idle. That takes longer than the call.

func writeNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func readNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
