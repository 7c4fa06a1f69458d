package httprpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/tongs-dev/tongs/capnweb"
)

// abortCode is the close code with which a session tells why it ended.
const abortCode = 3000

// wsTransport carries messages as WebSocket text frames.
type wsTransport struct {
	ws    *websocket.Conn
	cork  *corkConn
	limit int
	buf   []byte
	once  sync.Once
	now   sync.Once
	stop  chan struct{}
	lost  chan struct{}
	ping  time.Duration
}

var _ capnweb.Transport = (*wsTransport)(nil)

// newTransport takes a connection over. ping is the interval of keep-alive pings, 0 for none.
func newTransport(ws *websocket.Conn, cork *corkConn, limit int, ping time.Duration) *wsTransport {
	ws.SetReadLimit(int64(limit) + 1)
	t := &wsTransport{ws: ws, cork: cork, limit: limit, stop: make(chan struct{}), lost: make(chan struct{}), ping: ping}
	if ping > 0 {
		go t.keepAlive()
	}
	return t
}

// keepAlive ends the connection when the peer does not answer a ping: a
// half-open connection would otherwise look alive for ever.
func (t *wsTransport) keepAlive() {
	tick := time.NewTicker(t.ping)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), t.ping)
		err := t.ws.Ping(ctx)
		cancel()
		if err != nil {
			select {
			case <-t.stop:
			default:
				close(t.lost)
			}
			_ = t.ws.CloseNow()
			return
		}
	}
}

// ReadMessage implements capnweb.Transport.
func (t *wsTransport) ReadMessage() ([]byte, error) {
	kind, r, err := t.ws.Reader(context.Background())
	if err != nil {
		return nil, t.readError(err)
	}
	if kind != websocket.MessageText {
		return nil, &capnweb.Error{Name: "TypeError", Message: "Received unexpected message type from WebSocket."}
	}
	if cap(t.buf) > 1<<20 {
		t.buf = nil
	}
	t.buf = t.buf[:0]
	for {
		if len(t.buf) == cap(t.buf) {
			t.buf = append(t.buf, 0)[:len(t.buf)]
		}
		n, err := r.Read(t.buf[len(t.buf):cap(t.buf)])
		t.buf = t.buf[:len(t.buf)+n]
		if errors.Is(err, io.EOF) {
			return t.buf, nil
		}
		if err != nil {
			return nil, t.readError(err)
		}
		if len(t.buf) > t.limit {
			return t.buf, nil // the session refuses it
		}
	}
}

func (t *wsTransport) readError(err error) error {
	select {
	case <-t.lost:
		return fmt.Errorf("the peer did not answer a ping within %s", t.ping)
	default:
	}
	var c websocket.CloseError
	if errors.As(err, &c) {
		return fmt.Errorf("Peer closed WebSocket: %d %s", c.Code, c.Reason) //nolint:staticcheck // the reference's text
	}
	return err
}

// WriteMessages implements capnweb.Transport.
func (t *wsTransport) WriteMessages(msgs [][]byte) error {
	ctx := context.Background()
	if len(msgs) == 1 || t.cork == nil {
		for _, m := range msgs {
			if err := t.ws.Write(ctx, websocket.MessageText, m); err != nil {
				return err
			}
		}
		return nil
	}
	t.cork.cork()
	for _, m := range msgs {
		if err := t.ws.Write(ctx, websocket.MessageText, m); err != nil {
			_ = t.cork.uncork()
			return err
		}
	}
	return t.cork.uncork()
}

// closeTimeout bounds the closing handshake.
const closeTimeout = time.Second

// Close implements capnweb.Transport.
func (t *wsTransport) Close(reason error) error {
	first := false
	t.once.Do(func() {
		first = true
		close(t.stop)
		code, text := websocket.StatusNormalClosure, ""
		if reason != nil {
			code, text = abortCode, closeReason(reason)
		}
		guard := time.AfterFunc(closeTimeout, func() { _ = t.ws.CloseNow() })
		defer guard.Stop()
		_ = t.ws.Close(code, text)
	})
	if !first {
		t.now.Do(func() { _ = t.ws.CloseNow() })
	}
	return nil
}

// closeReason is the reason cut to what fits a close frame, on a boundary of characters.
func closeReason(err error) string {
	s := err.Error()
	if len(s) <= 123 {
		return s
	}
	n := 123
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
