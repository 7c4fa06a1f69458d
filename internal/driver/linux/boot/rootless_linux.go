package boot

import (
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// deviceNames are the host's devices that a rootless sandbox has: it can't make nodes of its own.
var deviceNames = []string{"null", "zero", "full", "random", "urandom", "tty"}

var deviceLinks = [][2]string{
	{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// ownMounts makes what a driver with rights would have sent: the root, and mounts with their places. What is
// the host's is opened as the user who started this process; the rest is made as whoever is root inside.
func ownMounts(r Rootless) (fds []int, targets []string, err error) {
	var images, binds []int
	defer func() {
		all := images
		if err != nil {
			all = append(append(all, binds...), fds...)
		}
		for _, fd := range all {
			unix.Close(fd)
		}
	}()
	if r.Layers != nil {
		if err := unix.Chdir(r.Layers.Dir); err != nil {
			return nil, nil, fail("enter "+r.Layers.Dir, err)
		}
		for _, dir := range r.Layers.Images {
			fd, err := hostPart(dir, false)
			if err != nil {
				return nil, nil, err
			}
			images = append(images, fd)
		}
	} else {
		root, err := hostPart(r.Root, true)
		if err != nil {
			return nil, nil, err
		}
		fds = append(fds, root)
	}
	for _, b := range r.Binds {
		fd, err := hostPart(b.Source, b.Writable)
		if err != nil {
			return fds, nil, err
		}
		binds = append(binds, fd)
	}
	if r.Mapped {
		if err := becomeRoot(); err != nil {
			return fds, nil, err
		}
	}
	if r.Layers != nil {
		root, err := layered(*r.Layers, images)
		if err != nil {
			return nil, nil, err
		}
		fds = append(fds, root)
	}
	dev, nodes, err := deviceTree()
	if err != nil {
		return fds, nil, err
	}
	fds, targets = append(fds, dev), append(targets, "/dev")
	for i, fd := range nodes {
		fds, targets = append(fds, fd), append(targets, "/dev/"+deviceNames[i])
	}
	for i, fd := range binds {
		fds, targets = append(fds, fd), append(targets, r.Binds[i].Target)
	}
	return fds, targets, nil
}

// becomeRoot makes this process root of its user namespace, with all capabilities over it that it had. Until
// now it was the user who started it, who isn't among the ids of the namespace.
func becomeRoot() error {
	const op = "become root inside"
	if err := syscall.Setgroups(nil); err != nil {
		return fail(op, err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fail(op, err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fail(op, err)
	}
	unix.Umask(0) // the user's own may be too strict for a system's directories
	return nil
}

// layered gives an overlay of a sandbox's own layer on an image. The working directory is the sandbox's.
func layered(l Layers, images []int) (int, error) {
	if len(images) == 1 {
		if err := attachLayer(images[0], l.Lower); err != nil {
			return -1, err
		}
		return overlay([]string{"lowerdir=" + l.Lower}, l.Upper, l.Work)
	}
	places, err := newMount(filesystem{kind: "tmpfs", options: []string{"size=64k", "nr_inodes=256"}, attr: strict})
	if err != nil {
		return -1, err
	}
	defer unix.Close(places)
	if err := unix.MoveMount(places, "", unix.AT_FDCWD, l.Lower, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, fail("attach layers", err)
	}
	if err := unix.Chdir(l.Lower); err != nil {
		return -1, fail("enter layers", err)
	}
	names, options := make([]string, len(images)), make([]string, len(images))
	for i, layer := range images {
		names[i] = LayerName(i)
		options[i] = "lowerdir+=" + names[i]
		if err := unix.Mkdir(names[i], 0o755); err != nil {
			return -1, fail("make a place for a layer", err)
		}
		if err := attachLayer(layer, names[i]); err != nil {
			return -1, err
		}
	}
	root, err := overlay(options, "../"+l.Upper, "../"+l.Work)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.8
		root, err = overlay([]string{"lowerdir=" + strings.Join(names, ":")}, "../"+l.Upper, "../"+l.Work)
	}
	return root, err
}

func overlay(lower []string, upper, work string) (int, error) {
	root, err := newMount(filesystem{
		kind: "overlay", options: append(lower, "upperdir="+upper, "workdir="+work, "userxattr="),
		attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
	})
	if err != nil {
		return -1, fail(OpLayers, err)
	}
	return root, nil
}

func attachLayer(layer int, place string) error {
	if err := unix.MoveMount(layer, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail("attach image", err)
	}
	return nil
}

// hostPart gives a second mount of a part of the host, attached nowhere.
func hostPart(p string, writable bool) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fail("open "+p, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE} // what the host mounts below it later stays outside
	if !writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return -1, fail("protect "+p, err)
	}
	return fd, nil
}

// deviceTree makes a /dev with places for the host's devices, and mounts of those.
func deviceTree() (dev int, nodes []int, err error) {
	dev, err = newMount(filesystem{kind: "tmpfs", options: []string{"mode=0755", "size=64k", "nr_inodes=32"}, attr: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC})
	if err != nil {
		return -1, nil, err
	}
	defer func() {
		if err != nil {
			unix.Close(dev)
			for _, fd := range nodes {
				unix.Close(fd)
			}
		}
	}()
	for _, name := range deviceNames {
		f, err := unix.Openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_WRONLY, 0o666)
		if err != nil {
			return dev, nodes, fail("make /dev/"+name, err)
		}
		unix.Close(f)
		node, err := unix.OpenTree(unix.AT_FDCWD, "/dev/"+name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return dev, nodes, fail("open the host's /dev/"+name, err)
		}
		nodes = append(nodes, node)
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return dev, nodes, fail("make /dev/"+l[0], err)
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(dev, dir, 0o755); err != nil {
			return dev, nodes, fail("make /dev/"+dir, err)
		}
	}
	if err := unix.MountSetattr(dev, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return dev, nodes, fail("protect /dev", err)
	}
	return dev, nodes, nil
}
