package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"time"
)

func (c *Client) ListPorts(ctx context.Context) ([]PortInfo, error) {
	return call[[]PortInfo](ctx, c, "list ports", "ports")
}

func (c *Client) WatchPorts(ctx context.Context) (PortWatch, error) {
	const op = "watch ports"
	rep, err := call[*TokenReply](ctx, c, op, "watchPorts")
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	w := &portWatch{conn: conn, frames: make(chan portFrame), closed: make(chan struct{})}
	go w.read()
	return w, nil
}

// portWatch reads a watch's raw connection: frames of FrameData, each a JSON list
// of events. A goroutine reads, so that a wait can be given up within a frame.
type portWatch struct {
	conn   net.Conn
	frames chan portFrame
	closed chan struct{}
	queue  []PortEvent // of one frame, so at most MaxFrameBytes
	err    error
}

type portFrame struct {
	events []PortEvent
	err    error
}

func (w *portWatch) read() {
	r := NewFrameReader(w.conn)
	for {
		var f portFrame
		kind, data, err := r.Next()
		switch {
		case err != nil:
			f.err = err
		case kind != FrameData:
			f.err = errors.New("the guest sent a frame of an unknown kind")
		default:
			f.err = json.Unmarshal(data, &f.events)
		}
		select {
		case w.frames <- f:
		case <-w.closed:
			return
		}
		if f.err != nil {
			return
		}
	}
}

func (w *portWatch) Next(ctx context.Context) (PortEvent, error) {
	for len(w.queue) == 0 {
		if w.err != nil {
			return PortEvent{}, w.err
		}
		select {
		case f := <-w.frames:
			if w.queue = f.events; f.err != nil {
				w.fail(f.err)
			}
		case <-w.closed:
			return PortEvent{}, net.ErrClosed
		case <-ctx.Done():
			return PortEvent{}, ctx.Err()
		}
	}
	e := w.queue[0]
	w.queue = w.queue[1:]
	return e, nil
}

func (w *portWatch) fail(err error) {
	var e *Error
	if errors.As(err, &e) {
		w.err = e
		return
	}
	w.err = &Error{Code: CodeConnectionLost, Op: "watch ports", Message: "the connection to the sandbox broke", Hint: "begin the watch again", Err: err}
}

// Close ends the watch. Again is no error.
func (w *portWatch) Close() error {
	select {
	case <-w.closed:
		return nil
	default:
	}
	close(w.closed)
	_ = w.conn.SetDeadline(time.Unix(1, 0))
	return w.conn.Close()
}
