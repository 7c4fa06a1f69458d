//go:build !unix

package capnweb

// NonBlockingWriter writes to a connection what its buffers take at once. It
// does not exist on this system.
type NonBlockingWriter struct{}

// NewNonBlockingWriter returns nil.
func NewNonBlockingWriter(any) *NonBlockingWriter { return nil }

// TryWrite is never called.
func (*NonBlockingWriter) TryWrite([]byte) (int, error) { return 0, nil }
