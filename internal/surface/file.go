package surface

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxReadFile is how much readFile gives in one answer.
const maxReadFile = 16 << 20

var fileMethods = capnweb.Methods{
	"writeFile":      guarded("file.write", "path", (*box).writeFile),
	"readFile":       guarded("file.read", "path", (*box).readFile),
	"readFileStream": guarded("file.read", "path", (*box).readFileStream),
	"mkdir":          guarded("directory.create", "path", (*box).mkdir),
	"deleteFile":     guarded("file.delete", "path", (*box).deleteFile),
	"renameFile":     guarded("file.rename", "path", (*box).renameFile),
	"moveFile":       guarded("file.move", "path", (*box).moveFile),
	"exists":         guarded("file.stat", "path", (*box).exists),
	"listFiles":      guarded("directory.list", "path", (*box).listFiles),
}

type fileOptions struct {
	Encoding string `json:"encoding"`
	// Permissions are the bits of a new file: a number, or octal digits.
	Permissions any `json:"permissions"`
}

// encoding is utf-8, base64, none (a stream) or "".
func (o *fileOptions) encoding(op string) (string, error) {
	if o == nil || o.Encoding == "" {
		return "", nil
	}
	switch e := strings.ToLower(o.Encoding); e {
	case "utf-8", "utf8":
		return "utf-8", nil
	case "base64", "none":
		return e, nil
	}
	return "", invalid(op, fmt.Sprintf("the encoding %.40q is neither utf-8 nor base64", o.Encoding), "")
}

type writeFileResult struct {
	Success   bool   `json:"success"`
	Path      string `json:"path"`
	Timestamp string `json:"timestamp"`
	// BytesWritten is the size of the file now.
	BytesWritten int64 `json:"bytesWritten"`
}

// writeFile writes a whole file, at once or not at all; its directory must exist. The
// content is text, bytes, or a stream of either.
func (b *box) writeFile(ctx context.Context, name string, content any, o *fileOptions) (*writeFileResult, error) {
	const op = "write file"
	enc, err := o.encoding(op)
	if err != nil {
		return nil, err
	}
	var opts sandbox.WriteOptions
	if o != nil {
		if opts.Mode, err = modeBits(op, o.Permissions); err != nil {
			return nil, err
		}
	}
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	var in *sandbox.FileInfo
	switch c := content.(type) {
	case string:
		data := []byte(c)
		if enc == "base64" {
			if data, err = base64.StdEncoding.DecodeString(c); err != nil {
				return nil, invalid(op, "the content is not base64: "+err.Error(), "leave out the encoding to write text")
			}
		}
		in, err = b.WriteFile(ctx, at, data, opts)
	case []byte:
		in, err = b.WriteFile(ctx, at, c, opts)
	case *capnweb.ReadableStream:
		in, err = b.writeStream(ctx, at, c, opts)
	default:
		return nil, invalid(op, "the content is neither text, bytes nor a stream of these", "")
	}
	if err != nil {
		return nil, err
	}
	return &writeFileResult{true, name, timestamp(time.Now()), in.Size}, nil
}

// writeStream writes what a caller's stream gives. A stream that breaks changes nothing.
func (b *box) writeStream(ctx context.Context, name string, s *capnweb.ReadableStream, opts sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	return b.WriteFrom(ctx, name, streamReader{ctx, s}, opts)
}

// streamReader reads a caller's stream as long as the caller is there.
type streamReader struct {
	ctx context.Context
	s   *capnweb.ReadableStream
}

func (r streamReader) Read(p []byte) (int, error) {
	n, err := r.s.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && r.ctx.Err() == nil {
		err = &sandbox.Error{Code: sandbox.CodeAborted, Op: "write file", Message: "the stream of the content broke: " + err.Error(), Hint: "nothing was changed", Err: err}
	}
	return n, err
}

func modeBits(op string, v any) (uint32, error) {
	bad := invalid(op, "permissions must be bits such as 0o644 or the text \"644\"", "")
	switch x := v.(type) {
	case nil:
		return 0, nil
	case float64:
		if x >= 0 && x <= 0o7777 && x == float64(uint32(x)) {
			return uint32(x), nil
		}
	case string:
		var n uint32
		if len(x) == 0 || len(x) > 5 {
			return 0, bad
		}
		for _, d := range []byte(x) {
			if d < '0' || d > '7' {
				return 0, bad
			}
			n = n<<3 | uint32(d-'0')
		}
		if n <= 0o7777 {
			return n, nil
		}
	}
	return 0, bad
}

type readFileResult struct {
	Success   bool   `json:"success"`
	Path      string `json:"path"`
	Content   any    `json:"content"` // text, or a stream
	Encoding  string `json:"encoding,omitempty"`
	IsBinary  bool   `json:"isBinary"`
	MimeType  string `json:"mimeType"`
	Size      int64  `json:"size"`
	Timestamp string `json:"timestamp"`
}

// readFile gives a whole file: as text, or in base64 when it is binary or when that is asked for.
// With the encoding none, its content is a stream of bytes, of any length.
func (b *box) readFile(ctx context.Context, name string, o *fileOptions) (*readFileResult, error) {
	const op = "read file"
	enc, err := o.encoding(op)
	if err != nil {
		return nil, err
	}
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	if enc == "none" {
		return b.openFile(ctx, name, at)
	}
	data, _, err := b.ReadFile(ctx, at, sandbox.ReadOptions{Length: maxReadFile + 1})
	if err != nil {
		return nil, err
	}
	if len(data) > maxReadFile {
		return nil, sandbox.Errf(sandbox.CodeFileTooLarge, op, fmt.Sprintf("%s has more than the %d MiB that fit in one answer", clipped(name), maxReadFile>>20), "use readFileStream, or readFile with the encoding none")
	}
	binary, mime := sandbox.DetectContent(name, data, true)
	r := &readFileResult{Success: true, Path: name, IsBinary: binary, MimeType: mime, Size: int64(len(data)), Timestamp: timestamp(time.Now()), Encoding: enc}
	if enc == "" {
		if r.Encoding = "utf-8"; binary {
			r.Encoding = "base64"
		}
	}
	if r.Encoding == "base64" {
		r.Content = base64.StdEncoding.EncodeToString(data)
	} else {
		text, cut := fitting(valid(data), maxText)
		if cut {
			return nil, sandbox.Errf(sandbox.CodeFileTooLarge, op, clipped(name)+" does not fit in one answer as text", "use readFileStream, or the encoding base64")
		}
		r.Content = text
	}
	return r, nil
}

type doneResult struct {
	Success   bool   `json:"success"`
	Path      string `json:"path"`
	NewPath   string `json:"newPath,omitempty"`
	Recursive *bool  `json:"recursive,omitempty"`
	Exists    *bool  `json:"exists,omitempty"`
	Timestamp string `json:"timestamp"`
}

func done(name string) *doneResult {
	return &doneResult{Success: true, Path: name, Timestamp: timestamp(time.Now())}
}

type recursiveOption struct {
	Recursive bool `json:"recursive"`
}

func (b *box) mkdir(ctx context.Context, name string, o *recursiveOption) (*doneResult, error) {
	if o == nil {
		o = &recursiveOption{}
	}
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	r := done(name)
	r.Recursive = &o.Recursive
	return r, b.Mkdir(ctx, at, o.Recursive)
}

// deleteFile removes a file or a link, never a directory.
func (b *box) deleteFile(ctx context.Context, name string) (*doneResult, error) {
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	in, err := b.Lstat(ctx, at)
	if err != nil {
		return nil, err
	}
	if in.Type == sandbox.TypeDirectory {
		return nil, sandbox.Errf(sandbox.CodeIsDirectory, "delete file", clipped(name)+" is a directory", "use files.remove with recursive, or a command")
	}
	return done(name), b.RemoveFile(ctx, at, false)
}

func (b *box) renameFile(ctx context.Context, from, to string) (*doneResult, error) {
	source, target, err := b.paths(ctx, from, to)
	if err != nil {
		return nil, err
	}
	r := done(from)
	r.NewPath = to
	return r, b.move(ctx, source, target)
}

// moveFile is renameFile, and moves into a directory that is there.
func (b *box) moveFile(ctx context.Context, from, to string) (*doneResult, error) {
	source, target, err := b.paths(ctx, from, to)
	if err != nil {
		return nil, err
	}
	r := done(from)
	r.NewPath = to
	if in, err := b.Stat(ctx, target); err == nil && in.Type == sandbox.TypeDirectory {
		target = path.Join(target, path.Base(from))
		r.NewPath = path.Join(to, path.Base(from))
	}
	return r, b.move(ctx, source, target)
}

func (b *box) paths(ctx context.Context, from, to string) (string, string, error) {
	from, err := b.path(ctx, from)
	if err == nil {
		to, err = b.path(ctx, to)
	}
	return from, to, err
}

// move renames, or copies and removes between file systems.
func (b *box) move(ctx context.Context, from, to string) error {
	err := b.Rename(ctx, from, to)
	if sandbox.CodeOf(err) != sandbox.CodeCrossDevice {
		return err
	}
	if _, err := b.Copy(ctx, from, to, sandbox.CopyOptions{Overwrite: true}); err != nil {
		return err
	}
	return b.RemoveFile(ctx, from, true)
}

func (b *box) exists(ctx context.Context, name string) (*doneResult, error) {
	at, err := b.path(ctx, name)
	if err != nil {
		return nil, err
	}
	there, err := b.Exists(ctx, at)
	if err != nil {
		return nil, err
	}
	r := done(name)
	r.Exists = &there
	return r, nil
}
