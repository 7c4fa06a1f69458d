package guest

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxTreeDepth bounds how deep a tree is followed. A path of 4,095 bytes can't be
// much deeper.
const maxTreeDepth = 2048

// copyPiece is how much is copied between two looks at the context.
const copyPiece = 64 << 20

// copier copies one tree.
type copier struct {
	ctx context.Context
	out sandbox.CopyResult
}

const copyOp = "copy"

func (g *engine) copyTree(ctx context.Context, from, to string, opts sandbox.CopyOptions) (*sandbox.CopyResult, error) {
	from, err := g.path(copyOp, from)
	if err != nil {
		return nil, err
	}
	if to, err = g.path(copyOp, to); err != nil {
		return nil, err
	}
	var st, there unix.Stat_t
	fresh := false
	if err := files.Status(from, false, &st); err != nil {
		return nil, pathError(copyOp, from, err)
	}
	if to = strings.TrimRight(to, "/"); to == "" {
		return nil, pathError(copyOp, "/", unix.EEXIST)
	}
	switch err := files.Status(to, false, &there); {
	case errors.Is(err, unix.ENOENT):
		fresh = true
	case err != nil:
		return nil, pathError(copyOp, to, err)
	case there.Dev == st.Dev && there.Ino == st.Ino:
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, copyOp, from+" and "+to+" are the same file", "")
	case !opts.Overwrite || there.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil, pathError(copyOp, to, unix.EEXIST)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := notWithin(parent(to), &st); err != nil {
			return nil, err
		}
	}
	// What is half copied has another name; a failure leaves nothing.
	c := &copier{ctx: ctx}
	temp := tempName(to, fresh)
	if err = c.node(from, temp, &st, 0, true); err == nil {
		flags := uint(unix.RENAME_NOREPLACE)
		if opts.Overwrite {
			flags = 0
		}
		err = sandbox.FileError(copyOp, files.RenameWith(temp, to, flags))
	}
	if err != nil {
		_ = files.RemoveAll(temp)
		var e *sandbox.Error
		if errors.As(err, &e) {
			shown := *e
			shown.Message = strings.ReplaceAll(e.Message, temp, to)
			return nil, &shown
		}
		return nil, err
	}
	return &c.out, nil
}

// tempName names a file beside path that nothing else is named like. fresh says
// that path itself is not there yet.
func tempName(path string, fresh bool) string {
	var name [8]byte
	secret(name[:])
	kind := ".tmp"
	if fresh {
		kind = ".new"
	}
	return strings.TrimSuffix(parent(path), "/") + "/.tongs-" + hex.EncodeToString(name[:]) + kind
}

// isTemp reports whether a name is one of tempName's, and whether the file that it
// becomes is new.
func isTemp(name string) (temp, fresh bool) {
	rest, ok := strings.CutPrefix(name, ".tongs-")
	if !ok || len(rest) != 20 || strings.Trim(rest[:16], "0123456789abcdef") != "" {
		return false, false
	}
	return rest[16:] == ".tmp" || rest[16:] == ".new", rest[16:] == ".new"
}

// notWithin refuses to copy a directory into itself.
func notWithin(dir string, of *unix.Stat_t) error {
	fd, err := files.OpenFD(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return pathError(copyOp, dir, err)
	}
	defer func() { unix.Close(fd) }()
	for range maxTreeDepth {
		var st, up unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return pathError(copyOp, dir, err)
		}
		if st.Dev == of.Dev && st.Ino == of.Ino {
			return sandbox.Errf(sandbox.CodeInvalidArgument, copyOp, "a directory can't be copied into itself", "copy it to another place")
		}
		next, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil // not ours to look at, so not below a directory that we can read
		}
		unix.Close(fd)
		fd = next
		if unix.Fstat(fd, &up) == nil && up.Dev == st.Dev && up.Ino == st.Ino {
			return nil // the root
		}
	}
	return nil
}

// node copies one entry and what is below it.
func (c *copier) node(from, to string, st *unix.Stat_t, depth int, top bool) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.file(from, to)
	case unix.S_IFLNK:
		text, err := files.Readlink(from)
		if err == nil {
			err = files.Symlink(text, to)
		}
		c.out.Symlinks++
		return sandbox.FileError(copyOp, err)
	case unix.S_IFDIR:
		if depth >= maxTreeDepth {
			return pathError(copyOp, from, unix.ENAMETOOLONG)
		}
		return c.dir(from, to, st, depth)
	}
	if top {
		return notRegular(copyOp, from, st.Mode)
	}
	c.out.Skipped++
	return nil
}

func (c *copier) dir(from, to string, st *unix.Stat_t, depth int) error {
	names, err := readNames(from)
	if err != nil {
		return pathError(copyOp, from, err)
	}
	if err := files.Mkdir(to, 0o700); err != nil {
		return sandbox.FileError(copyOp, err)
	}
	c.out.Directories++
	for _, name := range names {
		var st unix.Stat_t
		switch err := files.Status(from+"/"+name, false, &st); {
		case errors.Is(err, unix.ENOENT):
			continue // gone meanwhile
		case err != nil:
			return pathError(copyOp, from+"/"+name, err)
		}
		if err := c.node(from+"/"+name, to+"/"+name, &st, depth+1, false); err != nil {
			return err
		}
	}
	fd, err := files.OpenFD(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return pathError(copyOp, to, err)
	}
	defer unix.Close(fd)
	return setAttributes(copyOp, to, fd, st.Mode&0o1777, st.Mtim)
}

// setAttributes sets the mode and the time of an open file.
func setAttributes(op, path string, fd int, mode uint32, mtime unix.Timespec) error {
	if err := unix.Fchmod(fd, mode); err != nil {
		return pathError(op, path, err)
	}
	err := unix.UtimesNanoAt(fd, "", []unix.Timespec{mtime, mtime}, unix.AT_EMPTY_PATH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // a kernel before 5.8
		return pathError(op, path, err)
	}
	return nil
}

func (c *copier) file(from, to string) error {
	in, err := openRegular(copyOp, from, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := openRegular(copyOp, to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if unix.IoctlFileClone(out.fd, in.fd) != nil {
		if err := c.data(in, out); err != nil {
			return err
		}
	}
	c.out.Files++
	c.out.Bytes += in.st.Size
	return setAttributes(copyOp, to, out.fd, in.st.Mode&0o1777, in.st.Mtim)
}

// data copies what a file holds, and leaves out its holes.
func (c *copier) data(in, out *regular) error {
	if in.st.Size == 0 {
		return c.bytes(in, out) // it may be one of the kernel's
	}
	for at := int64(0); at < in.st.Size; {
		begin, err := unix.Seek(in.fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return c.bytes(in, out)
		}
		end, err := unix.Seek(in.fd, begin, unix.SEEK_HOLE)
		if err != nil {
			return pathError(copyOp, in.path, err)
		}
		for begin < end {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			src, dst := begin, begin
			n, err := unix.CopyFileRange(in.fd, &src, out.fd, &dst, int(min(end-begin, copyPiece)), 0)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil && begin == 0 && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT):
				return c.bytes(in, out) // this pair of file systems can't
			case err != nil:
				return pathError(copyOp, out.path, err)
			case n == 0:
				return nil // it became shorter
			}
			begin += int64(n)
		}
		at = end
	}
	if err := noEINTR(func() error { return unix.Ftruncate(out.fd, in.st.Size) }); err != nil {
		return pathError(copyOp, out.path, err)
	}
	return nil
}

func (c *copier) bytes(in, out *regular) error {
	if _, err := unix.Seek(in.fd, 0, io.SeekStart); err != nil {
		return pathError(copyOp, in.path, err)
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(*buf)
		if n > 0 {
			if _, err := out.Write((*buf)[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
