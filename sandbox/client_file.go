package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"
)

func (c *Client) ReadFile(ctx context.Context, path string, opts ReadOptions) ([]byte, *FileInfo, error) {
	rep, err := call[*ReadReply](ctx, c, "read file", "readFile", path, opts)
	if err != nil {
		return nil, nil, err
	}
	if rep.Token == "" {
		return rep.Data, &rep.Info, nil
	}
	r, err := c.openBody(ctx, rep.Token)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	// What the guest says of the size is only a hint, and a bounded one.
	data := make([]byte, 0, min(max(rep.Info.Size-opts.Offset, 0), 64<<20)+1)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if errors.Is(err, io.EOF) {
			return data, &rep.Info, nil
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

func (c *Client) OpenFile(ctx context.Context, path string, opts ReadOptions) (io.ReadCloser, error) {
	rep, err := call[*ReadReply](ctx, c, "read file", "readFile", path, opts)
	if err != nil {
		return nil, err
	}
	if rep.Token == "" {
		return io.NopCloser(bytes.NewReader(rep.Data)), nil
	}
	return c.openBody(ctx, rep.Token)
}

func (c *Client) openBody(ctx context.Context, token string) (*body, error) {
	conn, err := c.raw(ctx, "read file", token)
	if err != nil {
		return nil, err
	}
	b := &body{ctx: ctx, conn: conn, r: NewFrameReader(conn)}
	b.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return b, nil
}

// body is a file that is being read. Its bytes go straight to whoever reads.
type body struct {
	ctx  context.Context
	conn net.Conn
	r    *FrameReader
	left int // of the frame
	err  error
	stop func() bool
}

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.left == 0 {
		if b.err != nil {
			return 0, b.err
		}
		kind, n, err := b.r.header()
		switch {
		case err != nil:
			return 0, b.fail(err)
		case kind == FrameData:
			b.left = n
		case kind == FrameEnd:
			b.err = io.EOF
		case kind == FrameError:
			text, err := readGrowing(b.r.r, n)
			if err == nil {
				_, _, err = b.r.finish(kind, text)
			}
			return 0, b.fail(err)
		default:
			return 0, b.fail(errors.New("the guest sent a frame of an unknown kind"))
		}
	}
	n, err := b.r.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		b.left = 0
		return n, b.fail(err)
	}
	return n, nil
}

// fail ends the reading with what is known best.
func (b *body) fail(err error) error {
	var e *Error
	switch {
	case b.ctx.Err() != nil:
		b.err = b.ctx.Err()
	case errors.As(err, &e):
		b.err = e
	default:
		b.err = &Error{Code: CodeConnectionLost, Op: "read file", Message: "the connection to the sandbox broke", Err: err}
	}
	return b.err
}

func (b *body) Close() error {
	b.stop()
	return b.conn.Close()
}

func (c *Client) WriteFile(ctx context.Context, path string, data []byte, opts WriteOptions) (*FileInfo, error) {
	if len(data) > InlineBytes {
		return c.WriteFrom(ctx, path, bytes.NewReader(data), opts)
	}
	if data == nil {
		data = []byte{}
	}
	return call[*FileInfo](ctx, c, "write file", "writeFile", path, data, opts)
}

func (c *Client) WriteFrom(ctx context.Context, path string, r io.Reader, opts WriteOptions) (*FileInfo, error) {
	const op = "write file"
	rep, err := call[*TokenReply](ctx, c, op, "openWrite", path, opts)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	type answer struct {
		info *FileInfo
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		kind, data, err := NewFrameReader(conn).Next()
		var a answer
		switch {
		case err != nil:
			a.err = err
		case kind != FrameEnd:
			a.err = errors.New("the guest sent a frame of an unknown kind")
		default:
			a.err = json.Unmarshal(data, &a.info)
		}
		answers <- a
	}()
	w := NewFrameWriter(conn)
	buf := make([]byte, 128<<10)
	var source error
	for {
		n, rerr := r.Read(buf)
		var werr error
		if n > 0 {
			werr = w.Write(FrameData, buf[:n])
		}
		if errors.Is(rerr, io.EOF) && werr == nil {
			werr = w.Write(FrameEnd, nil)
		} else if rerr != nil && werr == nil {
			source = rerr
			conn.Close() // without an end nothing is changed
		}
		// A guest that has failed says so at once; there is no use in sending on.
		if rerr != nil || werr != nil || len(answers) > 0 {
			break
		}
	}
	a := <-answers
	var e *Error
	switch {
	case source != nil:
		return nil, source
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case a.err == nil:
		return a.info, nil
	case errors.As(a.err, &e):
		return nil, e
	}
	return nil, &Error{Code: CodeConnectionLost, Op: op, Message: "the connection to the sandbox broke", Err: a.err}
}

func (c *Client) Stat(ctx context.Context, path string) (*FileInfo, error) {
	return call[*FileInfo](ctx, c, "stat", "stat", path)
}

func (c *Client) Lstat(ctx context.Context, path string) (*FileInfo, error) {
	return call[*FileInfo](ctx, c, "lstat", "lstat", path)
}

func (c *Client) ListFiles(ctx context.Context, path string, opts ListOptions) (*ListResult, error) {
	return call[*ListResult](ctx, c, "list", "list", path, opts)
}

func (c *Client) Mkdir(ctx context.Context, path string, parents bool) error {
	_, err := call[none](ctx, c, "make directory", "mkdir", path, parents)
	return err
}

func (c *Client) RemoveFile(ctx context.Context, path string, recursive bool) error {
	_, err := call[none](ctx, c, "remove", "removeFile", path, recursive)
	return err
}

func (c *Client) Rename(ctx context.Context, from, to string) error {
	_, err := call[none](ctx, c, "rename", "rename", from, to)
	return err
}

func (c *Client) Chmod(ctx context.Context, path string, mode uint32) error {
	_, err := call[none](ctx, c, "chmod", "chmod", path, mode)
	return err
}

func (c *Client) Symlink(ctx context.Context, target, path string) error {
	_, err := call[none](ctx, c, "symlink", "symlink", target, path)
	return err
}
