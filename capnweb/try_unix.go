//go:build unix

package capnweb

import (
	"errors"
	"io"
	"net"
	"os"
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
		n, errno := writeNow(fd, w.buf)
		switch errno {
		case 0:
			w.n, w.err = n, nil
			return true
		case syscall.EINTR:
		default:
			w.n, w.err = 0, errno
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

// SocketReader reads from a socket.
type SocketReader struct {
	rc  syscall.RawConn
	buf []byte
	n   int
	err syscall.Errno
	f   func(fd uintptr) bool
}

// NewSocketReader returns a reader of conn, which must be a *net.UnixConn or a *net.TCPConn; of
// another one it returns nil. It honours the deadlines of conn, and its Close.
func NewSocketReader(conn any) *SocketReader {
	var rc syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.UnixConn:
		rc, err = c.SyscallConn()
	case *net.TCPConn:
		rc, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	r := &SocketReader{rc: rc}
	r.f = r.attempt
	return r
}

func (r *SocketReader) attempt(fd uintptr) bool {
	for {
		n, errno := readNow(fd, r.buf)
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			r.n = n
		}
		r.err = errno
		return true
	}
}

// Read implements io.Reader. It must not be called concurrently with itself.
func (r *SocketReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r.buf = b
	err := r.rc.Read(r.f)
	r.buf = nil
	switch {
	case err != nil:
		return 0, err
	case r.err != 0:
		return 0, os.NewSyscallError("read", r.err)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}
