package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"io"
	"strings"
	"sync"
)

// Event is one that is sent to the clients that follow events, besides OpenCode's.
type Event struct {
	Type       string // e.g. "pty.exited"
	Properties any
}

// maxSpliced is how many events may wait for a client that reads slowly; more are left out.
const maxSpliced = 64

// events hands events to the streams that are open.
type events struct {
	mu   sync.Mutex
	open map[*spliced]struct{}
	dir  string
}

// send passes an event to every stream. It does not wait.
func (ev *events) send(e Event) {
	var id [10]byte
	rand.Read(id[:])
	payload := map[string]any{"id": "evt_" + strings.ToLower(base32.StdEncoding.EncodeToString(id[:])), "type": e.Type, "properties": e.Properties}
	plain, err := json.Marshal(payload)
	if err != nil {
		return // it is ours, and encodes
	}
	global, err := json.Marshal(map[string]any{"directory": ev.dir, "payload": payload})
	if err != nil {
		return
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	for s := range ev.open {
		line := plain
		if s.global {
			line = global
		}
		select {
		case s.extra <- append(append([]byte("data: "), line...), "\n\n"...):
		default:
		}
	}
}

// spliced is a stream of events with others between them.
type spliced struct {
	io.Closer
	ev     *events
	global bool
	extra  chan []byte
	chunks chan []byte // what OpenCode says
	err    error       // why chunks was closed
	gone   chan struct{}
	close  sync.Once

	rest []byte
	tail [2]byte // the last bytes that were read: an event ends with an empty line
}

// splice wraps a stream. global says that it has the shape of /global/event.
func (ev *events) splice(body io.ReadCloser, global bool) io.ReadCloser {
	s := &spliced{Closer: body, ev: ev, global: global, extra: make(chan []byte, maxSpliced), chunks: make(chan []byte), gone: make(chan struct{}), tail: [2]byte{'\n', '\n'}}
	ev.mu.Lock()
	ev.open[s] = struct{}{}
	ev.mu.Unlock()
	go s.pump(body)
	return s
}

// pump ends with the body.
func (s *spliced) pump(body io.Reader) {
	defer close(s.chunks)
	for {
		b := make([]byte, 32<<10)
		n, err := body.Read(b)
		if n > 0 {
			select {
			case s.chunks <- b[:n]:
			case <-s.gone:
				s.err = io.ErrClosedPipe
				return
			}
		}
		if err != nil {
			s.err = err
			return
		}
	}
}

func (s *spliced) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		var extra chan []byte
		if s.tail == [2]byte{'\n', '\n'} {
			extra = s.extra
		}
		select {
		case chunk, ok := <-s.chunks:
			if !ok {
				return 0, s.err
			}
			s.rest = chunk
		case s.rest = <-extra:
		case <-s.gone:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	last := append(bytes.Clone(s.tail[:]), p[max(0, n-2):n]...)
	copy(s.tail[:], last[len(last)-2:])
	return n, nil
}

func (s *spliced) Close() error {
	s.close.Do(func() {
		s.ev.mu.Lock()
		delete(s.ev.open, s)
		s.ev.mu.Unlock()
		close(s.gone)
	})
	return s.Closer.Close()
}
