package bufpool

import (
	"syscall"
	"unsafe"
)

// release gives the memory of a very long buffer back to the system at once. The
// buffer itself is the garbage collector's, which may take its time, and keeps memory for
// later. What is in the buffer reads as zero from now on.
func release(b []byte) {
	page := uintptr(syscall.Getpagesize())
	b = b[:cap(b)]
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	skip := (page - start%page) % page
	if skip >= uintptr(len(b)) {
		return
	}
	b = b[skip:]
	if n := uintptr(len(b)) / page * page; n > 0 {
		_ = syscall.Madvise(b[:n], syscall.MADV_DONTNEED) // if it fails, the memory stays a little longer
	}
}
