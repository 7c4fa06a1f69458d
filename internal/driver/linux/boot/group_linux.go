package boot

import (
	"errors"

	"golang.org/x/sys/unix"
)

// enterGroup opens the commands' control group as what it is called in the caller's mount namespace, which must still be
// that of the driver with other rights. From the mount, the way up ends where it begins, and nothing below it can be
// written to: it is no way to the limits, nor to the host's files.
func enterGroup(g Group) error {
	const op = "open control group"
	number := func(n int) bool { return n > 2 && n <= maxLateFD }
	if !clean(g.Dir) || !number(g.FD) {
		return fail(op, errors.New("no clean absolute path, or no number for it"))
	}
	dir, err := hostPart(g.Dir, false)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fail(op, errors.Join(errors.New(g.Dir+" is none of version 2"), err))
	}
	if err := unix.Dup3(dir, g.FD, unix.O_CLOEXEC); err != nil {
		return fail(op, err)
	}
	for name, n := range g.Files {
		if !number(n) {
			return fail(op, errors.New("no number for "+name))
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fail(op, err)
		}
		err = unix.Dup3(fd, n, unix.O_CLOEXEC)
		unix.Close(fd)
		if err != nil {
			return fail(op, err)
		}
	}
	return nil
}
