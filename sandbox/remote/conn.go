package remote

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// streamConn is a raw connection that travels as two streams. Reads and writes
// may run beside each other, but not several of a kind.
type streamConn struct {
	s         RawStreams
	addr      streamAddr
	reads     deadline
	writes    deadline
	rest      []byte
	closeOnce sync.Once
	wmu       sync.Mutex
	wclosed   bool
}

type streamAddr string

func (a streamAddr) Network() string { return "tongs" }
func (a streamAddr) String() string  { return string(a) }

func newStreamConn(s RawStreams, name string) *streamConn {
	return &streamConn{s: s, addr: streamAddr(name)}
}

func (c *streamConn) LocalAddr() net.Addr  { return c.addr }
func (c *streamConn) RemoteAddr() net.Addr { return c.addr }

func (c *streamConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	ctx := c.reads.context()
	for len(c.rest) == 0 {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := c.s.Readable.Next(ctx, &c.rest); err != nil {
			switch {
			case ctx.Err() != nil:
				return 0, ctx.Err()
			case err == io.EOF: //nolint:errorlint // a lost session has it for a cause, too
				return 0, io.EOF
			}
			return 0, &net.OpError{Op: "read", Net: c.addr.Network(), Addr: c.addr, Err: err}
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// maxChunk is the most that one message of a stream carries.
const maxChunk = 64 << 10

func (c *streamConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, maxChunk)
		if err := c.send(append([]byte(nil), p[done:done+n]...)); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// WriteVector writes what belongs together with as few messages as it takes.
func (c *streamConn) WriteVector(parts [][]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	chunk := make([]byte, 0, min(total, maxChunk))
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), maxChunk-len(chunk))
			chunk, p = append(chunk, p[:n]...), p[n:]
			total -= n
			if len(chunk) == maxChunk || total == 0 {
				if err := c.send(chunk); err != nil {
					return err
				}
				chunk = make([]byte, 0, min(total, maxChunk))
			}
		}
	}
	return nil
}

// send writes one chunk, which is not touched afterwards.
func (c *streamConn) send(chunk []byte) error {
	ctx := c.writes.context()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.wmu.Lock()
	closed := c.wclosed
	c.wmu.Unlock()
	if closed {
		return net.ErrClosed
	}
	if err := c.s.Writable.WriteValue(ctx, chunk); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &net.OpError{Op: "write", Net: c.addr.Network(), Addr: c.addr, Err: err}
	}
	return nil
}

// CloseWrite ends what is sent; what comes can still be read.
func (c *streamConn) CloseWrite() error {
	c.wmu.Lock()
	if c.wclosed {
		c.wmu.Unlock()
		return nil
	}
	c.wclosed = true
	c.wmu.Unlock()
	return c.s.Writable.CloseContext(c.writes.context())
}

// lingerTimeout bounds how long what was written before Close may take to be taken.
const lingerTimeout = 30 * time.Second

// Close gives both directions up. What has been written is still delivered, as by a socket, but
// Close does not wait for that.
func (c *streamConn) Close() error {
	c.closeOnce.Do(func() {
		c.wmu.Lock()
		ended := c.wclosed
		c.wclosed = true
		c.wmu.Unlock()
		c.reads.close()
		c.writes.close()
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), lingerTimeout)
			defer cancel()
			if !ended && c.s.Writable.CloseContext(ctx) != nil {
				_ = c.s.Writable.CloseWithError(errGivenUp)
			}
			_ = c.s.Readable.Close()
		}()
	})
	return nil
}

var errGivenUp = &capnweb.Error{Name: "AbortError", Message: "the connection was closed"}

func (c *streamConn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
}

func (c *streamConn) SetReadDeadline(t time.Time) error  { c.reads.set(t); return nil }
func (c *streamConn) SetWriteDeadline(t time.Time) error { c.writes.set(t); return nil }
