//go:build linux

package layer

import (
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// How a layer says what of the layers below it is gone: in an archive by names, in an overlay by character
// devices 0:0 and by an attribute of directories.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..opq" // after the prefix

	opaqueRoot = "trusted.overlay.opaque" // what root's overlays read,
	opaqueUser = "user.overlay.opaque"    // and those that are mounted with userxattr
)

func procFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func isWhiteout(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 }

// Whiteout says whether a file of a layer says that its name is gone.
func Whiteout(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// whiteout carries out an entry whose name begins with the prefix; name is the rest.
func (u *unpacker) whiteout(at int, parent, name string) error {
	switch {
	case name == opaqueName:
		return setOpaque(at)
	case len(name) > len(whiteoutPrefix) && name[:len(whiteoutPrefix)] == whiteoutPrefix:
		return nil // aufs' own, of no meaning here
	case name == "" || name == "." || name == "..":
		return unsafe(whiteoutPrefix+name, "says that no name is gone")
	}
	err := unix.Mknodat(at, name, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	// It is gone from the layers below; this one has made it anew.
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOpaque(fd)
}

func (d *dirs) opaque(path string) error {
	fd, err := d.find(path)
	if err != nil {
		return err
	}
	return setOpaque(fd)
}

// setOpaque hides what lower layers have in a directory. Whoever may not make root's mark, root of another
// user namespace included, mounts overlays with userxattr.
func setOpaque(dir int) error {
	err := unix.Fsetxattr(dir, opaqueRoot, []byte("y"), 0)
	if err == unix.EPERM {
		err = unix.Fsetxattr(dir, opaqueUser, []byte("y"), 0)
	}
	return err
}

// isOpaque says whether a directory hides those of its name in lower layers.
func isOpaque(dir int) bool {
	buf := make([]byte, 8)
	for _, name := range []string{opaqueRoot, opaqueUser} {
		if n, err := unix.Fgetxattr(dir, name, buf); err == nil && n > 0 && buf[0] == 'y' {
			return true
		}
	}
	return false
}
