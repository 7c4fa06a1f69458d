package boot

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reserve opens something without meaning at these numbers (0 is none), so that nothing else gets them until
// they are taken. What is there already can't be given away.
func reserve(numbers ...int) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open /dev/null", err)
	}
	// Not at one of these numbers itself.
	high, err := unix.FcntlInt(uintptr(null), unix.F_DUPFD_CLOEXEC, maxLateFD+1)
	unix.Close(null)
	if err != nil {
		return fail("open /dev/null", err)
	}
	defer unix.Close(high)
	for _, n := range numbers {
		if n == 0 {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
			return &Failure{Op: "reserve descriptor", Message: strconv.Itoa(n) + " is in use"}
		}
		if err := unix.Dup3(high, n, unix.O_CLOEXEC); err != nil {
			return fail("reserve descriptor", err)
		}
	}
	return nil
}

// insideBacklog is how many connections may wait for the guest to take them.
const insideBacklog = 256

// inside does what is left in a place that an OCI runtime has made: on the host's kernel all that run does
// once the root has been changed, on a kernel of its own what makes the guest reachable.
func inside(cfg Config, plan Plan) (meminfo int, err error) {
	in := plan.Inside
	if err := reserve(in.ListenFD, in.PidsFD); err != nil {
		return 0, err
	}
	if !in.OwnKernel {
		if err := Network(plan.Egress); err != nil {
			return 0, err
		}
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fail("open root", err)
		}
		defer unix.Close(root)
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
	}
	if in.OwnKernel {
		if err := inMemory(plan); err != nil {
			return 0, err
		}
	}
	if err := scratch(plan); err != nil {
		return 0, err
	}
	if in.Listen != "" {
		if err := listenAt(in.Listen, in.ListenFD); err != nil {
			return 0, err
		}
	}
	if in.Pids > 0 {
		if err := limitPids(in.Pids, in.PidsFD); err != nil {
			return 0, err
		}
	}
	return meminfo, nil
}

// listenAt makes a socket that the host finds by its path, as descriptor n, which is reserved. One that an earlier life of the
// sandbox has left is replaced.
func listenAt(path string, n int) error {
	const op = "listen for the host"
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fail(op, err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(op, err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fail(op, err)
	}
	if err := unix.Listen(fd, insideBacklog); err != nil {
		return fail(op, err)
	}
	if err := unix.Dup3(fd, n, unix.O_CLOEXEC); err != nil {
		return fail(op, err)
	}
	return nil
}

// inMemory mounts the file systems in memory, whose inodes a runtime doesn't bound.
func inMemory(plan Plan) error {
	for _, fs := range filesystems(plan) {
		if fs.kind != "tmpfs" {
			continue
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
		if fs.attr&unix.MOUNT_ATTR_NOEXEC != 0 {
			flags |= unix.MS_NOEXEC
		}
		if err := unix.Mount("tmpfs", "/"+fs.target, "tmpfs", flags, strings.Join(fs.options, ",")); err != nil {
			return fail("mount /"+fs.target, err)
		}
	}
	return nil
}

// groupsDir is where a kernel of the sandbox's own shows its groups: nobody but root sees that.
const groupsDir = "/dev/tongs-groups"

// limitPids makes a control group of the sandbox's own kernel and opens its file of tasks as descriptor n, which is
// reserved.
func limitPids(most int64, n int) error {
	const op = "limit processes"
	if err := unix.Mkdir(groupsDir, 0o700); err != nil && err != unix.EEXIST {
		return fail(op, err)
	}
	top := groupsDir + "/pids"
	if err := unix.Mkdir(top, 0o700); err != nil && err != unix.EEXIST {
		return fail(op, err)
	}
	if err := unix.Mount("pids", top, "cgroup", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "pids"); err != nil {
		return fail(op, err)
	}
	group := top + "/commands"
	if err := unix.Mkdir(group, 0o755); err != nil {
		return fail(op, err)
	}
	if err := os.WriteFile(group+"/pids.max", strconv.AppendInt(nil, most, 10), 0); err != nil {
		return fail(op, err)
	}
	fd, err := unix.Open(group+"/tasks", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(op, err)
	}
	defer unix.Close(fd)
	if err := unix.Dup3(fd, n, unix.O_CLOEXEC); err != nil {
		return fail(op, err)
	}
	return nil
}

// Network raises the loopback of the calling thread's network namespace, and with egress turns all that
// programs connect to towards the host's listeners.
func Network(out bool) error {
	if err := network(); err != nil {
		return err
	}
	if out {
		return egress()
	}
	return nil
}
