package files

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// split gives the directory of a path and the name in it. The directory is what
// the text says: "a/../b" is not cleaned.
func split(path string) (dir, name string) {
	path = strings.TrimRight(path, "/")
	i := strings.LastIndexByte(path, '/')
	switch {
	case path == "":
		return "/", "."
	case i < 0:
		return ".", path
	case i == 0:
		return "/", path[1:]
	}
	return path[:i], path[i+1:]
}

// in calls f with the directory of a path, open, and the name in it.
func in(path string, f func(dir int, name string) error) error {
	if path == "" {
		return unix.ENOENT
	}
	parent, name := split(path)
	dir, err := OpenFD(parent, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for {
		if err := f(dir, name); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Mkdir is os.Mkdir.
func Mkdir(path string, perm fs.FileMode) error {
	return pathError("mkdir", path, in(path, func(dir int, name string) error { return unix.Mkdirat(dir, name, uint32(perm.Perm())) }))
}

// MkdirAll is os.MkdirAll.
func MkdirAll(path string, perm fs.FileMode) error {
	st, err := Stat(path)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return pathError("mkdir", path, unix.ENOTDIR)
	case errors.Is(err, ErrMagicLink):
		return pathError("mkdir", path, ErrMagicLink)
	}
	if parent, _ := split(path); parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	err = Mkdir(path, perm)
	if err != nil {
		if st, serr := Lstat(path); serr == nil && st.IsDir() {
			return nil // somebody else was quicker
		}
	}
	return err
}

// Remove is os.Remove.
func Remove(path string) error {
	return pathError("remove", path, in(path, func(dir int, name string) error {
		err := unix.Unlinkat(dir, name, 0)
		if err == nil || err == unix.EINTR {
			return err
		}
		rmdir := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		if rmdir != unix.ENOTDIR {
			err = rmdir
		}
		return err
	}))
}

// RemoveAll is os.RemoveAll.
func RemoveAll(path string) error {
	return pathError("remove", path, in(path, func(dir int, name string) error {
		if name == "." || name == ".." {
			return unix.EINVAL
		}
		err := os.RemoveAll(self(dir) + "/" + name)
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return pe.Err
		}
		return err
	}))
}

// self names an open file. It is a magic link, to what was resolved already.
func self(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Chmod is os.Chmod, with the bits of chmod(2).
func Chmod(path string, mode uint32) error {
	fd, err := openPath(path, true)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Chmod(self(fd), mode)
	}
	return pathError("chmod", path, err)
}

// Symlink is os.Symlink.
func Symlink(text, path string) error {
	err := in(path, func(dir int, name string) error { return unix.Symlinkat(text, dir, name) })
	return linkError("symlink", text, path, err)
}

// Rename is os.Rename.
func Rename(from, to string) error { return RenameWith(from, to, 0) }

// RenameWith is Rename with the flags of renameat2(2), as RENAME_NOREPLACE.
func RenameWith(from, to string, flags uint) error {
	err := in(from, func(dir int, name string) error {
		return in(to, func(toDir int, toName string) error { return unix.Renameat2(dir, name, toDir, toName, flags) })
	})
	return linkError("rename", from, to, err)
}

// Link is os.Link; a link at the end of from is not followed.
func Link(from, to string) error {
	err := in(from, func(dir int, name string) error {
		return in(to, func(toDir int, toName string) error { return unix.Linkat(dir, name, toDir, toName, 0) })
	})
	return linkError("link", from, to, err)
}

func linkError(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}
