package tool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"sync"
	"syscall"
	"unicode/utf16"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// grepChunk is how much of a file is looked at at once. A longer line is
	// matched in pieces.
	grepChunk = 1 << 20
	// firstChunk is how much is read first, and by what a text is told.
	firstChunk = 64 << 10
	// maxUTF16 bounds a file in UTF-16, which is converted as a whole.
	maxUTF16 = 16 << 20
	// ahead is how many files may be searched before the first is done.
	ahead = 64
)

// files searches the files of a walk, several at once, and gives the first hits
// in the walk's order.
func (s *search) files(ctx context.Context, w *walker) ([]hit, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.ctx = ctx
	type job struct {
		path string
		hits chan []hit // one element
	}
	workers, done := runtime.GOMAXPROCS(0), func() {}
	if s.processors != nil {
		workers, done = s.processors()
	}
	defer done()
	jobs, ordered := make(chan job), make(chan job, ahead)
	var group errgroup.Group
	group.Go(func() error {
		defer close(jobs)
		defer close(ordered)
		return guarded(func() error {
			return w.walk(func(path string) error {
				j := job{path, make(chan []hit, 1)}
				for _, to := range []chan job{ordered, jobs} {
					select {
					case to <- j:
					case <-ctx.Done():
						return ctx.Err()
					}
				}
				return nil
			})
		})
	})
	for range workers {
		group.Go(func() error {
			for j := range jobs {
				j.hits <- s.walked(ctx, j.path)
			}
			return nil
		})
	}
	var hits []hit
collect:
	for j := range ordered {
		select {
		case found := <-j.hits:
			hits = append(hits, found[:min(len(found), s.limit-len(hits))]...)
		case <-ctx.Done():
			break collect
		}
		if len(hits) == s.limit {
			break
		}
	}
	enough := len(hits) == s.limit
	late := ctx.Err()
	cancel()
	err := group.Wait()
	switch {
	case enough:
		return hits, nil
	case late != nil:
		return hits, late
	case errors.Is(err, context.Canceled):
		return hits, nil
	}
	return hits, err
}

// walked searches a file that a walk came to. One that can't be read is left out.
func (s *search) walked(ctx context.Context, path string) (hits []hit) {
	_ = guarded(func() error {
		f, err := openFile(ctx, path, syscall.O_NOFOLLOW)
		if err != nil {
			return err
		}
		defer f.Close()
		hits, err = s.search(ctx, f, path, s.limit)
		return err
	})
	return hits
}

// guarded keeps a fault in a goroutine of ours from ending the process.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = failf(sandbox.CodeInternal, "the search failed inside: %v", p)
		}
	}()
	return f()
}

// file searches one file. A file with a NUL in its first 64 KiB is no text and
// has no hits; later it ends the search.
func (s *search) file(ctx context.Context, path string, limit int) ([]hit, error) {
	f, _, err := openRegular(ctx, path)
	if err != nil {
		return nil, readError(path, err)
	}
	defer f.Close()
	return s.search(ctx, f, path, limit)
}

// buffers are those of files searched before.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, firstChunk); return &b }}

func (s *search) search(ctx context.Context, in io.Reader, path string, limit int) (hits []hit, err error) {
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := (*pooled)[:0]
	line, first := 1, true
	sniffed := len(byteOrderMark)
	for {
		if len(buf) == cap(buf) { // a line longer than the buffer, or just a full one
			bigger := make([]byte, len(buf), min(2*cap(buf), grepChunk))
			copy(bigger, buf)
			buf = bigger
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := err != nil
		if err != nil && !errors.Is(err, io.EOF) {
			return hits, readError(path, err)
		}
		if first && (len(buf) >= 3 || last) {
			first = false
			if order := utf16Order(buf); order != nil {
				if in, buf, err = fromUTF16(in, buf, order); err != nil {
					return hits, err
				}
				last = false
				continue
			}
			if bytes.HasPrefix(buf, []byte(byteOrderMark)) {
				buf, sniffed = buf[len(byteOrderMark):], 0
			}
		}
		if first {
			continue
		}
		if nul := bytes.IndexByte(buf, 0); nul >= 0 {
			if begun := line == 1 && len(hits) == 0; begun && len(buf) <= firstChunk {
				// As ripgrep, which looks at so much before it begins, but for lines that it got when
				// it looked for a byte order mark: those it searches by themselves.
				if nul < sniffed {
					return nil, nil
				}
				head := bytes.LastIndexByte(buf[:sniffed], '\n') + 1
				return s.lines(ctx, buf[:head], path, &line, hits, limit), nil
			}
			buf, last = buf[:bytes.LastIndexByte(buf[:nul], '\n')+1], true
		}
		done := len(buf)
		if !last {
			if done = bytes.LastIndexByte(buf, '\n') + 1; done == 0 && len(buf) < grepChunk {
				continue
			} else if done == 0 {
				done = len(buf) // a piece of a line
			}
		}
		hits = s.lines(ctx, buf[:done], path, &line, hits, limit)
		if last || len(hits) >= limit {
			return hits, nil
		}
		buf = buf[:copy(buf, buf[done:])]
	}
}

// lines adds the hits in a run of lines; the last may lack its newline.
func (s *search) lines(ctx context.Context, data []byte, path string, line *int, hits []hit, limit int) []hit {
	at := 0 // where the current line begins
	low, done := s.needle.in(data)
	defer done()
	for at < len(data) && len(hits) < limit && ctx.Err() == nil {
		if low != nil { // go on to the next line that can match, and look at it alone
			next := bytes.Index(low[at:], s.needle.text)
			if next < 0 {
				*line += bytes.Count(data[at:], []byte{'\n'})
				break
			}
			start := at + bytes.LastIndexByte(data[at:at+next], '\n') + 1
			*line += bytes.Count(data[at:start], []byte{'\n'})
			at = start
		}
		// Many lines at once are far faster than line by line. A match may
		// reach over a line's end; then it is decided by its first line alone.
		from, end := at, s.pieceEnd(data, at)
		if low != nil {
			if n := bytes.IndexByte(data[at:end], '\n'); n >= 0 {
				end = at + n + 1
			}
		}
		m := s.re.FindIndex(data[at:end])
		start := end
		if m != nil {
			start = at + bytes.LastIndexByte(data[at:at+m[0]], '\n') + 1
		}
		*line += bytes.Count(data[at:start], []byte{'\n'})
		if at = start; start == end { // none, or an empty one after the last newline
			continue
		}
		text, rest, ended := cutLine(data[start:])
		if from+m[1] <= start+len(text) || s.re.Match(text) {
			hits = append(hits, hit{path, *line, string(text[:min(len(text), 8192)]), ended})
		}
		if at = len(data) - len(rest); ended {
			*line++
		}
	}
	return hits
}

// pieceEnd gives the end of what is looked at in one go from at on: whole lines,
// no more than a costly expression gets through soon, since it can't be
// interrupted.
func (s *search) pieceEnd(data []byte, at int) int {
	if len(data)-at <= s.piece {
		return len(data)
	}
	if n := bytes.LastIndexByte(data[at:at+s.piece], '\n'); n >= 0 {
		return at + n + 1
	}
	return at + s.piece
}

// cutLine takes the first line off, without its newline.
func cutLine(data []byte) (line, rest []byte, ended bool) {
	return bytes.Cut(data, []byte{'\n'})
}

func utf16Order(data []byte) binary.ByteOrder {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		return binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return binary.BigEndian
	}
	return nil
}

// fromUTF16 reads the rest of a file in UTF-16 and gives it as UTF-8.
func fromUTF16(in io.Reader, head []byte, order binary.ByteOrder) (io.Reader, []byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxUTF16))
	if err != nil {
		return nil, nil, err
	}
	data = append(head[2:len(head):len(head)], data...)
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return bytes.NewReader([]byte(string(utf16.Decode(units)))), make([]byte, 0, firstChunk), nil
}
