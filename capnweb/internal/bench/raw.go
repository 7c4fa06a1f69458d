package bench

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// rawConn is a WebSocket that writes text frames, many at a time, and reads
// whole messages. It is a load generator's: it trusts the server.
type rawConn struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
	msg  []byte
}

func dialRaw(addr string) (*rawConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", addr, base64.StdEncoding.EncodeToString(key))
	r := bufio.NewReaderSize(conn, 64<<10)
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		conn.Close()
		return nil, errors.New("no WebSocket: " + response.Status)
	}
	return &rawConn{conn: conn, r: r}, nil
}

// queue appends a message to what flush will write. The mask is zero, which
// costs the server the same and us nothing.
func (c *rawConn) queue(msg []byte) {
	c.out = append(c.out, 0x81)
	switch n := len(msg); {
	case n < 126:
		c.out = append(c.out, 0x80|byte(n))
	case n < 1<<16:
		c.out = binary.BigEndian.AppendUint16(append(c.out, 0x80|126), uint16(n))
	default:
		c.out = binary.BigEndian.AppendUint64(append(c.out, 0x80|127), uint64(n))
	}
	c.out = append(c.out, 0, 0, 0, 0)
	c.out = append(c.out, msg...)
}

func (c *rawConn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// read returns the next message, valid until the next read.
func (c *rawConn) read() ([]byte, error) {
	c.msg = c.msg[:0]
	for {
		var h [2]byte
		if _, err := io.ReadFull(c.r, h[:]); err != nil {
			return nil, err
		}
		n := uint64(h[1] & 127)
		switch n {
		case 126:
			var b [2]byte
			if _, err := io.ReadFull(c.r, b[:]); err != nil {
				return nil, err
			}
			n = uint64(binary.BigEndian.Uint16(b[:]))
		case 127:
			var b [8]byte
			if _, err := io.ReadFull(c.r, b[:]); err != nil {
				return nil, err
			}
			n = binary.BigEndian.Uint64(b[:])
		}
		at := len(c.msg)
		c.msg = slices.Grow(c.msg, int(n))[:at+int(n)]
		if _, err := io.ReadFull(c.r, c.msg[at:]); err != nil {
			return nil, err
		}
		switch op := h[0] & 15; {
		case op >= 8:
			if op == 8 {
				return nil, fmt.Errorf("the server closed the connection: %q", c.msg[at:])
			}
			c.msg = c.msg[:at] // ping, pong
		case h[0]&0x80 != 0:
			return c.msg, nil
		}
	}
}

// operation is one call as messages: begin queues the messages that start the
// operation whose first import has the given ID, end those that dispose of it.
type operation struct {
	// imports is how many IDs it uses; the last one is pulled.
	imports int64
	begin   func(c *rawConn, id int64)
	end     func(c *rawConn, id int64)
}

// simple is a call of a method of the main object.
func simple(method, args string) operation {
	var b []byte
	return operation{
		imports: 1,
		begin: func(c *rawConn, id int64) {
			b = append(b[:0], `["push",["pipeline",0,["`...)
			b = append(append(append(b, method...), `"],`...), args...)
			c.queue(append(b, "]]"...))
			c.queue(numbered(&b, `["pull",`, id, "]"))
		},
		end: func(c *rawConn, id int64) { c.queue(numbered(&b, `["release",`, id, ",1]")) },
	}
}

// chain is makeCounter(1).next().increment(2): three calls, one round trip.
func chain() operation {
	var b []byte
	return operation{
		imports: 3,
		begin: func(c *rawConn, id int64) {
			c.queue([]byte(`["push",["pipeline",0,["makeCounter"],[1]]]`))
			c.queue(numbered(&b, `["push",["pipeline",`, id, `,["next"],[]]]`))
			c.queue(numbered(&b, `["push",["pipeline",`, id+1, `,["increment"],[2]]]`))
			c.queue(numbered(&b, `["pull",`, id+2, "]"))
		},
		end: func(c *rawConn, id int64) {
			for i := range int64(3) {
				c.queue(numbered(&b, `["release",`, id+2-i, ",1]"))
			}
		},
	}
}

func numbered(b *[]byte, before string, n int64, after string) []byte {
	*b = append(strconv.AppendInt(append((*b)[:0], before...), n, 10), after...)
	return *b
}

// result is what a run of operations came to.
type result struct {
	calls     int
	perSecond float64
	p50       time.Duration
}

// drive runs op for the given time with so many of them under way.
func drive(addr string, op operation, inFlight int, d time.Duration) (result, error) {
	c, err := dialRaw(addr)
	if err != nil {
		return result{}, err
	}
	defer c.conn.Close()
	deadline := time.Now().Add(d)
	if err := c.conn.SetDeadline(deadline.Add(30 * time.Second)); err != nil {
		return result{}, err
	}

	began := map[int64]time.Time{} // by the ID of the operation's last import
	next := int64(1)
	start := func(now time.Time) {
		op.begin(c, next)
		next += op.imports
		began[next-1] = now
	}
	t0 := time.Now()
	for range inFlight {
		start(t0)
	}
	var times []time.Duration
	for len(began) > 0 {
		// Only when nothing more has arrived: a burst is answered by a burst.
		if c.r.Buffered() == 0 {
			if err := c.flush(); err != nil {
				return result{}, err
			}
		}
		msg, err := c.read()
		if err != nil {
			return result{}, err
		}
		id, err := settled(msg)
		if err != nil {
			return result{}, err
		}
		at, ok := began[id]
		if !ok {
			continue
		}
		now := time.Now()
		times = append(times, now.Sub(at))
		delete(began, id)
		op.end(c, id-op.imports+1)
		if now.Before(deadline) {
			start(now)
		}
	}
	total := time.Since(t0)
	slices.Sort(times)
	return result{len(times), float64(len(times)) / total.Seconds(), times[len(times)/2]}, c.flush()
}

// settled returns the ID in a resolve message; other messages than that are
// failures, but for releases.
func settled(msg []byte) (int64, error) {
	rest, ok := bytes.CutPrefix(msg, []byte(`["resolve",`))
	if !ok {
		if bytes.HasPrefix(msg, []byte(`["release",`)) {
			return 0, nil
		}
		return 0, fmt.Errorf("the server said %.200q", msg)
	}
	n := bytes.IndexByte(rest, ',')
	if n < 0 {
		return 0, fmt.Errorf("the server said %.200q", msg)
	}
	return strconv.ParseInt(string(rest[:n]), 10, 64)
}
