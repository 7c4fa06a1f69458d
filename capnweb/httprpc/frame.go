package httprpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// RFC 6455 frames: text messages, fragmented or not, and the three control frames.
// There are no extensions.

const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10

	maxControl = 125

	statusNormal      = 1000
	statusProtocol    = 1002
	statusUnsupported = 1003
	statusNone        = 1005
	statusAbort       = 3000
)

// frameHeader is the beginning of a frame.
type frameHeader struct {
	fin    bool
	op     byte
	masked bool
	key    [4]byte
	length int64
}

// protocolError is a violation of RFC 6455.
type protocolError struct {
	code int
	text string
}

func (e *protocolError) Error() string { return "WebSocket: " + e.text }

func violation(format string, args ...any) error {
	return &protocolError{statusProtocol, fmt.Sprintf(format, args...)}
}

// readHeader reads a frame's header. mustMask says which of the two sides sends.
func readHeader(r *bufio.Reader, mustMask bool) (h frameHeader, err error) {
	b, err := r.Peek(2)
	if err != nil {
		if errors.Is(err, io.EOF) && len(b) == 1 {
			err = io.ErrUnexpectedEOF
		}
		return h, err
	}
	h.fin = b[0]&0x80 != 0
	h.op = b[0] & 0x0f
	h.masked = b[1]&0x80 != 0
	h.length = int64(b[1] & 0x7f)
	reserved := b[0] & 0x70
	n := 2
	switch h.length {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if h.masked {
		n += 4
	}
	if b, err = r.Peek(n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, err
	}
	at := 2
	switch h.length {
	case 126:
		h.length = int64(binary.BigEndian.Uint16(b[2:]))
		at = 4
	case 127:
		v := binary.BigEndian.Uint64(b[2:])
		if v>>63 != 0 {
			return h, violation("a frame with a negative length")
		}
		h.length = int64(v)
		at = 10
	}
	if h.masked {
		copy(h.key[:], b[at:])
	}
	_, _ = r.Discard(n)
	switch {
	case reserved != 0:
		return h, violation("reserved bits are set")
	case h.masked != mustMask:
		return h, violation("a frame is masked by the wrong side")
	case h.op >= opClose && (h.length > maxControl || !h.fin):
		return h, violation("a control frame is too long or fragmented")
	}
	switch h.op {
	case opContinuation, opText, opBinary, opClose, opPing, opPong:
		return h, nil
	}
	return h, violation("unknown opcode %d", h.op)
}

// mask applies the key to b, which begins where the payload does.
func mask(b []byte, key [4]byte) {
	k := uint64(binary.LittleEndian.Uint32(key[:]))
	k |= k << 32
	for len(b) >= 32 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^k)
		binary.LittleEndian.PutUint64(b[16:], binary.LittleEndian.Uint64(b[16:])^k)
		binary.LittleEndian.PutUint64(b[24:], binary.LittleEndian.Uint64(b[24:])^k)
		b = b[32:]
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}

// appendFrame appends a frame; a client masks it.
func appendFrame(b []byte, op byte, payload []byte, client bool) []byte {
	if !client {
		return append(appendFrameHeader(b, op, len(payload)), payload...)
	}
	b, key := appendMaskedHeader(b, op, len(payload))
	at := len(b)
	b = append(b, payload...)
	mask(b[at:], key)
	return b
}

// appendFrameHeader appends the header of an unmasked frame.
func appendFrameHeader(b []byte, op byte, length int) []byte {
	b = append(b, 0x80|op)
	switch {
	case length <= maxControl:
		return append(b, byte(length))
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
}

// appendMaskedHeader appends the header of a masked frame, and returns its key.
func appendMaskedHeader(b []byte, op byte, length int) ([]byte, [4]byte) {
	at := len(b)
	b = appendFrameHeader(b, op, length)
	b[at+1] |= 0x80
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	return append(b, key[:]...), key
}
