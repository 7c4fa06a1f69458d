package layer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links are followed on one way, as in the kernel.
const maxLinks = 40

// Union is what several layers show together, the topmost first, read without mounting it.
type Union []*os.Root

// OpenUnion opens layers.
func OpenUnion(dirs []string) (Union, error) {
	var u Union
	for _, dir := range dirs {
		root, err := os.OpenRoot(dir)
		if err != nil {
			u.Close()
			return nil, err
		}
		u = append(u, root)
	}
	return u, nil
}

// Close closes the layers.
func (u Union) Close() {
	for _, root := range u {
		root.Close()
	}
}

// Lstat describes p, which is relative and clean, as the topmost layer has it that has it. On the way to
// it, what is no directory in a higher layer hides what lower ones have.
func (u Union) Lstat(p string) (fs.FileInfo, error) {
	_, info, err := u.lstat(p)
	return info, err
}

func (u Union) lstat(p string) (*os.Root, fs.FileInfo, error) {
	missing := &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
layers:
	for _, root := range u {
		hides := false // lower layers, if this one doesn't have it
		at := ""
		for part := range strings.SplitSeq(p, "/") {
			at = path.Join(at, part)
			info, err := root.Lstat(at)
			switch {
			case errors.Is(err, fs.ErrNotExist) && !hides:
				continue layers
			case err != nil:
				return nil, nil, err
			case Whiteout(info):
				return nil, nil, missing
			case at == p:
				return root, info, nil
			case !info.IsDir():
				return nil, nil, &fs.PathError{Op: "lstat", Path: p, Err: unix.ENOTDIR}
			}
			hides = hides || opaqueIn(root, at)
		}
	}
	return nil, nil, missing
}

func opaqueIn(root *os.Root, dir string) bool {
	f, err := root.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return isOpaque(int(f.Fd()))
}

// Resolve follows the symbolic links on the way to a path inside, absolute or not, and gives where it is,
// relative, with what is there.
func (u Union) Resolve(p string) (string, fs.FileInfo, error) {
	todo := strings.Split(p, "/")
	at, links := "", 0
	var info fs.FileInfo
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at, info = strings.TrimPrefix(path.Dir("/"+at), "/"), nil
			continue
		}
		next := path.Join(at, part)
		root, found, err := u.lstat(next)
		if err != nil {
			return next, nil, err
		}
		if found.Mode()&fs.ModeSymlink == 0 {
			at, info = next, found
			continue
		}
		if links++; links > maxLinks {
			return next, nil, &fs.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		to, err := root.Readlink(next)
		if err != nil {
			return next, nil, err
		}
		if path.IsAbs(to) {
			at, info = "", nil
		}
		todo = slices.Concat(strings.Split(to, "/"), todo)
		if len(todo) > 4096 {
			return next, nil, &fs.PathError{Op: "resolve", Path: p, Err: unix.ENAMETOOLONG}
		}
	}
	if info == nil {
		if at == "" {
			return "", nil, &fs.PathError{Op: "resolve", Path: p, Err: unix.EISDIR}
		}
		var err error
		if info, err = u.Lstat(at); err != nil {
			return at, nil, err
		}
	}
	return at, info, nil
}

// ReadFile reads a regular file of at most so many bytes, links followed.
func (u Union) ReadFile(p string, most int64) ([]byte, error) {
	at, info, err := u.Resolve(p)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: p, Err: unix.EINVAL}
	}
	root, info, err := u.lstat(at)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, &fs.PathError{Op: "read", Path: p, Err: unix.EFBIG}
	}
	f, err := root.OpenFile(at, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// Executable says whether a path inside leads to a program.
func (u Union) Executable(p string) bool {
	_, info, err := u.Resolve(p)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
