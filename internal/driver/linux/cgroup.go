//go:build linux

package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// cgroupParent is the directory, in each hierarchy, below which all groups of ours are.
const cgroupParent = "tongs"

// cgroups makes the groups that limit commands.
type cgroups interface {
	// version is 1 or 2.
	version() int
	// controllers are those that work, of memory, pids and cpu.
	controllers() []string
	// create makes a sandbox's group, or finds it, and sets its limits. base is the first of the
	// sandbox's user ids.
	create(name string, limits driver.Limits, base uint32) (*group, error)
	// remove removes a sandbox's group. Processes that are still in it are killed, and with a thread of
	// the guest the whole sandbox.
	remove(ctx context.Context, name string) error
	// names lists the groups there are.
	names() ([]string, error)
}

// group is a sandbox's group, as descriptors for its guest.
type group struct {
	version int
	tasks   []*os.File // version 1: a tasks file for each controller, after each those of reads1
	dir     *os.File   // version 2: directory of the commands; nil for an ordinary user, whose guests open it themselves,
	path    string     // version 2: by this
	guest   *os.File   // version 2: directory of the guest
	oom     *os.File   // version 2: counts kills; may be nil
	full    *os.File   // version 2: counts processes that had no place; may be nil
}

func (g *group) close() {
	if g == nil {
		return
	}
	for _, f := range g.tasks {
		f.Close()
	}
	for _, f := range []*os.File{g.dir, g.guest, g.oom, g.full} {
		if f != nil {
			f.Close()
		}
	}
}

// groupName is a sandbox's name among the groups of all homes on this machine.
func (d *Driver) groupName(id string) string { return id + "." + d.homeTag }

// groupID gives back the sandbox of a group, if the group belongs to this home.
func (d *Driver) groupID(name string) (string, bool) { return strings.CutSuffix(name, "."+d.homeTag) }

// wanted are the controllers that limits need.
var wanted = []string{"memory", "pids", "cpu"}

// findCgroups looks for a hierarchy with controllers. nil and an error is a machine without, or an ordinary user who
// was given none.
func findCgroups(forceV2 string) (cgroups, error) {
	if forceV2 != "" {
		return newCgroup2(forceV2)
	}
	if os.Geteuid() != 0 {
		c, err := userCgroups()
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	v1 := &cgroup1{dirs: make(map[string]string)}
	for _, c := range wanted {
		for _, m := range mounts {
			if m.kind == "cgroup" && slices.Contains(m.options, c) && writable(m.dir) {
				v1.dirs[c] = m.dir
				break
			}
		}
	}
	if v1.dirs["memory"] != "" || v1.dirs["pids"] != "" {
		return v1, nil
	}
	for _, m := range mounts {
		if m.kind == "cgroup2" && writable(m.dir) {
			return newCgroup2(m.dir)
		}
	}
	return nil, errors.New("no writable cgroup hierarchy with a memory or pids controller is mounted")
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

type cgroupMount struct {
	dir, kind string
	root      string // what of the hierarchy is there
	options   []string
}

// cgroupMounts reads /proc/self/mountinfo.
func cgroupMounts() ([]cgroupMount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []cgroupMount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /dir rw,noatime master:1 - type source super,options
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if ok && len(h) >= 6 && len(t) >= 3 && strings.HasPrefix(t[0], "cgroup") {
			all = append(all, cgroupMount{dir: unescape(h[4]), root: unescape(h[3]), kind: t[0], options: strings.Split(t[2], ",")})
		}
	}
	return all, lines.Err()
}

// unescape undoes the kernel's way of writing blanks in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// set writes one value into one file of a group.
func set(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s to %s: %w", value, filepath.Join(dir, file), err)
	}
	return nil
}

// limit turns a limit into what the files of both versions understand.
func limit(n int64, none string) string {
	if n < 0 {
		return none
	}
	return fmt.Sprint(n)
}

// removeGroup removes an empty group, and waits for one whose last processes are just ending: the
// kernel has no event for that, so it asks again until ctx ends.
func removeGroup(ctx context.Context, dir string) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
}

func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, e.Name())
		}
	}
	return all, err
}

// shownMemory is how many bytes of memory programs in a sandbox shall find that there are; 0 is what the machine has.
func shownMemory(r record, groups cgroups) int64 {
	if n := r.Spec.Limits.MemoryBytes; n > 0 && groups != nil && slices.Contains(groups.controllers(), "memory") {
		return min(n, machineMemory())
	}
	return 0
}

// machineMemory is how many bytes of memory this machine has, as far as programs may use it.
func machineMemory() int64 {
	var in unix.Sysinfo_t
	if unix.Sysinfo(&in) != nil { // it fails for bad addresses only
		return math.MaxInt64
	}
	return int64(in.Totalram) * int64(in.Unit)
}
