package boot

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNames are the host's devices that a rootless sandbox has: it can't make nodes of its own.
var deviceNames = []string{"null", "zero", "full", "random", "urandom", "tty"}

var deviceLinks = [][2]string{
	{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// ownMounts makes what a driver with rights would have sent: the root, and mounts with their places.
func ownMounts(r Rootless) (fds []int, targets []string, err error) {
	defer func() {
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}()
	add := func(fd int, target string) {
		fds = append(fds, fd)
		targets = append(targets, target)
	}
	var root int
	if r.Layers != nil {
		root, err = layered(*r.Layers)
	} else {
		root, err = hostPart(r.Root, true)
	}
	if err != nil {
		return nil, nil, err
	}
	fds = append(fds, root)
	dev, nodes, err := deviceTree()
	if err != nil {
		return fds, nil, err
	}
	add(dev, "/dev")
	for i, fd := range nodes {
		add(fd, "/dev/"+deviceNames[i])
	}
	for _, b := range r.Binds {
		fd, err := hostPart(b.Source, b.Writable)
		if err != nil {
			return fds, nil, err
		}
		add(fd, b.Target)
	}
	return fds, targets, nil
}

// layered gives an overlay of a sandbox's own layer on an image.
func layered(l Layers) (int, error) {
	if err := unix.Chdir(l.Dir); err != nil {
		return -1, fail("enter "+l.Dir, err)
	}
	if len(l.Images) == 1 {
		if err := attachLayer(l.Images[0], l.Lower); err != nil {
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
	names, options := make([]string, len(l.Images)), make([]string, len(l.Images))
	for i, dir := range l.Images {
		names[i] = LayerName(i)
		options[i] = "lowerdir+=" + names[i]
		if err := unix.Mkdir(names[i], 0o755); err != nil {
			return -1, fail("make a place for a layer", err)
		}
		if err := attachLayer(dir, names[i]); err != nil {
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

func attachLayer(dir, place string) error {
	layer, err := hostPart(dir, false)
	if err != nil {
		return err
	}
	defer unix.Close(layer)
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
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
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
