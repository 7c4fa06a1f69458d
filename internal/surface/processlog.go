package surface

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

type processLogs struct {
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	ProcessID string `json:"processId"`
	// Truncated: older bytes are gone already.
	Truncated bool `json:"truncated,omitempty"`
	// Offset is where the log ends now: streamProcessLogs goes on from there.
	Offset int64 `json:"offset"`
}

// getProcessLogs gives what the log has now.
func (b *box) getProcessLogs(ctx context.Context, id string) (*processLogs, error) {
	out, err := b.Output(ctx, id, sandbox.OutputOptions{})
	if err != nil {
		return nil, err
	}
	defer out.Close()
	logs := &processLogs{ProcessID: id}
	var stdout, stderr bytes.Buffer
	for {
		stream, data, dropped, err := out.Next(ctx)
		logs.Truncated = logs.Truncated || dropped > 0
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if stream == sandbox.Stderr {
			stderr.Write(data)
		} else {
			stdout.Write(data)
		}
	}
	for _, b := range []*bytes.Buffer{&stdout, &stderr} {
		if _, cut := fitting(b.String(), maxText/2); cut {
			return nil, sandbox.Errf(sandbox.CodeFileTooLarge, "process logs", "the log does not fit in one answer", "use streamProcessLogs")
		}
	}
	logs.Stdout, logs.Stderr, logs.Offset = valid(stdout.Bytes()), valid(stderr.Bytes()), out.Offset()
	return logs, nil
}

type logOptions struct {
	// Since is the first byte wanted, counted from the first that the process wrote.
	Since float64 `json:"since"`
}

// streamProcessLogs gives a stream of events: process_info, stdout and stderr with the offset
// behind them, dropped where bytes are gone, and exit in the end. It never makes the
// process wait.
func (b *box) streamProcessLogs(ctx context.Context, id string, o *logOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &logOptions{}
	}
	if !(o.Since >= 0 && o.Since < 1<<53) {
		return nil, invalid("process logs", "since must be an offset, 0 or more", "")
	}
	in, err := b.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	out, err := b.Output(ctx, id, sandbox.OutputOptions{Offset: int64(o.Since), Follow: true})
	if err != nil {
		return nil, err
	}
	c := command{b: b, id: id, out: out, decoders: map[sandbox.Stream]*textDecoder{sandbox.Stdout: {}, sandbox.Stderr: {}}}
	pending := []event{{"type": "process_info", "command": commandText(in), "status": status(in), "pid": in.PID}}
	over := false
	next := func(ctx context.Context) (event, error) {
		for len(pending) == 0 {
			if over {
				return nil, io.EOF
			}
			before := c.dropped
			stream, data, err := c.next(ctx)
			if n := c.dropped - before; n > 0 {
				pending = append(pending, event{"type": "dropped", "bytes": n, "offset": out.Offset()})
			}
			switch {
			case errors.Is(err, io.EOF):
				over = true
				for _, s := range []sandbox.Stream{sandbox.Stdout, sandbox.Stderr} {
					if rest := c.decoders[s].end(); rest != "" {
						pending = append(pending, event{"type": streamName(s), "data": rest, "offset": out.Offset()})
					}
				}
				end := event{"type": "exit", "data": "", "offset": out.Offset()}
				if in := out.Info(); in != nil && in.Exit != nil {
					end["exitCode"], end["status"] = in.Exit.ShellCode(), status(in)
				}
				pending = append(pending, end)
			case err != nil:
				return nil, err
			case data != "":
				// The beginning of a character that has not been given out yet does not count.
				at := out.Offset() - int64(len(c.decoders[stream].rest))
				pending = append(pending, event{"type": streamName(stream), "data": data, "offset": at})
			}
		}
		e := pending[0]
		pending = pending[1:]
		e["processId"], e["timestamp"] = id, timestamp(time.Now())
		return e, nil
	}
	return eventStream("process.logs", next, func() { _ = out.Close() }), nil
}
