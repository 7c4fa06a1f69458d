package sandbox

import (
	"context"
	"encoding/json"
	"errors"
)

func (c *Client) Wait(ctx context.Context, id string) (*ProcessInfo, error) {
	return call[*ProcessInfo](ctx, c, "wait", "wait", id)
}

func (c *Client) WaitLog(ctx context.Context, id string, want LogWait) (*LogMatch, error) {
	return await[LogMatch](ctx, c, "wait for log", "waitLog", id, LogWaitRequest{want, milliseconds(want.Timeout)})
}

func (c *Client) WaitPort(ctx context.Context, id string, port int, want PortWait) (*PortReady, error) {
	return await[PortReady](ctx, c, "wait for port", "waitPort", id, port, PortWaitRequest{want, milliseconds(want.Timeout)})
}

// await makes a call whose answer comes over a raw connection, so that giving up
// the wait ends it in the sandbox too.
func await[T any](ctx context.Context, c *Client, op, method string, args ...any) (*T, error) {
	rep, err := call[*TokenReply](ctx, c, op, method, args...)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	kind, data, err := NewFrameReader(conn).Next()
	var e *Error
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &e):
		return nil, e
	case err != nil:
		return nil, &Error{Code: CodeConnectionLost, Op: op, Message: "the connection to the sandbox broke", Hint: "wait again", Err: err}
	case kind != FrameEnd:
		return nil, Errf(CodeInternal, op, "the guest sent a frame of an unknown kind", "")
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, asError(op, err)
	}
	return v, nil
}
