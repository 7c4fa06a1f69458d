//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// cgroup2 uses the one hierarchy of version 2. A sandbox has a group with two below it: guest, without
// limits, into which the guest is cloned, and cmd, with the limits, into which the guest clones every
// command. The guest may put processes into both, by the id with which it touches files, the user's; it
// may not change a limit. Commands have that id too, but there is no cgroup file system inside, and one
// that they mount in namespaces of their own begins at cmd.
//
// An ordinary user can give nothing away. Everybody may write to the cgroup.procs of its sandboxes then, which is of use to
// nobody else: who moves a process needs it of the group that the old place and the new one have in common, too, and above a
// sandbox it is the user's.
type cgroup2 struct {
	root string   // mount point, or the directory given
	have []string // controllers
	user bool     // it is an ordinary user's
}

func newCgroup2(root string) (*cgroup2, error) {
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	c := &cgroup2{root: root, user: os.Geteuid() != 0}
	on, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil {
		return nil, err
	}
	can, err := mayEnable(root)
	if err != nil {
		return nil, err
	}
	for _, name := range wanted {
		if slices.Contains(strings.Fields(string(on)), name) || can && slices.Contains(strings.Fields(string(data)), name) {
			c.have = append(c.have, name)
		}
	}
	return c, nil
}

// mayEnable reports whether controllers can be given to the groups below root: only a group without processes of its
// own can do that, or the root of the whole hierarchy. In a container what is mounted is often neither.
func mayEnable(root string) (bool, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return true, nil // the real root has no such file
	}
	procs, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	return len(procs) == 0, err
}

func (c *cgroup2) version() int          { return 2 }
func (c *cgroup2) controllers() []string { return c.have }

func (c *cgroup2) create(name string, l driver.Limits, base uint32) (g *group, err error) {
	g = &group{version: 2}
	defer func() {
		if err != nil {
			g.close()
			g = nil
		}
	}()
	parent := filepath.Join(c.root, cgroupParent)
	dir := filepath.Join(parent, name)
	if err := mkdirGroup(dir); err != nil {
		return g, err
	}
	for _, d := range []string{c.root, parent, dir} {
		if err := c.enable(d); err != nil {
			return g, err
		}
	}
	guest, cmd := filepath.Join(dir, "guest"), filepath.Join(dir, "cmd")
	for _, d := range []string{guest, cmd} {
		if err := mkdirGroup(d); err != nil {
			return g, err
		}
	}
	for _, d := range []string{dir, guest, cmd} {
		procs := filepath.Join(d, "cgroup.procs")
		if c.user {
			err = os.Chmod(procs, 0o666)
		} else {
			err = os.Chown(procs, int(base+userID), int(base+userID))
		}
		if err != nil {
			return g, err
		}
	}
	if err := c.limit(cmd, l); err != nil {
		return g, err
	}
	if l.CPUWeight > 0 && slices.Contains(c.have, "cpu") {
		if err := set(dir, "cpu.weight", fmt.Sprint(min(l.CPUWeight, 10_000))); err != nil {
			return g, err
		}
	}
	if g.guest, err = os.Open(guest); err != nil {
		return g, err
	}
	if c.user { // only in the guest's namespace can there be a mount like the one below
		g.path, err = filepath.EvalSymlinks(cmd)
		return g, err
	}
	if g.dir, err = detached(cmd); err != nil {
		return g, err
	}
	for name, f := range map[string]**os.File{"memory.events": &g.oom, "pids.events": &g.full} {
		if fd, err := unix.Openat(int(g.dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			*f = os.NewFile(uintptr(fd), name)
		}
	}
	return g, nil
}

// detached opens a directory as the root of a mount of its own that is attached nowhere. A plain
// descriptor would be a way to the host's files: the parent of its parent and so on, by /proc/self/fd.
// From this one the way up ends where it begins, and nothing below it can be written to.
func detached(dir string) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
	}
	return f, nil
}

// enable lets the children of a group have the controllers.
func (c *cgroup2) enable(dir string) error {
	const file = "cgroup.subtree_control"
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	on := strings.Fields(string(data))
	for _, name := range c.have {
		if slices.Contains(on, name) {
			continue
		}
		if err := set(dir, file, "+"+name); err != nil {
			return err
		}
	}
	return nil
}

func (c *cgroup2) limit(cmd string, l driver.Limits) error {
	for _, controller := range c.have {
		var err error
		switch controller {
		case "memory":
			if err = set(cmd, "memory.max", limit(l.MemoryBytes, "max")); err == nil {
				if err = set(cmd, "memory.swap.max", "0"); errors.Is(err, os.ErrNotExist) {
					err = nil // a kernel that has no swap
				}
			}
		case "pids":
			err = set(cmd, "pids.max", limit(l.Pids, "max"))
		case "cpu":
			if l.CPUs > 0 {
				err = set(cmd, "cpu.max", fmt.Sprintf("%d %d", int64(l.CPUs*cpuPeriod), cpuPeriod))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cgroup2) remove(ctx context.Context, name string) error {
	dir := filepath.Join(c.root, cgroupParent, name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := set(dir, "cgroup.kill", "1"); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return errors.Join(
		removeGroup(ctx, filepath.Join(dir, "cmd")),
		removeGroup(ctx, filepath.Join(dir, "guest")),
		removeGroup(ctx, dir))
}

func (c *cgroup2) names() ([]string, error) { return subdirs(filepath.Join(c.root, cgroupParent)) }
