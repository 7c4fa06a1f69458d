package httprpc

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"time"
)

// corkConn holds back what is written between cork and uncork, so that a burst of
// WebSocket frames is one system call.
type corkConn struct {
	net.Conn
	mu     sync.Mutex
	corked bool
	buf    []byte
}

// corkLimit is the number of bytes above which a burst is written in parts.
const corkLimit = 256 << 10

func (c *corkConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	if len(c.buf) > 0 && len(c.buf)+len(p) > corkLimit {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= corkLimit {
		return c.Conn.Write(p)
	}
	c.buf = append(c.buf, p...)
	return len(p), nil
}

func (c *corkConn) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *corkConn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

func (c *corkConn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// corkHijacker gives the WebSocket library a connection that corks.
type corkHijacker struct {
	http.ResponseWriter
	conn *corkConn
}

// Hijack implements http.Hijacker.
func (h *corkHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	h.conn = &corkConn{Conn: conn}
	return h.conn, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(h.conn, 4<<10)), nil
}
