package httprpc

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
	"unicode/utf8"
)

// The control frames of a socket: pings, their answers, and the closing handshake.

// keepAlive pings a peer that has been silent for an interval, and ends the
// connection when nothing comes in the next: a half-open connection would otherwise
// look alive for ever.
func (s *socket) keepAlive() {
	tick := time.NewTicker(s.ping)
	defer tick.Stop()
	pinged := false
	before := int64(-1)
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		now := s.heard.Load()
		switch {
		case now != before:
			pinged = false
		case pinged:
			s.lost.Store(true)
			_ = s.conn.Close()
			return
		default:
			pinged = true
			go s.control(opPing, nil) // writing may wait; noticing must not
		}
		before = now
	}
}

// control writes a control frame.
func (s *socket) control(op byte, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = op == opClose
	b := append(s.rest, appendFrame(nil, op, payload, s.client)...)
	s.rest = nil
	_, _ = s.conn.Write(b)
}

func (s *socket) readControl(h frameHeader) error {
	var buf [maxControl]byte
	p := buf[:h.length]
	if _, err := io.ReadFull(s.r, p); err != nil {
		return io.ErrUnexpectedEOF
	}
	if h.masked {
		mask(p, h.key)
	}
	switch h.op {
	case opPing:
		s.answerPing(p)
	case opClose:
		code, reason := statusNone, ""
		if len(p) >= 2 {
			code, reason = int(binary.BigEndian.Uint16(p)), string(p[2:])
		}
		s.sendClose(code, "")
		return &peerClosed{code, reason}
	}
	return nil
}

// answerPing has a ping answered without waiting. While an answer is being written,
// only the latest of the pings that come is remembered (RFC 6455, 5.5.3 allows to
// skip the others): whoever sends pings without reading costs no more than that.
func (s *socket) answerPing(payload []byte) {
	a := &s.pong
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = true
	a.payload = append(a.payload[:0], payload...)
	if !a.running {
		a.running = true
		go s.writePongs()
	}
}

// writePongs answers pings until none is left.
func (s *socket) writePongs() {
	a := &s.pong
	var buf [maxControl]byte
	for {
		a.mu.Lock()
		if !a.due {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.due = false
		n := copy(buf[:], a.payload)
		a.mu.Unlock()
		s.control(opPong, buf[:n])
	}
}

// peerClosed is a close frame of the peer.
type peerClosed struct {
	code   int
	reason string
}

func (e *peerClosed) Error() string {
	return fmt.Sprintf("Peer closed WebSocket: %d %s", e.code, e.reason)
}

// closeTimeout bounds the closing handshake.
const closeTimeout = time.Second

func (s *socket) sendClose(code int, reason string) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	var p []byte
	if code != statusNone {
		p = append(binary.BigEndian.AppendUint16(nil, uint16(code)), cut(reason)...)
	}
	s.control(opClose, p)
}

// cut shortens a reason to what fits a close frame, on a boundary of characters.
func cut(s string) string {
	if len(s) <= maxControl-2 {
		return s
	}
	n := maxControl - 2
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
