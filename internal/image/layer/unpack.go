//go:build linux

package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const op = "unpack layer"

// The most that one entry may have besides its content.
const (
	maxPath       = 4095
	maxName       = 255
	maxAttributes = 64
	maxAttrBytes  = 64 << 10
)

// Unpack writes the archive r (tar; plain, gzip or zstd) below dir, which must be empty and nobody else's.
// After an error, what is in dir is to be removed. Errors are *sandbox.Error with the codes
// UNSAFE_ARCHIVE, ARCHIVE_TOO_LARGE, INVALID_ARCHIVE, NAME_TOO_LONG, NO_SPACE and those of the system, and
// those of ctx and of reading r.
func Unpack(ctx context.Context, dir string, r io.Reader, opts Options) (Result, error) {
	limits := opts.Limits.withDefaults()
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{}, sandbox.FileError(op, &os.PathError{Op: "open", Path: dir, Err: err})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := decompress(ctx, r, limits)
	defer s.close()
	u := &unpacker{opts: opts, limits: limits, dirs: newDirs(root), finish: make(map[string]attributes), buffer: make([]byte, 256<<10), umask: umask()}
	defer u.dirs.close()
	u.dirs.made = u.implied
	err = u.run(ctx, s)
	if err == nil {
		u.res.DiffID, err = s.digest()
	}
	if failed := s.failure(); failed != nil && ctx.Err() == nil {
		err = failed // what the archive seems to lack may be for want of its bytes
	}
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	return u.res, err
}

type unpacker struct {
	opts   Options
	limits Limits
	dirs   *dirs
	res    Result
	finish map[string]attributes // of directories, which are given when all is in them
	buffer []byte
	counts int64 // entries and implied directories
	umask  uint32
}

// umask is the process's. The system call that tells it changes it, for all threads.
func umask() uint32 {
	data, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if text, ok := strings.CutPrefix(line, "Umask:"); ok {
				if n, err := strconv.ParseUint(strings.TrimSpace(text), 8, 32); err == nil {
					return uint32(n)
				}
			}
		}
	}
	return 0o777
}

// attributes are what a file or a directory is besides its content.
type attributes struct {
	uid, gid int
	mode     uint32
	times    [2]unix.Timespec
	extended map[string]string
}

func (u *unpacker) run(ctx context.Context, s *stream) error {
	t := tar.NewReader(s)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if err := u.entry(h, t); err != nil {
			return err
		}
	}
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, s, u.buffer); err != nil { // the digest is of all there is
		return damaged(err)
	}
	return u.directories()
}

type onlyWriter struct{ io.Writer }

func damaged(err error) error {
	var done *sandbox.Error
	if errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &sandbox.Error{Code: sandbox.CodeInvalidArchive, Op: op, Message: "the archive is damaged: " + err.Error(), Hint: "get it again from where it is from", Err: err}
}

func unsafe(name, format string, args ...any) error {
	return sandbox.Errf(sandbox.CodeUnsafeArchive, op, fmt.Sprintf("%.200q %s", name, fmt.Sprintf(format, args...)), "do not trust this image")
}

func tooLarge(format string, args ...any) error {
	return sandbox.Errf(sandbox.CodeArchiveTooLarge, op, "the archive is refused: "+fmt.Sprintf(format, args...), "if it is to be trusted, make an image of less")
}

// count bounds the entries.
func (u *unpacker) count() error {
	if u.counts++; u.counts > u.limits.Entries {
		return tooLarge("it has more than %d files and directories", u.limits.Entries)
	}
	return nil
}

func (u *unpacker) implied() error { return u.count() }

// split cuts a name into its parts.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, sandbox.Errf(sandbox.CodeNameTooLong, op, fmt.Sprintf("%.80q… has %d bytes, the most is %d", name, len(name), maxPath), "do not trust this image")
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return nil, unsafe(name, "leads out of the image")
		case len(part) > maxName:
			return nil, sandbox.Errf(sandbox.CodeNameTooLong, op, fmt.Sprintf("%.80q… has a part of %d bytes, the most is %d", name, len(part), maxName), "do not trust this image")
		case strings.ContainsRune(part, 0):
			return nil, unsafe(name, "has a NUL byte")
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// entry carries out one entry of the archive.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeChar, tar.TypeBlock:
		u.res.Left.Devices++
		return u.count()
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if err := u.count(); err != nil {
		return err
	}
	attr, err := u.attributes(h)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return unsafe(h.Name, "is in the place of the image itself")
		}
		u.finish[""] = attr
		return nil
	}
	parent, base := strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
	at, err := u.dirs.open(parent)
	if err != nil {
		return u.fail(h.Name, err)
	}
	if gone, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return u.fail(h.Name, u.whiteout(at, parent, gone))
	}
	u.res.Entries++
	switch h.Typeflag {
	case tar.TypeDir:
		return u.fail(h.Name, u.dir(at, parent, base, attr))
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.fail(h.Name, u.file(at, parent, base, h, attr, content))
	case tar.TypeSymlink:
		err = u.place(at, parent, base, func() error { return unix.Symlinkat(h.Linkname, at, base) })
	case tar.TypeFifo:
		err = u.place(at, parent, base, func() error { return unix.Mknodat(at, base, unix.S_IFIFO|attr.mode&0o777, 0) })
	case tar.TypeLink:
		return u.fail(h.Name, u.hardlink(at, parent, base, h))
	default:
		return unsafe(h.Name, "is of the unknown kind %q", h.Typeflag)
	}
	if err == nil {
		err = u.give(at, base, attr)
	}
	return u.fail(h.Name, err)
}

// fail gives an error of the system the entry's name.
func (u *unpacker) fail(name string, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.EISDIR:
		return unsafe(name, "can't be where it says: %v", errno)
	case unix.ENAMETOOLONG:
		return sandbox.Errf(sandbox.CodeNameTooLong, op, fmt.Sprintf("%.80q… is too long", name), "do not trust this image")
	}
	err = sandbox.FileError(op, &os.PathError{Op: "unpack", Path: fmt.Sprintf("%.200q", name), Err: errno})
	var e *sandbox.Error
	if errors.As(err, &e) && e.Code == sandbox.CodeNoSpace {
		e.Hint = "free some space or inodes on the file system that holds TONGS_HOME; `tongs image gc` removes images that nothing uses"
	}
	return err
}

// attributes reads what a header says besides names.
func (u *unpacker) attributes(h *tar.Header) (attributes, error) {
	a := attributes{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777}
	if h.Typeflag != tar.TypeDir && a.mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		a.mode &^= unix.S_ISUID | unix.S_ISGID
		u.res.Left.Setuid++
	}
	if u.opts.Owners && (a.uid < 0 || a.uid >= IDs || a.gid < 0 || a.gid >= IDs) {
		u.res.Left.Owners++
		if a.uid < 0 || a.uid >= IDs {
			a.uid = nobody
		}
		if a.gid < 0 || a.gid >= IDs {
			a.gid = nobody
		}
	}
	mtime := h.ModTime
	if s := mtime.Unix(); s < math.MinInt32 || s > math.MaxUint32 {
		mtime = time.Unix(0, 0)
	}
	ts := unix.NsecToTimespec(mtime.UnixNano())
	a.times = [2]unix.Timespec{ts, ts}
	n, size := 0, 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if n++; n > maxAttributes {
			return a, tooLarge("%.200q has more than %d extended attributes", h.Name, maxAttributes)
		}
		if size += len(name) + len(value); size > maxAttrBytes {
			return a, tooLarge("%.200q has more than %d KiB of extended attributes", h.Name, maxAttrBytes>>10)
		}
		if !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") || len(name) > maxName || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
			u.res.Left.Attributes++
			continue
		}
		if a.extended == nil {
			a.extended = make(map[string]string)
		}
		a.extended[name] = value
	}
	return a, nil
}

// place makes something under a name, in the place of what the archive had there before.
func (u *unpacker) place(at int, parent, base string, create func() error) error {
	err := create()
	if err != unix.EEXIST {
		return err
	}
	if err := u.remove(at, parent, base); err != nil {
		return err
	}
	return create()
}

func (u *unpacker) remove(at int, parent, base string) error {
	err := unix.Unlinkat(at, base, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	path := strings.TrimPrefix(parent+"/"+base, "/")
	for p := range u.finish {
		if below(p, path) {
			delete(u.finish, p)
		}
	}
	u.dirs.forgetBelow(path)
	return u.dirs.removeTree(parent, base)
}

func (u *unpacker) dir(at int, parent, base string, attr attributes) error {
	opaque, err := makeDir(at, base)
	if err != nil {
		return err
	}
	path := strings.TrimPrefix(parent+"/"+base, "/")
	u.finish[path] = attr
	if opaque {
		return u.dirs.opaque(path)
	}
	return nil
}

// makeDir makes a directory where there is none. opaque says that its name was said to be gone: then what
// lower layers have under it must not be seen.
func makeDir(at int, base string) (opaque bool, err error) {
	err = unix.Mkdirat(at, base, 0o700)
	if err != unix.EEXIST {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, nil
	}
	if err := unix.Unlinkat(at, base, 0); err != nil {
		return false, err
	}
	return isWhiteout(&st), unix.Mkdirat(at, base, 0o700)
}

func (u *unpacker) file(at int, parent, base string, h *tar.Header, attr attributes, content io.Reader) error {
	if h.Size < 0 || u.res.Bytes+h.Size > u.limits.Bytes {
		return tooLarge("its files hold more than %d MiB", u.limits.Bytes>>20)
	}
	u.res.Bytes += h.Size
	var fd int
	err := u.place(at, parent, base, func() (err error) {
		fd, err = unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, attr.mode)
		return err
	})
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	for {
		n, err := content.Read(u.buffer)
		if n > 0 {
			if _, werr := f.Write(u.buffer[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged(err)
		}
	}
	if err := u.setExtended(fd, attr); err != nil {
		return err
	}
	chowned := u.opts.Owners && (attr.uid != 0 || attr.gid != 0)
	if chowned {
		if err := unix.Fchown(fd, attr.uid, attr.gid); err != nil {
			return err
		}
	}
	if attr.mode&u.umask != 0 || attr.mode&unix.S_ISVTX != 0 || chowned {
		if err := unix.Fchmod(fd, attr.mode); err != nil {
			return err
		}
	}
	if err := unix.UtimesNanoAt(at, base, attr.times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return f.Close()
}

func (u *unpacker) setExtended(fd int, attr attributes) error {
	for name, value := range attr.extended {
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if err == unix.EOPNOTSUPP || err == unix.ENOSPC || err == unix.E2BIG || err == unix.EPERM {
			u.res.Left.Attributes++ // this file system has none, or no room for it
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// give gives what can't be opened its owner and time.
func (u *unpacker) give(at int, base string, attr attributes) error {
	if u.opts.Owners && (attr.uid != 0 || attr.gid != 0) {
		if err := unix.Fchownat(at, base, attr.uid, attr.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at, base, attr.times[:], unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) hardlink(at int, parent, base string, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		return unsafe(h.Name, "is a hard link to the image itself")
	}
	name := parts[len(parts)-1]
	dir, err := u.dirs.find(strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return unsafe(h.Name, "is a hard link to %.200q, which is not in this layer", h.Linkname)
	}
	var st, have unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return unsafe(h.Name, "is a hard link to %.200q, which is not in this layer", h.Linkname)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFLNK && kind != unix.S_IFIFO {
		return unsafe(h.Name, "is a hard link to %.200q, which is no file", h.Linkname)
	}
	if err := unix.Fstatat(at, base, &have, unix.AT_SYMLINK_NOFOLLOW); err == nil && have.Ino == st.Ino && have.Dev == st.Dev {
		return nil // to itself
	}
	return u.place(at, parent, base, func() error {
		err := unix.Linkat(dir, name, at, base, 0)
		if err == unix.EMLINK { // a file system has a most of names that a file may have
			return tooLarge("%.200q has more names than this file system takes", h.Linkname)
		}
		return err
	})
}

// directories gives each directory what it is, those within before those around.
func (u *unpacker) directories() error {
	u.dirs.forget()
	paths := make([]string, 0, len(u.finish))
	for p := range u.finish {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range slices.Backward(paths) {
		if err := u.fail(p, u.directory(p, u.finish[p])); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) directory(p string, attr attributes) error {
	fd, err := u.dirs.find(p)
	if err != nil {
		return err
	}
	if err := u.setExtended(fd, attr); err != nil {
		return err
	}
	if u.opts.Owners && (attr.uid != 0 || attr.gid != 0) {
		if err := unix.Fchown(fd, attr.uid, attr.gid); err != nil {
			return err
		}
	}
	if p == "" {
		attr.mode = 0o755 // nobody gets anywhere otherwise
	}
	mode := attr.mode
	if !u.opts.Owners {
		mode |= 0o700 // or it can be neither looked through nor removed
		mode &^= unix.S_ISGID
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), attr.times[:], 0)
}
