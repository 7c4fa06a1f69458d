package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

var _ Trees = (*Client)(nil)

func quoteName(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strconv.Quote(s)
}

func (c *Client) ReadTree(ctx context.Context, path string, opts TreeOptions) (TreeReader, error) {
	const op = "read tree"
	rep, err := call[*TokenReply](ctx, c, op, "readTree", path, opts)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	t := &treeReader{ctx: ctx, conn: conn, r: newFrameReader(conn, 64<<10)}
	t.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return t, nil
}

type treeReader struct {
	ctx  context.Context
	conn net.Conn
	r    *FrameReader
	stop func() bool
	data []byte
	left int64 // of the current file, data included
	err  error
}

func (t *treeReader) Next() (*TreeEntry, error) {
	for t.left > 0 {
		if _, err := t.frame(); err != nil {
			return nil, err
		}
		t.left -= int64(len(t.data))
	}
	t.data = nil
	if t.err != nil {
		return nil, t.err
	}
	kind, data, err := t.r.Next()
	switch {
	case err != nil:
		return nil, t.fail(err)
	case kind == FrameEnd:
		t.err = io.EOF
		return nil, io.EOF
	case kind != FrameEntry:
		return nil, t.fail(errors.New("the guest sent a frame of an unknown kind"))
	}
	var h TreeHeader
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, t.fail(err)
	}
	e := &TreeEntry{Name: string(h.Name), Type: h.Type, Mode: h.Mode & 0o1777, Size: h.Size, Modified: time.Unix(0, h.Modified), Target: string(h.Target)}
	// What a guest says is not believed.
	if err := CheckTreeName(e.Name); err != nil {
		return nil, t.fail(err)
	}
	switch {
	case e.Type == TreeFile && e.Size >= 0 && e.Target == "":
		t.left = e.Size
	case e.Type == TreeDirectory && e.Size == 0 && e.Target == "":
	case e.Type == TreeSymlink && e.Size == 0 && e.Target != "" && len(e.Target) <= MaxTreeName:
	default:
		return nil, t.fail(fmt.Errorf("the guest sent an entry that can't be: %+v", h))
	}
	return e, nil
}

// frame reads the next piece of the current file.
func (t *treeReader) frame() ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	kind, data, err := t.r.Next()
	if err == nil && (kind != FrameData || int64(len(data)) > t.left || len(data) == 0) {
		err = errors.New("the guest sent another length than it said")
	}
	if err != nil {
		return nil, t.fail(err)
	}
	t.data = data
	return data, nil
}

func (t *treeReader) Read(p []byte) (int, error) {
	if t.left == 0 {
		return 0, io.EOF
	}
	if len(t.data) == 0 {
		if _, err := t.frame(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.data)
	t.data, t.left = t.data[n:], t.left-int64(n)
	return n, nil
}

func (t *treeReader) fail(err error) error {
	t.err, t.left = connFailure(t.ctx, "read tree", err), 0
	return t.err
}

// connFailure says why a raw connection ended: the context, what the guest said, or
// the connection itself.
func connFailure(ctx context.Context, op string, err error) error {
	var e *Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &e):
		if e.Op == "" {
			named := *e
			named.Op = op
			return &named
		}
		return e
	}
	return &Error{Code: CodeConnectionLost, Op: op, Message: "the connection to the sandbox broke", Err: err}
}

func (t *treeReader) Close() error {
	t.stop()
	return t.conn.Close()
}

func (c *Client) WriteTree(ctx context.Context, dir string, opts WriteTreeOptions) (TreeWriter, error) {
	rep, err := call[*TokenReply](ctx, c, treeOp, "writeTree", dir, opts)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, treeOp, rep.Token)
	if err != nil {
		return nil, err
	}
	t := &treeWriter{ctx: ctx, conn: conn, opts: opts, buf: bufio.NewWriterSize(conn, 128<<10), answer: make(chan struct{})}
	t.w = NewFrameWriter(t.buf)
	t.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	go t.listen()
	return t, nil
}

const treeOp = "write tree"

type treeWriter struct {
	ctx  context.Context
	conn net.Conn
	opts WriteTreeOptions
	buf  *bufio.Writer
	w    *FrameWriter
	stop func() bool
	err  error

	answer chan struct{} // closed when the guest has answered, or the connection ended
	result *TreeResult
	refuse error
}

// listen waits for the guest's one answer.
func (t *treeWriter) listen() {
	defer close(t.answer)
	kind, data, err := NewFrameReader(t.conn).Next()
	switch {
	case err != nil:
	case kind != FrameEnd:
		err = errors.New("the guest sent a frame of an unknown kind")
	default:
		err = json.Unmarshal(data, &t.result)
	}
	t.refuse = err
}

func (t *treeWriter) Add(e *TreeEntry, content io.Reader) error {
	if t.err == nil {
		t.err = t.add(e, content)
	}
	return t.err
}

func (t *treeWriter) add(e *TreeEntry, content io.Reader) error {
	select {
	case <-t.answer: // it has failed: there is no use in sending on
		return t.failure(nil)
	default:
	}
	if err := CheckTreeName(e.Name); err != nil {
		return connFailure(t.ctx, treeOp, err)
	}
	h := TreeHeader{Name: []byte(e.Name), Type: e.Type, Mode: e.Mode & 0o1777, Modified: e.Modified.UnixNano(), Target: []byte(e.Target)}
	switch e.Type {
	case TreeFile:
		h.Size = e.Size
	case TreeDirectory:
	case TreeSymlink:
		if err := CheckTreeLink(e.Name, e.Target); err != nil && !t.opts.LinksOut {
			return connFailure(t.ctx, treeOp, err)
		}
	case TreeHardlink:
		if err := CheckTreeName(e.Target); err != nil {
			return connFailure(t.ctx, treeOp, err)
		}
	default:
		return Errf(CodeInvalidArgument, treeOp, fmt.Sprintf("there is no entry of type %q", e.Type), "")
	}
	if e.Type == TreeFile && (e.Size < 0 || e.Size > 0 && content == nil) {
		return Errf(CodeInvalidArgument, treeOp, fmt.Sprintf("the size of %s is %d, and it has no such content", quoteName(e.Name), e.Size), "")
	}
	if err := t.w.WriteJSON(FrameEntry, h); err != nil {
		return t.failure(err)
	}
	if h.Size == 0 {
		return nil
	}
	buf := make([]byte, min(h.Size, 128<<10))
	for left := h.Size; left > 0; {
		n, err := io.ReadFull(content, buf[:min(left, int64(len(buf)))])
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return &Error{Code: CodeInvalidArgument, Op: treeOp, Message: fmt.Sprintf("%s ends %d bytes before its size", quoteName(e.Name), left-int64(n)), Err: io.ErrUnexpectedEOF}
			}
			return err // the source's own
		}
		if err := t.w.Write(FrameData, buf[:n]); err != nil {
			return t.failure(err)
		}
		left -= int64(n)
	}
	return nil
}

// failure prefers what the guest said.
func (t *treeWriter) failure(err error) error {
	if err != nil {
		// The connection broke while writing: the answer is there, or never will be.
		_ = t.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	<-t.answer
	if t.refuse == nil {
		t.refuse = errors.New("the guest ended before the tree did")
	}
	return connFailure(t.ctx, treeOp, t.refuse)
}

func (t *treeWriter) Finish() (*TreeResult, error) {
	defer t.Close()
	if t.err != nil {
		return nil, t.err
	}
	err := t.w.Write(FrameEnd, nil)
	if err == nil {
		err = t.buf.Flush()
	}
	if err != nil {
		t.err = t.failure(err)
		return nil, t.err
	}
	<-t.answer
	if t.refuse != nil {
		t.err = connFailure(t.ctx, treeOp, t.refuse)
		return nil, t.err
	}
	t.err = Errf(CodeInvalidArgument, treeOp, "the tree is finished", "")
	return t.result, nil
}

func (t *treeWriter) Close() error {
	t.stop()
	err := t.conn.Close()
	<-t.answer
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
