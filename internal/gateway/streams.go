package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	holdTimeout = 2 * time.Second       // the longest that a reply is held back
	holdSettle  = 50 * time.Millisecond // between the idle event and the reply: they go by two connections
	maxEvent    = 64 << 10              // bytes of one event that are looked at; status events are small
)

// streams are the streams of events that are open, and the replies that wait for
// something to go out on them.
type streams struct {
	mu    sync.Mutex
	open  map[*stream]bool
	holds map[*hold]bool
}

// stream is one response with events on its way to a client.
type stream struct{ client string }

// hold is a prompt under way: which streams have brought its end to their clients.
type hold struct {
	s       *streams
	session string
	client  string
	began   map[*stream]bool // streams open when the prompt came: they must show busy first
	idle    map[*stream]bool
	changed chan struct{} // capacity 1
}

func newStreams() *streams {
	return &streams{open: map[*stream]bool{}, holds: map[*hold]bool{}}
}

// clientOf names the machine that a request came from.
func clientOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (s *streams) begin(session string, r *http.Request) *hold {
	h := &hold{s: s, session: session, client: clientOf(r), began: map[*stream]bool{}, idle: map[*stream]bool{}, changed: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open {
		h.began[one] = true
	}
	s.holds[h] = true
	return h
}

func (h *hold) end() {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	delete(h.s.holds, h)
}

// wait returns when every stream of the same client has brought the session's idle
// event, and a moment has passed for the client to read it; at the latest after
// holdTimeout. A client without a stream does not wait.
func (h *hold) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	for {
		waiting, seen := h.state()
		if !waiting && !seen {
			return
		}
		if !waiting {
			select {
			case <-time.After(holdSettle):
			case <-ctx.Done():
			}
			return
		}
		select {
		case <-h.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (h *hold) state() (waiting, seen bool) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for one := range h.s.open {
		if one.client == h.client {
			waiting = waiting || !h.idle[one]
			seen = seen || h.idle[one]
		}
	}
	return waiting, seen
}

func (h *hold) poke() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// gone says that a session's status has been written to a stream's client.
func (s *streams) gone(one *stream, session, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.holds {
		if h.session != session {
			continue
		}
		switch {
		case status != "idle":
			delete(h.began, one)
			delete(h.idle, one)
		case !h.began[one]:
			h.idle[one] = true
		}
		h.poke()
	}
}

// watch wraps the body of a stream of events. What has been read is known to be
// written and flushed when the next read comes.
func (s *streams) watch(body io.ReadCloser, r *http.Request) io.ReadCloser {
	one := &stream{client: clientOf(r)}
	s.mu.Lock()
	s.open[one] = true
	s.mu.Unlock()
	return &watched{ReadCloser: body, s: s, one: one}
}

type watched struct {
	io.ReadCloser
	s       *streams
	one     *stream
	line    []byte // the event's line so far
	skip    bool   // the line is longer than any that matters
	pending []status
	close   sync.Once
}

type status struct{ session, kind string }

func (w *watched) Read(p []byte) (int, error) {
	for _, st := range w.pending {
		w.s.gone(w.one, st.session, st.kind)
	}
	w.pending = w.pending[:0]
	n, err := w.ReadCloser.Read(p)
	w.scan(p[:n])
	return n, err
}

func (w *watched) Close() error {
	w.close.Do(func() {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		delete(w.s.open, w.one)
		for h := range w.s.holds {
			delete(h.idle, w.one)
			delete(h.began, w.one)
			h.poke()
		}
	})
	return w.ReadCloser.Close()
}

func (w *watched) scan(p []byte) {
	for len(p) > 0 {
		at := bytes.IndexByte(p, '\n')
		part := p
		if at >= 0 {
			part = p[:at]
		}
		if len(w.line)+len(part) > maxEvent {
			w.skip = true
		}
		if !w.skip {
			w.line = append(w.line, part...)
		}
		if at < 0 {
			return
		}
		if !w.skip {
			w.event(w.line)
		}
		w.line, w.skip = w.line[:0], false
		p = p[at+1:]
	}
}

// event takes the status out of one line of a stream: {type, properties}, on
// /global/event within {payload}.
func (w *watched) event(line []byte) {
	data, ok := bytes.CutPrefix(line, []byte("data:"))
	if !ok || !bytes.Contains(data, []byte(`"session.status"`)) {
		return
	}
	type event struct {
		Type       string `json:"type"`
		Properties struct {
			SessionID string `json:"sessionID"`
			Status    struct {
				Type string `json:"type"`
			} `json:"status"`
		} `json:"properties"`
	}
	var e struct {
		event
		Payload *event `json:"payload"`
	}
	if json.Unmarshal(data, &e) != nil {
		return // not ours to judge: it passes as it is
	}
	if e.Payload != nil {
		e.event = *e.Payload
	}
	if e.Type == "session.status" && e.Properties.SessionID != "" {
		w.pending = append(w.pending, status{e.Properties.SessionID, e.Properties.Status.Type})
	}
}

// held wraps the body of a reply: its end comes when the hold is over.
type held struct {
	io.ReadCloser
	ctx   context.Context
	h     *hold
	ahead []byte
	err   error // what the upstream said behind ahead
}

// maxHeld is how much of the end of a reply is kept back.
const maxHeld = 32 << 10

func (b *held) Read(p []byte) (int, error) {
	for b.err == nil && len(b.ahead) <= maxHeld {
		at := len(b.ahead)
		if cap(b.ahead) < at+maxHeld {
			b.ahead = append(make([]byte, 0, 2*maxHeld), b.ahead...)
		}
		n, err := b.ReadCloser.Read(b.ahead[at : at+maxHeld])
		b.ahead = b.ahead[:at+n]
		if b.err = err; err == io.EOF {
			b.h.wait(b.ctx)
		}
	}
	free := len(b.ahead)
	if b.err == nil {
		free -= maxHeld
	} else if free == 0 {
		return 0, b.err
	}
	n := copy(p, b.ahead[:free])
	b.ahead = b.ahead[n:]
	return n, nil
}

func (b *held) Close() error {
	b.h.end()
	return b.ReadCloser.Close()
}
