//go:build linux

package linux

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// checkImage says whether an image can be mounted.
func checkImage(op string, root image.Root) error {
	if n := len(root.Lower); n < 1 || n > boot.MaxLayers {
		return driver.Invalid(op, "image %q has %d layers; this driver takes images of 1 to %d", root.ID, n, boot.MaxLayers)
	}
	for _, dir := range root.Lower {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return &sandbox.Error{Code: sandbox.CodeImageNotFound, Op: op, Err: err, Message: fmt.Sprintf("a layer of image %q is gone: %s", root.ID, dir),
				Hint: "pull or import the image again"}
		}
	}
	return nil
}

// copyable says whether each sandbox can have a copy of an image, where it can't be mounted.
func copyable(root image.Root) bool { return root.Small && len(root.Lower) == 1 }

func uncopyable(reason string) error {
	return &sandbox.Error{Code: driver.CodeUnsupported, Op: "create sandbox", Message: "this image is too large to be copied, and layers are not possible here: " + reason,
		Hint: "put TONGS_HOME on ext4, xfs or btrfs, with Linux 5.19 or later (6.8 for more than 90 layers)"}
}

// idmapped gives a read-only mount of a directory, attached nowhere, whose ids are shifted into the
// sandbox's range by userns.
func idmapped(dir string, userns int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns),
	})
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return -1, fmt.Errorf("%w: idmapping %s: %w", errNoLayers, dir, err)
	}
	return -1, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
}

// stack is overlay for an image of several layers, the topmost first. They are attached in a small file
// system of their own, whose names are short and tell nothing. The calling thread needs privateMounts.
func stack(dir string, layers []string, userns int) (*os.File, error) {
	places, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "source", "layers", "size", "64k", "nr_inodes", "256")
	if err != nil {
		return nil, err
	}
	defer places.Close()
	place := filepath.Join(dir, lowerDir)
	if err := unix.MoveMount(int(places.Fd()), "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, &os.PathError{Op: "move_mount", Path: place, Err: err}
	}
	if err := unix.Chdir(place); err != nil {
		return nil, &os.PathError{Op: "chdir", Path: place, Err: err}
	}
	names := make([]string, len(layers))
	for i, layer := range layers {
		names[i] = boot.LayerName(i)
		if err := attachLayer(layer, names[i], userns); err != nil {
			return nil, err
		}
	}
	options := []string{"source", "tongs", "redirect_dir", "on", "upperdir", "../" + upperDir, "workdir", "../" + workDir}
	one := options
	for _, name := range names {
		one = append(one, "lowerdir+", name)
	}
	attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	root, err := newMount("overlay", attr, one...)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.8; the kernel takes 255 bytes then, which is about 90 layers
		root, err = newMount("overlay", attr, append(options, "lowerdir", strings.Join(names, ":"))...)
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%w: %w", errNoLayers, err)
	}
	return root, err
}

func attachLayer(dir, name string, userns int) error {
	fd, err := idmapped(dir, userns)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Mkdir(name, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return os.NewSyscallError("move_mount", unix.MoveMount(fd, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH))
}
