package httprpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// A batch is one POST. Its body is the client's messages, joined by newlines, and
// the answer's body the server's. There is nothing after the last message of either.

// BatchOptions bound what a [Handler] accepts as a batch.
type BatchOptions struct {
	// Disabled refuses batches.
	Disabled bool
	// MaxBodyBytes is the size of the request's body: 32 MiB. A larger one is answered 413.
	MaxBodyBytes int
	// MaxMessages is the number of messages in it: 10,000. More are answered 413.
	MaxMessages int
	// Timeout is how long its calls may take together: 60 s. Then the answer is 504.
	Timeout time.Duration
}

func (o BatchOptions) withDefaults() BatchOptions {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = 32 << 20
	}
	if o.MaxMessages <= 0 {
		o.MaxMessages = 10_000
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return o
}

const batchType = "text/plain;charset=UTF-8"

func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request) {
	o := h.Batch.withDefaults()
	if o.Disabled {
		http.Error(w, "this endpoint only accepts WebSocket connections", http.StatusMethodNotAllowed)
		return
	}
	if !h.originAllowed(w, r) {
		http.Error(w, "pages of this origin may not use this endpoint", http.StatusForbidden)
		return
	}
	main, ok := h.main(w, r)
	if !ok {
		return
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, int64(o.MaxBodyBytes)), r.ContentLength)
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			http.Error(w, fmt.Sprintf("a batch may have %d bytes", o.MaxBodyBytes), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	if n := bytes.Count(body, []byte("\n")) + 1; n > o.MaxMessages {
		http.Error(w, fmt.Sprintf("a batch may have %d messages, not %d", o.MaxMessages, n), http.StatusRequestEntityTooLarge)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), o.Timeout)
	defer cancel()
	t := newBatchServer(body)
	opts := append([]capnweb.Option{capnweb.WithContext(ctx)}, sessionOptions(h.MaxMessageBytes, h.Session)...)
	s := capnweb.NewSession(t, main, append(opts, capnweb.WithoutStreams())...)
	select {
	case <-t.fed:
		err = s.Drain(ctx)
	case <-s.Done():
		err = s.Err()
	}
	_ = s.Close(nil)
	<-s.Done()
	switch {
	case err == nil:
	case ctx.Err() != nil && r.Context().Err() == nil:
		http.Error(w, fmt.Sprintf("the calls of the batch took longer than %s", o.Timeout), http.StatusGatewayTimeout)
		return
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", batchType)
	_, _ = w.Write(t.out.Bytes())
}

// readAll is io.ReadAll, with a buffer of the right size at once where the size is
// said and small.
func readAll(r io.Reader, size int64) ([]byte, error) {
	if size < 0 || size > 64<<10 {
		return io.ReadAll(r)
	}
	var b bytes.Buffer
	b.Grow(int(size) + bytes.MinRead)
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// originAllowed checks the Origin of a browser's request, and says to the browser
// that its page may read the answer. CORS lets pages send a POST of text without asking, so
// the request itself has to be checked.
func (h *Handler) originAllowed(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return h.anyOrigin(w)
	}
	if u.Host == r.Host {
		return true
	}
	if h.anyOrigin(w) {
		return true
	}
	for _, p := range h.AllowOrigins {
		if matchHost(p, u.Host) {
			w.Header().Set("Access-Control-Allow-Origin", origin)
			w.Header().Add("Vary", "Origin")
			return true
		}
	}
	return false
}

func (h *Handler) anyOrigin(w http.ResponseWriter) bool {
	for _, p := range h.AllowOrigins {
		if p == "*" {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			return true
		}
	}
	return false
}

// batchServer is the transport of one batch at the server.
type batchServer struct {
	in    [][]byte
	out   bytes.Buffer // written by one goroutine at a time
	fed   chan struct{}
	done  chan struct{}
	once  sync.Once
	first bool
}

func newBatchServer(body []byte) *batchServer {
	t := &batchServer{fed: make(chan struct{}), done: make(chan struct{}), first: true}
	if len(body) > 0 {
		t.in = bytes.Split(body, []byte("\n"))
	}
	return t
}

// ReadMessage implements capnweb.Transport. When all messages are handled, it waits
// for the session's end.
func (t *batchServer) ReadMessage() ([]byte, error) {
	if len(t.in) > 0 {
		m := t.in[0]
		t.in = t.in[1:]
		return m, nil
	}
	select {
	case <-t.fed:
	default:
		close(t.fed)
	}
	<-t.done
	return nil, io.EOF
}

// Buffered implements capnweb.TryWriter.
func (t *batchServer) Buffered() bool { return len(t.in) > 0 }

// TryWriteMessages implements capnweb.TryWriter.
func (t *batchServer) TryWriteMessages(msgs [][]byte) (bool, error) {
	return true, t.WriteMessages(msgs)
}

// WriteMessages implements capnweb.Transport.
func (t *batchServer) WriteMessages(msgs [][]byte) error {
	for _, m := range msgs {
		if !t.first {
			t.out.WriteByte('\n')
		}
		t.first = false
		t.out.Write(m)
	}
	return nil
}

// Close implements capnweb.Transport.
func (t *batchServer) Close(error) error {
	t.once.Do(func() { close(t.done) })
	return nil
}

// BatchClientOptions say how a batch is sent. The zero value is useful.
type BatchClientOptions struct {
	// Client sends the request; nil means http.DefaultClient.
	Client *http.Client
	// Header is sent with the request.
	Header http.Header
	// MaxBodyBytes is the size of the answer that is accepted: 32 MiB.
	MaxBodyBytes int
	// Session are the options of the session.
	Session []capnweb.Option
}

// NewBatch makes a session that is one HTTP request. Calls and reads of properties
// are recorded until the first result is awaited; then all are sent, with the wish for the results of
// all promises that are still open. When the answer has come the session is over,
// but the results stay available. Streams, blobs and calls from the server cannot work in
// a batch. ctx bounds the request.
func NewBatch(ctx context.Context, url string, opts *BatchClientOptions) *capnweb.Session {
	if opts == nil {
		opts = &BatchClientOptions{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := &batchClient{
		ctx: ctx, cancel: cancel, url: url, opts: opts,
		answer: make(chan struct{}), ready: make(chan struct{}),
	}
	t.s = capnweb.NewSession(t, nil, append(opts.Session[:len(opts.Session):len(opts.Session)], capnweb.WithoutStreams(), capnweb.WithEagerGets())...)
	close(t.ready)
	return t.s
}

// batchClient is the transport of one batch at the client.
type batchClient struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	url    string
	opts   *BatchClientOptions
	s      *capnweb.Session
	ready  chan struct{} // closed when s is set
	once   sync.Once

	// Of the session's writing goroutine:
	body   []byte
	seen   int // pulls in body
	wanted int
	asked  bool
	sent   bool

	answer chan struct{} // closed when these are set:
	lines  [][]byte
	err    error
}

//lint:ignore ST1005 the reference's text
var errBatchEnded = errors.New("Batch RPC request ended.")

// WriteMessages implements capnweb.Transport. The first pull is the sign that
// everything has been recorded.
func (t *batchClient) WriteMessages(msgs [][]byte) error {
	if t.sent {
		return nil // releases: the server forgets everything anyway
	}
	for _, m := range msgs {
		if len(t.body) > 0 {
			t.body = append(t.body, '\n')
		}
		t.body = append(t.body, m...)
		if bytes.HasPrefix(m, []byte(`["pull",`)) {
			t.seen++
		}
	}
	if t.seen > 0 && !t.asked {
		t.asked = true
		<-t.ready
		t.wanted = t.s.PullAll()
		t.wanted += t.seen
	}
	if t.asked && t.seen >= t.wanted {
		t.sent = true
		t.lines, t.err = t.post()
		close(t.answer)
	}
	return nil
}

func (t *batchClient) post() ([][]byte, error) {
	req, err := http.NewRequestWithContext(t.ctx, http.MethodPost, t.url, bytes.NewReader(t.body))
	if err != nil {
		return nil, err
	}
	for k, v := range t.opts.Header {
		req.Header[k] = v
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", batchType)
	}
	c := t.opts.Client
	if c == nil {
		c = http.DefaultClient
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	limit := t.opts.MaxBodyBytes
	if limit <= 0 {
		limit = 32 << 20
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("RPC request failed: %d %s: %s", resp.StatusCode, http.StatusText(resp.StatusCode),
			bytes.TrimSpace(body[:min(len(body), 512)]))
	}
	if len(body) > limit {
		return nil, fmt.Errorf("%w: the answer is larger than %d bytes", capnweb.ErrLimit, limit)
	}
	if len(body) == 0 {
		return nil, nil
	}
	return bytes.Split(body, []byte("\n")), nil
}

// ReadMessage implements capnweb.Transport.
func (t *batchClient) ReadMessage() ([]byte, error) {
	select {
	case <-t.answer:
	case <-t.ctx.Done():
		return nil, context.Cause(t.ctx)
	}
	if t.err != nil {
		return nil, t.err
	}
	if len(t.lines) == 0 {
		return nil, errBatchEnded
	}
	m := t.lines[0]
	t.lines = t.lines[1:]
	return m, nil
}

// Close implements capnweb.Transport.
func (t *batchClient) Close(error) error {
	t.once.Do(func() { t.cancel(errBatchEnded) })
	return nil
}
