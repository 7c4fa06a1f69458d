//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// surroundings are what can keep a process from making namespaces and mounts, as far as it can see that
// itself. The kernel's answer is the same for nearly all of it, "operation not permitted".
type surroundings struct {
	root      bool   // the process is root, of the machine or of some namespace
	sysAdmin  bool   // it has CAP_SYS_ADMIN
	fewIDs    bool   // it is in a user namespace without the ids that root gives to sandboxes
	container string // what it runs in: docker, podman, kubernetes, lxc, …; "" is no container that shows
	filtered  bool   // there is a filter of system calls (seccomp) on it
	chroot    bool
	cloneOff  bool     // kernel.unprivileged_userns_clone=0
	noUsers   bool     // user.max_user_namespaces=0
	appArmor  bool     // kernel.apparmor_restrict_unprivileged_userns=1
	label     string   // its AppArmor profile, "unconfined" without one; "" where there is no AppArmor
	masked    []string // what is mounted over parts of /proc
	program   string   // the file that it runs
}

// lookAround reads all of it. What can't be read counts as not there.
func lookAround() surroundings {
	var s surroundings
	if n, ok := sysctl("kernel/unprivileged_userns_clone"); ok && n == 0 {
		s.cloneOff = true
	}
	if n, ok := sysctl("user/max_user_namespaces"); ok && n == 0 {
		s.noUsers = true
	}
	if n, ok := sysctl("kernel/apparmor_restrict_unprivileged_userns"); ok && n != 0 {
		s.appArmor = true
	}
	for _, p := range []string{"/proc/self/attr/apparmor/current", "/proc/self/attr/current"} {
		if data, err := os.ReadFile(p); err == nil && s.label == "" {
			s.label = strings.TrimRight(string(data), "\x00\n")
		}
	}
	status, _ := os.ReadFile("/proc/self/status") // always there, and without it the rest is told
	for line := range strings.Lines(string(status)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch v = strings.TrimSpace(v); k {
		case "Uid": // of the first thread; the calling one may have become another
			f := strings.Fields(v)
			s.root = len(f) > 1 && f[1] == "0"
		case "CapEff":
			if bits, err := strconv.ParseUint(v, 16, 64); err == nil {
				s.sysAdmin = bits&(1<<unix.CAP_SYS_ADMIN) != 0
			}
		case "Seccomp":
			s.filtered = v == "2"
		}
	}
	if data, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		s.fewIDs = fewIDs(string(data))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	s.chroot, s.masked = overProc(string(mounts))
	s.chroot = s.chroot && err == nil
	s.container = container(string(mounts))
	s.program, _ = os.Executable() // without it the advice has a placeholder
	return s
}

// fewIDs reads a uid_map (user_namespaces(7)) and says whether ids are missing that root's sandboxes get.
func fewIDs(uidMap string) bool {
	for line := range strings.Lines(uidMap) {
		var inside, outside, size uint64
		if n, err := fmt.Sscan(line, &inside, &outside, &size); n == 3 && err == nil && inside <= firstSlot*rangeSize && inside+size >= (lastSlot+1)*rangeSize {
			return false
		}
	}
	return true
}

// overProc reads a mountinfo: whether the root is a mount (in a chroot it hardly ever is), and what is
// mounted below /proc.
func overProc(mountinfo string) (noRoot bool, masked []string) {
	noRoot = true
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		p := unescape(f[4])
		if p == "/" {
			noRoot = false
		}
		if rel, err := filepath.Rel("/proc", p); err == nil && filepath.IsLocal(rel) && rel != "." && !slices.Contains(holders, rel) {
			masked = append(masked, p)
		}
	}
	return noRoot, masked
}

// holders are empty directories of /proc that are there to mount something on, which hides nothing.
var holders = []string{"sys/fs/binfmt_misc", "fs/nfsd", "xen"}

// container names the container that this process runs in, by the marks that engines leave. A virtual machine
// may have been made of an image with Docker's; what an engine mounts over /etc, it hasn't.
func container(mountinfo string) string {
	exists := func(p string) bool { _, err := os.Lstat(p); return err == nil }
	switch {
	case os.Getenv("KUBERNETES_SERVICE_HOST") != "" && exists("/var/run/secrets/kubernetes.io"):
		return "kubernetes"
	case exists("/run/.containerenv"):
		return "podman"
	case exists("/.dockerenv") && strings.Contains(mountinfo, " /etc/hosts "):
		return "docker"
	case exists("/dev/lxd/sock"), os.Getenv("container") == "lxc":
		return "lxc"
	}
	return os.Getenv("container") // systemd-nspawn, oci and others set it
}

// refused are the errors with which a kernel, a filter or a security module refuses.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOSYS)
}

// refusal is driver.Wrap for what is refused for a reason that can be told.
func refusal(op string, what making, err error) error {
	if why, cure := lookAround().explain(what, err); why != "" {
		return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: why + ": " + err.Error(), Hint: cure, Err: err}
	}
	return driver.Wrap(op, err)
}

// making says what was refused.
type making int

const (
	makingNamespaces making = iota
	makingMounts
)

// explain says why something was refused, and what helps. Both are "" when it knows nothing.
func (s surroundings) explain(what making, err error) (why, cure string) {
	switch {
	case s.noUsers:
		return "user.max_user_namespaces is 0: nobody may make user namespaces here", "sudo sysctl -w user.max_user_namespaces=65536"
	case what == makingNamespaces && errors.Is(err, unix.ENOSPC):
		return "the kernel allows no more namespaces", "sudo sysctl -w user.max_user_namespaces=65536, and the like for mnt, pid, net, ipc, uts and cgroup"
	case s.cloneOff && !s.root:
		return "kernel.unprivileged_userns_clone is 0: only root may make user namespaces", "sudo sysctl -w kernel.unprivileged_userns_clone=1; or run tongs as root"
	case s.chroot && what == makingNamespaces:
		return "this process is in a chroot, and in one the kernel lets nobody make user namespaces", "run tongs outside of it, or enter the tree as a container does (systemd-nspawn, bwrap --bind DIR /), not with chroot"
	case s.appArmor && !s.root && s.unconfined():
		return "AppArmor takes all rights from the user namespaces of programs without a profile that allows them (kernel.apparmor_restrict_unprivileged_userns is 1)", s.profile()
	case s.container != "":
		return s.inContainer(what)
	case s.root && !s.sysAdmin:
		return s.inContainer(what)
	case what == makingMounts && len(s.masked) > 0:
		return s.inContainer(what)
	case s.root && s.fewIDs:
		return "this is root of a user namespace, not of the machine: it has no ids to give to sandboxes", "run tongs as an ordinary user in it, with a range of its ids in /etc/subuid and /etc/subgid"
	case s.filtered:
		return "a filter of system calls (seccomp) on this process refuses it", "start tongs without it: RestrictNamespaces=no and SystemCallFilter= in a systemd unit, --security-opt seccomp=unconfined in a container"
	}
	return "", ""
}

func (s surroundings) unconfined() bool { return s.label == "" || s.label == "unconfined" }

// profile is the file, and the command, that gives this program its user namespaces back: a profile that
// confines nothing else, as distributions ship for browsers.
func (s surroundings) profile() string {
	program := s.program
	if program == "" || strings.ContainsAny(program, "\"\n") {
		program = "/path/to/tongs"
	}
	return fmt.Sprintf(`sudo tee /etc/apparmor.d/tongs <<'EOF'
abi <abi/4.0>,
include <tunables/global>
profile tongs "%s" flags=(unconfined) {
  userns,
  include if exists <local/tongs>
}
EOF
sudo apparmor_parser -r /etc/apparmor.d/tongs
(or for all programs: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; or run tongs as root)`, program)
}

// inContainer says what a container lacks, and how to start one that doesn't.
func (s surroundings) inContainer(what making) (why, cure string) {
	kind := s.container
	if kind == "" {
		kind = "of a kind that does not show"
	}
	switch {
	case s.root && !s.sysAdmin:
		why = "this is root of a container (" + kind + ") without CAP_SYS_ADMIN, which can make neither namespaces nor mounts"
	case s.root && s.fewIDs:
		why = "this is root of a container (" + kind + ") with user ids of its own, and has none to give to sandboxes"
	case what == makingNamespaces && s.filtered:
		why = "this is a container (" + kind + ") whose filter of system calls refuses user namespaces"
	case what == makingMounts && len(s.masked) > 0:
		why = "this is a container (" + kind + ") in which parts of /proc are masked (" + strings.Join(s.masked[:min(len(s.masked), 3)], ", ") + "), so the kernel allows no new /proc"
	default:
		why = "this container (" + kind + ") refuses it"
	}
	switch s.container {
	case "podman":
		cure = "podman run --user 1000 --security-opt seccomp=unconfined --security-opt unmask=ALL --security-opt label=disable …, or podman run --privileged …"
	case "kubernetes":
		cure = "in the pod's securityContext: runAsUser: 1000, seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}, procMount: Unmasked (with hostUsers: false); or privileged: true"
	case "lxc":
		cure = "lxc config set NAME security.nesting true, and restart it"
	default:
		cure = "docker run --user 1000 --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined …, or docker run --privileged …"
	}
	return why, cure
}
