package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

const (
	defaultMaxOutput = 64 << 20
	// abortTimeout is how long Exec and Run wait, after they have killed their
	// command, for the last of its output.
	abortTimeout = 5 * time.Second
)

func (c *Client) Start(ctx context.Context, spec ProcessSpec) (*ProcessInfo, error) {
	return call[*ProcessInfo](ctx, c, "start", "start", StartRequest{Spec: spec, TimeoutMS: milliseconds(spec.Timeout)})
}

// milliseconds rounds up: a timeout that was asked for never becomes none.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func (c *Client) Get(ctx context.Context, id string) (*ProcessInfo, error) {
	return call[*ProcessInfo](ctx, c, "get process", "process", id)
}

func (c *Client) List(ctx context.Context) ([]ProcessInfo, error) {
	return call[[]ProcessInfo](ctx, c, "list processes", "processes")
}

func (c *Client) Signal(ctx context.Context, id, signal string) error {
	_, err := call[none](ctx, c, "signal", "signal", id, signal)
	return err
}

func (c *Client) Kill(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "kill", "kill", id)
	return err
}

func (c *Client) Remove(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "remove", "remove", id)
	return err
}

func (c *Client) Resize(ctx context.Context, id string, size TerminalSize) error {
	_, err := call[none](ctx, c, "resize", "resize", id, size)
	return err
}

func newProcessID() string {
	return "x" + strconv.FormatUint(rand.Uint64(), 36)
}

func (c *Client) Exec(ctx context.Context, spec ExecSpec) (*ExecResult, error) {
	const op = "exec"
	if spec.Terminal != nil {
		return nil, Errf(CodeInvalidArgument, op, "exec has no terminal", "use Start or Run")
	}
	req := StartRequest{Spec: spec.ProcessSpec, TimeoutMS: milliseconds(spec.Timeout), Forget: spec.ID == ""}
	if req.Spec.ID == "" {
		req.Spec.ID = newProcessID()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The call itself must not end with ctx: its answer is what was printed.
	callCtx, give := context.WithCancel(context.WithoutCancel(ctx))
	defer give()
	stop := context.AfterFunc(ctx, func() {
		c.abandon(callCtx, req.Spec.ID)
		time.AfterFunc(abortTimeout, give)
	})
	defer stop()
	res := &ExecResult{ID: req.Spec.ID}
	err := c.exec(callCtx, req, spec, res)
	if ctx.Err() != nil {
		return res, ctx.Err()
	}
	if err != nil && res.Started.IsZero() && res.Total == 0 {
		return nil, err
	}
	return res, err
}

// exec fills in res. Input that is too long for the question makes it a start, a
// writing of stdin and a reading of the log; else it is one call.
func (c *Client) exec(ctx context.Context, req StartRequest, spec ExecSpec, res *ExecResult) error {
	const op = "exec"
	if len(spec.Input) <= InlineBytes {
		req.Input = spec.Input
		rep, err := call[*ExecReply](ctx, c, op, "exec", req)
		if err != nil {
			return err
		}
		if rep.Token == "" {
			limit := spec.maxOutput()
			res.Stdout, res.Stderr = clip(rep.Stdout, limit, res), clip(rep.Stderr, limit, res)
			res.Total = int64(len(rep.Stdout) + len(rep.Stderr))
			return res.finish(&rep.Info)
		}
		conn, err := c.raw(ctx, op, rep.Token)
		if err != nil {
			return err
		}
		logBytes := spec.LogBytes
		if logBytes == 0 {
			logBytes = DefaultLogBytes
		}
		return c.collect(ctx, newOutput(conn, op, 0, logBytes), res, spec)
	}
	req.Spec.Stdin = true
	if req.Spec.Mode == "" {
		req.Spec.Mode = Lossless
	}
	if _, err := call[*ProcessInfo](ctx, c, op, "start", req); err != nil {
		return err
	}
	out, err := c.Output(ctx, req.Spec.ID, OutputOptions{Follow: true})
	if err != nil {
		return err
	}
	feedCtx, stop := context.WithCancel(ctx)
	var feed sync.WaitGroup
	feed.Go(func() { c.feed(feedCtx, req.Spec.ID, bytes.NewReader(spec.Input)) })
	err = c.collect(ctx, out.(*output), res, spec)
	stop()
	feed.Wait()
	return err
}

// feed writes the whole input of a command. What the command does not read is its
// own affair.
func (c *Client) feed(ctx context.Context, id string, r io.Reader) {
	w, err := c.Stdin(ctx, id)
	if err != nil {
		return
	}
	_, _ = io.Copy(w, r)
	_ = w.Close()
}

// abandon kills a command whose caller has gone. The command may be about to start:
// calls run side by side, so the kill is repeated until it finds it, or until over
// says that there is nothing to find any more.
func (c *Client) abandon(over context.Context, id string) {
	go func() {
		ctx, cancel := context.WithTimeout(over, abortTimeout)
		defer cancel()
		for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
			if err := c.Kill(ctx, id); CodeOf(err) != CodeProcessNotFound {
				return
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// collect reads a log to its end.
func (c *Client) collect(ctx context.Context, out *output, res *ExecResult, spec ExecSpec) error {
	defer out.Close()
	limit := int(spec.maxOutput())
	bufs := map[Stream]*bytes.Buffer{Stdout: {}, Stderr: {}}
	defer func() { res.Stdout, res.Stderr = bufs[Stdout].Bytes(), bufs[Stderr].Bytes() }()
	for {
		stream, data, dropped, err := out.Next(ctx)
		res.Total += int64(len(data)) + dropped
		res.Truncated = res.Truncated || dropped > 0
		if b := bufs[stream]; b != nil {
			if room := limit - b.Len(); len(data) > room {
				data, res.Truncated = data[:room], true
			}
			b.Write(data)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if spec.ID == "" {
		_ = c.main.Send("remove", res.ID)
	}
	return res.finish(out.Info())
}

func (s *ExecSpec) maxOutput() int64 {
	if s.MaxOutput <= 0 {
		return defaultMaxOutput
	}
	return s.MaxOutput
}

// finish takes over what the guest says of an ended process.
func (r *ExecResult) finish(in *ProcessInfo) error {
	if in == nil || in.Exit == nil {
		return Errf(CodeInternal, "exec", "the guest gave no exit status", "")
	}
	r.Exit, r.Started, r.Duration = *in.Exit, in.Started, in.Ended.Sub(in.Started)
	return nil
}

func clip(b []byte, limit int64, res *ExecResult) []byte {
	if int64(len(b)) > limit {
		res.Truncated = true
		return b[:limit]
	}
	return b
}

// Run starts a command in Lossless mode, passes stdin to it (nil is none) and its
// output to the writers, and returns its exit. With Merge or a Terminal all goes
// to stdout. When ctx ends the command is killed. A writer that fails ends Run
// with its error, and kills the command.
func (c *Client) Run(ctx context.Context, spec ProcessSpec, stdin io.Reader, stdout, stderr io.Writer) (Exit, error) {
	if spec.Mode == "" {
		spec.Mode = Lossless
	}
	keep := spec.ID != ""
	if !keep {
		spec.ID = newProcessID()
	}
	spec.Stdin = spec.Stdin || stdin != nil
	if _, err := c.Start(ctx, spec); err != nil {
		if ctx.Err() != nil {
			c.abandon(context.Background(), spec.ID) // it may have been started
		}
		return Exit{}, err
	}
	if !keep {
		defer func() { _ = c.main.Send("remove", spec.ID) }()
	}
	runCtx, give := context.WithCancel(context.WithoutCancel(ctx))
	defer give()
	stop := context.AfterFunc(ctx, func() {
		c.abandon(runCtx, spec.ID)
		time.AfterFunc(abortTimeout, give)
	})
	defer stop()
	out, err := c.Output(runCtx, spec.ID, OutputOptions{Follow: true})
	if err != nil {
		c.abandon(context.Background(), spec.ID)
		return Exit{}, err
	}
	defer out.Close()
	if stdin != nil {
		// Not waited for: nothing can interrupt the reader of a stranger.
		go c.feed(runCtx, spec.ID, stdin)
	}
	for {
		stream, data, _, err := out.Next(runCtx)
		if len(data) > 0 {
			w := stdout
			if stream == Stderr {
				w = stderr
			}
			if w != nil {
				if _, werr := w.Write(data); werr != nil {
					c.abandon(context.Background(), spec.ID)
					return Exit{}, werr
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return Exit{}, err
		}
	}
	if in := out.Info(); in != nil && in.Exit != nil {
		return *in.Exit, ctx.Err()
	}
	return Exit{}, Errf(CodeInternal, "run", "the guest gave no exit status", "")
}

func (c *Client) Output(ctx context.Context, id string, opts OutputOptions) (Output, error) {
	const op = "output"
	rep, err := call[*OutputReply](ctx, c, op, "output", id, OutputRequest(opts))
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, op, rep.Token)
	if err != nil {
		return nil, err
	}
	return newOutput(conn, op, opts.Offset, rep.LogBytes), nil
}

// output reads a log's raw connection.
type output struct {
	op        string
	conn      net.Conn
	r         *FrameReader
	off       int64
	confirmed int64 // over this connection
	every     int64 // confirm after so many bytes, at the latest
	dropped   int64
	info      *ProcessInfo
	err       error
}

func newOutput(conn net.Conn, op string, off, logBytes int64) *output {
	return &output{op: op, conn: conn, r: newFrameReader(conn, 128<<10), off: off, every: min(logBytes/4, 256<<10)}
}

func (o *output) Next(ctx context.Context) (Stream, []byte, int64, error) {
	if o.err != nil {
		return 0, nil, 0, o.err
	}
	o.confirm()
	stop := context.AfterFunc(ctx, func() { _ = o.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = o.conn.SetReadDeadline(time.Time{})
		}
	}()
	for {
		kind, data, err := o.r.NextPart()
		switch {
		case err != nil:
			return o.fail(ctx, err)
		case kind == FrameDropped && len(data) == 8:
			n := int64(binary.BigEndian.Uint64(data))
			o.dropped += n
			o.off += n
		case kind == FrameStdout || kind == FrameStderr:
			d := o.dropped
			o.dropped = 0
			o.off += int64(len(data))
			if kind == FrameStderr {
				return Stderr, data, d, nil
			}
			return Stdout, data, d, nil
		case kind == FrameEnd:
			o.err = io.EOF
			if err := json.Unmarshal(data, &o.info); err != nil {
				o.err = asError(o.op, err)
			}
			d := o.dropped
			o.dropped = 0
			_ = o.conn.Close()
			return 0, nil, d, o.err
		default:
			return o.fail(ctx, errors.New("the guest sent a frame of an unknown kind"))
		}
	}
}

// confirm tells the guest what has been read: after so many bytes, and always before waiting for more.
// A log can be full with few bytes, when its streams alternate, or with bytes that an earlier connection
// has brought and could not confirm any more; its command waits then.
func (o *output) confirm() {
	if o.off == o.confirmed || o.off-o.confirmed < o.every && o.r.buffered() > 0 {
		return
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(o.off))
	// When it can't be told, what has come already can still be read; the end then says why it is one.
	_, _ = o.conn.Write(b[:])
	o.confirmed = o.off
}

// fail ends the reading for good, unless only the caller's context has ended
// between two frames.
func (o *output) fail(ctx context.Context, err error) (Stream, []byte, int64, error) {
	_ = o.conn.Close()
	var e *Error
	switch {
	case ctx.Err() != nil:
		o.err = ctx.Err()
	case errors.As(err, &e):
		o.err = e
	default:
		o.err = &Error{Code: CodeConnectionLost, Op: o.op, Message: "the connection to the sandbox broke", Hint: "open the output again at Offset", Err: err}
	}
	return 0, nil, 0, o.err
}

func (o *output) Offset() int64      { return o.off }
func (o *output) Info() *ProcessInfo { return o.info }
func (o *output) Close() error {
	if o.err != nil {
		return nil // it has ended, and its connection with it
	}
	o.err = net.ErrClosed
	return o.conn.Close()
}

func (c *Client) Stdin(ctx context.Context, id string) (io.WriteCloser, error) {
	rep, err := call[*TokenReply](ctx, c, "stdin", "stdin", id)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, "stdin", rep.Token)
	if err != nil {
		return nil, err
	}
	w := &stdinWriter{conn: conn, w: NewFrameWriter(conn), answered: make(chan struct{})}
	go func() {
		_, _, w.answer = NewFrameReader(conn).Next()
		close(w.answered)
	}()
	w.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return w, nil
}

// stdinWriter sends frames. The guest answers once: to the last of them, or with
// an error at any time, after which it throws away what still comes.
type stdinWriter struct {
	mu       sync.Mutex
	conn     net.Conn
	w        *FrameWriter
	closed   bool
	stop     func() bool
	answered chan struct{}
	answer   error // valid once answered
}

func (s *stdinWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	done := 0
	for done < len(b) {
		select {
		case <-s.answered:
			return done, s.reason()
		default:
		}
		part := b[done:min(len(b), done+MaxFrameBytes)]
		if err := s.w.Write(FrameData, part); err != nil {
			return done, s.reason()
		}
		done += len(part)
	}
	return done, nil
}

// Close waits until the command has taken all that was written, or has ended.
func (s *stdinWriter) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	defer s.stop()
	defer s.conn.Close()
	if s.w.Write(FrameEnd, nil) == nil {
		<-s.answered
		if s.answer == nil {
			return nil
		}
	}
	return s.reason()
}

// leave breaks off, and leaves the input open for another writer.
func (s *stdinWriter) leave() {
	s.stop()
	_ = s.conn.Close()
}

// reason prefers what the guest said over what the connection did.
func (s *stdinWriter) reason() error {
	_ = s.conn.SetReadDeadline(time.Now().Add(time.Second))
	<-s.answered
	var e *Error
	if errors.As(s.answer, &e) {
		return e
	}
	return &Error{Code: CodeConnectionLost, Op: "stdin", Message: "the connection to the sandbox broke", Err: s.answer}
}
