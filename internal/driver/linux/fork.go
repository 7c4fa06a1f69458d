//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxForkDepth bounds how deep a tree that is copied may be: each level holds two descriptors. Deeper than
// this no program works with paths.
const maxForkDepth = 512

// source is a sandbox whose files another starts with. It is held until release: nobody destroys it
// meanwhile.
type source struct {
	id      string
	dir     string
	record  record
	release func()
}

func (d *Driver) source(ctx context.Context, op string, spec driver.Spec) (*source, error) {
	if spec.From == spec.ID {
		return nil, driver.Invalid(op, "sandbox %q can't start with its own files", spec.ID)
	}
	release, err := d.hold(ctx, op, spec.From)
	if err != nil {
		return nil, err
	}
	r, err := readRecord(d.dir(spec.From))
	if err != nil {
		release()
		return nil, damaged(op, spec.From, err)
	}
	if r.Owner != os.Geteuid() {
		release()
		return nil, &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: op, Message: fmt.Sprintf("sandbox %q was made by user id %d", spec.From, r.Owner), Hint: "fork it as that user"}
	}
	return &source{spec.From, d.dir(spec.From), r, release}, nil
}

// copy copies the tree called name in the source's directory to the one in dir. The source may be running,
// and what runs in it is hostile: no path is resolved, each directory is opened from the one above, and
// no link is followed.
func (s *source) copy(ctx context.Context, name, dir string, r record) error {
	from, err := os.OpenFile(filepath.Join(s.dir, name), unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	target := filepath.Join(dir, name)
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	to, err := os.OpenFile(target, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &treeCopy{ctx: ctx, from: s.record, to: r, top: int(to.Fd()), links: make(map[uint64]string), buffer: make([]byte, 256<<10)}
	if err := c.dir(int(from.Fd()), int(to.Fd()), "", 0); err != nil {
		return fmt.Errorf("copy the files of sandbox %s: %w", s.id, err)
	}
	return nil
}

type treeCopy struct {
	ctx      context.Context
	from, to record
	top      int               // the new tree
	links    map[uint64]string // where in the new tree an inode with several names is
	buffer   []byte
}

// maxLinks bounds how many files with several names are remembered; the names of others become files.
const maxLinks = 1 << 18

// dir copies what is in one directory, and then what it says of itself.
func (c *treeCopy) dir(from, to int, path string, depth int) error {
	if depth > maxForkDepth {
		return fmt.Errorf("%s: directories are more than %d deep", path, maxForkDepth)
	}
	// A descriptor of its own to list with: the position in a directory belongs to the opening.
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	list := os.NewFile(uintptr(fd), path)
	defer list.Close()
	for {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		names, err := list.Readdirnames(512)
		for _, name := range names {
			if err := c.entry(from, to, name, path+"/"+name, depth); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if err := c.marks(from, to); err != nil {
		return &fs.PathError{Op: "copy attributes of", Path: path, Err: err}
	}
	return c.finish(to, &st, path)
}

// finish gives an open file or directory its owner, mode and time.
func (c *treeCopy) finish(fd int, st *unix.Stat_t, path string) error {
	uid, gid := c.owner(st)
	err := unix.Fchown(fd, uid, gid)
	if err == nil {
		err = unix.Fchmod(fd, st.Mode&0o7777)
	}
	if err == nil {
		times := [2]unix.Timespec{st.Atim, st.Mtim}
		// Without a path it is futimens(3).
		if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
			err = errno
		}
	}
	if err != nil {
		return &fs.PathError{Op: "finish", Path: path, Err: err}
	}
	return nil
}

// owner gives the ids in the new sandbox that mean what those in the old one did.
func (c *treeCopy) owner(st *unix.Stat_t) (uid, gid int) {
	shift := func(id uint32) int {
		if c.from.rootless() || id < c.from.Base || id >= c.from.Base+rangeSize {
			if c.to.rootless() {
				return -1
			}
			return int(c.to.Base) + overflowID
		}
		return int(c.to.Base + id - c.from.Base)
	}
	return shift(st.Uid), shift(st.Gid)
}

// overflowID is nobody.
const overflowID = 65534

func (c *treeCopy) entry(from, to int, name, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT { // removed meanwhile
			return nil
		}
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = c.subdir(from, to, name, path, depth)
	case unix.S_IFREG:
		err = c.file(from, to, name, path, &st)
	case unix.S_IFLNK:
		err = c.symlink(from, to, name, &st)
	case unix.S_IFCHR:
		if st.Rdev == 0 { // how an overlay says that a name is gone
			err = unix.Mknodat(to, name, unix.S_IFCHR, 0)
		}
	case unix.S_IFIFO:
		if err = unix.Mknodat(to, name, unix.S_IFIFO|st.Mode&0o777, 0); err == nil {
			err = c.finishAt(to, name, &st)
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		var still unix.Stat_t
		if serr := unix.Fstatat(from, name, &still, unix.AT_SYMLINK_NOFOLLOW); serr != nil || still.Ino != st.Ino {
			return nil // removed or replaced meanwhile
		}
	}
	var at *fs.PathError
	if err != nil && !errors.As(err, &at) && c.ctx.Err() == nil {
		err = &fs.PathError{Op: "copy", Path: path, Err: err}
	}
	return err
}

func (c *treeCopy) subdir(from, to int, name, path string, depth int) error {
	s, mode, restore, err := open(from, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer restore()
	defer unix.Close(s)
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	t, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(t)
	if err := c.dir(s, t, path, depth+1); err != nil || mode == 0 {
		return err
	}
	return unix.Fchmod(t, mode&0o7777)
}

// open opens a name for reading. An ordinary user may have taken the right to read from himself; then he
// is given it until restore is called, and mode is what the file's was, else 0. The file is named by a
// descriptor meanwhile, so that it is this one and no other whose mode changes.
func open(dir int, name string, flags int) (fd int, mode uint32, restore func(), err error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	if fd, err = unix.Openat(dir, name, flags, 0); err != unix.EACCES {
		return fd, 0, func() {}, err
	}
	at, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, 0, nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(at, &st)
	if kind := st.Mode & unix.S_IFMT; err == nil && kind != unix.S_IFREG && kind != unix.S_IFDIR {
		err = unix.EACCES
	}
	self := fmt.Sprintf("/proc/self/fd/%d", at)
	if err == nil {
		err = unix.Chmod(self, st.Mode&0o7777|0o500)
	}
	if err != nil {
		unix.Close(at)
		return -1, 0, nil, err
	}
	restore = func() {
		_ = unix.Chmod(self, st.Mode&0o7777) // its owner's rights were changed a moment ago, and can be again
		unix.Close(at)
	}
	if fd, err = unix.Open(self, flags&^unix.O_NOFOLLOW, 0); err != nil {
		restore()
		return -1, 0, nil, err
	}
	return fd, st.Mode, restore, nil
}

func (c *treeCopy) file(from, to int, name, path string, st *unix.Stat_t) error {
	if first, ok := c.links[st.Ino]; ok && st.Nlink > 1 {
		return unix.Linkat(c.top, first, to, name, 0)
	}
	fd, mode, restore, err := open(from, name, 0)
	if err != nil {
		return err
	}
	restore()
	in := os.NewFile(uintptr(fd), path)
	defer in.Close()
	if err := unix.Fstat(fd, st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.Join(err) // replaced meanwhile by what is no file
	}
	fd, err = unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), path)
	defer out.Close()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil { // not on this file system
		if err := c.bytes(out, in, st.Size); err != nil {
			return err
		}
	}
	if err := c.marks(int(in.Fd()), int(out.Fd())); err != nil {
		return err
	}
	if mode != 0 {
		st.Mode = mode
	}
	if err := c.finish(int(out.Fd()), st, path); err != nil {
		return err
	}
	if st.Nlink > 1 && len(c.links) < maxLinks {
		c.links[st.Ino] = strings.TrimPrefix(path, "/")
	}
	return out.Close()
}

// bytes copies a file's content and leaves its holes out. It ends at the size that the file had: one that
// grows faster than it is copied doesn't matter.
func (c *treeCopy) bytes(out, in *os.File, size int64) error {
	for at := int64(0); at < size; {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		begin, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole to the end
		}
		if err != nil {
			begin = at // no file system with holes
		}
		end, err := unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE)
		if err != nil || end <= begin {
			end = size
		}
		end = min(end, size)
		for begin < end {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			n, err := in.ReadAt(c.buffer[:min(int64(len(c.buffer)), end-begin)], begin)
			if n == 0 {
				if err == io.EOF {
					return out.Truncate(begin) // cut meanwhile
				}
				return err
			}
			if _, err := out.WriteAt(c.buffer[:n], begin); err != nil {
				return err
			}
			begin += int64(n)
		}
		at = end
	}
	return out.Truncate(size)
}

func (c *treeCopy) symlink(from, to int, name string, st *unix.Stat_t) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), to, name); err != nil {
		return err
	}
	return c.finishAt(to, name, st)
}

// finishAt gives what can't be opened its owner and time.
func (c *treeCopy) finishAt(dir int, name string, st *unix.Stat_t) error {
	uid, gid := c.owner(st)
	if err := unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// overlayMarks are what an overlay notes about files in its upper layer and needs again; what it notes
// about inodes of the old layer is left out.
var overlayMarks = []string{"opaque", "redirect", "metacopy", "whiteout"}

func (c *treeCopy) marks(from, to int) error {
	prefix := "trusted.overlay."
	if c.from.userMarks() {
		prefix = "user.overlay."
	}
	buf := make([]byte, 256)
	for _, mark := range overlayMarks {
		n, err := unix.Fgetxattr(from, prefix+mark, buf)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err == nil {
			err = unix.Fsetxattr(to, prefix+mark, buf[:n], 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
