package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	defaultLineCount = 2000
	defaultLineBytes = 256 << 10
	maxLineBytes     = 8 << 20
	// maxLineScan bounds how far into a file lines are counted.
	maxLineScan = 1 << 30
	// contentSample is by how much of a file's beginning its kind is told.
	contentSample = 4 << 10
)

// lineReader collects a range of lines and counts the others.
type lineReader struct {
	out   *sandbox.Lines
	last  int64 // the number of the last line that is wanted
	max   int
	line  int64 // the number of the line that comes next, or goes on
	begun bool  // it has bytes already
	start int   // where it begins in the text
	full  bool  // nothing more is collected
}

func (g *engine) readLines(ctx context.Context, path string, opts sandbox.LineOptions) (*sandbox.Lines, error) {
	const op = "read lines"
	if opts.First < 0 || opts.Count < 0 || opts.MaxBytes < 0 || opts.MaxBytes > maxLineBytes {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op,
			fmt.Sprintf("first, count and maxBytes must not be negative, and maxBytes at most %d", maxLineBytes), "read a longer part as a stream")
	}
	f, _, err := g.openRead(path, sandbox.ReadOptions{})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := lineReader{out: &sandbox.Lines{Info: info(f.path, &f.st), First: max(opts.First, 1), Text: []byte{}}, line: 1}
	if opts.Count == 0 {
		opts.Count = defaultLineCount
	}
	if r.last = r.out.First + opts.Count - 1; r.last < r.out.First {
		r.last = 1<<63 - 1
	}
	if r.max = int(opts.MaxBytes); r.max == 0 {
		r.max = defaultLineBytes
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	var scanned int64
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := f.Read(*buf)
		data := (*buf)[:n]
		if scanned == 0 {
			sample := data[:min(n, contentSample)]
			r.out.Binary, r.out.MIME = sandbox.DetectContent(f.path, sample, int64(len(sample)) == f.st.Size)
			if r.out.Binary {
				r.out.Total = -1
				return r.out, nil
			}
		}
		scanned += int64(n)
		r.take(data)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if scanned >= maxLineScan && (r.full || r.line > r.last) {
			r.out.Total, r.out.Truncated = -1, true
			return r.out, nil
		}
	}
	if r.out.Total = r.line - 1; r.begun {
		r.out.Total++
		r.keep()
	}
	r.out.Truncated = r.out.LineCut || r.out.Total >= r.out.First+r.out.Count && r.out.Count > 0 ||
		r.out.Count == 0 && r.out.Total >= r.out.First
	return r.out, nil
}

func (r *lineReader) take(data []byte) {
	for len(data) > 0 {
		if r.full || r.line > r.last {
			r.line += int64(bytes.Count(data, []byte{'\n'}))
			r.begun = data[len(data)-1] != '\n'
			return
		}
		piece, ended := data, false
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			piece, ended = data[:i+1], true
		}
		data = data[len(piece):]
		if r.line >= r.out.First {
			r.add(piece)
		}
		if r.begun = !ended; ended {
			r.keep()
			r.line++
			r.start = len(r.out.Text)
		}
	}
}

// add adds a piece of the current line, if there is room for it.
func (r *lineReader) add(piece []byte) {
	if r.full {
		return
	}
	if room := r.max - len(r.out.Text); len(piece) > room {
		r.full = true
		if r.start > 0 {
			r.out.Text = r.out.Text[:r.start]
			return
		}
		r.out.Text = append(r.out.Text, piece[:room]...)
		r.out.Count, r.out.LineCut = 1, true
		return
	}
	r.out.Text = append(r.out.Text, piece...)
}

// keep counts the current line, which is whole.
func (r *lineReader) keep() {
	if !r.full && r.line >= r.out.First && r.line <= r.last {
		r.out.Count++
	}
}
