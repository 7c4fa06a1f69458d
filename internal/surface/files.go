package surface

import (
	"context"
	"io"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// files is the contract's sandbox.Files.
type files struct{ part }

var fileRoomMethods = capnweb.Methods{
	"read":        guarded("file.read", "path", files.read),
	"readStream":  guarded("file.read", "path", files.readStream),
	"write":       guarded("file.write", "path", files.write),
	"writeStream": guarded("file.write", "path", files.writeStream),
	"stat":        guarded("file.stat", "path", files.stat),
	"lstat":       guarded("file.stat", "path", files.lstat),
	"exists":      guarded("file.stat", "path", files.exists),
	"list":        guarded("directory.list", "path", files.list),
	"mkdir":       guarded("directory.create", "path", files.mkdir),
	"remove":      guarded("file.delete", "path", files.remove),
	"rename":      guarded("file.rename", "path", files.rename),
	"chmod":       guarded("file.chmod", "path", files.chmod),
	"symlink":     guarded("file.symlink", "target", files.symlink),
}

type contents struct {
	Info sandbox.FileInfo `json:"info"`
	Data []byte           `json:"data"`
}

// read gives at most 16 MiB at once; readStream gives all.
func (f files) read(ctx context.Context, path string, o *sandbox.ReadOptions) (*contents, error) {
	if o == nil {
		o = &sandbox.ReadOptions{}
	}
	part := *o
	if part.Length == 0 || part.Length > maxReadFile {
		part.Length = maxReadFile + 1
	}
	data, in, err := f.b.ReadFile(ctx, path, part)
	if err != nil {
		return nil, err
	}
	if len(data) > maxReadFile {
		return nil, sandbox.Errf(sandbox.CodeFileTooLarge, "read file", clipped(path)+" has more than the 16 MiB that fit in one answer", "use readStream, or offset and length")
	}
	return &contents{*in, data}, nil
}

func (f files) readStream(ctx context.Context, path string, o *sandbox.ReadOptions) (*capnweb.ReadableStream, error) {
	if o == nil {
		o = &sandbox.ReadOptions{}
	}
	r, err := f.b.OpenFile(context.WithoutCancel(ctx), path, *o)
	if err != nil {
		return nil, err
	}
	return capnweb.NewReader(r), nil
}

func writeOptions(o *sandbox.WriteOptions) sandbox.WriteOptions {
	if o == nil {
		return sandbox.WriteOptions{}
	}
	return *o
}

func (f files) write(ctx context.Context, path string, content any, o *sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	switch c := content.(type) {
	case string:
		return f.b.WriteFile(ctx, path, []byte(c), writeOptions(o))
	case []byte:
		return f.b.WriteFile(ctx, path, c, writeOptions(o))
	case *capnweb.ReadableStream:
		return f.b.writeStream(ctx, path, c, writeOptions(o))
	}
	return nil, invalid("write file", "the content is neither text, bytes nor a stream of these", "")
}

// writeStream gives a stream to write a file to. The file is there when the stream has
// been closed; one that breaks changes nothing.
func (f files) writeStream(ctx context.Context, path string, o *sandbox.WriteOptions) (*capnweb.WritableStream, error) {
	r, w := io.Pipe()
	s := &fileSink{w: w, done: make(chan struct{})}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	go func() {
		defer close(s.done)
		_, s.err = f.b.WriteFrom(life, path, r, writeOptions(o))
		_ = r.CloseWithError(s.err)
	}()
	return capnweb.NewSink(s), nil
}

type fileSink struct {
	w      *io.PipeWriter
	cancel func()
	done   chan struct{}
	err    error // valid when done
}

func (s *fileSink) WriteChunk(_ context.Context, chunk capnweb.Value) error {
	data, err := bytesOf(chunk)
	if err != nil {
		return err
	}
	_, err = s.w.Write(data)
	return asFailure("file.write", nil, err)
}

func (s *fileSink) Close(ctx context.Context) error {
	_ = s.w.Close()
	select {
	case <-s.done:
		s.cancel()
		return asFailure("file.write", nil, s.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *fileSink) Abort(err error) {
	_ = s.w.CloseWithError(sandbox.Errf(sandbox.CodeAborted, "write file", "the writer left", "nothing was changed"))
	s.cancel()
}

func (f files) stat(ctx context.Context, path string) (*sandbox.FileInfo, error) {
	return f.b.Stat(ctx, path)
}

func (f files) lstat(ctx context.Context, path string) (*sandbox.FileInfo, error) {
	return f.b.Lstat(ctx, path)
}

func (f files) exists(ctx context.Context, path string) (bool, error) { return f.b.Exists(ctx, path) }

func (f files) list(ctx context.Context, path string, o *sandbox.ListOptions) (*sandbox.ListResult, error) {
	if o == nil {
		o = &sandbox.ListOptions{}
	}
	return f.b.ListFiles(ctx, path, *o)
}

type parentsOption struct {
	Parents bool `json:"parents"`
}

func (f files) mkdir(ctx context.Context, path string, o *parentsOption) error {
	return f.b.Mkdir(ctx, path, o != nil && o.Parents)
}

func (f files) remove(ctx context.Context, path string, o *recursiveOption) error {
	return f.b.RemoveFile(ctx, path, o != nil && o.Recursive)
}

func (f files) rename(ctx context.Context, from, to string) error { return f.b.Rename(ctx, from, to) }

func (f files) chmod(ctx context.Context, path string, mode uint32) error {
	return f.b.Chmod(ctx, path, mode)
}

func (f files) symlink(ctx context.Context, target, path string) error {
	return f.b.Symlink(ctx, target, path)
}
