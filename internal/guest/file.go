package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// openFlags keep an open from waiting (FIFO, terminal) and from leaking into a
// command.
const openFlags = unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC

// regular is an open regular file. It is read and written with bare system
// calls: what claims to be a file in /proc and would block answers EAGAIN
// instead, which is an error here.
type regular struct {
	fd   int
	path string
	st   unix.Stat_t
}

func pathError(op, path string, err error) error {
	return sandbox.FileError(op, &fs.PathError{Op: op, Path: path, Err: err})
}

func notRegular(op, path string, mode uint32) error {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return pathError(op, path, unix.EISDIR)
	}
	kind := map[uint32]string{
		unix.S_IFIFO: "a FIFO", unix.S_IFSOCK: "a socket", unix.S_IFCHR: "a character device", unix.S_IFBLK: "a block device",
	}[mode&unix.S_IFMT]
	if kind == "" {
		kind = "no regular file"
	}
	return sandbox.Errf(sandbox.CodeNotRegular, op, path+" is "+kind, "only regular files can be read and written")
}

// openRegular opens a file that exists, following links.
func openRegular(op, path string, flags int, perm uint32) (*regular, error) {
	var fd int
	err := noEINTR(func() (err error) { fd, err = files.OpenFD(path, flags|openFlags, perm); return })
	if err != nil {
		return nil, pathError(op, path, err)
	}
	f := &regular{fd: fd, path: path}
	if err := unix.Fstat(fd, &f.st); err != nil {
		f.Close()
		return nil, pathError(op, path, err)
	}
	if f.st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, notRegular(op, path, f.st.Mode)
	}
	return f, nil
}

func noEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (f *regular) Close() error { return unix.Close(f.fd) }

func (f *regular) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := readFD(f.fd, b)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return 0, sandbox.Errf(sandbox.CodeNotRegular, "read", f.path+" has nothing to read now and would have to be waited for", "read it with a command")
	case err != nil:
		return 0, pathError("read", f.path, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (f *regular) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(f.fd, b[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, pathError("write", f.path, err)
		}
		done += n
	}
	return done, nil
}

// info describes an open or named file.
func info(path string, st *unix.Stat_t) sandbox.FileInfo {
	fi := sandbox.FileInfo{
		Path: path, Name: filepath.Base(path), Type: fileType(st.Mode), Size: st.Size, Mode: st.Mode & 0o7777,
		UID: st.Uid, GID: st.Gid, Modified: time.Unix(st.Mtim.Unix()), Version: version(st),
	}
	return fi
}

func fileType(mode uint32) sandbox.FileType {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return sandbox.TypeFile
	case unix.S_IFDIR:
		return sandbox.TypeDirectory
	case unix.S_IFLNK:
		return sandbox.TypeSymlink
	}
	return sandbox.TypeOther
}

// version changes with the inode, with its content's time and with its own.
func version(st *unix.Stat_t) string {
	b := strconv.AppendUint(nil, st.Ino, 36)
	for _, n := range []int64{st.Mtim.Nano(), st.Ctim.Nano(), st.Size} {
		b = append(b, '.')
		b = strconv.AppendInt(b, n, 36)
	}
	return string(b)
}

// lstat describes what a path names; follow says whether a last link is followed.
func lstat(op, path string, follow bool) (sandbox.FileInfo, error) {
	var st unix.Stat_t
	if err := files.Status(path, follow, &st); err != nil {
		return sandbox.FileInfo{}, pathError(op, path, err)
	}
	fi := info(path, &st)
	if fi.Type == sandbox.TypeSymlink {
		fi.Target, _ = files.Readlink(path)
	}
	return fi, nil
}

// openRead opens a file for reading at an offset; the second result is how many
// bytes may be read of it.
func (g *engine) openRead(path string, opts sandbox.ReadOptions) (*regular, int64, error) {
	const op = "read file"
	path, err := g.path(op, path)
	if err != nil {
		return nil, 0, err
	}
	if opts.Offset < 0 || opts.Length < 0 {
		return nil, 0, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("offset %d and length %d must not be negative", opts.Offset, opts.Length), "")
	}
	f, err := openRegular(op, path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, 0, err
	}
	if opts.Offset > 0 {
		if _, err := unix.Seek(f.fd, opts.Offset, io.SeekStart); err != nil {
			f.Close()
			return nil, 0, pathError(op, path, err)
		}
	}
	length := opts.Length
	if length == 0 {
		length = math.MaxInt64
	}
	return f, length, nil
}

// readUpTo reads at most limit bytes of r. more says that it read all of them
// and there may be more.
func readUpTo(r io.Reader, limit int64, hint int64) (data []byte, more bool, err error) {
	data = make([]byte, 0, min(max(hint, 0), limit)+1)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):min(int64(cap(data)), limit+1)])
		data = data[:len(data)+n]
		if int64(len(data)) > limit {
			return data, true, nil
		}
		if errors.Is(err, io.EOF) {
			return data, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}
