package boot

import "golang.org/x/sys/unix"

// showMemory puts an empty file over /proc/meminfo, and gives a descriptor open for writing it. In the end the file has
// no name but that one, by which nobody writes: the mount is read-only. root holds a fresh /proc and a fresh /tmp, so no
// link leads elsewhere. Its one page counts for the size of /tmp.
func showMemory(root int) (fd int, err error) {
	const op, name = "show the sandbox's memory", "tmp/meminfo"
	file, err := unix.Openat(root, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return -1, fail(op, err)
	}
	m, err := unix.OpenTree(file, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err == nil {
		err = unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: strict | unix.MOUNT_ATTR_RDONLY})
		if err == nil {
			err = unix.MoveMount(m, "", root, "proc/meminfo", unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		unix.Close(m)
	}
	// Not before: what has no name isn't mounted.
	if uerr := unix.Unlinkat(root, name, 0); err == nil {
		err = uerr
	}
	if err != nil {
		unix.Close(file)
		return -1, fail(op, err)
	}
	return file, nil
}
