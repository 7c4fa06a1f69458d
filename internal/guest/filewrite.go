package guest

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/files"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxLinks is how many symbolic links in a row are followed, as the kernel does.
const maxLinks = 40

// fileWriter writes one file. Unless it writes in place, what it writes goes to
// a new file beside the old one, which takes its place on commit.
type fileWriter struct {
	g     *engine
	path  string // what was asked for
	final string // what it names, after links
	dir   int    // the directory that final is in, open; -1: not, or not any more
	name  string // of final in dir
	opts  sandbox.WriteOptions
	f     *regular
	temp  string // its name in dir; "" when in place
	keep  uint32 // permission bits of the file that is replaced, plus keepSet
	done  bool
}

const keepSet = 1 << 31

// openWrite checks everything that can be checked before there is content.
func (g *engine) openWrite(path string, opts sandbox.WriteOptions) (_ *fileWriter, err error) {
	const op = "write file"
	if path, err = g.path(op, path); err != nil {
		return nil, err
	}
	if opts.Mode&^0o7777 != 0 {
		return nil, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("mode %#o has more than permission bits", opts.Mode), "")
	}
	if strings.HasSuffix(path, "/") {
		return nil, pathError(op, path, unix.EISDIR)
	}
	w := &fileWriter{g: g, path: path, dir: -1, opts: opts}
	defer func() {
		if err != nil || w.temp == "" {
			w.closeDir()
		}
	}()
	var st unix.Stat_t
	exists, err := w.find(&st)
	if err != nil {
		return nil, pathError(op, path, err)
	}
	switch {
	case exists && opts.Exclusive:
		return nil, pathError(op, path, unix.EEXIST)
	case exists && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, notRegular(op, path, st.Mode)
	case opts.IfVersion != "" && (!exists || version(&st) != opts.IfVersion):
		return nil, stale(path)
	}
	perm := uint32(0o666)
	if opts.Mode != 0 {
		perm = opts.Mode
	}
	if w.dir < 0 {
		if opts.Parents {
			if err := files.MkdirAll(parent(w.final), 0o777); err != nil {
				return nil, sandbox.FileError(op, err)
			}
		}
		if err := w.openDir(); err != nil {
			return nil, pathError(op, path, err)
		}
	}
	if opts.Append || opts.InPlace {
		return w, w.openInPlace(op, perm)
	}
	if exists {
		// The right to write the old file is asked for, though it is not
		// needed to replace it: read-only means read-only.
		if err := w.mayWrite(); err != nil {
			return nil, pathError(op, path, err)
		}
		w.keep = st.Mode&0o7777 | keepSet
		perm = st.Mode & 0o777
	}
	err = w.create(op, !exists, perm)
	if exists && (sandbox.CodeOf(err) == sandbox.CodePermissionDenied || sandbox.CodeOf(err) == sandbox.CodeReadOnly) {
		// Nothing new may be made beside it, but the file itself may be written.
		return w, w.openInPlace(op, perm)
	}
	if err != nil {
		return nil, err
	}
	if opts.Mode != 0 && !exists {
		if err := unix.Fchmod(w.f.fd, perm); err != nil {
			w.abort()
			return nil, pathError(op, path, err)
		}
	}
	return w, nil
}

// find looks at what the path names: the file, or the place where one would be made. It
// opens the directory of that, if there is one.
func (w *fileWriter) find(st *unix.Stat_t) (exists bool, err error) {
	w.final = w.path
	for links := 0; ; links++ {
		err = w.openDir()
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		err = noEINTR(func() error { return unix.Fstatat(w.dir, w.name, st, unix.AT_SYMLINK_NOFOLLOW) })
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case err != nil:
			return false, err
		case st.Mode&unix.S_IFMT != unix.S_IFLNK:
			return true, nil
		case links == maxLinks:
			return false, unix.ELOOP
		}
		to, err := files.Readlink(w.final)
		if err != nil {
			return false, err
		}
		w.closeDir()
		if !strings.HasPrefix(to, "/") {
			to = parent(w.final) + "/" + to
		}
		if w.final = strings.TrimRight(to, "/"); w.final == "" {
			return false, unix.EISDIR
		}
	}
}

// openDir opens the directory that the file is in, or will be.
func (w *fileWriter) openDir() (err error) {
	w.name = w.final[strings.LastIndexByte(w.final, '/')+1:]
	w.dir, err = files.OpenFD(parent(w.final), unix.O_PATH|unix.O_DIRECTORY, 0)
	return err
}

func (w *fileWriter) closeDir() {
	if w.dir >= 0 {
		unix.Close(w.dir)
	}
	w.dir = -1
}

// mayWrite asks for the right to write the old file. Opening it would say the same, but where it is of a lower
// layer that copies all of it first, for nothing.
func (w *fileWriter) mayWrite() error {
	name, err := unix.BytePtrFromString(w.name)
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(unix.SYS_FACCESSAT2, uintptr(w.dir), uintptr(unsafe.Pointer(name)), unix.W_OK, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno == 0 {
		return nil
	}
	// No, or there is no such call. A program that is running (ETXTBSY) may be replaced.
	fd, err := files.OpenFD(w.final, unix.O_WRONLY|unix.O_NOFOLLOW|openFlags, 0)
	if err == nil {
		unix.Close(fd)
	} else if errors.Is(err, unix.ETXTBSY) {
		return nil
	}
	return err
}

// create makes the new file beside the place that it is for.
func (w *fileWriter) create(op string, fresh bool, perm uint32) error {
	temp := tempName("/x", fresh)[1:]
	f := &regular{path: w.path}
	err := noEINTR(func() (err error) {
		f.fd, err = unix.Openat(w.dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|openFlags, perm)
		return err
	})
	if err != nil {
		return pathError(op, w.path, err)
	}
	w.f, w.temp = f, temp
	if err := unix.Fstat(f.fd, &f.st); err != nil {
		w.abort()
		return pathError(op, w.path, err)
	}
	return nil
}

func (w *fileWriter) openInPlace(op string, perm uint32) (err error) {
	flags := unix.O_WRONLY | unix.O_CREAT
	if w.opts.Append {
		flags |= unix.O_APPEND
	}
	if w.opts.Exclusive {
		flags |= unix.O_EXCL
	}
	if w.f, err = openRegular(op, w.path, flags, perm); err != nil {
		return err
	}
	if !w.opts.Append {
		if err := noEINTR(func() error { return unix.Ftruncate(w.f.fd, 0) }); err != nil {
			w.f.Close()
			return pathError(op, w.path, err)
		}
	}
	return nil
}

func stale(path string) error {
	return sandbox.Errf(sandbox.CodeVersionMismatch, "write file", path+" is no longer the file that was read", "read it again and decide anew")
}

func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "/"
	}
	return path[:i]
}

func (w *fileWriter) Write(b []byte) (int, error) { return w.f.Write(b) }

// commit makes what was written the file.
func (w *fileWriter) commit() (sandbox.FileInfo, error) {
	const op = "write file"
	fail := func(err error) (sandbox.FileInfo, error) {
		w.abort()
		return sandbox.FileInfo{}, err
	}
	if w.keep != 0 && w.temp != "" && w.f.st.Mode&0o7777 != w.keep&0o7777 {
		if err := unix.Fchmod(w.f.fd, w.keep&0o7777); err != nil {
			return fail(pathError(op, w.path, err))
		}
	}
	if w.opts.Sync {
		if err := noEINTR(func() error { return unix.Fsync(w.f.fd) }); err != nil {
			return fail(pathError(op, w.path, err))
		}
	}
	if w.temp != "" {
		if err := w.replace(op); err != nil {
			return fail(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.f.fd, &st); err != nil {
		return fail(pathError(op, w.path, err))
	}
	w.done = true
	w.closeDir()
	if err := w.f.Close(); err != nil {
		return sandbox.FileInfo{}, pathError(op, w.path, err)
	}
	return info(w.path, &st), nil
}

// replace puts the new file in place. The engine's lock makes comparing the
// version and replacing one step among the guest's own writers.
func (w *fileWriter) replace(op string) error {
	w.g.replacing.Lock()
	defer w.g.replacing.Unlock()
	if w.opts.IfVersion != "" {
		var st unix.Stat_t
		if err := noEINTR(func() error { return unix.Fstatat(w.dir, w.name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil || version(&st) != w.opts.IfVersion {
			return stale(w.path)
		}
	}
	flags := uint(0)
	if w.opts.Exclusive {
		flags = unix.RENAME_NOREPLACE
	}
	if err := noEINTR(func() error { return unix.Renameat2(w.dir, w.temp, w.dir, w.name, flags) }); err != nil {
		return pathError(op, w.path, err)
	}
	w.temp = ""
	return nil
}

// abort leaves the old file, unless it was written in place. It may be called
// at any time, also again.
func (w *fileWriter) abort() {
	if w.done {
		return
	}
	w.done = true
	w.f.Close()
	if w.temp != "" {
		_ = noEINTR(func() error { return unix.Unlinkat(w.dir, w.temp, 0) })
	}
	w.closeDir()
}
