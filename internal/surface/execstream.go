package surface

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// drainTime bounds how long the output of a command whose reader has gone is
// read on for it, so that the command does not wait on a full log. After that its log
// forgets what is old by itself.
const drainTime = 10 * time.Minute

// command is one that runs, with its output.
type command struct {
	b        *box
	text     string
	encoding string
	id       string
	in       *sandbox.ProcessInfo // as it was started
	out      sandbox.Output
	decoders map[sandbox.Stream]*textDecoder
	dropped  int64
}

// begin starts a command whose output is read as it comes.
func (b *box) begin(ctx context.Context, text string, spec sandbox.ProcessSpec, o *commandOptions) (*command, error) {
	spec.Mode = sandbox.Lossless
	if o.Stdin != nil {
		spec.Stdin = true
	}
	// The start is not given up half way: the command would run unseen.
	ctx = context.WithoutCancel(ctx)
	in, err := withShell(b, spec, func(spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error) { return b.Start(ctx, spec) })
	if err != nil {
		return nil, err
	}
	if o.Stdin != nil {
		go b.feed(in.ID, *o.Stdin)
	}
	out, err := b.Output(ctx, in.ID, sandbox.OutputOptions{Follow: true})
	if err != nil {
		_ = b.Kill(ctx, in.ID)
		return nil, err
	}
	return &command{b: b, text: text, encoding: o.Encoding, id: in.ID, in: in, out: out,
		decoders: map[sandbox.Stream]*textDecoder{sandbox.Stdout: {}, sandbox.Stderr: {}}}, nil
}

// feed writes a command's whole input. What the command does not read is its own affair.
func (b *box) feed(id, input string) {
	w, err := b.Stdin(context.Background(), id)
	if err != nil {
		return
	}
	_, _ = io.WriteString(w, input)
	_ = w.Close()
}

// streamName is what the SDK calls a stream.
func streamName(s sandbox.Stream) string {
	if s == sandbox.Stderr {
		return "stderr"
	}
	return "stdout"
}

// next gives the next piece of output; a piece of text may be empty. At the end err is io.EOF.
func (c *command) next(ctx context.Context) (sandbox.Stream, string, error) {
	stream, data, dropped, err := c.out.Next(ctx)
	c.dropped += dropped
	if err != nil {
		return 0, "", err
	}
	return stream, c.piece(stream, data), nil
}

func (c *command) piece(stream sandbox.Stream, data []byte) string {
	if c.encoding == "base64" {
		return base64.StdEncoding.EncodeToString(data)
	}
	return c.decoders[stream].decode(data)
}

// result is what the SDK's result says of an ended command, without its output.
func (c *command) result() *execResult {
	r := &execResult{Command: c.text, SessionID: c.b.session, Truncated: c.dropped > 0}
	if in := c.out.Info(); in != nil && in.Exit != nil {
		r.Success, r.ExitCode, r.TimedOut = in.Exit.Success(), in.Exit.ShellCode(), in.Exit.TimedOut
		r.Duration, r.Timestamp = milliseconds(in.Ended.Sub(in.Started)), timestamp(in.Started)
	}
	return r
}

// leave is for a command whose reader has gone, or has read all: it runs on, and
// its output is read for it.
func (c *command) leave(forget bool) {
	if c.out.Info() == nil {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTime)
			defer cancel()
			// A reader that was interrupted is of no use any more.
			_ = c.out.Close()
			out, err := c.b.Output(ctx, c.id, sandbox.OutputOptions{Offset: c.out.Offset(), Follow: true})
			if err != nil {
				return
			}
			for c.out = out; err == nil; {
				_, _, _, err = out.Next(ctx)
			}
			c.end(forget)
		}()
		return
	}
	c.end(forget)
}

func (c *command) end(forget bool) {
	ended := c.out.Info() != nil
	_ = c.out.Close()
	if ended && forget {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = c.b.Remove(ctx, c.id)
	}
}

// execStream runs a command and gives a stream of events: start, stdout, stderr, and
// in the end complete or error. The command waits for its reader, and runs on
// without one when the reader goes.
func (b *box) execStream(ctx context.Context, text string, o *commandOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &commandOptions{}
	}
	spec, err := b.spec(ctx, "exec stream", text, o)
	if err != nil {
		return nil, err
	}
	c, err := b.begin(ctx, text, spec, o)
	if err != nil {
		return nil, err
	}
	pending := []event{{"type": "start", "timestamp": timestamp(c.in.Started), "command": text, "pid": c.in.PID, "processId": c.id}}
	over := false
	next := func(ctx context.Context) (event, error) {
		for len(pending) == 0 {
			if over {
				return nil, io.EOF
			}
			stream, data, err := c.next(ctx)
			now := timestamp(time.Now())
			switch {
			case errors.Is(err, io.EOF):
				over = true
				for _, s := range []sandbox.Stream{sandbox.Stdout, sandbox.Stderr} {
					if rest := c.decoders[s].end(); rest != "" {
						pending = append(pending, event{"type": streamName(s), "timestamp": now, "data": rest})
					}
				}
				r := c.result()
				pending = append(pending, event{"type": "complete", "timestamp": now, "exitCode": r.ExitCode, "result": r})
			case err != nil:
				return nil, err
			case data != "":
				pending = append(pending, event{"type": streamName(stream), "timestamp": now, "data": data})
			}
		}
		e := pending[0]
		pending = pending[1:]
		if b.session != "" {
			e["sessionId"] = b.session
		}
		return e, nil
	}
	return eventStream("command.stream", next, func() { c.leave(o.ProcessID == "") }), nil
}

// beginTold is execTold for a handler that does not wait.
func (b *box) beginTold(text string, spec sandbox.ProcessSpec, o *commandOptions, limit int64) (*capnweb.Promise, error) {
	mine := *o
	mine.OnOutput, mine.OnComplete, mine.OnError = o.OnOutput.Dup(), dup(o.OnComplete), dup(o.OnError)
	release := func() {
		mine.OnOutput.Close()
		mine.OnComplete.Close()
		mine.OnError.Close()
	}
	p, err := await(b.life, "command.execute", capnweb.Object{{Key: "command", Value: clipped(text)}}, func(ctx context.Context) (*execResult, error) {
		defer release()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// Nobody to tell, nobody to answer.
		defer mine.OnOutput.OnBroken(func(error) { cancel() })()
		return b.execTold(ctx, text, spec, &mine, limit)
	})
	if err != nil {
		release()
	}
	return p, err
}

// dup holds a caller's function beyond the call; nil stays nil.
func dup(f *capnweb.Stub) *capnweb.Stub {
	if f == nil {
		return nil
	}
	return f.Dup()
}

// execTold is exec with onOutput: the caller is told of each piece as it comes, and
// gets the whole in the end.
func (b *box) execTold(ctx context.Context, text string, spec sandbox.ProcessSpec, o *commandOptions, limit int64) (*execResult, error) {
	c, err := b.begin(ctx, text, spec, o)
	if err != nil {
		b.tell(ctx, o.OnError, err)
		return nil, err
	}
	defer func() { c.leave(o.ProcessID == "") }()
	collected := map[sandbox.Stream]*collector{sandbox.Stdout: {limit: limit}, sandbox.Stderr: {limit: limit}}
	calls := window{ctx: ctx}
	defer calls.wait()
	for {
		stream, data, dropped, err := c.out.Next(ctx)
		c.dropped += dropped
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.tell(ctx, o.OnError, err)
			return nil, err
		}
		collected[stream].add(data)
		if piece := c.piece(stream, data); piece != "" {
			calls.call(o.OnOutput, streamName(stream), piece)
		}
	}
	for stream, d := range c.decoders {
		if rest := d.end(); rest != "" {
			calls.call(o.OnOutput, streamName(stream), rest)
		}
	}
	calls.wait()
	r := c.result()
	encode := valid
	if o.Encoding == "base64" {
		encode = base64.StdEncoding.EncodeToString
	}
	r.Stdout, r.Stderr = encode(collected[sandbox.Stdout].b), encode(collected[sandbox.Stderr].b)
	r.Truncated = r.Truncated || collected[sandbox.Stdout].cut || collected[sandbox.Stderr].cut
	r.fit()
	b.told(ctx, o.OnComplete, r)
	return r, nil
}

// collector keeps the beginning of a stream.
type collector struct {
	b     []byte
	limit int64
	cut   bool
}

func (c *collector) add(data []byte) {
	if room := c.limit - int64(len(c.b)); int64(len(data)) > room {
		data, c.cut = data[:room], true
	}
	c.b = append(c.b, data...)
}
