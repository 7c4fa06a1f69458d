//go:build unix

package capnweb

import (
	"errors"
	"syscall"
)

// NonBlockingWriter writes to a connection what its buffers take at once.
type NonBlockingWriter struct {
	rc  syscall.RawConn
	buf []byte
	n   int
	err error
	f   func(fd uintptr) bool
}

// NewNonBlockingWriter returns nil if conn cannot be written to in this way: it must
// be a network connection (one with a SyscallConn and a CloseWrite method).
func NewNonBlockingWriter(conn any) *NonBlockingWriter {
	c, ok := conn.(interface {
		syscall.Conn
		CloseWrite() error
	})
	if !ok {
		return nil
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	w := &NonBlockingWriter{rc: rc}
	w.f = w.attempt
	return w
}

func (w *NonBlockingWriter) attempt(fd uintptr) bool {
	for {
		w.n, w.err = syscall.Write(int(fd), w.buf)
		if w.err != syscall.EINTR {
			return true
		}
	}
}

// TryWrite writes as much of b as fits and returns how much that was. It must not
// be called concurrently with itself.
func (w *NonBlockingWriter) TryWrite(b []byte) (int, error) {
	w.buf = b
	err := w.rc.Write(w.f)
	w.buf = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(w.err, syscall.EAGAIN):
		return 0, nil
	case w.err != nil:
		return 0, w.err
	}
	return w.n, nil
}
