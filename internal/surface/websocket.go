package surface

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// maxSocketMessage is the longest message that a WebSocket of the sandbox may send.
	maxSocketMessage = 16 << 20
	socketHandshake  = 30 * time.Second
)

// wsConnect opens a WebSocket to a server in the sandbox. A WebSocket cannot
// travel, so its messages come and go as streams of text and bytes.
func (b *box) wsConnect(ctx context.Context, request any, port int) (capnweb.Object, error) {
	const op = "connect WebSocket"
	r, err := requestOf(op, request, nil)
	if err != nil {
		return nil, err
	}
	dialing, cancel := context.WithTimeout(ctx, socketHandshake)
	defer cancel()
	request_, err := b.request(dialing, r, port)
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	var protocols []string
	for name, values := range request_.Header {
		switch {
		case strings.EqualFold(name, "Sec-WebSocket-Protocol"):
			for _, v := range values {
				for p := range strings.SplitSeq(v, ",") {
					protocols = append(protocols, strings.TrimSpace(p))
				}
			}
		case strings.HasPrefix(strings.ToLower(name), "sec-websocket-"), strings.EqualFold(name, "Connection"), strings.EqualFold(name, "Upgrade"):
		default:
			header[name] = values
		}
	}
	transport := b.transport(port)
	conn, answer, err := websocket.Dial(dialing, "ws://"+request_.URL.Host+request_.URL.RequestURI(), &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader: header, Subprotocols: protocols,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var e *sandbox.Error
		if errors.As(err, &e) {
			return nil, e
		}
		status := ""
		if answer != nil {
			status = " (" + answer.Status + ")"
		}
		return nil, &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: op, Message: "no WebSocket was opened" + status + ": " + err.Error(), Err: err}
	}
	conn.SetReadLimit(maxSocketMessage)
	return newSocket(conn).object(), nil
}

// socket passes a WebSocket's messages on. It is closed when the reader has left or the writer has ended.
type socket struct {
	conn   *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
}

func newSocket(conn *websocket.Conn) *socket {
	s := &socket{conn: conn}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *socket) object() capnweb.Object {
	return capnweb.Object{
		{Key: "protocol", Value: s.conn.Subprotocol()},
		{Key: "readable", Value: capnweb.NewSource(s.next, func(error) { s.close(websocket.StatusGoingAway, "the reader left") })},
		{Key: "writable", Value: capnweb.NewSink(s)},
	}
}

func (s *socket) close(code websocket.StatusCode, reason string) {
	s.once.Do(func() {
		go func() {
			_ = s.conn.Close(code, reason)
			s.cancel()
		}()
	})
}

func (s *socket) next(ctx context.Context) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	kind, data, err := s.conn.Read(ctx)
	if err != nil {
		if code := websocket.CloseStatus(err); code != -1 || s.ctx.Err() != nil {
			return nil, io.EOF
		}
		return nil, &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: "read WebSocket", Message: err.Error(), Err: err}
	}
	if kind == websocket.MessageText {
		return string(data), nil
	}
	return data, nil
}

// WriteChunk implements capnweb.Sink.
func (s *socket) WriteChunk(ctx context.Context, chunk capnweb.Value) error {
	switch x := chunk.V.(type) {
	case string:
		return s.conn.Write(ctx, websocket.MessageText, []byte(x))
	case []byte:
		return s.conn.Write(ctx, websocket.MessageBinary, x)
	case capnweb.TypedArray:
		return s.conn.Write(ctx, websocket.MessageBinary, x.Data)
	}
	return invalid("write WebSocket", "a message is text or bytes", "")
}

// Close implements capnweb.Sink.
func (s *socket) Close(context.Context) error {
	s.close(websocket.StatusNormalClosure, "")
	return nil
}

// Abort implements capnweb.Sink.
func (s *socket) Abort(error) { s.close(websocket.StatusGoingAway, "the writer left") }
