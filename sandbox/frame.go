package sandbox

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// MaxFrameBytes bounds the payload of one frame on a raw connection.
const MaxFrameBytes = 1 << 20

// FrameKind says what a frame on a raw connection holds. A frame is its kind
// (one byte), the length of its payload (four bytes, big endian), the payload.
type FrameKind byte

const (
	FrameStdout  FrameKind = 'O' // bytes of standard output
	FrameStderr  FrameKind = 'E' // bytes of standard error
	FrameDropped FrameKind = 'D' // eight bytes: how many bytes are missing here
	FrameData    FrameKind = 'B' // bytes of a file
	FrameEnd     FrameKind = '.' // the end, with a JSON value that depends on the call
	FrameError   FrameKind = '!' // the end, with an error as JSON {code, op, message, hint}
)

const frameHeader = 5

// AppendFrameHeader appends the five bytes that go before a payload.
func AppendFrameHeader(b []byte, kind FrameKind, length int) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(kind)), uint32(length))
}

// A FrameWriter writes frames. Not for several goroutines at once.
type FrameWriter struct {
	w   io.Writer
	hdr [frameHeader]byte
	vec [2][]byte
}

// vectorWriter is a connection that is not the kernel's and takes a frame whole.
type vectorWriter interface {
	WriteVector(parts [][]byte) error
}

// NewFrameWriter makes a FrameWriter; on a net.Conn, header and payload go out
// in one system call.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// Write writes one frame; a payload over MaxFrameBytes is an error.
func (f *FrameWriter) Write(kind FrameKind, payload []byte) error {
	if len(payload) > MaxFrameBytes {
		return fmt.Errorf("sandbox: a frame of %d bytes is too large", len(payload))
	}
	AppendFrameHeader(f.hdr[:0], kind, len(payload))
	if len(payload) == 0 {
		_, err := f.w.Write(f.hdr[:])
		return err
	}
	f.vec = [2][]byte{f.hdr[:], payload}
	if v, ok := f.w.(vectorWriter); ok {
		return v.WriteVector(f.vec[:])
	}
	bufs := net.Buffers(f.vec[:])
	_, err := bufs.WriteTo(f.w)
	return err
}

// WriteJSON writes a frame whose payload is v as JSON.
func (f *FrameWriter) WriteJSON(kind FrameKind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.Write(kind, b)
}

// WriteError writes the frame that ends a stream with an error.
func (f *FrameWriter) WriteError(err error) error {
	e := asError("", err)
	return f.WriteJSON(FrameError, errorJSON{e.Code, e.Op, e.Message, e.Hint})
}

type errorJSON struct {
	Code    Code   `json:"code"`
	Op      string `json:"op,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// A FrameReader reads frames. Not for several goroutines at once.
type FrameReader struct {
	r    *bufio.Reader
	buf  []byte
	used int // bytes of r that the last payload lies in

	kind FrameKind // of the frame that NextPart is in
	left int       // bytes of it that are still to come
}

// NewFrameReader makes a FrameReader with a small buffer.
func NewFrameReader(r io.Reader) *FrameReader { return newFrameReader(r, 4<<10) }

// buffered is how many bytes can be read without waiting.
func (f *FrameReader) buffered() int { return f.r.Buffered() - f.used }

func newFrameReader(r io.Reader, size int) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, size)}
}

// Next reads a frame; payload is valid until the next call. io.EOF comes only
// between frames; a frame of FrameError comes back as its *Error.
func (f *FrameReader) Next() (kind FrameKind, payload []byte, err error) {
	kind, n, err := f.header()
	if err != nil {
		return 0, nil, err
	}
	return f.payload(kind, n)
}

// payload reads what is behind a header.
func (f *FrameReader) payload(kind FrameKind, n int) (FrameKind, []byte, error) {
	if n <= f.r.Size() {
		// Small payloads are looked at where they are.
		b, err := f.r.Peek(n)
		if err != nil {
			return 0, nil, unexpected(err)
		}
		f.used = n
		return f.finish(kind, b)
	}
	if cap(f.buf) < n {
		// Grow by what arrives, not by what is announced.
		if n > 64<<10 {
			var err error
			if f.buf, err = readGrowing(f.r, n); err != nil {
				return 0, nil, err
			}
			return f.finish(kind, f.buf)
		}
		f.buf = make([]byte, n)
	}
	f.buf = f.buf[:n]
	if _, err := io.ReadFull(f.r, f.buf); err != nil {
		return 0, nil, unexpected(err)
	}
	return f.finish(kind, f.buf)
}

// NextPart is Next, but gives the payload of a FrameStdout or FrameStderr in parts,
// as they come: its bytes are then never moved. Next can go on after it only where a
// frame begins.
func (f *FrameReader) NextPart() (kind FrameKind, part []byte, err error) {
	if f.left == 0 {
		kind, n, err := f.header()
		if err != nil {
			return 0, nil, err
		}
		if kind != FrameStdout && kind != FrameStderr || n == 0 {
			return f.payload(kind, n)
		}
		f.kind, f.left = kind, n
	} else if f.used > 0 {
		_, _ = f.r.Discard(f.used)
		f.used = 0
	}
	if f.r.Buffered() == 0 {
		if _, err := f.r.Peek(1); err != nil {
			return 0, nil, unexpected(err)
		}
	}
	f.used = min(f.left, f.r.Buffered())
	f.left -= f.used
	part, err = f.r.Peek(f.used)
	return f.kind, part, err
}

// unexpected is what an end within a frame is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// header reads what is before a payload.
func (f *FrameReader) header() (FrameKind, int, error) {
	if f.used > 0 {
		_, _ = f.r.Discard(f.used)
		f.used = 0
	}
	var hdr [frameHeader]byte
	if _, err := io.ReadFull(f.r, hdr[:]); err != nil {
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(hdr[1:])
	if n > MaxFrameBytes {
		return 0, 0, fmt.Errorf("sandbox: a frame of %d bytes is announced, the most is %d", n, MaxFrameBytes)
	}
	return FrameKind(hdr[0]), int(n), nil
}

func (f *FrameReader) finish(kind FrameKind, payload []byte) (FrameKind, []byte, error) {
	if kind != FrameError {
		return kind, payload, nil
	}
	var e errorJSON
	if err := json.Unmarshal(payload, &e); err != nil || e.Message == "" && e.Code == "" {
		return 0, nil, Errf(CodeInternal, "", "the guest sent an error that can't be read", "")
	}
	return kind, nil, Errf(e.Code, e.Op, e.Message, e.Hint)
}

func readGrowing(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, 0, 64<<10)
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(2*cap(buf), (n+0xffff)&^0xffff))
			copy(grown, buf)
			buf = grown
		}
		m, err := io.ReadFull(r, buf[len(buf):min(cap(buf), n)])
		buf = buf[:len(buf)+m]
		if err != nil {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return buf, nil
}
