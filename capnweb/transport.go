package capnweb

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

// Transport carries messages, in order and without loss. A message is one JSON
// text, in which there is no newline. A session reads from one goroutine at a time and
// writes from one other.
type Transport interface {
	// ReadMessage returns the next message. The slice is only valid until the next
	// call. At the end of the connection it returns an error, io.EOF for a clean end.
	// An [*Error], or an error that matches [ErrLimit], says that the peer broke the rules;
	// it is told so before the connection is closed.
	ReadMessage() ([]byte, error)
	// WriteMessages sends messages that wait to be sent, best with one system
	// call for all. It must not keep the slices.
	WriteMessages(msgs [][]byte) error
	// Close ends the connection, and with it calls of the other methods that are under way.
	// reason is nil or says why, for transports that can tell the peer.
	// Closing twice is harmless.
	Close(reason error) error
}

// TryWriter is implemented by transports that can write without waiting.
type TryWriter interface {
	Transport
	// TryWriteMessages sends messages as far as that is possible at once. The transport
	// keeps the rest, and writes it before the messages of the next WriteMessages, which
	// is called soon, perhaps without messages. It is not called concurrently with
	// WriteMessages or itself.
	TryWriteMessages(msgs [][]byte) (done bool, err error)
	// Buffered reports whether ReadMessage would return a message without waiting.
	// It is called by the reading goroutine.
	Buffered() bool
}

// MessageGiver is implemented by transports that can give a message away.
type MessageGiver interface {
	Transport
	// GiveMessage reports whether the message that ReadMessage returned last is the
	// session's from now on. It is asked about very long ones, by the reading goroutine.
	GiveMessage() bool
}

// lineWriter is a transport whose frames are lines: it takes a burst of messages,
// each ended by a newline, as it is.
type lineWriter interface{ writeLines(b []byte) error }

// tryLineWriter is a TryWriter whose frames are lines.
type tryLineWriter interface{ tryLines(b []byte) (bool, error) }

func isLimit(err error) bool { return errors.Is(err, ErrLimit) }

// streamTransport frames messages by newlines.
type streamTransport struct {
	rwc   io.ReadWriteCloser
	in    io.Reader
	limit int
	buf   []byte
	r, w  int // unread part of buf
	once  sync.Once
	err   error
}

// NewStreamTransport frames messages by newlines on a byte stream: a unix
// socket, a pair of pipes, standard input and output. It owns rwc, whose Close must end
// a Read that is under way. Messages longer than maxMessage bytes end the session;
// 0 means 32 MiB.
func NewStreamTransport(rwc io.ReadWriteCloser, maxMessage int) Transport {
	if maxMessage <= 0 {
		maxMessage = defaultLimits.MaxMessageBytes
	}
	t := &streamTransport{rwc: rwc, in: rwc, limit: maxMessage}
	if r := NewSocketReader(rwc); r != nil {
		t.in = r
	}
	w := NewNonBlockingWriter(rwc)
	if d, ok := rwc.(deadliner); ok && w != nil {
		return &tryStreamTransport{streamTransport: t, w: w, reading: d}
	}
	return t
}

// tryStreamTransport is a streamTransport over a network connection.
type tryStreamTransport struct {
	*streamTransport
	w       *NonBlockingWriter
	reading deadliner
	join    []byte
	rest    []byte
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// TryWriteMessages implements TryWriter.
func (t *tryStreamTransport) TryWriteMessages(msgs [][]byte) (bool, error) {
	t.join = t.join[:0]
	for _, m := range msgs {
		t.join = append(append(t.join, m...), '\n')
	}
	return t.tryLines(t.join)
}

func (t *tryStreamTransport) tryLines(b []byte) (bool, error) {
	if len(t.rest) > 0 {
		t.rest = append(t.rest, b...)
		return false, nil
	}
	n, err := t.w.TryWrite(b)
	if err == nil && n < len(b) {
		t.rest = append(t.rest, b[n:]...)
		return false, nil
	}
	return true, err
}

func (t *tryStreamTransport) writeLines(b []byte) error {
	if len(t.rest) > 0 {
		rest := t.rest
		t.rest = nil
		if err := t.streamTransport.writeLines(rest); err != nil {
			return err
		}
	}
	if len(b) == 0 {
		return nil
	}
	return t.streamTransport.writeLines(b)
}

// Buffered implements TryWriter.
func (t *tryStreamTransport) Buffered() bool {
	return bytes.IndexByte(t.buf[t.r:t.streamTransport.w], '\n') >= 0
}

func (t *tryStreamTransport) interruptRead() error { return t.reading.SetReadDeadline(time.Unix(1, 0)) }

func (t *tryStreamTransport) resumeRead() error { return t.reading.SetReadDeadline(time.Time{}) }

func (t *streamTransport) ReadMessage() ([]byte, error) {
	if cap(t.buf) > keepBuffer && t.r == t.w {
		t.buf = nil
		t.r, t.w = 0, 0
	}
	if t.buf == nil {
		t.buf = make([]byte, 16<<10)
	}
	scanned := t.r
	for {
		if i := bytes.IndexByte(t.buf[scanned:t.w], '\n'); i >= 0 {
			msg := t.buf[t.r : scanned+i]
			t.r = scanned + i + 1
			if len(msg) > t.limit {
				break
			}
			return msg, nil
		}
		scanned = t.w
		if t.w-t.r > t.limit {
			break
		}
		if t.r > 0 && (t.r == t.w || t.w == len(t.buf)) {
			copy(t.buf, t.buf[t.r:t.w])
			scanned -= t.r
			t.w -= t.r
			t.r = 0
		}
		if t.w == len(t.buf) {
			t.buf = append(t.buf, make([]byte, len(t.buf))...)
		}
		n, err := t.in.Read(t.buf[t.w:])
		t.w += n
		if err != nil && n == 0 {
			if errors.Is(err, io.EOF) && t.w > t.r {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return nil, limitf("Incoming message exceeds maximum size of %d bytes.", t.limit)
}

func (t *streamTransport) writeLines(b []byte) error {
	_, err := t.rwc.Write(b)
	return err
}

func (t *streamTransport) WriteMessages(msgs [][]byte) error {
	var b []byte
	for _, m := range msgs {
		b = append(append(b, m...), '\n')
	}
	return t.writeLines(b)
}

func (t *streamTransport) Close(error) error {
	t.once.Do(func() { t.err = t.rwc.Close() })
	return t.err
}

// pipeTransport is one end of a Pipe.
type pipeTransport struct {
	in, out *pipeQueue
	cur     [][]byte
}

// pipeQueue carries bursts one way. It holds one burst at a time, so that a slow
// reader holds the writer back.
type pipeQueue struct {
	ch   chan [][]byte
	done chan struct{}
	once sync.Once
}

// Pipe returns two transports connected to each other within the process.
func Pipe() (Transport, Transport) {
	x := &pipeQueue{ch: make(chan [][]byte, 1), done: make(chan struct{})}
	y := &pipeQueue{ch: make(chan [][]byte, 1), done: make(chan struct{})}
	return &pipeTransport{in: x, out: y}, &pipeTransport{in: y, out: x}
}

func (t *pipeTransport) ReadMessage() ([]byte, error) {
	for len(t.cur) == 0 {
		select {
		case t.cur = <-t.in.ch:
		default:
			select {
			case t.cur = <-t.in.ch:
			case <-t.in.done:
				select {
				case t.cur = <-t.in.ch: // written before the end
				default:
					return nil, io.EOF
				}
			}
		}
	}
	msg := t.cur[0]
	t.cur = t.cur[1:]
	return msg, nil
}

func (t *pipeTransport) WriteMessages(msgs [][]byte) error {
	n := 0
	for _, m := range msgs {
		n += len(m)
	}
	all := make([]byte, 0, n)
	burst := make([][]byte, len(msgs))
	for i, m := range msgs {
		start := len(all)
		all = append(all, m...)
		burst[i] = all[start:len(all):len(all)]
	}
	select {
	case <-t.out.done:
		return io.ErrClosedPipe
	default:
	}
	select {
	case t.out.ch <- burst:
		return nil
	case <-t.out.done:
		return io.ErrClosedPipe
	}
}

func (t *pipeTransport) Close(error) error {
	t.in.once.Do(func() { close(t.in.done) })
	t.out.once.Do(func() { close(t.out.done) })
	return nil
}
