//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Runtime starts the first process of sandboxes by a program of its own, an OCI runtime. All else about
// them (records, locks, user ids, layers, the guest and its socket) is as for sandboxes that this driver
// starts itself. Its methods may be called by many goroutines.
type Runtime interface {
	// Name is what Spec.Driver says.
	Name() string

	// OwnKernel says that what runs inside has a kernel of its own, so that the host's limits can only
	// hold for the whole sandbox, the guest included, and the host's sockets can't be handed in or out.
	OwnKernel() bool

	// OneHierarchy says that the program refuses a machine with control groups of version 1. It is shown a single
	// hierarchy of version 2 then, in which it must not make groups.
	OneHierarchy() bool

	// Program is the absolute path of the runtime. An error says how to get it.
	Program() (string, error)

	// Config is the bundle's config.json.
	Config(Place) ([]byte, error)

	// Args are the program's arguments that make and start a container, detached.
	Args(Place) []string

	// Check examines what the runtime needs, for `tongs doctor`.
	Check() []driver.Finding
}

// Freezer is a Runtime that can write what runs to files and go on from them.
type Freezer interface {
	Runtime

	// Build names what has to be the same when it goes on: the program's version, and how it is used.
	Build(program string) (string, error)

	// FreezerArgs are the program's arguments for one thing that is done with a sandbox, which with Restore is
	// as new as with Args. The files are in Place.Image.
	FreezerArgs(Action, Place) []string
}

// Action is something that is done with what runs in a sandbox.
type Action int

// What a Freezer does: let nothing go on, let it go on, write it to files and leave it as it is, and begin with
// what is in files.
const (
	Pause Action = iota
	Resume
	Save
	Restore
)

// Place says where a runtime finds what a sandbox is made from. The paths are those of a mount namespace that
// only the runtime sees.
type Place struct {
	ID     string // for the runtime
	Bundle string // directory of config.json
	Root   string // the sandbox's tree, complete but for /proc, /sys, /dev and /tmp
	State  string // a directory that lasts as long as the sandbox is up
	PID    string // file for the number of the first process
	Guest  string // the guest binary, to be bound at GuestPath, read-only
	Socket string // directory to be bound at SocketDir, where sockets can't be inherited

	Base     uint32 // first of the host's user ids, of IDs many
	IDs      uint32
	Hostname string
	Tmp, Shm []string // options of the file systems in memory at /tmp and /dev/shm
	Groups   string   // where below the hierarchies of control groups it may make its own
	Env      []string
	Files    int    // how many descriptors, from 3 on, the guest inherits
	Image    string // directory of a checkpoint
}

// Places inside a sandbox that a runtime starts.
const (
	GuestPath = "/dev/tongs-guest"
	SocketDir = "/dev/tongs"

	socketFile = "guest" // in SocketDir

	guestNameFile = "guest.name" // in a sandbox's directory: which guest binary it was started with
)

// runtimeOf gives the runtime that starts a sandbox; nil is this driver itself.
func (d *Driver) runtimeOf(op string, r record) (Runtime, error) {
	if r.Spec.Driver == "" || r.Spec.Driver == Name {
		return nil, nil
	}
	for _, rt := range d.cfg.Runtimes {
		if rt.Name() == r.Spec.Driver {
			return rt, nil
		}
	}
	names := []string{Name}
	for _, rt := range d.cfg.Runtimes {
		names = append(names, rt.Name())
	}
	return nil, driver.Invalid(op, "there is no driver %q; there are %s", r.Spec.Driver, strings.Join(names, ", "))
}

// ownKernel says whether a sandbox's processes have a kernel of their own.
func (d *Driver) ownKernel(r record) bool {
	rt, err := d.runtimeOf("", r)
	return err == nil && rt != nil && rt.OwnKernel()
}

// What a kernel of a sandbox's own takes besides its commands: memory, and on the host a few threads for each
// of theirs.
const (
	kernelBytes   = 64 << 20
	kernelThreads = 512
	threadsEach   = 8
)

// aroundKernel gives the limits for all of a sandbox that has a kernel of its own.
func aroundKernel(l driver.Limits) driver.Limits {
	if l.MemoryBytes > 0 {
		l.MemoryBytes += kernelBytes
	}
	if l.Pids > 0 {
		l.Pids = threadsEach*l.Pids + kernelThreads
	}
	return l
}

// runtimeSuffix ends the names, below run, of directories that a running sandbox of a runtime has.
const runtimeSuffix = ".oci"

// runtimeGroups is the directory, in each hierarchy, below which runtimes make their groups.
const runtimeGroups = "tongs-runtime"

func runtimeDir(id string) string { return strings.TrimSuffix(socketName(id), ".sock") + runtimeSuffix }

// A directory below run, and what is in it: guest binaries, and nothing.
const (
	guestDir   = "guest"
	programDir = "program"
	emptyDir   = "empty"
)

// guestFile gives the path of a copy of the guest binary that nobody else changes: what a runtime binds into
// sandboxes. It is named by its content and made once.
func (d *Driver) guestFile() (string, error) {
	const op = "copy guest binary"
	m, err := d.guestImage()
	if err != nil {
		return "", err
	}
	d.guestOnce.Lock()
	defer d.guestOnce.Unlock()
	if d.guestPath != "" {
		return d.guestPath, nil
	}
	sum, err := m.sum()
	if err != nil {
		return "", driver.Wrap(op, err)
	}
	dir := filepath.Join(d.dirs.run, guestDir)
	for _, name := range []string{programDir, emptyDir} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return "", driver.Wrap(op, err)
		}
	}
	path := filepath.Join(dir, programDir, sum)
	if _, err := os.Stat(path); err != nil {
		if err := writeProgram(path, m); err != nil {
			return "", driver.Wrap(op, err)
		}
	}
	d.guestPath = path
	return path, nil
}

// writeProgram writes a program under its name only when it is whole.
func writeProgram(path string, m *memfd) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = m.copyTo(f)
	if err == nil {
		err = f.Chmod(0o555)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := unwritten(f.Name()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// unwritten waits until nobody has a file open for writing, since it can't be executed before (ETXTBSY in execve(2)): each
// descriptor of this process is open for some moments in what it starts, also in the threads that have a table of descriptors
// of their own. Whether it is, a lease for reading tells (fcntl(2), F_SETLEASE).
func unwritten(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for end := time.Now().Add(lockTimeout); ; time.Sleep(time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if err == nil {
			_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return os.NewSyscallError("end lease", err)
		}
		if !errors.Is(err, unix.EAGAIN) {
			return nil // a file system without leases: the start will tell
		}
		if time.Now().After(end) {
			return &os.PathError{Op: "execute", Path: path, Err: unix.ETXTBSY}
		}
	}
}

// removeRuntimeTraces removes what a runtime has left of a sandbox whose processes have ended.
func (d *Driver) removeRuntimeTraces(ctx context.Context, id string) error {
	home := filepath.Join(d.dirs.run, runtimeDir(id))
	if _, err := os.Lstat(home); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	groups, err := runtimeGroupDirs()
	if err != nil {
		return err
	}
	for _, dir := range groups {
		if filepath.Base(dir) != d.groupName(id) {
			continue
		}
		ctx, cancel := within(ctx, killTimeout)
		err := removeGroup(ctx, dir)
		cancel()
		if err != nil {
			return err
		}
	}
	return removeInUse(ctx, home)
}

// removeInUse removes a directory into which a runtime may still write, whose host was killed: it ends by itself.
func removeInUse(ctx context.Context, dir string) error {
	ctx, cancel := within(ctx, killTimeout)
	defer cancel()
	for {
		err := os.RemoveAll(dir)
		if !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// recoverRuntimes removes what runtimes have left of no sandbox: directories below run, and groups.
func recoverRuntimes(ctx context.Context, left strays, note func(string, ...any)) error {
	var errs []error
	for _, p := range left.runtimes {
		errs = append(errs, removeInUse(ctx, p))
		note("removed %s of no sandbox", p)
	}
	for _, dir := range left.runtimeGroups {
		ctx, cancel := within(ctx, killTimeout)
		err := removeGroup(ctx, dir)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		note("removed cgroup %s of no sandbox", dir)
	}
	return errors.Join(errs...)
}

// runtimeGroupDirs lists the groups that runtimes have made, in all hierarchies and of all homes.
func runtimeGroupDirs() ([]string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, m := range mounts {
		top := filepath.Join(m.dir, runtimeGroups)
		names, err := subdirs(top)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			all = append(all, filepath.Join(top, name))
		}
	}
	return all, nil
}

// noUser is the error for a runtime without root.
func noUser(op, name string) error {
	return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: fmt.Sprintf("the driver %s needs root", name),
		Hint: "run tongs as root, or use the driver " + Name + ", which doesn't"}
}
