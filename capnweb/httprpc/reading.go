package httprpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/internal/bufpool"
)

const (
	// largeRead is the size of the buffer that a socket borrows while much comes in:
	// a message that fits in is neither copied nor read in pieces.
	largeRead = 256 << 10

	// firstPiece is how much memory is taken for a longer message at first. Then it is
	// pieceGrowth times what has come.
	firstPiece  = 64 << 10
	pieceGrowth = 16
)

// largeReaders has *bufio.Reader of largeRead bytes.
var largeReaders = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, largeRead) }}

// reading is the part of a socket that its reading goroutine uses.
type reading struct {
	r     *bufio.Reader // small or large
	small *bufio.Reader
	held  int    // bytes at the front of r that are the message read last
	msg   []byte // a message that is not in r
	frag  bool   // it began, and more of it follows
}

// advance drops the message that was read last.
func (s *reading) advance() {
	if s.held > 0 {
		_, _ = s.r.Discard(s.held)
		s.held = 0
	}
}

// relax gives the large buffer back when it is empty.
func (s *reading) relax() {
	if s.r != s.small && s.r.Buffered() == 0 {
		s.r.Reset(nil)
		largeReaders.Put(s.r)
		s.r = s.small
	}
}

// inPlace waits for n bytes, and returns them where they were read to; nil if they do not fit.
func (s *reading) inPlace(n int) ([]byte, error) {
	if n > s.r.Size() && s.r == s.small && n <= largeRead {
		// Much has to come before there is much memory for it.
		if _, err := s.r.Peek(s.r.Size()); err != nil {
			return nil, err
		}
		s.r, _ = largeReaders.Get().(*bufio.Reader)
		s.r.Reset(s.small) // which hands over what it has, then reads straight into the large one
	}
	if n > s.r.Size() {
		return nil, nil
	}
	b, err := s.r.Peek(n)
	if err != nil {
		return nil, err
	}
	s.held = n
	return b, nil
}

func (s *socket) read() ([]byte, error) {
	s.advance()
	s.relax()
	if cap(s.msg) > bufpool.Keep {
		bufpool.Put(s.msg)
		s.msg = nil
	}
	s.msg = s.msg[:0]
	for {
		h, err := readHeader(s.r, !s.client)
		if err != nil {
			return nil, err
		}
		s.heard.Add(1) // any frame shows that the peer is there
		if h.op >= opClose {
			if err := s.readControl(h); err != nil {
				return nil, err
			}
			continue
		}
		switch {
		case h.op == opBinary:
			return nil, &capnweb.Error{Name: "TypeError", Message: "Received unexpected message type from WebSocket."}
		case h.op == opContinuation != s.frag:
			return nil, violation("a fragment out of order")
		case h.length > int64(s.limit-len(s.msg)):
			return nil, &tooLong{s.limit}
		}
		if h.fin && !s.frag {
			b, err := s.inPlace(int(h.length))
			if err != nil {
				return nil, cutOff(err)
			}
			if s.held == len(b) && b != nil {
				if h.masked {
					mask(b, h.key)
				}
				return b, nil
			}
		}
		if err := s.readPayload(h); err != nil {
			return nil, err
		}
		s.frag = !h.fin
		if h.fin {
			return s.msg, nil
		}
	}
}

// GiveMessage implements capnweb.MessageGiver.
func (s *socket) GiveMessage() bool {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	given := s.held == 0 && s.msg != nil
	if given {
		s.msg = nil
	}
	return given
}

// cutOff is the error of a frame that ends too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readPayload appends a frame's payload to the message. Memory is taken as the
// bytes come, not as the header promises.
func (s *socket) readPayload(h frameHeader) error {
	start := len(s.msg)
	for left := int(h.length); left > 0; {
		at := len(s.msg)
		n := min(left, max(firstPiece, at*(pieceGrowth-1)))
		if cap(s.msg)-at < n {
			bigger := bufpool.Get(at + n)[:at]
			copy(bigger, s.msg)
			bufpool.Put(s.msg)
			s.msg = bigger
		}
		s.msg = s.msg[:at+n]
		if _, err := io.ReadFull(s.r, s.msg[at:]); err != nil {
			return cutOff(err)
		}
		left -= n
	}
	if h.masked {
		mask(s.msg[start:], h.key)
	}
	return nil
}

// Buffered implements capnweb.TryWriter. It is called when the message read last
// is done with.
func (s *trySocket) Buffered() bool {
	if !s.readMu.TryLock() {
		return false // the connection is being closed
	}
	defer s.readMu.Unlock()
	s.advance()
	n := s.r.Buffered()
	if n < 2 {
		return false
	}
	b, _ := s.r.Peek(n)
	if b[0] != 0x80|opText {
		return false
	}
	length, at := uint64(b[1]&0x7f), 2
	switch {
	case length == 127:
		if n < 10 {
			return false
		}
		length, at = binary.BigEndian.Uint64(b[2:]), 10
	case length == 126:
		if n < 4 {
			return false
		}
		length, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	}
	if !s.client {
		at += 4
	}
	return n >= at && uint64(n-at) >= length
}
