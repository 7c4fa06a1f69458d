//go:build linux

package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// The oldest kernel that this driver is made for: overlays on idmapped directories came with it.
const oldestMajor, oldestMinor = 5, 19

// Check looks at what the driver needs, one thing after the other, and in the end makes a sandbox and
// removes it again.
func (d *Driver) Check(ctx context.Context) []driver.Finding {
	all := append([]driver.Finding{checkKernel()}, d.checkUser()...)
	for _, check := range []func() driver.Finding{
		checkNamespaces, checkLandlock, checkOverlay, checkMemfd, d.checkCgroups, checkSwap, d.checkSpace, d.checkDisk, d.checkScale, d.checkGuest,
	} {
		all = append(all, check())
	}
	return append(all, d.checkTrial(ctx)...)
}

func finding(name string, level driver.Level, detail, cure string) driver.Finding {
	return driver.Finding{Name: name, Level: level, Detail: detail, Cure: cure}
}

func checkKernel() driver.Finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding("kernel", driver.Failure, err.Error(), "")
	}
	release := string(bytes.TrimRight(u.Release[:], "\x00"))
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return finding("kernel", driver.Warning, "Linux "+release+" of unknown age", "")
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return finding("kernel", driver.Warning, "Linux "+release+" can't put an overlay on a shifted image: each sandbox gets a copy",
			fmt.Sprintf("Linux %d.%d or later", oldestMajor, oldestMinor))
	}
	return finding("kernel", driver.OK, "Linux "+release, "")
}

// sysctl reads a number below /proc/sys; ok is false where there is none.
func sysctl(name string) (n int, ok bool) {
	data, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return n, err == nil
}

func checkNamespaces() driver.Finding {
	const name = "namespaces"
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
			return finding(name, driver.Failure, "this kernel has no "+kind+" namespaces", "a kernel built with them; every distribution's is")
		}
		key := "user/max_" + kind + "_namespaces"
		if n, ok := sysctl(key); ok && n < 64 {
			return finding(name, driver.Failure, fmt.Sprintf("at most %d %s namespaces are allowed", n, kind),
				"sysctl -w "+strings.ReplaceAll(key, "/", ".")+"=65536")
		}
	}
	return finding(name, driver.OK, "user, mnt, pid, net, ipc, uts and cgroup", "")
}

func checkOverlay() driver.Finding {
	data, err := os.ReadFile("/proc/filesystems")
	if err == nil && slices.Contains(strings.Fields(string(data)), "overlay") {
		return finding("overlay", driver.OK, "the kernel has overlay file systems", "")
	}
	return finding("overlay", driver.Warning, "the kernel has no overlay file systems loaded: each sandbox gets a copy of its image", "modprobe overlay")
}

func checkMemfd() driver.Finding {
	if n, ok := sysctl("vm/memfd_noexec"); ok && n >= 2 {
		return finding("programs in memory", driver.Failure, "vm.memfd_noexec="+strconv.Itoa(n)+" forbids to run a program from memory, as guests are", "sysctl -w vm.memfd_noexec=1")
	}
	return finding("programs in memory", driver.OK, "allowed", "")
}

func (d *Driver) checkCgroups() driver.Finding {
	const name = "cgroups"
	if d.groups == nil && d.rootless && d.noLimit != nil {
		return finding(name, driver.Warning, d.noLimit.Error()+": commands have no limits of memory, processes and CPU", cureOf(d.noLimit))
	}
	if d.groups == nil {
		return finding(name, driver.Warning, "no writable cgroup hierarchy: commands have no limits of memory, processes and CPU",
			"mount cgroup2 on /sys/fs/cgroup and run tongs as root; in a container, give it --privileged or --cgroupns=host with a writable /sys/fs/cgroup")
	}
	have := d.groups.controllers()
	var missing []string
	for _, c := range wanted {
		if !slices.Contains(have, c) {
			missing = append(missing, c)
		}
	}
	detail := fmt.Sprintf("version %d with %s", d.groups.version(), strings.Join(have, ", "))
	if c, ok := d.groups.(*cgroup2); ok && c.user {
		detail += " in " + c.root + ", which is yours"
	}
	if len(missing) > 0 && d.rootless {
		return finding(name, driver.Warning, detail+"; without "+strings.Join(missing, ", ")+", so there is no limit of that",
			ownScope()+"; if that has no more either, give it to the users' systemd: sudo systemctl edit user@.service, with the lines [Service] and Delegate=cpu memory pids, and log in again")
	}
	if len(missing) > 0 {
		return finding(name, driver.Warning, detail+"; without "+strings.Join(missing, ", ")+", so there is no limit of that",
			"enable the controllers in /sys/fs/cgroup/cgroup.subtree_control, or on the kernel's command line (cgroup_enable=memory); in a container, whose processes must first be in a group below: mkdir /sys/fs/cgroup/init && xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs")
	}
	return finding(name, driver.OK, detail, "")
}

func checkSwap() driver.Finding {
	data, err := os.ReadFile("/proc/swaps")
	if err != nil || bytes.Count(data, []byte("\n")) <= 1 {
		return finding("swap", driver.OK, "none in use", "")
	}
	if dir, err := os.Stat("/sys/fs/cgroup/memory"); err == nil && dir.IsDir() {
		if _, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"); err != nil {
			return finding("swap", driver.Warning, "the kernel doesn't count swap: a command can take more than its limit by swapping", "add swapaccount=1 to the kernel's command line, or swapoff -a")
		}
	}
	return finding("swap", driver.OK, "counted within the memory limit", "")
}

// lowSpace is what a home should have free at the least.
const lowSpace = 1 << 30

func (d *Driver) checkSpace() driver.Finding {
	const name = "disk"
	var st unix.Statfs_t
	if err := unix.Statfs(d.dirs.sandboxes, &st); err != nil {
		return finding(name, driver.Failure, err.Error(), "")
	}
	free := uint64(st.Bavail) * uint64(st.Bsize)
	detail := fmt.Sprintf("%d MiB free for sandboxes in %s", free>>20, d.dirs.sandboxes)
	switch {
	case free < lowSpace:
		return finding(name, driver.Warning, detail, "free some space, or move TONGS_HOME")
	case st.Files > 0 && st.Ffree < 100_000:
		return finding(name, driver.Warning, fmt.Sprintf("%s, but only %d inodes", detail, st.Ffree), "remove files, or move TONGS_HOME")
	}
	return finding(name, driver.OK, detail, "")
}

func (d *Driver) checkGuest() driver.Finding {
	if _, err := d.guestImage(); err != nil {
		return fromError("guest binary", err)
	}
	return finding("guest binary", driver.OK, "found and copied into memory", "")
}

func fromError(name string, err error) driver.Finding {
	var e *sandbox.Error
	if errors.As(err, &e) {
		return finding(name, driver.Failure, e.Message, e.Hint)
	}
	return finding(name, driver.Failure, err.Error(), "")
}

// checkTrial makes a sandbox of the host image in the ordinary way.
func (d *Driver) checkTrial(ctx context.Context) []driver.Finding {
	root, notes, err := image.Host(ctx, image.HostConfig{Dir: filepath.Join(filepath.Dir(d.dirs.sandboxes), "images")})
	if err != nil {
		return []driver.Finding{fromError("host image", driver.Wrap("make host image", err))}
	}
	all := []driver.Finding{finding("host image", driver.OK, "what everybody may read in /usr is visible in sandboxes, read-only", "")}
	for _, n := range notes {
		level := driver.OK
		if !n.Visible {
			level = driver.Warning
		}
		all = append(all, finding("host image: "+n.Subject, level, n.Detail, ""))
	}
	id := fmt.Sprintf("doctor-%d-%x", os.Getpid(), time.Now().UnixNano())
	began := time.Now()
	spec := driver.Spec{ID: id, Image: root, Lease: time.Minute, Network: driver.NetworkEgress}
	err = d.Create(ctx, spec)
	if sandbox.CodeOf(err) == driver.CodeNoEgress {
		all = append(all, fromError("network", err))
		spec.Network = driver.NetworkNone
		began = time.Now()
		err = d.Create(ctx, spec)
	} else if err == nil {
		all = append(all, finding("network", driver.OK, "what sandboxes connect to can be turned to the policy", ""))
	}
	if err != nil {
		return append(all, fromError("sandbox", err))
	}
	took := time.Since(began)
	if err := d.Destroy(context.WithoutCancel(ctx), id); err != nil {
		return append(all, fromError("sandbox", err))
	}
	if d.cannotLayer() {
		return append(all, finding("sandbox", driver.Warning, fmt.Sprintf("one was made in %s and removed, with a copy of the image (%s)", took.Round(time.Millisecond), d.whyNoLayers()),
			"put TONGS_HOME on ext4, xfs, btrfs or tmpfs"))
	}
	return append(all, finding("sandbox", driver.OK, fmt.Sprintf("one was made in %s and removed", took.Round(100*time.Microsecond)), ""))
}
