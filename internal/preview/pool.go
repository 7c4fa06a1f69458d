package preview

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// pool holds the connections into sandboxes, with a bound for each sandbox.
type pool struct {
	boxes     Boxes
	transport *http.Transport

	mu   sync.Mutex
	open map[string]int // by sandbox
}

func newPool(boxes Boxes) *pool {
	p := &pool{boxes: boxes, open: map[string]int{}}
	p.transport = &http.Transport{
		DialContext:            p.dial,
		DisableCompression:     true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        idlePooled,
		MaxResponseHeaderBytes: MaxResponseHeader,
		ExpectContinueTimeout:  time.Second,
	}
	return p
}

// dial connects to "sandbox:port".
func (p *pool) dial(ctx context.Context, _, address string) (net.Conn, error) {
	box, digits, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(digits)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	if p.open[box] >= MaxConnections {
		p.mu.Unlock()
		return nil, sandbox.Errf(sandbox.CodeTooManyConnections, "preview", fmt.Sprintf("%d connections to this sandbox are open, and no more are allowed", MaxConnections), "close some pages")
	}
	p.open[box]++
	p.mu.Unlock()
	conn, err := p.boxes.Dial(ctx, box, port)
	if err != nil {
		p.leave(box)
		return nil, err
	}
	c := &countedConn{Conn: conn, leave: sync.OnceFunc(func() { p.leave(box) })}
	c.used.Store(time.Now().UnixNano())
	c.watch(IdleConnection)
	return c, nil
}

func (p *pool) leave(box string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[box]--; p.open[box] <= 0 {
		delete(p.open, box)
	}
}

// countedConn gives its place back when it is closed, and closes itself when nothing
// has passed for too long.
type countedConn struct {
	net.Conn
	leave func()
	used  atomic.Int64 // UnixNano
	mu    sync.Mutex
	timer *time.Timer // nil when closed
}

func (c *countedConn) watch(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = time.AfterFunc(after, func() {
		rest := IdleConnection - time.Since(time.Unix(0, c.used.Load()))
		if rest <= 0 {
			_ = c.Close()
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.timer != nil {
			c.timer.Reset(rest)
		}
	})
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.used.Store(time.Now().UnixNano())
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.used.Store(time.Now().UnixNano())
	return n, err
}

// CloseWrite passes the end of one direction of an upgraded connection.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

func (c *countedConn) Close() error {
	c.mu.Lock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	c.mu.Unlock()
	err := c.Conn.Close()
	c.leave()
	return err
}
