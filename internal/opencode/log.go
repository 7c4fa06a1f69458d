package opencode

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Bounds of a [Log].
const (
	maxLogLines  = 4096     // lines kept
	maxLogBytes  = 2 << 20  // bytes of text kept, 2 MiB
	maxLineBytes = 16 << 10 // bytes of one line; the rest of it is cut
)

// Line is one line that OpenCode wrote.
type Line struct {
	// Seq counts lines from 1, over all starts of OpenCode.
	Seq uint64
	// Time is when it arrived.
	Time time.Time
	// Stream is where it was written to.
	Stream sandbox.Stream
	// Text has no line end. At most 16 KiB.
	Text string
	// Missing is the number of lines before this one that a slow reader of
	// [Log.Follow] did not get because they were gone already.
	Missing uint64
}

// Log keeps the newest lines that OpenCode wrote: at most 4096, at most 2 MiB.
// Writing to it never blocks. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	lines   []Line // lines[0] is the oldest
	bytes   int
	next    uint64
	changed chan struct{} // closed at the next line
}

func newLog() *Log {
	return &Log{next: 1, changed: make(chan struct{})}
}

func (l *Log) append(stream sandbox.Stream, text string) Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := Line{Seq: l.next, Time: time.Now(), Stream: stream, Text: text}
	l.next++
	l.lines = append(l.lines, line)
	l.bytes += len(text)
	drop := 0
	for len(l.lines)-drop > maxLogLines || l.bytes > maxLogBytes {
		l.bytes -= len(l.lines[drop].Text)
		drop++
	}
	clear(l.lines[:drop])
	l.lines = l.lines[drop:]
	close(l.changed)
	l.changed = make(chan struct{})
	return line
}

// Last returns the sequence number of the newest line; 0 if there is none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next - 1
}

// Tail returns the newest lines, at most n, the oldest of them first.
func (l *Log) Tail(n int) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.lines[max(0, len(l.lines)-n):]...)
}

// Follow gives the lines after the one with sequence number after (0 is all
// that are kept), and then each new one, until ctx ends.
func (l *Log) Follow(ctx context.Context, after uint64) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for {
			l.mu.Lock()
			oldest := l.next - uint64(len(l.lines))
			var missing uint64
			if after+1 < oldest {
				missing = oldest - after - 1
				after = oldest - 1
			}
			var batch []Line
			if after+1 < l.next {
				batch = append(batch, l.lines[after+1-oldest:]...)
			}
			changed := l.changed
			l.mu.Unlock()

			for _, line := range batch {
				line.Missing, missing = missing, 0
				after = line.Seq
				if ctx.Err() != nil || !yield(line) {
					return
				}
			}
			if len(batch) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// lineWriter cuts what one stream wrote into lines.
type lineWriter struct {
	partial []byte
	cut     bool // the rest of the current line is thrown away
	emit    func(text string)
}

func (w *lineWriter) write(data []byte) {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		part, rest := data, []byte(nil)
		if end >= 0 {
			part, rest = data[:end], data[end+1:]
		}
		if !w.cut {
			room := maxLineBytes - len(w.partial)
			if len(part) > room {
				part, w.cut = part[:room], true
			}
			w.partial = append(w.partial, part...)
		}
		if end >= 0 {
			w.flush()
		}
		data = rest
	}
}

func (w *lineWriter) flush() {
	text := strings.ToValidUTF8(strings.TrimRight(string(w.partial), "\r"), "\uFFFD")
	if text != "" {
		w.emit(text)
	}
	w.partial, w.cut = w.partial[:0], false
}

// copyLog brings the output of a process into the log until the process has
// ended or ctx is done. A lost connection to the machine is made again.
func copyLog(ctx context.Context, machine func(context.Context) (Machine, error), id string, log *Log, logger *slog.Logger) {
	writers := map[sandbox.Stream]*lineWriter{}
	for _, stream := range []sandbox.Stream{sandbox.Stdout, sandbox.Stderr} {
		writers[stream] = &lineWriter{emit: func(text string) {
			log.append(stream, text)
			logLine(ctx, logger, text)
		}}
	}
	defer func() {
		for _, w := range writers {
			w.flush()
		}
	}()
	var offset int64
	pause := newBackoff(50*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		err := func() error {
			m, err := machine(ctx)
			if err != nil {
				return err
			}
			out, err := m.Output(ctx, id, sandbox.OutputOptions{Offset: offset, Follow: true})
			if err != nil {
				return err
			}
			defer out.Close()
			for {
				stream, data, dropped, err := out.Next(ctx)
				if dropped > 0 {
					logger.Warn("output of OpenCode was lost", "bytes", dropped)
				}
				if w := writers[stream]; w != nil {
					w.write(data)
				}
				offset = out.Offset()
				if err != nil {
					return err
				}
				pause.reset()
			}
		}()
		if err == io.EOF || sandbox.CodeOf(err) == sandbox.CodeProcessNotFound {
			return
		}
		pause.wait(ctx)
	}
}

// openWarning begins OpenCode's line about having no password. It has none because nobody but this
// process can reach it; the front's password is ours.
const openWarning = "Warning: OPENCODE_SERVER_PASSWORD is not set"

// logLine hands a line of OpenCode's log, which is in logfmt, to ours.
func logLine(ctx context.Context, logger *slog.Logger, text string) {
	level, message, attrs := parseLogfmt(text)
	if strings.HasPrefix(text, openWarning) {
		level = slog.LevelDebug
	}
	if logger.Enabled(ctx, level) {
		logger.LogAttrs(ctx, level, message, attrs...)
	}
}

// parseLogfmt reads key=value pairs, values quoted or not, and takes level and
// message out of them. A line that is something else is a message of its own.
func parseLogfmt(text string) (slog.Level, string, []slog.Attr) {
	level, message := slog.LevelInfo, ""
	rest := text
	if word, after, ok := strings.Cut(rest, " "); ok {
		if l, known := logLevels[word]; known {
			level, rest = l, after
		}
	}
	var attrs []slog.Attr
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || key == "" || strings.ContainsAny(key, " \"") || len(attrs) == 32 {
			return level, text, nil
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			value, rest, ok = unquotePrefix(after)
			if !ok {
				return level, text, nil
			}
		} else {
			value, rest, _ = strings.Cut(after, " ")
		}
		switch key {
		case "level":
			if l, known := logLevels[value]; known {
				level = l
			}
		case "message", "msg":
			message = value
		case "timestamp", "run":
		default:
			attrs = append(attrs, slog.String(key, value))
		}
	}
	if message == "" {
		return level, text, nil
	}
	return level, message, attrs
}

// logLevels maps OpenCode's levels. What it calls INFO is its daily chatter.
var logLevels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelDebug, "WARN": slog.LevelWarn, "ERROR": slog.LevelError, "FATAL": slog.LevelError,
}

// unquotePrefix reads a quoted string with backslash escapes at the start of s.
func unquotePrefix(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			if s[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
