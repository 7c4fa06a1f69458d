package opencode

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	l := newLog()
	for i := range 2 * maxLogLines {
		l.append(sandbox.Stdout, fmt.Sprint(i))
	}
	if tail := l.Tail(1 << 20); len(tail) != maxLogLines || tail[len(tail)-1].Text != fmt.Sprint(2*maxLogLines-1) || tail[len(tail)-1].Seq != 2*maxLogLines {
		t.Errorf("%d lines, the last %+v", len(tail), tail[len(tail)-1])
	}
	long := strings.Repeat("x", maxLineBytes)
	for range 1000 {
		l.append(sandbox.Stderr, long)
	}
	if n := len(l.Tail(1 << 20)); n*maxLineBytes > maxLogBytes || n == 0 {
		t.Errorf("%d lines of %d bytes are kept, more than %d bytes", n, maxLineBytes, maxLogBytes)
	}
}

func TestLogFollow(t *testing.T) {
	t.Parallel()
	l := newLog()
	for i := range maxLogLines + 10 {
		l.append(sandbox.Stdout, fmt.Sprint(i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	last, missing := uint64(0), uint64(0)
	for line := range l.Follow(ctx, 0) {
		if line.Seq != last+line.Missing+1 {
			t.Fatalf("line %d with %d missing after line %d", line.Seq, line.Missing, last)
		}
		last, missing = line.Seq, missing+line.Missing
		if line.Seq == maxLogLines+10 {
			go l.append(sandbox.Stderr, "the end")
		}
		if line.Text == "the end" {
			break
		}
	}
	if last != maxLogLines+11 || missing != 10 {
		t.Errorf("ended after line %d with %d missing", last, missing)
	}
	cancel()
	for line := range l.Follow(ctx, 0) {
		t.Fatalf("a line after the end of the context: %+v", line)
	}
}

func TestParseLogfmt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		level   slog.Level
		message string
		attrs   string
	}{
		`timestamp=2026-01-01T00:00:00Z level=ERROR run=1 message="it \"broke\"" path=/x`: {slog.LevelError, `it "broke"`, "path=/x"},
		`WARN service=tongs-plugin msg="no host" port=3001`:                               {slog.LevelWarn, "no host", "service=tongs-plugin port=3001"},
		`opencode server listening on http://127.0.0.1:4096`:                              {slog.LevelInfo, "opencode server listening on http://127.0.0.1:4096", ""},
		`level=INFO nothing`: {slog.LevelDebug, "level=INFO nothing", ""},
		`a="unterminated`:    {slog.LevelInfo, `a="unterminated`, ""},
	} {
		level, message, attrs := parseLogfmt(text)
		var all []string
		for _, a := range attrs {
			all = append(all, a.String())
		}
		if level != want.level || message != want.message || strings.Join(all, " ") != want.attrs {
			t.Errorf("%s: %v %q %q, want %+v", text, level, message, all, want)
		}
	}
}

// FuzzLog holds that no output of OpenCode, however cut, makes long lines, loses
// what fits, or stops the reader.
func FuzzLog(f *testing.F) {
	f.Add([]byte("timestamp=x level=INFO message=\"a b\" k=v\nplain\r\n\n\xff\n"), 3)
	f.Add([]byte("level= =\"\\"), 1)
	f.Add([]byte(strings.Repeat("long ", 4_000)+"\nshort\n"), 777)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		if step < 1 {
			step = 1
		}
		var cut, whole []string
		a, b := &lineWriter{emit: func(s string) { cut = append(cut, s) }}, &lineWriter{emit: func(s string) { whole = append(whole, s) }}
		for rest := data; len(rest) > 0; rest = rest[min(step, len(rest)):] {
			a.write(rest[:min(step, len(rest))])
		}
		a.flush()
		b.write(data)
		b.flush()
		if strings.Join(cut, "\n") != strings.Join(whole, "\n") {
			t.Errorf("in pieces of %d: %q, whole: %q", step, cut, whole)
		}
		for _, line := range whole {
			if len(line) > 3*maxLineBytes || strings.Contains(line, "\n") {
				t.Errorf("a line of %d bytes", len(line))
			}
			_, message, _ := parseLogfmt(line)
			if message == "" {
				t.Errorf("no message in %q", line)
			}
		}
	})
}
