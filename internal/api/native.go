package api

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// native is a sandbox's own contract for clients of package sandbox: calls go to the guest as they
// are, and raw connections are streams. It belongs to one life of the sandbox and one connection
// of this host to it.
type native struct {
	id     string
	client *sandbox.Client

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// native makes the object over a connection that lives, and starts the sandbox if need be.
func (b *box) native(ctx context.Context) (*capnweb.Target, error) {
	reached, err := b.o.s.cfg.Fleet.Open(ctx, b.entry)
	if err != nil {
		return nil, err
	}
	n := &native{id: b.entry.ID, client: reached.Client, conns: make(map[net.Conn]struct{})}
	return capnweb.NewDispatcher(n, capnweb.Concurrent(), capnweb.OnClose(n.close)), nil
}

// Dispatch implements capnweb.Dispatcher.
func (n *native) Dispatch(ctx context.Context, in capnweb.Invocation) (any, error) {
	if len(in.Path) != 1 || in.Get {
		return nil, &capnweb.Error{Name: "TypeError", Message: "the contract has methods only"}
	}
	switch name := in.Path[0]; name {
	case "attach":
		return &remote.Attachment{Incarnation: n.client.Incarnation(), Sandbox: n.id}, nil
	case "ended":
		select {
		case <-n.client.Done():
			return nil, n.client.Err()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "raw":
		var token string
		if err := in.Args.Decode(0, &token); err != nil {
			return nil, err
		}
		return n.raw(ctx, token)
	default:
		if sandbox.HostOnly(name) {
			return nil, sandbox.Errf(sandbox.CodePermissionDenied, limit(name, 60), "that is for the host alone", "")
		}
		return pass(ctx, n.client.Link().Main(), in.Path, in)
	}
}

// raw opens the connection that a token stands for and gives it as two streams.
func (n *native) raw(ctx context.Context, token string) (*remote.RawStreams, error) {
	const op = "open"
	if len(token) != 2*sandbox.TokenBytes {
		return nil, sandbox.Errf(sandbox.CodeInvalidToken, op, "the token is not one", "")
	}
	n.mu.Lock()
	full, closed := len(n.conns) >= MaxRawStreams, n.closed
	n.mu.Unlock()
	if full || closed {
		return nil, sandbox.Errf(sandbox.CodeTooManyConnections, op, "too many raw connections are open", "close some")
	}
	conn, err := n.client.Link().OpenRaw(ctx, op, token)
	if err != nil {
		return nil, err
	}
	h := &rawConn{n: n, conn: conn}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		conn.Close()
		return nil, net.ErrClosed
	}
	n.conns[conn] = struct{}{}
	n.mu.Unlock()
	return &remote.RawStreams{Readable: capnweb.NewReader(&rawReader{rawConn: h}), Writable: capnweb.NewSink(&rawSink{rawConn: h})}, nil
}

// close breaks what is open: the object is given up.
func (n *native) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for conn := range n.conns {
		conn.Close()
	}
	clear(n.conns)
}

// rawConn is a raw connection whose directions end one by one.
type rawConn struct {
	n    *native
	conn net.Conn

	mu    sync.Mutex
	halfs int
}

// half says that one direction has ended well; after both the connection is closed.
func (c *rawConn) half() {
	c.mu.Lock()
	c.halfs++
	both := c.halfs >= 2
	c.mu.Unlock()
	if both {
		c.sever()
	}
}

// sever closes the connection at once.
func (c *rawConn) sever() {
	_ = c.conn.Close()
	c.n.mu.Lock()
	delete(c.n.conns, c.conn)
	c.n.mu.Unlock()
}

// rawReader is what the guest sends.
type rawReader struct {
	*rawConn
	ended atomic.Bool
}

func (r *rawReader) Read(p []byte) (int, error) {
	k, err := r.conn.Read(p)
	if errors.Is(err, io.EOF) {
		r.ended.Store(true)
	}
	return k, err
}

// Close is called when the stream has ended, or nobody reads it any more.
func (r *rawReader) Close() error {
	if r.ended.Load() {
		r.half()
	} else {
		r.sever()
	}
	return nil
}

// rawSink is what the client sends.
type rawSink struct {
	*rawConn
	refused atomic.Bool // the guest takes no more
}

// WriteChunk implements capnweb.Sink.
func (s *rawSink) WriteChunk(_ context.Context, chunk capnweb.Value) error {
	data, ok := chunk.V.([]byte)
	if !ok {
		return &capnweb.Error{Name: "TypeError", Message: "a raw connection takes bytes"}
	}
	if _, err := s.conn.Write(data); err != nil {
		s.refused.Store(true)
		return &sandbox.Error{Code: sandbox.CodeConnectionLost, Op: "write", Message: "the guest has closed the connection", Err: err}
	}
	return nil
}

// Close implements capnweb.Sink.
func (s *rawSink) Close(context.Context) error {
	defer s.half()
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // the guest may have gone first
	}
	return nil
}

// Abort implements capnweb.Sink. A guest that takes no more may still be saying why.
func (s *rawSink) Abort(error) {
	if s.refused.Load() {
		s.half()
	} else {
		s.sever()
	}
}
