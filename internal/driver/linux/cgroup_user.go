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
)

// hostGroup is the group, below one that an ordinary user was given, into which the processes go that were in that.
const hostGroup = "tongs-host"

// emptyRounds bounds how often a group is emptied whose processes go on starting others.
const emptyRounds = 32

// noGroups says why an ordinary user's commands can't be limited, and what helps.
type noGroups struct{ why, cure string }

func (n *noGroups) Error() string { return n.why }

// cureOf is what helps against the want of groups, "" if that is unknown.
func cureOf(err error) string {
	if none := (*noGroups)(nil); errors.As(err, &none) {
		return none.cure
	}
	return ""
}

// userCgroups finds the group that an ordinary user was given a part of the hierarchy with: the one that this process is in,
// where the user may write to the directory, its cgroup.procs and its cgroup.subtree_control (cgroup-v2.rst, "Delegation").
// Only a group without processes of its own can give controllers to those below it (same place, "No Internal Process
// Constraint"), so this process, and what else is there, goes into a group below it first. It can be done again, and by
// several processes at once. A group that isn't the user's is left as it is.
func userCgroups() (*cgroup2, error) {
	dir, err := ownGroup()
	if err != nil {
		return nil, err
	}
	if filepath.Base(dir) == hostGroup { // it was done before, by this process or by one that it descends from
		dir = filepath.Dir(dir)
	}
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if !writable(filepath.Join(dir, file)) {
			return nil, &noGroups{"the control group that tongs runs in, " + dir + ", is not yours to divide", ownScope()}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	there := strings.Fields(string(text))
	if !slices.Contains(there, "memory") && !slices.Contains(there, "pids") {
		return nil, &noGroups{"the control group that tongs runs in, " + dir + ", has controllers of neither memory nor processes", ownScope()}
	}
	host := filepath.Join(dir, hostGroup)
	if err := empty(dir, host); err != nil {
		return nil, err
	}
	c := &cgroup2{root: dir, user: true}
	var refused error
	for _, name := range wanted {
		if !slices.Contains(there, name) {
			continue
		}
		if err := enableIn(dir, host, name); err != nil {
			refused = err // the others are worth something without it; Check tells which there are
			continue
		}
		c.have = append(c.have, name)
	}
	if len(c.have) == 0 {
		return nil, refused
	}
	return c, nil
}

// enableIn gives a controller to the groups below dir. A process may have come into dir meanwhile.
func enableIn(dir, host, name string) error {
	var err error
	for range emptyRounds {
		if err = set(dir, "cgroup.subtree_control", "+"+name); !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := empty(dir, host); err != nil {
			return err
		}
	}
	return err
}

// ownGroup is the directory of the group that this process is in.
func ownGroup() (string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own := ""
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			own = path
		}
	}
	if slices.ContainsFunc(mounts, func(m cgroupMount) bool {
		return m.kind == "cgroup" && (slices.Contains(m.options, "memory") || slices.Contains(m.options, "pids"))
	}) {
		return "", &noGroups{"this machine's control groups of memory and processes are of version 1, which ordinary users can't be given",
			"boot with systemd.unified_cgroup_hierarchy=1 (without systemd, cgroup_no_v1=all) on the kernel's command line; or run tongs as root"}
	}
	for _, m := range mounts {
		if rel, err := filepath.Rel(m.root, own); m.kind == "cgroup2" && err == nil && filepath.IsLocal(rel) {
			return filepath.Join(m.dir, rel), nil
		}
	}
	return "", &noGroups{"the control group that tongs runs in is not to be seen here", "mount cgroup2 on /sys/fs/cgroup"}
}

// empty moves all processes of a group into one below it, which it makes.
func empty(dir, host string) error {
	for range emptyRounds {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		procs := strings.Fields(string(text))
		if len(procs) == 0 {
			return nil
		}
		for _, p := range procs {
			if p == "0" { // one that is in no process namespace of ours; written, it would mean this one
				return &noGroups{"a process from outside this container is in the control group that tongs runs in, " + dir, ownScope()}
			}
			if !given(dir) && !ours(p) {
				return &noGroups{"tongs shares its control group, " + dir + ", with others, process " + p + " for one", ownScope()}
			}
		}
		if err := mkdirGroup(host); err != nil {
			return err
		}
		for _, p := range procs {
			if err := set(host, "cgroup.procs", p); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return &noGroups{"the control group that tongs runs in, " + dir + ", can't be emptied: new processes come into it all the time", ownScope()}
}

// given says whether all that is in a group was put there to be divided: the system's systemd says so of its units with
// Delegate=yes, and groups that aren't units were made for that. The user's systemd owns all its units' groups to the eye, and
// 252 was seen not to say which of them have Delegate=yes: there tongs must be alone.
func given(dir string) bool {
	var value [8]byte
	if n, err := unix.Getxattr(dir, "user.delegate", value[:]); err == nil && string(value[:n]) == "1" {
		return true
	}
	return !slices.Contains([]string{".scope", ".service", ".slice"}, filepath.Ext(dir))
}

// ours says whether a process is this one or descends from it.
func ours(process string) bool {
	self := strconv.Itoa(os.Getpid())
	for range 64 { // generations
		if process == self {
			return true
		}
		text, err := os.ReadFile("/proc/" + process + "/status")
		if err != nil {
			return errors.Is(err, os.ErrNotExist) // it has ended
		}
		_, parent, _ := strings.Cut(string(text), "\nPPid:\t")
		process, _, _ = strings.Cut(parent, "\n")
		if process == "" || process == "0" {
			return false
		}
	}
	return false
}

// ownScope is how tongs gets a group that is the user's.
func ownScope() string {
	const run = "systemd-run --user --scope -p Delegate=yes tongs up"
	uid := os.Getuid()
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/systemd", uid)); err == nil {
		return "start it in one of its own: " + run + " (or as a unit of your systemd with Delegate=yes)"
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return fmt.Sprintf("sudo loginctl enable-linger %d, and start it as a unit of your systemd with Delegate=yes: XDG_RUNTIME_DIR=/run/user/%d %s", uid, uid, run)
	}
	return fmt.Sprintf("as root, give it one: cd /sys/fs/cgroup && echo +memory +pids +cpu > cgroup.subtree_control && mkdir tongs-%[1]d && chown %[1]d tongs-%[1]d tongs-%[1]d/cgroup.procs tongs-%[1]d/cgroup.subtree_control && echo PID > tongs-%[1]d/cgroup.procs, with the PID of the shell that starts tongs", uid)
}
