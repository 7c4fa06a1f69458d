//go:build !unix

package capnweb

import "io"

// NonBlockingWriter writes to a connection what its buffers take at once. It
// does not exist on this system.
type NonBlockingWriter struct{}

// NewNonBlockingWriter returns nil.
func NewNonBlockingWriter(any) *NonBlockingWriter { return nil }

// TryWrite is never called.
func (*NonBlockingWriter) TryWrite([]byte) (int, error) { return 0, nil }

// SocketReader reads from a socket. It does not exist on this system.
type SocketReader struct{}

// NewSocketReader returns nil.
func NewSocketReader(any) *SocketReader { return nil }

// Read is never called.
func (*SocketReader) Read([]byte) (int, error) { return 0, io.EOF }
