package guest

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

const opWaitLog = "wait for log"

func (m *rpcMain) waitLog(id string, req sandbox.LogWaitRequest) (*sandbox.TokenReply, error) {
	p, err := m.s.engine.get(opWaitLog, id)
	if err != nil {
		return nil, err
	}
	l, err := newLineWait(req.LogWait)
	if err != nil {
		return nil, err
	}
	return m.waitToken(opWaitLog, req.TimeoutMS, func(ctx context.Context) (any, error) { return p.waitLine(ctx, l) })
}

// lineWait looks for a line in a log that it is fed piece by piece.
type lineWait struct {
	want    sandbox.LogWait
	text    []byte
	pattern *regexp.Regexp
	lines   [2]line // of stdout and stderr
	found   *sandbox.LogMatch
}

// line is one that has no end yet. Its bytes may be spread over the log, when the
// other stream was written to in between.
type line struct {
	buf     []byte // at most sandbox.MaxLineBytes
	from    int64  // where it begins
	began   bool
	checked int // so many bytes of buf hold no match of the text
}

func newLineWait(want sandbox.LogWait) (*lineWait, error) {
	l := &lineWait{want: want, text: []byte(want.Text)}
	bad := func(message, hint string) (*lineWait, error) {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, opWaitLog, message, hint)
	}
	switch {
	case (want.Text == "") == (want.Pattern == ""):
		return bad("there must be a text or a pattern, and not both", "")
	case len(want.Text) > sandbox.MaxPatternBytes || len(want.Pattern) > sandbox.MaxPatternBytes:
		return bad(fmt.Sprintf("what is waited for takes more than %d bytes", sandbox.MaxPatternBytes), "wait for a shorter part of it")
	case strings.ContainsRune(want.Text, '\n'):
		return bad("the text has more than one line", "wait for one of them")
	case want.Offset < 0:
		return bad("the offset is negative", "")
	case want.Stream != 0 && want.Stream != sandbox.Stdout && want.Stream != sandbox.Stderr:
		return bad(fmt.Sprintf("there is no stream %d", want.Stream), "1 is stdout, 2 stderr, 0 both")
	}
	if want.Pattern != "" {
		var err error
		if l.pattern, err = regexp.Compile(want.Pattern); err != nil {
			return bad(err.Error(), "the pattern is a regular expression in the syntax of RE2")
		}
	}
	return l, nil
}

// waitLine reads the log until the line is found. It is no reader that a lossless
// command would wait for, and confirms nothing.
func (p *process) waitLine(ctx context.Context, l *lineWait) (*sandbox.LogMatch, error) {
	for off := l.want.Offset; ; {
		v := p.log.read(off)
		off += v.dropped
		if v.dropped > 0 {
			l.forget()
		}
		l.feed(v.stream, off, v.data)
		off += int64(len(v.data))
		p.log.release(v)
		if v.ended {
			l.end(off)
		}
		switch {
		case l.found != nil:
			return l.found, nil
		case v.ended:
			return nil, exitedEarly(opWaitLog, p, "the line was printed")
		case ctx.Err() != nil:
			return nil, unready(ctx, opWaitLog, "the line was not printed in time")
		case len(v.data) > 0:
			continue
		}
		select {
		case <-p.log.waitChange(off):
		case <-ctx.Done():
		}
	}
}

// feed takes bytes of one stream, the first of which is at off.
func (l *lineWait) feed(stream sandbox.Stream, off int64, data []byte) {
	if len(data) == 0 || l.want.Stream != 0 && stream != l.want.Stream {
		return
	}
	n := &l.lines[0]
	if stream == sandbox.Stderr {
		n = &l.lines[1]
	}
	for len(data) > 0 && l.found == nil {
		if !n.began {
			n.began, n.from = true, off
		}
		part, rest, whole := bytes.Cut(data, []byte{'\n'})
		n.buf = append(n.buf, part[:min(len(part), sandbox.MaxLineBytes-len(n.buf))]...)
		off += int64(len(data) - len(rest))
		data = rest
		l.look(n, stream, off, whole)
		if whole {
			*n = line{buf: n.buf[:0]}
		}
	}
}

// look looks at a line that ends at off, or goes on there.
func (l *lineWait) look(n *line, stream sandbox.Stream, off int64, whole bool) {
	var groups []string
	text := bytes.TrimSuffix(n.buf, []byte{'\r'})
	if l.pattern == nil {
		from := max(0, n.checked-len(l.text)+1)
		n.checked = len(n.buf)
		if !bytes.Contains(n.buf[from:], l.text) {
			return
		}
	} else {
		if !whole {
			return
		}
		at := l.pattern.FindSubmatchIndex(text)
		if at == nil {
			return
		}
		for i := 0; i < len(at); i += 2 {
			group := ""
			if at[i] >= 0 {
				group = valid(text[at[i]:at[i+1]])
			}
			groups = append(groups, group)
		}
	}
	l.found = &sandbox.LogMatch{Line: valid(text), Groups: groups, Stream: stream, Offset: n.from, End: off}
}

// end looks at what has no end and won't get one.
func (l *lineWait) end(off int64) {
	for i := range l.lines {
		if n := &l.lines[i]; n.began && l.found == nil {
			l.look(n, sandbox.Stream(i+1), off, true)
		}
	}
}

// forget begins anew, where bytes are missing.
func (l *lineWait) forget() { l.lines = [2]line{} }
