//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// errNoLayers says that an overlay on an idmapped image isn't possible here; a copy of the image is.
var errNoLayers = errors.New("no overlay of an idmapped directory")

// mounts are a sandbox's mounts, attached nowhere yet.
type mounts struct {
	root    *os.File
	parts   []*os.File
	targets []string
}

func (m *mounts) close() {
	if m.root != nil {
		m.root.Close()
	}
	for _, f := range m.parts {
		f.Close()
	}
}

func (m *mounts) add(f *os.File, target string) {
	m.parts = append(m.parts, f)
	m.targets = append(m.targets, target)
}

// privateMounts gives the calling thread a mount namespace of its own: what it mounts, nobody else
// sees, and it is gone with the thread.
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	unix.Umask(0) // of this thread: it shares neither it nor its directory with others any more
	return os.NewSyscallError("mount", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// overlay makes the root: the sandbox's own layer on top of the image, whose ids are shifted into the
// sandbox's range by userns. The paths are relative, so that what a sandbox can read about its mounts
// doesn't tell where it is kept. Directories of the image can be renamed (redirect_dir): the mark by which that is done
// is one that only the host's root can make. The calling thread needs privateMounts.
func overlay(dir, image string, userns int) (*os.File, error) {
	lower, err := idmapped(image, userns)
	if err != nil {
		return nil, err
	}
	defer unix.Close(lower)
	if err := unix.Chdir(dir); err != nil {
		return nil, &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	// Older kernels take only layers that are attached somewhere.
	if err := unix.MoveMount(lower, "", unix.AT_FDCWD, lowerDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, &os.PathError{Op: "move_mount", Path: filepath.Join(dir, lowerDir), Err: err}
	}
	root, err := newMount("overlay", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV,
		"source", "tongs", "redirect_dir", "on", "lowerdir", lowerDir, "upperdir", upperDir, "workdir", workDir)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("%w: %w", errNoLayers, err)
	}
	return root, err
}

// newMount mounts a new file system and attaches it nowhere. options are keys and values.
func newMount(kind string, attr int, options ...string) (*os.File, error) {
	fsfd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "fsopen", Path: kind, Err: err}
	}
	defer unix.Close(fsfd)
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(fsfd, options[i], options[i+1]); err != nil {
			return nil, &os.PathError{Op: "fsconfig " + options[i], Path: kind, Err: explain(fsfd, err)}
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, &os.PathError{Op: "fsconfig create", Path: kind, Err: explain(fsfd, err)}
	}
	m, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return nil, &os.PathError{Op: "fsmount", Path: kind, Err: err}
	}
	return os.NewFile(uintptr(m), kind), nil
}

// explain adds what the kernel has to say about a failed mount.
func explain(fsfd int, err error) error {
	buf := make([]byte, 512)
	if n, rerr := unix.Read(fsfd, buf); rerr == nil && n > 0 {
		return fmt.Errorf("%w (%s)", err, buf[:n])
	}
	return err
}

// plain is the root of a sandbox whose tree is a copy.
func plain(dir string) (*os.File, error) {
	return cloneTree(filepath.Join(dir, rootDir), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0)
}

// cloneTree gives a second mount of a directory or file of the host, attached nowhere.
func cloneTree(p string, attr uint64, flags uint) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: p, Err: err}
	}
	f := os.NewFile(uintptr(fd), p)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE})
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: p, Err: err}
	}
	return f, nil
}

// hostPart gives a part of the host as it may be seen inside, and where symbolic links of the host led
// to.
func hostPart(p string, writable bool) (*os.File, error) {
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil, err
	}
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if !writable {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	return cloneTree(real, attr, unix.AT_RECURSIVE)
}

// devices are the nodes of /dev.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

var deviceLinks = [][2]string{
	{"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
}

// addDevices adds a /dev. It belongs to the host's root, so that nobody inside can change it, and is
// read-only besides. Where this process may make no device nodes, which is so in some containers, the host's are mounted over
// empty files. The calling thread needs privateMounts, for its umask.
func (m *mounts) addDevices() error {
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "source", "dev", "mode", "0755", "size", "64k", "nr_inodes", "32")
	if err != nil {
		return err
	}
	m.add(dev, "/dev")
	fill := func(fd int) error {
		for _, d := range devices {
			err := unix.Mknodat(fd, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor)))
			if errors.Is(err, unix.EPERM) {
				if err = unix.Mknodat(fd, d.name, unix.S_IFREG|0o444, 0); err == nil {
					err = m.addDevice("/dev/" + d.name)
				}
			}
			if err != nil {
				return &os.PathError{Op: "mknod", Path: "/dev/" + d.name, Err: err}
			}
		}
		for _, l := range deviceLinks {
			if err := unix.Symlinkat(l[1], fd, l[0]); err != nil {
				return &os.PathError{Op: "symlink", Path: "/dev/" + l[0], Err: err}
			}
		}
		for _, dir := range []string{"pts", "shm", "mqueue"} {
			if err := unix.Mkdirat(fd, dir, 0o755); err != nil {
				return &os.PathError{Op: "mkdir", Path: "/dev/" + dir, Err: err}
			}
		}
		return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	}
	return fill(int(dev.Fd()))
}

// addDevice adds a device of the host.
func (m *mounts) addDevice(p string) error {
	f, err := cloneTree(p, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0)
	if err == nil {
		m.add(f, p)
	}
	return err
}

// hostParts gives what a sandbox has of the host's, which depends neither on its own files nor on its ids. The
// calling thread needs privateMounts.
func hostParts(r record) (m *mounts, err error) {
	m = &mounts{}
	defer func() {
		if err != nil {
			m.close()
			m = nil
		}
	}()
	if err := m.addDevices(); err != nil {
		return m, err
	}
	for _, b := range r.Spec.Image.Binds {
		f, err := hostPart(b.Source, false)
		if errors.Is(err, os.ErrNotExist) && b.Source != "/usr" {
			continue // a toolchain that was removed since the sandbox was made
		}
		if err != nil {
			return m, err
		}
		m.add(f, b.Target)
	}
	for _, b := range r.Spec.Binds {
		f, err := hostPart(b.Source, b.Writable)
		if err != nil {
			return m, err
		}
		m.add(f, b.Target)
	}
	return m, nil
}

// putRoot adds the root, with the files that are written into it and the places to mount the rest on. userns is the
// sandbox's user namespace, whose ids are mapped. The calling thread needs privateMounts.
func (m *mounts) putRoot(r record, dir string, userns int, files []driver.File) (err error) {
	switch layers := r.Spec.Image.Lower; {
	case r.Copied:
		m.root, err = plain(dir)
	case len(layers) > 1:
		m.root, err = stack(dir, layers, userns)
	default:
		m.root, err = overlay(dir, layers[0], userns)
	}
	if err != nil {
		return err
	}
	return prepare(fmt.Sprintf("/proc/thread-self/fd/%d", m.root.Fd()), nil, r, files)
}

// mounting prepares a sandbox's mounts on a thread of its own while the guest starts, and sends them to it. A nil
// one is that of a sandbox that makes its own.
type mounting struct {
	pid  chan int      // of the guest, when its ids are mapped
	give chan struct{} // closed when the guest may have its mounts
	stop chan struct{} // closed when it never will
	done <-chan error
}

// startMounting begins. laid is closed when dir is laid out.
func startMounting(r record, dir string, files []driver.File, laid <-chan struct{}, send func(*mounts) error) *mounting {
	m := &mounting{pid: make(chan int, 1), give: make(chan struct{}), stop: make(chan struct{})}
	m.done = startThread(func() error {
		if err := privateMounts(); err != nil {
			return refusal("make mount namespace", makingNamespaces, err)
		}
		all, err := hostParts(r)
		if err != nil {
			return err
		}
		defer all.close()
		select {
		case <-laid:
		case <-m.stop:
			return nil
		}
		select {
		case pid := <-m.pid:
			userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
			if err != nil {
				return refusal("look at user namespace", makingNamespaces, err)
			}
			err = all.putRoot(r, dir, int(userns.Fd()), files)
			userns.Close()
			if err != nil {
				return err
			}
		case <-m.stop:
			return nil
		}
		select {
		case <-m.give:
			if err := send(all); err != nil {
				return err
			}
			lookAhead(all.root)
			return nil
		case <-m.stop:
			return nil
		}
	})
	return m
}

// born says which process the guest is. Its ids are mapped.
func (m *mounting) born(pid int) {
	if m != nil {
		m.pid <- pid
	}
}

// finish waits for the end, and says whether the guest is to have its mounts.
func (m *mounting) finish(give bool) error {
	if m == nil {
		return nil
	}
	if give {
		close(m.give)
	} else {
		close(m.stop)
	}
	return <-m.done
}

// Names that are looked up ahead: the first of the root's directory, and what starting a program looks for.
const aheadNames = 64

var ahead = []string{"etc/ld.so.preload", "etc/ld.so.cache", "etc/passwd", "home/user/project"}

// lookAhead looks up what the guest and the first command will look for. The names of a new overlay are known to nobody
// yet, each takes a look into every layer, and here that is done while the guest is busy with something else.
func lookAhead(root *os.File) {
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // what is wrong with it, the guest will say
	}
	f := os.NewFile(uintptr(fd), root.Name())
	defer f.Close()
	names, _ := f.Readdirnames(aheadNames)
	for _, name := range append(names, ahead...) {
		var st unix.Stat_t
		_ = unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
}
