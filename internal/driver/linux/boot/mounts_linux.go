package boot

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const strict = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

var (
	// maskedFiles read as empty: they tell about the host or steer it. What only the host's root may open
	// (kmsg, kpagecount and the like) isn't here: nobody inside is that.
	maskedFiles = []string{
		"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "proc/sysrq-trigger",
	}
	// maskedDirs show as empty directories.
	maskedDirs = []string{"proc/acpi", "proc/scsi", "proc/asound", "sys/firmware", "sys/devices/virtual/powercap"}
	// readOnly can be read and not written.
	readOnly = []string{"proc/sys", "proc/bus", "proc/fs", "proc/irq"}
)

// enterRoot assembles the sandbox's tree and makes it the only one. meminfo is as of Ready.
func enterRoot(cfg Config, plan Plan, fds []int) (meminfo int, err error) {
	root, mounts := fds[0], fds[1:]
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fail("open old root", err)
	}
	defer unix.Close(old)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fail("make mounts private", err)
	}
	// It goes on top of the host's root: the one directory that this process can surely reach.
	if err := unix.MoveMount(root, "", old, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return 0, fail("attach root", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return 0, fail("enter root", err)
	}
	for i, target := range plan.Mounts {
		if err := Attach(mounts[i], root, target[1:]); err != nil {
			return 0, err
		}
	}
	for _, fs := range filesystems(plan) {
		if err := mountNew(fs, root); err != nil {
			if fs.optional {
				continue
			}
			return 0, err
		}
	}
	if err := configure(root); err != nil {
		return 0, err
	}
	if err := mask(root); err != nil {
		return 0, err
	}
	if cfg.Meminfo {
		if meminfo, err = showMemory(root); err != nil {
			return 0, err
		}
	}
	return meminfo, LeaveRoot(old)
}

// LeaveRoot makes the working directory, which must be a mount, the root of this mount namespace instead of old, the
// present one, which is detached with all that is below it.
func LeaveRoot(old int) error {
	if err := unix.PivotRoot(".", "."); err != nil { // the old one ends up mounted on the new one
		return fail("change root", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return fail("go to old root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail("let go of the old root's files", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fail("enter new root", err)
	}
	return nil
}

// Attach puts a mount at a place below root. No link is followed on the way: when a sandbox is started
// again, what is on its disk was written by strangers.
func Attach(mount, root int, target string) error {
	to, err := open(root, target)
	if err != nil {
		return fail("find mount point /"+target, err)
	}
	defer unix.Close(to)
	if err := unix.MoveMount(mount, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fail("attach /"+target, err)
	}
	return nil
}

func open(root int, rel string) (int, error) {
	return unix.Openat2(root, rel, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

type filesystem struct {
	kind, target string
	options      []string // key=value, or key= for a flag
	attr         int
	optional     bool // an empty directory will do
}

func filesystems(plan Plan) []filesystem {
	tmp := []string{"mode=1777"}
	if plan.TmpBytes >= 0 {
		tmp = append(tmp, Sized(plan.TmpBytes)...)
	}
	pts := []string{"ptmxmode=0666", "mode=0620"}
	if !plan.oneID() {
		pts = append(pts, "gid=5") // tty; with one id there is one group only
	}
	return []filesystem{
		{kind: "proc", target: "proc", attr: strict},
		{kind: "sysfs", target: "sys", attr: strict | unix.MOUNT_ATTR_RDONLY, optional: true},
		{kind: "devpts", target: "dev/pts", options: pts, attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC},
		{kind: "tmpfs", target: "dev/shm", options: append(Sized(plan.ShmBytes), "mode=1777"), attr: strict},
		{kind: "mqueue", target: "dev/mqueue", attr: strict, optional: true},
		{kind: "tmpfs", target: "tmp", options: tmp, attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
	}
}

// Sized gives the options of a tmpfs of so many bytes. Its inodes are bounded too, since each takes about a
// kilobyte of the kernel's memory, which nothing else bounds where there are no cgroups.
func Sized(bytes int64) []string {
	return []string{"size=" + strconv.FormatInt(bytes, 10), "nr_inodes=" + strconv.FormatInt(max(bytes/4096, 1024), 10)}
}

func newMount(f filesystem) (int, error) {
	fs, err := unix.Fsopen(f.kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fail("open file system "+f.kind, err)
	}
	defer unix.Close(fs)
	for _, o := range append(f.options, "source="+f.kind) {
		k, v, _ := strings.Cut(o, "=")
		var err error
		if v == "" {
			err = unix.FsconfigSetFlag(fs, k)
		} else {
			err = unix.FsconfigSetString(fs, k, v)
		}
		if err != nil {
			return -1, fail("set "+o+" of "+f.kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fail("create "+f.kind, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, f.attr)
	if err != nil {
		return -1, fail("mount "+f.kind, err)
	}
	return m, nil
}

func mountNew(f filesystem, root int) error {
	m, err := newMount(f)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	return Attach(m, root, f.target)
}

// mask hides and locks parts of the fresh /proc and /sys. Entries that this kernel doesn't have are
// passed over.
func mask(root int) error {
	for _, rel := range maskedFiles {
		if err := cover(root, rel, "dev/null", 0); err != nil {
			return err
		}
	}
	empty := -1
	for _, rel := range maskedDirs {
		to, err := open(root, rel)
		if err != nil {
			continue
		}
		unix.Close(to)
		if empty < 0 {
			empty, err = newMount(filesystem{kind: "tmpfs", options: []string{"mode=0555", "size=0", "nr_inodes=2"}, attr: strict | unix.MOUNT_ATTR_RDONLY})
			if err != nil {
				return err
			}
			defer unix.Close(empty)
			if err := Attach(empty, root, rel); err != nil {
				return err
			}
			continue
		}
		again, err := unix.OpenTree(empty, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		if err != nil {
			return fail("mask /"+rel, err)
		}
		err = Attach(again, root, rel)
		unix.Close(again)
		if err != nil {
			return err
		}
	}
	for _, rel := range readOnly {
		if err := cover(root, rel, rel, strict|unix.MOUNT_ATTR_RDONLY); err != nil {
			return err
		}
	}
	return nil
}

// cover mounts one place of the tree over another (or over itself), with more flags.
func cover(root int, rel, with string, attr uint64) error {
	to, err := open(root, rel)
	if err != nil {
		return nil
	}
	defer unix.Close(to)
	m, err := unix.OpenTree(root, with, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fail("cover /"+rel, err)
	}
	defer unix.Close(m)
	if attr != 0 {
		if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr}); err != nil {
			return fail("protect /"+rel, err)
		}
	}
	if err := unix.MoveMount(m, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fail("cover /"+rel, err)
	}
	return nil
}

// settings are numbers of the sandbox's own namespaces, written before /proc/sys can't be any more.
var settings = []struct {
	file, value, op string
	optional        bool // an old kernel, or one without the setting, will do
}{
	// Everybody may bind ports below 1024: they are the sandbox's own. Without it, low ports are refused.
	{"proc/sys/net/ipv4/ip_unprivileged_port_start", "0", "allow low ports", true},
	// In a user namespace of its own a command would have every capability again, over new namespaces: the
	// commonest road to faults of the kernel. The number is that of this user namespace, for all below it.
	{"proc/sys/user/max_user_namespaces", "0", "forbid nested user namespaces", false},
}

// configure writes the settings.
func configure(root int) error {
	for _, s := range settings {
		fd, err := unix.Openat(root, s.file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			if s.optional {
				continue
			}
			return fail(s.op, err)
		}
		_, err = unix.Write(fd, []byte(s.value))
		unix.Close(fd)
		if err != nil {
			return fail(s.op, err)
		}
	}
	return nil
}
