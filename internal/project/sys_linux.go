package project

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openBeneath opens a name below an open directory. No link is followed, neither on the way nor at the end, and
// nothing waits: a FIFO opens at once.
func openBeneath(dir int, name string, flags int, mode uint32) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	for range 100 {
		fd, err := unix.Openat2(dir, name, how)
		if err != unix.EAGAIN && err != unix.EINTR { // something was renamed on the way
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

func statOf(st *unix.Stat_t) stat {
	return stat{Mode: st.Mode, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Ino: st.Ino, Dev: st.Dev, UID: st.Uid, GID: st.Gid}
}

// cloneFile makes to share the bytes of from, where the file system can do that. A write to one does not reach the other.
func cloneFile(to, from *os.File) bool {
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// makeOpaque makes a directory of a layer hide what the layers below have in it. Both marks are set where that is
// possible: which one counts depends on how the overlay is mounted.
func makeOpaque(dir string) error {
	err := unix.Setxattr(dir, "user.overlay.opaque", []byte("y"), 0)
	if os.Geteuid() == 0 {
		err = unix.Setxattr(dir, "trusted.overlay.opaque", []byte("y"), 0)
	}
	if err != nil {
		return &fs.PathError{Op: "setxattr", Path: dir, Err: err}
	}
	return nil
}

// bound bounds what a process that reads hostile data may take.
func bound(pid int, fileBytes int64) {
	for what, most := range map[int]uint64{unix.RLIMIT_AS: 6 << 30, unix.RLIMIT_CPU: 600, unix.RLIMIT_FSIZE: uint64(fileBytes), unix.RLIMIT_CORE: 0} {
		// A process that has ended, or a lower limit that is there already.
		_ = unix.Prlimit(pid, what, &unix.Rlimit{Cur: most, Max: most}, nil)
	}
}
