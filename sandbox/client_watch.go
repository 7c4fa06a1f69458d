package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"
)

var _ Watches = (*Client)(nil)

func (c *Client) Watch(ctx context.Context, path string, opts WatchOptions) (FileWatch, error) {
	const op = "watch"
	rep, err := call[*TokenReply](ctx, c, op, "watch", path, opts)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	return newFileWatch(conn), nil
}

// fileWatch reads ahead of its caller by one frame, so that a context can end a
// wait without ending the watch.
type fileWatch struct {
	conn   net.Conn
	frames chan []FileEvent
	done   chan struct{} // closed when frames is over
	err    error         // why; set before done
	left   []FileEvent
	quit   chan struct{} // closed by Close
	closed chan struct{}
}

func newFileWatch(conn net.Conn) *fileWatch {
	w := &fileWatch{
		conn: conn, frames: make(chan []FileEvent), done: make(chan struct{}),
		quit: make(chan struct{}), closed: make(chan struct{}, 1),
	}
	go w.read()
	return w
}

func (w *fileWatch) read() {
	defer close(w.done)
	r := NewFrameReader(w.conn)
	for {
		kind, data, err := r.Next()
		var events []FileEvent
		switch {
		case err != nil:
		case kind == FrameEnd:
			err = io.EOF
		case kind != FrameData:
			err = errors.New("the guest sent a frame of an unknown kind")
		default:
			err = json.Unmarshal(data, &events)
		}
		if err != nil {
			var e *Error
			if w.err = err; !errors.Is(err, io.EOF) || kind != FrameEnd {
				w.err = &Error{Code: CodeConnectionLost, Op: "watch", Message: "the connection to the sandbox broke", Err: err}
				if errors.As(err, &e) {
					w.err = e
				}
			}
			return
		}
		select {
		case w.frames <- events:
		case <-w.quit:
			w.err = net.ErrClosed
			return
		}
	}
}

func (w *fileWatch) Next(ctx context.Context) (FileEvent, error) {
	for len(w.left) == 0 {
		select {
		case w.left = <-w.frames:
		case <-w.done:
			return FileEvent{}, w.err
		case <-ctx.Done():
			return FileEvent{}, ctx.Err()
		}
	}
	e := w.left[0]
	w.left = w.left[1:]
	return e, nil
}

func (w *fileWatch) Close() error {
	select {
	case w.closed <- struct{}{}:
	default:
		return nil
	}
	close(w.quit)
	_ = w.conn.SetDeadline(time.Unix(1, 0))
	err := w.conn.Close()
	<-w.done
	return err
}
