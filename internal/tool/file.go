package tool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"syscall"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxFile is the largest file that is edited, patched or replaced: it is held in
// memory, and its difference is computed.
const maxFile = 32 << 20

// reader reads a regular file without ever waiting for it: what would block (a
// file of the kernel's that waits for events) is an error. Its Read ends when
// its context does.
type reader struct {
	ctx context.Context
	fd  int
}

// openRegular opens a file for reading if it is a regular one. It looks before
// it opens, since opening some devices does something, and after, since the
// path may have changed hands.
func openRegular(ctx context.Context, path string) (*reader, fs.FileInfo, error) {
	st, err := files.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, st, notRegular(path, st.Mode())
	}
	f, err := openFile(ctx, path, 0)
	return f, st, err
}

// openFile opens a regular file that is known to be one, and makes sure.
func openFile(ctx context.Context, path string, flags int) (f *reader, err error) {
	fd, err := files.OpenFD(path, flags|syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var raw syscall.Stat_t
	if err := syscall.Fstat(fd, &raw); err != nil || raw.Mode&syscall.S_IFMT != syscall.S_IFREG {
		_ = syscall.Close(fd)
		return nil, notRegular(path, fs.ModeIrregular)
	}
	return &reader{ctx: ctx, fd: fd}, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := syscall.Read(r.fd, p)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case n <= 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (r *reader) Close() error { return syscall.Close(r.fd) }

func notRegular(path string, mode fs.FileMode) error {
	what, code := "not a regular file", sandbox.CodeNotRegular
	switch {
	case mode.IsDir():
		return failf(sandbox.CodeIsDirectory, "Path is a directory, not a file: %s", path)
	case mode&fs.ModeNamedPipe != 0:
		what = "a FIFO"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	}
	return failf(code, "Not a regular file: %s is %s. Only regular files can be read and written.", path, what)
}

// readWhole reads a regular file of at most limit bytes.
func readWhole(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, st, err := openRegular(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Size() > limit {
		return nil, tooLarge(path, limit)
	}
	var b bytes.Buffer
	b.Grow(int(st.Size()) + 512)
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, tooLarge(path, limit)
	}
	return b.Bytes(), nil
}

func tooLarge(path string, limit int64) error {
	return failf(sandbox.CodeFileTooLarge, "File too large: %s has more than %d MiB. Use bash to work on it.", path, limit>>20)
}

// readError words why a file could not be read, with the words there are for it.
func readError(path string, err error) error {
	var known *sandbox.Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, files.ErrMagicLink) {
		return fail(err, "Cannot read %s: %v", path, files.ErrMagicLink)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		if errno == syscall.EAGAIN {
			return failf(sandbox.CodeNotRegular, "Cannot read %s: it gives its contents only to one who waits. Use bash with a timeout.", path)
		}
		return fail(err, "Cannot read %s: %s", path, errno.Error())
	}
	return fail(err, "Cannot read %s: %v", path, err)
}
