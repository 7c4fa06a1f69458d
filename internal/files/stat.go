package files

import (
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Status is stat(2), or lstat(2) if a link at the path's end is not followed.
// The error is a bare errno or ErrMagicLink.
func Status(path string, follow bool, st *unix.Stat_t) error {
	fd, err := openPath(path, follow)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, st)
}

func openPath(path string, follow bool) (int, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	return OpenFD(path, flags, 0)
}

// Stat is os.Stat.
func Stat(path string) (fs.FileInfo, error) { return info("stat", path, true) }

// Lstat is os.Lstat.
func Lstat(path string) (fs.FileInfo, error) { return info("lstat", path, false) }

func info(op, path string, follow bool) (fs.FileInfo, error) {
	fd, err := openPath(path, follow)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Stat()
}

// Readlink is os.Readlink.
func Readlink(path string) (string, error) {
	fd, err := openPath(path, false)
	if err == nil {
		defer unix.Close(fd)
		var text string
		if text, err = readlinkat(fd, ""); err == nil {
			return text, nil
		}
		if err == unix.ENOENT {
			err = unix.EINVAL // it is no link
		}
	}
	return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
}

func sortEntries(all []fs.DirEntry) {
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
}
