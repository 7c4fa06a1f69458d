//go:build linux

package layer

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpenDirs is how many directories are kept open: an archive goes from one to the next, and back.
const maxOpenDirs = 64

// dirs opens the directories of a tree that is being made.
type dirs struct {
	root int
	fds  map[string]int
	last string       // the one that was asked for last: it stays open
	made func() error // asked before each directory that nobody listed
}

func newDirs(root int) *dirs { return &dirs{root: root, fds: make(map[string]int)} }

func (d *dirs) close() {
	d.forget()
	unix.Close(d.root)
}

// forget closes what is open.
func (d *dirs) forget() {
	for _, fd := range d.fds {
		unix.Close(fd)
	}
	clear(d.fds)
}

// resolve opens a directory. A symbolic link on the way is one of the archive; it leads to where it would
// if the tree were all there is.
func (d *dirs) resolve(path string) (int, error) {
	if path == "" {
		path = "."
	}
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	for range 16 {
		fd, err := unix.Openat2(d.root, path, &how)
		if err != unix.EAGAIN { // something was renamed meanwhile, anywhere on the machine
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

func (d *dirs) keep(path string, fd int) int {
	if len(d.fds) >= maxOpenDirs {
		for p, other := range d.fds {
			if p != d.last {
				unix.Close(other)
				delete(d.fds, p)
			}
		}
	}
	d.fds[path], d.last = fd, path
	return fd
}

// forgetBelow closes a directory that is going to be removed, and those in it.
func (d *dirs) forgetBelow(path string) {
	for p, fd := range d.fds {
		if below(p, path) {
			unix.Close(fd)
			delete(d.fds, p)
		}
	}
}

func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// find opens a directory that is there. It stays open until two others have been asked for.
func (d *dirs) find(path string) (int, error) {
	if path == "" {
		return d.root, nil
	}
	if fd, ok := d.fds[path]; ok {
		d.last = path
		return fd, nil
	}
	fd, err := d.resolve(path)
	if err != nil {
		return -1, err
	}
	return d.keep(path, fd), nil
}

// open opens a directory, and makes what isn't there of the way to it.
func (d *dirs) open(path string) (int, error) {
	fd, err := d.find(path)
	if err == nil || err != unix.ENOENT && err != unix.ENOTDIR {
		return fd, err
	}
	at, own := d.root, false
	for part := range strings.SplitSeq(path, "/") {
		next, err := d.step(at, part)
		if own {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, own = next, true
	}
	return d.keep(path, at), nil
}

// step opens one directory in another, and makes it if need be. A link on a way of which a part is missing
// is refused: where it leads there may be nothing.
func (d *dirs) step(at int, name string) (int, error) {
	open := func() (int, error) {
		return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	fd, err := open()
	if err == nil {
		return fd, nil
	}
	var st unix.Stat_t
	if serr := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); serr == nil && !isWhiteout(&st) {
		return -1, err
	}
	if err := d.made(); err != nil {
		return -1, err
	}
	opaque, err := makeDir(at, name)
	if err != nil {
		return -1, err
	}
	if fd, err = open(); err != nil {
		return -1, err
	}
	err = unix.Fchmod(fd, 0o755)
	if err == nil && opaque {
		err = setOpaque(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// removeTree removes a directory with what is in it. No link is followed.
func (d *dirs) removeTree(parent, base string) error {
	at, err := d.find(parent)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	unix.Close(fd)
	f, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(f)
	root, err := os.OpenRoot(procFD(f))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(base)
}
