//go:build linux

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux/boot"
	"github.com/tongs-dev/tongs/sandbox"
)

// placeDir is where a runtime sees what it needs. In its mount namespace there is nothing else: the home's
// directories are closed to the user ids that parts of it run as.
const placeDir = "/tmp"

// Names in placeDir.
const (
	placeRoot    = placeDir + "/root"
	placeState   = placeDir + "/state"
	placeSocket  = placeDir + "/socket"
	placeGuest   = placeDir + "/guest"
	placeProgram = placeDir + "/runtime"
	placeImage   = placeDir + "/checkpoint"
	pidFile      = "pid"
)

// runtimeLaunch is what launchRuntime has at hand.
type runtimeLaunch struct {
	d       *Driver
	rt      Runtime
	r       record
	dir     string
	files   []driver.File
	program string // of the runtime
	guest   string // the guest binary
	home    string // the sandbox's runtime directory, on the host
	late    *lateParts
	given   []*os.File // descriptors for the guest, from 3 on
	out     *os.File

	image string // directory of the checkpoint to start from; "": from the files alone
}

// launchRuntime is launch for a sandbox that a runtime starts.
func (d *Driver) launchRuntime(ctx context.Context, rt Runtime, r record, dir string, files []driver.File, lay func() error) (err error) {
	const op = "start guest"
	if r.rootless() {
		return noUser(op, rt.Name())
	}
	l := &runtimeLaunch{d: d, rt: rt, r: r, dir: dir, files: files, home: filepath.Join(d.dirs.run, runtimeDir(r.Spec.ID))}
	if l.program, err = rt.Program(); err != nil {
		return err
	}
	if l.guest, err = d.guestFile(); err != nil {
		return err
	}
	ours, theirs, err := channel()
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer ours.Close()
	defer theirs.Close()
	if l.out, err = boundedLog(); err != nil {
		return driver.Wrap(op, err)
	}
	defer func() {
		if err != nil {
			l.out.Close()
		}
	}()
	l.late = &lateParts{d: d, r: r, lay: lay}
	defer l.late.close()
	if err := l.prepare(); err != nil {
		return err
	}
	doc, early, places := d.bootDocument(r, false, l.late.group)
	config, err := memory("tongs-boot", doc)
	if err != nil {
		return driver.Wrap(op, err)
	}
	defer config.Close()
	l.given = []*os.File{config, theirs}
	plan := &boot.Inside{OwnKernel: rt.OwnKernel()}
	if rt.OwnKernel() {
		plan.Listen, plan.ListenFD = SocketDir+"/"+socketFile, places[0]
		if len(places) > 1 {
			plan.Pids, plan.PidsFD = r.Spec.Limits.Pids, places[1]
		}
	} else {
		l.given = append(append(l.given, l.late.files()...), early...)
	}
	err = l.start()
	theirs.Close()
	var p *process
	if err == nil {
		p, err = l.adopt()
	}
	if err == nil {
		err = driver.Wrap("record guest", errors.Join(d.writeGuest(dir, p), os.WriteFile(filepath.Join(dir, guestNameFile), []byte(filepath.Base(l.guest)), 0o600)))
	}
	if err == nil {
		err = releaseInside(ctx, ours, r, plan)
	}
	if err != nil {
		said := strings.TrimSpace(string(written(l.out)))
		if p != nil {
			if eerr := p.end(ctx, 0); eerr != nil {
				err = errors.Join(err, eerr)
			}
			p.close()
		}
		_ = os.Remove(filepath.Join(dir, guestFile))
		if errors.Is(err, errNoLayers) {
			return err
		}
		return explainLaunch(op, err, said)
	}
	d.watch.add(d.log, r.Spec.ID, d.dir(r.Spec.ID), p, l.out)
	d.log.Debug("guest started", "sandbox", r.Spec.ID, "driver", rt.Name(), "pid", p.pid)
	return nil
}

// prepare makes what the sandbox has on the host besides its directory.
func (l *runtimeLaunch) prepare() error {
	const op = "prepare runtime"
	if l.late.lay != nil {
		if err := l.late.lay(); err != nil {
			return driver.Wrap("lay out sandbox", err)
		}
	}
	if root := filepath.Join(l.dir, rootDir); !l.r.Copied {
		if err := os.Mkdir(root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return driver.Wrap(op, err)
		}
	}
	if l.d.groups != nil {
		if err := l.late.makeGroup(); err != nil {
			return err
		}
	}
	socket := filepath.Join(l.d.dirs.run, socketName(l.r.Spec.ID))
	for _, p := range []string{l.home, socket} {
		if err := os.RemoveAll(p); err != nil {
			return driver.Wrap(op, err)
		}
	}
	inside := filepath.Join(l.home, filepath.Base(placeSocket))
	for _, p := range []string{l.home, filepath.Join(l.home, filepath.Base(placeState)), inside} {
		if err := os.Mkdir(p, 0o700); err != nil {
			return driver.Wrap(op, err)
		}
	}
	if !l.rt.OwnKernel() {
		f, err := listen(l.d.dirs.run, socketName(l.r.Spec.ID))
		l.late.listener = f
		return driver.Wrap("bind guest socket", err)
	}
	if err := os.Chown(inside, int(l.r.Base), int(l.r.Base)); err != nil {
		return driver.Wrap(op, err)
	}
	return driver.Wrap(op, os.Symlink(filepath.Join(filepath.Base(l.home), filepath.Base(placeSocket), socketFile), socket))
}

// start starts the runtime and waits for it: it ends once the sandbox's first process runs.
func (l *runtimeLaunch) start() error {
	userns, done, err := l.userNamespace()
	if err != nil {
		return driver.Wrap("make user namespace", err)
	}
	defer done()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return driver.Wrap("run "+l.rt.Name(), err)
	}
	defer null.Close()
	patience := bootTimeout
	if l.image != "" {
		patience = saveTimeout
	}
	var pid int
	err = onThread(func() (err error) {
		pid, err = l.run(int(userns.Fd()), null)
		return err
	})
	if err != nil {
		return err
	}
	return l.wait(pid, patience)
}

// run starts the runtime from the calling thread, which is thrown away afterwards. What it opens it closes
// itself: the thread has a table of descriptors of its own.
func (l *runtimeLaunch) run(userns int, null *os.File) (pid int, err error) {
	if err := ownDescriptors(); err != nil {
		return 0, driver.Wrap("keep this process's descriptors", err)
	}
	if err := newKeyring(); err != nil {
		return 0, driver.Wrap("make session keyring", err)
	}
	if err := privateMounts(); err != nil {
		return 0, driver.Wrap("make mount namespace", err)
	}
	if l.rt.OwnKernel() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return 0, driver.Wrap("make network namespace", os.NewSyscallError("unshare", err))
		}
		if err := boot.Network(l.r.Spec.Network == driver.NetworkEgress); err != nil {
			return 0, bootError(err)
		}
		// As inside other sandboxes, where the guest does it: everybody may bind low ports.
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
			l.d.log.Warn("low ports can't be bound in a sandbox", "sandbox", l.r.Spec.ID, "reason", err)
		}
	}
	if l.rt.OneHierarchy() {
		if err := oneHierarchy(); err != nil {
			return 0, driver.Wrap("show cgroups of version 2", err)
		}
	}
	m, err := hostParts(l.r)
	if err != nil {
		return 0, err
	}
	defer m.close()
	if err := m.putRoot(l.r, l.dir, userns, l.files); err != nil {
		return 0, err
	}
	if err := l.place(m); err != nil {
		return 0, err
	}
	return l.execute(null)
}

// oneHierarchy mounts control groups of version 2 where those of both versions may be, in the calling thread's
// mount namespace.
func oneHierarchy() error {
	const dir = "/sys/fs/cgroup"
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // nothing is mounted there
		return &os.PathError{Op: "umount", Path: dir, Err: err}
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return nil
}

// userNamespace makes a user namespace with the sandbox's ids, for mounts to be shifted by. What the sandbox
// runs in is another with the same ids, which the runtime makes.
func (l *runtimeLaunch) userNamespace() (*os.File, func(), error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(l.r.Base), Size: rangeSize}}
	// It waits for a document that never comes, and ends when the pipe is closed.
	pid, _, err := syscall.StartProcess(l.guest, []string{"tongs-guest", "0"}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{r.Fd()},
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		w.Close()
		return nil, nil, spawnError(err)
	}
	done := func() {
		w.Close()
		_ = unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
				return
			}
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		done()
		return nil, nil, err
	}
	return f, func() { f.Close(); done() }, nil
}

// runtimePath is where a runtime finds programs.
const runtimePath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// place puts everything together below placeDir, in the calling thread's mount namespace.
func (l *runtimeLaunch) place(m *mounts) error {
	guest, err := guestTree(l.guest)
	if err != nil {
		return driver.Wrap(opPlace, err)
	}
	defer guest.Close()
	parts := append(l.parts(), placePart{filepath.Join(l.home, filepath.Base(placeSocket)), placeSocket, unix.MOUNT_ATTR_NOEXEC, true})
	if l.image != "" {
		parts = append(parts, placePart{l.image, placeImage, unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY, true})
	}
	if err := laySet(parts); err != nil {
		return err
	}
	for path, f := range map[string]*os.File{placeRoot: m.root, placeGuest: guest} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return driver.Wrap(opPlace, err)
		}
		if err := attach(f, path); err != nil {
			return err
		}
	}
	for i, target := range m.targets {
		if target == "/dev" {
			continue // the runtime makes one
		}
		if err := boot.Attach(int(m.parts[i].Fd()), int(m.root.Fd()), target[1:]); err != nil {
			return driver.Wrap(opPlace, err)
		}
	}
	if n := shownMemory(l.r, l.d.groups); n > 0 && l.rt.OwnKernel() {
		if err := showRuntime(n); err != nil {
			return driver.Wrap(opPlace, err)
		}
	}
	config, err := l.rt.Config(l.where())
	if err != nil {
		return err
	}
	return driver.Wrap(opPlace, os.WriteFile(placeDir+"/config.json", config, 0o600))
}

const opPlace = "assemble sandbox"

// placePart is something of the host's below placeDir: a directory or a file.
type placePart struct {
	from, to string
	attr     uint64 // of its mount, besides nosuid and nodev
	dir      bool
}

// parts are those that the runtime has whatever it does.
func (l *runtimeLaunch) parts() []placePart {
	return []placePart{
		{filepath.Join(l.home, filepath.Base(placeState)), placeState, 0, true},
		{l.program, placeProgram, unix.MOUNT_ATTR_RDONLY, false},
	}
}

// attach puts a mount where the calling thread sees it.
func attach(f *os.File, path string) error {
	err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return driver.Wrap(opPlace, &os.PathError{Op: "move_mount", Path: path, Err: err})
	}
	return nil
}

// laySet makes placeDir a file system of its own, in the calling thread's mount namespace, with these parts.
func laySet(parts []placePart) error {
	clones := make([]*os.File, 0, len(parts))
	defer func() {
		for _, f := range clones {
			f.Close()
		}
	}()
	for _, part := range parts {
		f, err := cloneTree(part.from, part.attr|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0)
		if err != nil {
			return driver.Wrap(opPlace, err)
		}
		clones = append(clones, f)
	}
	top, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "source", "tongs", "mode", "0755", "size", "1m")
	if err != nil {
		return driver.Wrap(opPlace, err)
	}
	defer top.Close()
	if err := attach(top, placeDir); err != nil {
		return err
	}
	for i, part := range parts {
		var err error
		if part.dir {
			err = os.Mkdir(part.to, 0o755)
		} else {
			err = os.WriteFile(part.to, nil, 0o444)
		}
		if err != nil {
			return driver.Wrap(opPlace, err)
		}
		if err := attach(clones[i], part.to); err != nil {
			return err
		}
	}
	return nil
}

// showRuntime lets a runtime, in whose mount namespace the calling thread is, find a machine with so many bytes of
// memory: its own kernel says that it has what it finds.
func showRuntime(bytes int64) error {
	const file, over = placeDir + "/meminfo", "/proc/meminfo"
	if err := os.WriteFile(file, fmt.Appendf(nil, "MemTotal:       %8d kB\n", bytes>>10), 0o444); err != nil {
		return err
	}
	if err := unix.Mount(file, over, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount", Path: over, Err: err}
	}
	return nil
}

// guestTree is the directory of guest binaries as a mount of its own, so that what a sandbox can read about its
// mounts doesn't tell where that is. An overlay has two directories at the least; the second is empty.
func guestTree(guest string) (*os.File, error) {
	top := filepath.Dir(filepath.Dir(guest))
	if err := unix.Chdir(top); err != nil {
		return nil, &os.PathError{Op: "chdir", Path: top, Err: err}
	}
	return newMount("overlay", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_RDONLY, "source", "tongs", "lowerdir", programDir+":"+emptyDir)
}

func (l *runtimeLaunch) where() Place {
	var tmp []string
	if n := l.r.Spec.Limits.TmpBytes; n >= 0 {
		tmp = boot.Sized(n)
	}
	return Place{
		ID: strings.TrimSuffix(socketName(l.r.Spec.ID), ".sock"), Bundle: placeDir, Root: placeRoot, State: placeState, PID: placeState + "/" + pidFile,
		Guest: placeGuest + "/" + filepath.Base(l.guest), Socket: placeSocket, Base: l.r.Base, IDs: rangeSize, Hostname: l.r.Spec.Hostname,
		Tmp: tmp, Shm: boot.Sized(shmBytes), Groups: "/" + runtimeGroups + "/" + l.d.groupName(l.r.Spec.ID),
		Env: append([]string{fmt.Sprintf("TONGS_BOOT_FD=%d", bootFD)}, boot.Environ...), Files: len(l.given), Image: placeImage,
	}
}

// execute runs the program.
func (l *runtimeLaunch) execute(null *os.File) (pid int, err error) {
	attr := &syscall.SysProcAttr{Setsid: true}
	if g := l.late.group; g != nil && l.rt.OwnKernel() {
		switch g.version {
		case 1: // its child is born where this thread is
			for _, f := range g.tasks {
				if filepath.Base(f.Name()) != "tasks" {
					continue
				}
				if _, err := f.WriteString("0"); err != nil {
					return 0, driver.Wrap("enter cgroup", err)
				}
			}
		case 2:
			attr.UseCgroupFD, attr.CgroupFD = true, int(g.dir.Fd())
		}
	}
	fds := []uintptr{null.Fd(), l.out.Fd(), l.out.Fd()}
	for _, f := range l.given {
		fds = append(fds, f.Fd())
	}
	args := l.rt.Args(l.where())
	if l.image != "" {
		args = l.rt.(Freezer).FreezerArgs(Restore, l.where())
	}
	pid, _, err = syscall.StartProcess(placeProgram, append([]string{filepath.Base(l.program)}, args...), &syscall.ProcAttr{
		Dir: "/", Env: []string{runtimePath}, Files: fds, Sys: attr,
	})
	if err != nil {
		return 0, &sandbox.Error{Code: driver.CodeGuestFailed, Op: "run " + l.rt.Name(), Message: l.program + ": " + err.Error(), Err: err,
			Hint: "is it a program for this machine? `tongs doctor` tells more"}
	}
	return pid, nil
}

// wait waits until the runtime has ended. It is not ended when a caller gives up: cut short, it could leave
// half a sandbox, while a whole one ends by itself when nobody lets it go on.
func (l *runtimeLaunch) wait(pid int, patience time.Duration) error {
	p, err := adopt(pid)
	if err != nil {
		return err
	}
	defer p.close()
	late := time.AfterFunc(patience, func() { _ = p.signal(unix.SIGKILL) })
	defer late.Stop()
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return os.NewSyscallError("wait4", err)
	case ws.Signaled():
		return fmt.Errorf("%s was ended by signal %d", l.rt.Name(), ws.Signal())
	case ws.ExitStatus() != 0:
		return &statusError{l.rt.Name(), ws.ExitStatus()}
	}
	return nil
}

// statusError says that a runtime has ended by itself, and not well.
type statusError struct {
	name   string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s ended with status %d", e.name, e.status) }

// adopt takes hold of the sandbox's first process, as the host sees it.
func (l *runtimeLaunch) adopt() (*process, error) {
	text, err := os.ReadFile(filepath.Join(l.home, filepath.Base(placeState), pidFile))
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return nil, fmt.Errorf("%s gave %q as the number of the first process", l.rt.Name(), text)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("the first process ended at once: %w", os.NewSyscallError("pidfd_open", err))
	}
	return newProcess(pid, fd)
}

// releaseInside lets a guest go on and waits until it is ready.
func releaseInside(ctx context.Context, c *net.UnixConn, r record, inside *boot.Inside) error {
	message, err := json.Marshal(boot.Plan{Hostname: r.Spec.Hostname, TmpBytes: r.Spec.Limits.TmpBytes, ShmBytes: shmBytes, Root: r.Spec.Root,
		Egress: r.Spec.Network == driver.NetworkEgress, UID: userID, GID: userID, Inside: inside})
	if err != nil {
		return err
	}
	if _, err := c.Write(message); err != nil {
		return ended(ctx, err)
	}
	return awaitReady(ctx, c)
}

// bootError gives what went wrong in package boot its code.
func bootError(err error) error {
	var failure *boot.Failure
	if errors.As(err, &failure) && failure.Op == boot.OpEgress {
		return &sandbox.Error{Code: driver.CodeNoEgress, Op: "start guest", Err: err, Message: "the sandbox's way out can't be opened: " + failure.Message,
			Hint: "it needs a kernel with nf_tables, NAT and REDIRECT (modprobe nf_tables nft_chain_nat nft_redir nft_reject_inet); or do without: mode = \"none\" in [network]"}
	}
	return err
}
