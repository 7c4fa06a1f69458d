package tool

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/files"
)

// What is kept of outputs too long for an answer.
const (
	keepFor   = 7 * 24 * time.Hour
	keepBytes = 256 << 20
	keepFiles = 4096
	// keepOne bounds the file of one call; what a command writes beyond is lost,
	// and the file says so at its end.
	keepOne = 64 << 20
)

// sweeping lets one sweep run at a time in this process.
var sweeping sync.Mutex

// newOutput makes a file for the full output of a call, after making room.
func (r *run) newOutput() (*os.File, error) {
	if err := files.MkdirAll(r.OutputDir, 0o755); err != nil {
		return nil, err
	}
	sweep(r.OutputDir, time.Now())
	return files.OpenFile(filepath.Join(r.OutputDir, "tool_"+r.name+"_"+uniqueName()+".txt"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// saveOutput keeps a text and gives the path of its file; "" when there is no
// room for it, which is no reason to fail the call.
func (r *run) saveOutput(text []byte) string {
	f, err := r.newOutput()
	if err != nil {
		return ""
	}
	_, err = f.Write(text[:min(len(text), keepOne)])
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = files.Remove(f.Name())
		return ""
	}
	return f.Name()
}

// sweep removes outputs older than seven days, and the oldest until at most
// keepBytes and keepFiles are left. Other files it does not touch.
func sweep(dir string, now time.Time) {
	sweeping.Lock()
	defer sweeping.Unlock()
	entries, err := files.ReadDir(dir)
	if err != nil {
		return
	}
	var kept []fs.FileInfo
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "tool_") || !e.Type().IsRegular() {
			continue
		}
		st, err := e.Info()
		switch {
		case err != nil:
		case now.Sub(st.ModTime()) > keepFor:
			_ = files.Remove(filepath.Join(dir, e.Name()))
		default:
			kept = append(kept, st)
		}
	}
	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	var total int64
	for i, st := range kept {
		if total += st.Size(); total > keepBytes || i >= keepFiles {
			_ = files.Remove(filepath.Join(dir, st.Name()))
		}
	}
}

// fits reports whether a text can be an answer as it is.
func (r *run) fits(text string) bool {
	return len(text) <= r.MaxBytes && strings.Count(text, "\n") < r.MaxLines
}

// fit makes a text short enough for an answer: its beginning, with a note where
// the whole is kept.
func (r *run) fit(text string) string {
	text = clean(text)
	if r.fits(text) {
		return text
	}
	note := "\n\n...output truncated...\n\nUse a narrower request."
	if kept := r.saveOutput([]byte(text)); kept != "" {
		note = "\n\n...output truncated...\n\nFull output saved to: " + kept + "\nUse grep to search it or read with offset and limit to view parts of it."
	}
	return headOf(text, r.MaxLines-strings.Count(note, "\n"), r.MaxBytes-len(note)) + note
}

// headOf gives the first whole lines of a text within limits; of a single line
// too long, its beginning.
func headOf(text string, maxLines, maxBytes int) string {
	if len(text) <= maxBytes && strings.Count(text, "\n") < maxLines {
		return text
	}
	end := 0
	for lines := 0; lines < maxLines && end < len(text); lines++ {
		next := strings.IndexByte(text[end:], '\n')
		stop := len(text)
		if next >= 0 {
			stop = end + next
		}
		if stop > maxBytes {
			if lines == 0 {
				return cutBytes(text, maxBytes)
			}
			break
		}
		end = stop + 1
	}
	return text[:max(0, min(end-1, len(text)))]
}

// tailOf gives the last whole lines of a text within limits; of a single line
// too long, its end.
func tailOf(text string, maxLines, maxBytes int) string {
	start := len(text) + 1
	for lines := 0; lines < maxLines && start > 0; lines++ {
		next := strings.LastIndexByte(text[:start-1], '\n') + 1
		if len(text)-next > maxBytes {
			if lines > 0 {
				break
			}
			start = len(text) - max(0, maxBytes)
			for start < len(text) && !utf8.RuneStart(text[start]) {
				start++
			}
			return text[start:]
		}
		start = next
	}
	return text[min(start, len(text)):]
}

// cutBytes gives the longest prefix of at most n bytes that ends between
// characters.
func cutBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// capture takes a command's output as it comes: its end in memory, the whole in
// a file once it is more than an answer can hold.
type capture struct {
	r       *run
	limit   int // bytes that an answer can hold
	tail    []byte
	total   int
	dropped bool // tail is not all
	file    *os.File
	written int
	broken  error // why the file is not complete
}

var errFull = errors.New("output file is full")

func (c *capture) write(p []byte) {
	if c.file == nil && c.total+len(p) > c.limit && c.broken == nil {
		if c.file, c.broken = c.r.newOutput(); c.broken == nil {
			c.save(c.tail)
		}
	}
	c.total += len(p)
	if c.file != nil {
		c.save(p)
	}
	c.tail = append(c.tail, p...)
	if extra := len(c.tail) - 2*c.limit; extra > c.limit { // seldom, so that moving costs little
		c.tail = append(c.tail[:0], c.tail[extra:]...)
		c.dropped = true
	}
}

func (c *capture) save(p []byte) {
	if c.broken != nil {
		return
	}
	if c.written+len(p) > keepOne {
		_, _ = c.file.WriteString("\n[the rest of the output was not kept: it is more than 64 MiB]\n")
		c.broken = errFull
		return
	}
	_, c.broken = c.file.Write(p)
	c.written += len(p)
}

// text gives the last part of the output. Where it begins in the middle of a
// character, that character is left out.
func (c *capture) text() string {
	t := c.tail
	if c.dropped {
		t = bytes.TrimLeftFunc(t, func(c rune) bool { return c == utf8.RuneError })
	}
	return clean(string(t))
}

// close gives the path of the whole output, "" if it is not kept. A text that
// an answer cannot hold for its lines alone is saved now.
func (c *capture) close(needed bool) string {
	if c.file == nil && needed && !c.dropped {
		return c.r.saveOutput(c.tail)
	}
	if c.file == nil {
		return ""
	}
	_ = c.file.Close()
	if c.broken != nil && !errors.Is(c.broken, errFull) {
		_ = files.Remove(c.file.Name())
		return ""
	}
	return c.file.Name()
}
