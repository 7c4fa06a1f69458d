package files

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrMagicLink says that a path goes through a magic link.
var ErrMagicLink error = magicLink{}

type magicLink struct{}

func (magicLink) Error() string {
	return "the path goes through a link into a process, like those in /proc/PID/fd, which is not followed"
}
func (magicLink) Unwrap() error { return syscall.ELOOP }

// noOpenat2 is set once the kernel, or a filter, has said that it has no openat2.
var noOpenat2 atomic.Bool

// OpenFD opens a path as open(2) does and gives the descriptor, close-on-exec.
// flags may have O_PATH and O_NOFOLLOW: then a magic link itself can be opened.
// perm counts with O_CREAT only. The error is a bare errno or ErrMagicLink.
func OpenFD(path string, flags int, perm uint32) (int, error) {
	if flags&unix.O_CREAT == 0 {
		perm = 0
	}
	for {
		fd, err := openOnce(path, flags|unix.O_CLOEXEC, perm&0o7777)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return -1, err
		}
		return fd, nil
	}
}

func openOnce(path string, flags int, perm uint32) (int, error) {
	if path == "" {
		return -1, unix.ENOENT
	}
	if noOpenat2.Load() {
		return openByName(path, flags, perm)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: uint64(flags), Mode: uint64(perm), Resolve: unix.RESOLVE_NO_MAGICLINKS})
	switch err {
	case unix.ENOSYS:
		noOpenat2.Store(true)
		return openByName(path, flags, perm)
	case unix.EPERM:
		// A filter that does not know the call may say so too; a refusal of
		// the file's own is the same by hand.
		return openByName(path, flags, perm)
	case unix.ELOOP:
		// Links in a circle, or one too special? What is found here is only
		// for the words.
		var st unix.Stat_t
		stat, last := unix.Stat, false
		if flags&unix.O_NOFOLLOW != 0 {
			stat, last = unix.Lstat, flags&unix.O_PATH == 0
		}
		plain := stat(path, &st)
		if plain != unix.ELOOP && !(last && plain == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK) {
			return -1, ErrMagicLink
		}
	}
	return fd, err
}

// maxLinks is how many links one path may have, as in the kernel.
const maxLinks = 40

// openByName walks a path name by name. It follows no link that lies in a proc
// file system, since only the kernel could tell which of them are magic.
func openByName(path string, flags int, perm uint32) (int, error) {
	dir, err := unix.Open(start(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(dir) }()
	const fresh = unix.O_CREAT | unix.O_EXCL
	follow := flags&unix.O_NOFOLLOW == 0 && flags&fresh != fresh
	rest, links := path, 0
	for {
		name, after, more := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		if name == "" {
			name = "."
		}
		last := !more || strings.Trim(after, "/") == ""
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT && last && !more && flags&unix.O_CREAT != 0 {
			return unix.Openat(dir, name, flags|unix.O_NOFOLLOW, perm)
		}
		if err != nil {
			return -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFLNK && (more || follow):
			text, err := linkText(dir, fd)
			_ = unix.Close(fd)
			if links++; err == nil && links > maxLinks {
				err = unix.ELOOP
			}
			if err != nil {
				return -1, err
			}
			if text[0] == '/' {
				root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					return -1, err
				}
				_ = unix.Close(dir)
				dir = root
			}
			if rest = text; more {
				rest += "/" + after
			}
		case !last:
			_ = unix.Close(dir)
			dir, rest = fd, after
		default:
			_ = unix.Close(fd)
			if more {
				flags |= unix.O_DIRECTORY
			}
			return unix.Openat(dir, name, flags|unix.O_NOFOLLOW, perm)
		}
	}
}

func start(path string) string {
	if path[0] == '/' {
		return "/"
	}
	return "."
}

// linkText reads a link that lies in dir, unless dir is in a proc file system.
func linkText(dir, link int) (string, error) {
	var where unix.Statfs_t
	if err := unix.Fstatfs(dir, &where); err != nil {
		return "", err
	}
	if where.Type == unix.PROC_SUPER_MAGIC {
		return "", ErrMagicLink
	}
	return readlinkat(link, "")
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", unix.ENOENT
	}
	return string(buf[:n]), nil
}

// OpenFile is os.OpenFile.
func OpenFile(path string, flags int, perm fs.FileMode) (*os.File, error) {
	fd, err := OpenFD(path, flags, uint32(perm.Perm()))
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Open is os.Open.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY, 0) }

// ReadDir is os.ReadDir.
func ReadDir(path string) ([]fs.DirEntry, error) {
	d, err := OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.ReadDir(-1)
	sortEntries(all)
	return all, err
}
