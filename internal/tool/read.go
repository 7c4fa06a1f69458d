package tool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

const (
	defaultLines  = 2000  // lines or entries of one answer
	maxLineUnits  = 2000  // UTF-16 units of a line that are shown
	maxReadBytes  = 51200 // of lines, numbers not counted
	sampleBytes   = 4096  // by which text is told from other files
	previewLines  = 20
	maxAttachment = 8 << 20 // bytes of an image or a PDF
	// maxScan bounds how far into a file lines are counted.
	maxScan = 1 << 30
)

// read gives the lines of a file, the entries of a directory, or an image or
// PDF as an attachment.
func read(ctx context.Context, r *run, a *args) (Result, error) {
	file := a.path("filePath", true)
	offset, _ := a.integer("offset", 0)
	limit, limited := a.integer("limit", 0)
	if a.err != nil {
		return Result{}, a.err
	}
	if !limited {
		limit = defaultLines
	}
	return r.read(ctx, r.resolve(file), max(offset, 1), limit)
}

// list gives the entries of a directory, as read does.
func list(ctx context.Context, r *run, a *args) (Result, error) {
	dir := a.path("path", false)
	offset, _ := a.integer("offset", 0)
	limit, limited := a.integer("limit", 0)
	if a.err != nil {
		return Result{}, a.err
	}
	if !limited {
		limit = defaultLines
	}
	path := r.Directory
	if dir != "" {
		path = r.resolve(dir)
	}
	if st, err := files.Stat(path); err == nil && !st.IsDir() {
		return Result{}, failf(sandbox.CodeNotDirectory, "Path is a file, not a directory: %s. Use read for files.", path)
	}
	return r.read(ctx, path, max(offset, 1), limit)
}

func (r *run) read(ctx context.Context, path string, offset, limit int64) (Result, error) {
	st, serr := files.Stat(path)
	isDir := serr == nil && st.IsDir()
	if err := r.askExternal(ctx, path, isDir); err != nil {
		return Result{}, err
	}
	if err := r.ask(ctx, "read", []string{r.relative(path)}, []string{"*"}, map[string]any{}); err != nil {
		return Result{}, err
	}
	switch {
	case errors.Is(serr, fs.ErrNotExist):
		return Result{}, r.missing(ctx, path)
	case serr != nil:
		return Result{}, readError(path, serr)
	case isDir:
		return r.readDir(ctx, path, offset, limit)
	}
	f, _, err := openRegular(ctx, path)
	if err != nil {
		return Result{}, readError(path, err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	sample, err := in.Peek(sampleBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return Result{}, readError(path, err)
	}
	extra := r.instructions(ctx, path)
	if mime := attachable(sample); mime != "" {
		return r.attach(path, mime, in, extra)
	}
	if isBinary(path, sample) {
		return Result{}, failf(sandbox.CodeInvalidArgument, "Cannot read binary file: %s", path)
	}
	return r.readLines(path, in, offset, limit, extra)
}

// missing is the error for a path that isn't there, with names like it.
func (r *run) missing(ctx context.Context, path string) error {
	text := "File not found: " + path
	want := strings.ToLower(filepath.Base(path))
	names, err := dirNames(ctx, filepath.Dir(path))
	var like []string
	for _, e := range names {
		name := strings.ToLower(e.Name())
		if err == nil && len(like) < 3 && (strings.Contains(name, want) || strings.Contains(want, name)) {
			like = append(like, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	if len(like) > 0 {
		text += "\n\nDid you mean one of these?\n" + strings.Join(like, "\n")
	}
	return failf(sandbox.CodeFileNotFound, "%s", text)
}

// attachable tells an image that models take, or a PDF, by how it begins. A
// name alone is not believed: an attachment that isn't what it says makes every
// later request of the session fail at the model's provider.
func attachable(sample []byte) string {
	for _, kind := range []struct{ mime, head, at8 string }{
		{"image/png", "\x89PNG\r\n\x1a\n", ""},
		{"image/jpeg", "\xff\xd8\xff", ""},
		{"image/gif", "GIF8", ""},
		{"image/webp", "RIFF", "WEBP"},
		{"application/pdf", "%PDF-", ""},
	} {
		if s := string(sample); strings.HasPrefix(s, kind.head) && (kind.at8 == "" || len(s) >= 12 && s[8:12] == kind.at8) {
			return kind.mime
		}
	}
	return ""
}

func (r *run) attach(path, mime string, in io.Reader, extra []instruction) (Result, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxAttachment+1))
	if err != nil {
		return Result{}, readError(path, err)
	}
	if len(data) > maxAttachment {
		return Result{}, failf(sandbox.CodeFileTooLarge, "File too large to attach: %s has more than %d MiB. Make it smaller with bash.", path, maxAttachment>>20)
	}
	said := "Image read successfully"
	if mime == "application/pdf" {
		said = "PDF read successfully"
	}
	return Result{
		Title:    r.relative(path),
		Output:   said,
		Metadata: map[string]any{"preview": said, "truncated": false, "loaded": paths(extra)},
		Attachments: []Attachment{{
			Type: "file", Mime: mime,
			URL: "data:" + mime + ";base64," + base64.StdEncoding.EncodeToString(data),
		}},
	}, nil
}

// binaryNames are the endings of names that are never text.
var binaryNames = sync.OnceValue(func() map[string]bool {
	m := map[string]bool{}
	for _, ext := range strings.Fields(`zip tar gz exe dll so class jar war 7z doc docx xls xlsx ppt pptx
		odt ods odp bin dat obj o a lib wasm pyc pyo`) {
		m["."+ext] = true
	}
	return m
})

// isBinary judges by name, then by what the file begins with: a NUL, or more
// than three control characters in ten.
func isBinary(path string, sample []byte) bool {
	if binaryNames()[strings.ToLower(filepath.Ext(path))] {
		return true
	}
	control := 0
	for _, c := range sample {
		if c == 0 {
			return true
		}
		if c < 9 || c > 13 && c < 32 {
			control++
		}
	}
	return len(sample) > 0 && float64(control)/float64(len(sample)) > 0.3
}

// page is the lines of a file that one answer gives.
type page struct {
	lines   []string
	total   int  // lines counted
	more    bool // there are lines after them
	cut     bool // they were ended by size
	counted bool // total is that of the whole file
}

// readPage reads lines from offset on: at most limit, of at most maxBytes
// together. A line ends with "\n", "\r\n" or "\r".
func readPage(in *bufio.Reader, offset, limit int64, maxBytes int) (page, error) {
	p := page{counted: true}
	size, scanned := 0, 0
	first := true
	for {
		line, n, err := readLine(in)
		scanned += n
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		if first {
			line, _ = splitBOM(line)
			first = false
		}
		p.total++
		if int64(p.total) < offset {
			if scanned > maxScan {
				return p, failf(sandbox.CodeInvalidArgument, "Offset %d is more than 1 GiB into the file. Use bash to look there.", offset)
			}
			continue
		}
		if int64(len(p.lines)) >= limit {
			p.more = true
			if scanned > maxScan {
				p.counted = false
				return p, nil
			}
			continue
		}
		line = clean(line)
		if short := utf16Cut(line, maxLineUnits); short != line {
			line = short + fmt.Sprintf("... (line truncated to %d chars)", maxLineUnits)
		}
		add := len(line)
		if len(p.lines) > 0 {
			add++
		}
		if size+add > maxBytes {
			p.cut, p.more = true, true
			return p, nil
		}
		size += add
		p.lines = append(p.lines, line)
	}
}

// readLine reads a line and gives what can be shown of it, without its end, and
// how many bytes it had. io.EOF means that there is none.
func readLine(in *bufio.Reader) (line string, n int, err error) {
	var b []byte
	for {
		if _, err := in.Peek(1); err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				return string(b), n, nil
			}
			return "", n, err
		}
		part, _ := in.Peek(in.Buffered())
		end := bytes.IndexByte(part, '\n')
		if end < 0 {
			end = len(part)
		}
		if cr := bytes.IndexByte(part[:end], '\r'); cr >= 0 {
			end = cr
		}
		if room := 4*maxLineUnits + 16 - len(b); room > 0 {
			b = append(b, part[:min(end, room)]...)
		}
		if end == len(part) {
			n += end
			_, _ = in.Discard(end)
			continue
		}
		mark := part[end]
		n += end + 1
		_, _ = in.Discard(end + 1)
		if mark == '\r' {
			if next, _ := in.Peek(1); len(next) == 1 && next[0] == '\n' {
				n++
				_, _ = in.Discard(1)
			}
		}
		return string(b), n, nil
	}
}

// readLines makes the answer for a text file.
func (r *run) readLines(path string, in *bufio.Reader, offset, limit int64, extra []instruction) (Result, error) {
	p, err := readPage(in, offset, limit, maxReadBytes)
	if err != nil {
		return Result{}, readError(path, err)
	}
	if int64(p.total) < offset && !(p.total == 0 && offset == 1) {
		return Result{}, failf(sandbox.CodeInvalidArgument, "Offset %d is out of range for this file (%d lines)", offset, p.total)
	}
	head := "<path>" + path + "</path>\n<type>file</type>\n<content>\n"
	tail := "\n</content>" + reminder(extra)
	if !r.fits(head + strings.Repeat("\n", 3) + strings.Repeat(" ", 160) + tail) {
		extra, tail = nil, "\n</content>" // nested instructions too long to go along
	}
	// The whole answer has to stay within its limits, line numbers and all.
	body := p.number(offset, r.MaxLines-strings.Count(head+tail, "\n")-3, r.MaxBytes-len(head)-len(tail)-160)
	last := offset + int64(len(p.lines)) - 1
	switch {
	case p.cut:
		body += fmt.Sprintf("\n\n(Output capped at 50 KB. Showing lines %d-%d. Use offset=%d to continue.)", offset, last, last+1)
	case p.more && p.counted:
		body += fmt.Sprintf("\n\n(Showing lines %d-%d of %d. Use offset=%d to continue.)", offset, last, p.total, last+1)
	case p.more:
		body += fmt.Sprintf("\n\n(Showing lines %d-%d. Use offset=%d to continue.)", offset, last, last+1)
	default:
		body += fmt.Sprintf("\n\n(End of file - total %d lines)", p.total)
	}
	text := strings.Join(p.lines, "\n")
	return Result{
		Title:  r.relative(path),
		Output: head + body + tail,
		Metadata: map[string]any{
			"preview":   strings.Join(p.lines[:min(len(p.lines), previewLines)], "\n"),
			"truncated": p.more || p.cut,
			"loaded":    paths(extra),
			"display": map[string]any{
				"type": "file", "path": path, "text": text,
				"lineStart": offset, "lineEnd": last, "totalLines": p.total,
				"truncated": p.more || p.cut,
			},
		},
	}, nil
}

// number puts the numbers before the lines. Lines for which the answer has no
// room are taken off the page.
func (p *page) number(offset int64, maxLines, maxBytes int) string {
	var b strings.Builder
	for i, line := range p.lines {
		text := itoa(offset+int64(i)) + ": " + line
		if i > 0 {
			text = "\n" + text
		}
		if i >= maxLines || b.Len()+len(text) > maxBytes && i > 0 {
			p.lines, p.more = p.lines[:i], true
			p.cut = p.cut || i < maxLines
			break
		}
		b.WriteString(text)
	}
	return b.String()
}
