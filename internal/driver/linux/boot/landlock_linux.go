package boot

import (
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock is a second fence, around commands alone, which holds should one of the first have a hole. Every
// command gets into one domain, the guest stays outside:
//
//   - Nothing inside traces the guest, signals it, or reads its memory, descriptors and files by /proc/1,
//     be it the sandbox's root. (Without a domain, that holds because the guest is another user's or isn't dumpable.)
//   - Nothing inside mounts anything, and no abstract unix socket of another domain can be reached.
//   - No device node can be made, and devices are controlled below /dev only.
//   - In a sandbox without a root, nothing below /proc, /sys and what is mounted read-only in / can be written,
//     whatever its own permissions say: modules of the host's kernel leave files in /proc open to everybody.
//     Programs do without what they may write there about themselves, such as /proc/self/oom_score_adj. A
//     root makes directories in /, where a rule about one is a rule about all, so it has that part not.
//
// Reading and running programs is left to the mounts. So is truncating a file by its name: where that is asked
// about, each opening of a file to read it goes through all directories above, which is half as dear again.

// Versions of Landlock's interface. Before landlockRefer nothing could be moved between directories.
const (
	landlockRefer   = 2 // Linux 5.19
	landlockDevices = 5 // Linux 6.10
	landlockScopes  = 6 // Linux 6.12
)

// LandlockVersion is the version of the interface of this kernel's Landlock; 0 is that it has none, or that it is
// switched off.
func LandlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// LandlockWeakness says what commands could do with the Landlock of a version that they can't with today's; "" is nothing.
func LandlockWeakness(version int) string {
	switch {
	case version < landlockRefer:
		return "there is no second fence around commands"
	case version < landlockScopes:
		return "the second fence around commands doesn't keep them from signalling the guest"
	}
	return ""
}

const (
	makeDevice = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK
	change     = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
)

// landlocked gives the rights that a version knows, and what else it can keep inside.
func landlocked(version int) (rights, scopes uint64) {
	rights = change | makeDevice
	if version >= landlockDevices {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= landlockScopes {
		scopes = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return rights, scopes
}

// fence gives a function that puts the thread that calls it, and all that descends from it, into a domain of
// Landlock; nil where the kernel has none. root is the tree to which the rules apply, rooted says that commands may run
// as root.
func fence(version int, root string, rooted bool) (enter func() error, err error) {
	const op = "prepare second fence"
	if version < landlockRefer {
		return nil, nil
	}
	rights, scopes := landlocked(version)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights, Scoped: scopes}
	size := unsafe.Offsetof(attr.Handled_access_net)
	if scopes != 0 {
		size = unsafe.Offsetof(attr.Quiet_access_fs)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fail(op, errno)
	}
	rules := int(fd)
	places, err := places(root, rights, rooted)
	for _, p := range places {
		if err == nil {
			err = permit(rules, p)
		}
		unix.Close(p.dir)
	}
	if err != nil {
		unix.Close(rules)
		return nil, fail(op, err)
	}
	return func() error {
		defer unix.Close(rules)
		if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0); errno != 0 {
			return os.NewSyscallError("landlock_restrict_self", errno)
		}
		return nil
	}, nil
}

// maxPlaces bounds the rules of a sandbox. One that has more in its / gets none about single directories.
const maxPlaces = 256

// place is a directory, open, and what may be done below it.
type place struct {
	dir    int
	rights uint64
}

// places are those of a tree where commands change something.
func places(root string, rights uint64, rooted bool) (all []place, err error) {
	changes := rights &^ (makeDevice | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV)
	top, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	add := func(name string, rights uint64) error {
		dir, err := open(top, name)
		if err == unix.ENOENT || err == unix.ELOOP {
			return nil
		}
		if err != nil {
			return err
		}
		all = append(all, place{dir, rights})
		return nil
	}
	f := os.NewFile(uintptr(top), root)
	defer f.Close()
	for name, rights := range map[string]uint64{
		"dev":     rights & (unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV),
		"dev/shm": changes, "dev/mqueue": changes,
	} {
		if err := add(name, rights); err != nil {
			return all, err
		}
	}
	entries, err := f.ReadDir(maxPlaces + 1)
	if err == io.EOF {
		err = nil
	}
	if rooted || len(entries) > maxPlaces {
		return all, errors.Join(err, add(".", changes))
	}
	for _, e := range entries {
		switch e.Name() {
		case "proc", "sys", "dev":
			continue
		}
		if err == nil && e.IsDir() {
			err = add(e.Name(), changes)
		}
	}
	return all, err
}

// permit adds a rule for a place, unless nothing can be changed there anyway.
func permit(rules int, p place) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(p.dir, &st); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if st.Flags&unix.MS_RDONLY != 0 && st.Type != unix.TMPFS_MAGIC { // /dev is one whose devices are written to
		return nil
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: p.rights, Parent_fd: int32(p.dir)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return nil
}
