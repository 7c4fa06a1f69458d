package httprpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

const (
	// longFrame is the size from which a message is not put in the buffer of writing
	// as a whole, and writePiece that of one write.
	longFrame  = 32 << 10
	writePiece = 256 << 10
)

// socket carries messages as WebSocket text frames over a connection on which the
// handshake has been made. The library that is used for nothing but frames
// elsewhere would write each message with a system call of its own, and could not
// write without waiting; measured, that is half of the cost of a call.
type socket struct {
	conn   net.Conn
	client bool
	limit  int
	ping   time.Duration

	begin  chan struct{} // reading begins when it is closed; nil: at once
	readMu sync.Mutex
	reading

	mu     sync.Mutex // of writing
	out    []byte
	rest   []byte // what TryWriteMessages could not write
	closed bool   // a close frame was sent
	try    *capnweb.NonBlockingWriter

	pending sync.Mutex
	later   []byte

	stop    chan struct{}
	once    sync.Once
	endOnce sync.Once
	peerEnd chan struct{} // closed when reading has ended
	heard   atomic.Int64  // frames
	lost    atomic.Bool

	pong struct {
		mu      sync.Mutex
		running bool   // a goroutine answers pings
		due     bool   // a ping is to be answered
		payload []byte // its
	}
}

var (
	_ capnweb.MessageGiver = (*socket)(nil)
	_ capnweb.TryWriter    = (*trySocket)(nil)
)

// trySocket is a socket on a connection that can be written to without waiting.
type trySocket struct{ *socket }

// newSocket takes a connection over; r may hold what was read already. ping is the
// interval of keep-alive pings, 0 for none.
func newSocket(conn net.Conn, r *bufio.Reader, client bool, limit int, ping time.Duration) capnweb.Transport {
	s := &socket{
		conn: conn, client: client, limit: limit, ping: ping, reading: reading{r: r, small: r},
		stop: make(chan struct{}), peerEnd: make(chan struct{}),
	}
	if ping > 0 {
		go s.keepAlive()
	}
	if s.try = capnweb.NewNonBlockingWriter(conn); s.try != nil {
		return &trySocket{s}
	}
	return s
}

// hold keeps a socket from being read until the returned function is called.
func hold(t capnweb.Transport) (begin func()) {
	s, ok := t.(*socket)
	if !ok {
		s = t.(*trySocket).socket
	}
	s.begin = make(chan struct{})
	return func() { close(s.begin) }
}

// ReadMessage implements capnweb.Transport.
func (s *socket) ReadMessage() ([]byte, error) {
	if s.begin != nil {
		<-s.begin
	}
	s.readMu.Lock()
	defer s.readMu.Unlock()
	msg, err := s.read()
	if err != nil {
		s.endOnce.Do(func() { close(s.peerEnd) })
		return nil, s.explain(err)
	}
	return msg, nil
}

func (s *socket) explain(err error) error {
	if s.lost.Load() {
		return fmt.Errorf("the peer did not answer a ping within %s", s.ping)
	}
	var v *protocolError
	if errors.As(err, &v) {
		s.sendClose(v.code, v.text)
	}
	return err
}

// tooLong is a message over the limit.
type tooLong struct{ limit int }

func (e *tooLong) Error() string {
	return fmt.Sprintf("Incoming message exceeds maximum size of %d bytes.", e.limit)
}
func (e *tooLong) Is(target error) bool { return target == capnweb.ErrLimit }

// WriteMessages implements capnweb.Transport.
func (s *socket) WriteMessages(msgs [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.collect()
	if len(s.rest) > 0 {
		rest := s.rest
		s.rest = nil
		if _, err := s.conn.Write(rest); err != nil {
			return err
		}
	}
	s.out = s.out[:0]
	for _, m := range msgs {
		var err error
		switch {
		case len(m) < longFrame:
			s.out = appendFrame(s.out, opText, m, s.client)
			if len(s.out) >= writePiece {
				err = s.flush(nil)
			}
		case s.client:
			err = s.writeMasked(m)
		default: // is not copied
			s.out = appendFrameHeader(s.out, opText, len(m))
			err = s.flush(m)
		}
		if err != nil {
			return err
		}
	}
	return s.flush(nil)
}

// flush writes what is in s.out, and m.
func (s *socket) flush(m []byte) error {
	var err error
	switch {
	case len(m) > 0:
		bufs := net.Buffers{s.out, m}
		_, err = bufs.WriteTo(s.conn)
	case len(s.out) > 0:
		_, err = s.conn.Write(s.out)
	}
	s.out = s.out[:0]
	return err
}

// writeMasked writes a long message of a client in pieces, as it has to be copied.
func (s *socket) writeMasked(m []byte) error {
	var key [4]byte
	s.out, key = appendMaskedHeader(s.out, opText, len(m))
	for len(m) > 0 {
		at := len(s.out)
		n := min(len(m), max(writePiece-at, longFrame)&^3) // whole turns of the key
		s.out = append(s.out, m[:n]...)
		mask(s.out[at:], key)
		m = m[n:]
		if len(s.out) >= writePiece-longFrame {
			if err := s.flush(nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// TryWriteMessages implements capnweb.TryWriter.
func (s *trySocket) TryWriteMessages(msgs [][]byte) (bool, error) {
	if !s.mu.TryLock() { // a control frame is being written, which may wait
		s.pending.Lock()
		for _, m := range msgs {
			s.later = appendFrame(s.later, opText, m, s.client)
		}
		s.pending.Unlock()
		return false, nil
	}
	defer s.mu.Unlock()
	s.collect()
	if s.closed {
		return true, net.ErrClosed
	}
	s.out = s.out[:0]
	for _, m := range msgs {
		s.out = appendFrame(s.out, opText, m, s.client)
	}
	if len(s.rest) > 0 {
		s.rest = append(s.rest, s.out...)
		return false, nil
	}
	n, err := s.try.TryWrite(s.out)
	if err == nil && n < len(s.out) {
		s.rest = append(s.rest, s.out[n:]...)
		return false, nil
	}
	return true, err
}

// collect takes over what came while a control frame was being written.
func (s *socket) collect() {
	s.pending.Lock()
	s.rest = append(s.rest, s.later...)
	s.later = nil
	s.pending.Unlock()
}

// Close implements capnweb.Transport: it sends a close frame and waits a moment for
// the peer's. Closing again ends the waiting.
func (s *socket) Close(reason error) error {
	first := false
	s.once.Do(func() { first = true })
	if first {
		close(s.stop)
		code, text := statusNormal, ""
		if reason != nil {
			code, text = statusAbort, reason.Error()
		}
		s.sendClose(code, text)
		s.awaitEnd()
	}
	return s.conn.Close()
}

// awaitEnd waits until the peer has ended its side: closing with unread bytes
// would take back what was sent last.
func (s *socket) awaitEnd() {
	_ = s.conn.SetReadDeadline(time.Now().Add(closeTimeout))
	if s.readMu.TryLock() { // the session does not read any more
		if s.held > 0 { // but may be busy with what it read last
			_, _ = io.Copy(io.Discard, s.conn)
		} else {
			_, _ = io.Copy(io.Discard, s.r)
		}
		s.readMu.Unlock()
		return
	}
	select {
	case <-s.peerEnd:
	case <-time.After(closeTimeout):
	}
}
