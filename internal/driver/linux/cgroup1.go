//go:build linux

package linux

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// cgroup1 uses one hierarchy for each controller. The guest is never moved: it gets the tasks files,
// and a thread of it that writes itself into them does all forking.
type cgroup1 struct {
	dirs map[string]string // mount point by controller
}

func (c *cgroup1) version() int { return 1 }

func (c *cgroup1) controllers() []string {
	var all []string
	for _, name := range wanted {
		if c.dirs[name] != "" {
			all = append(all, name)
		}
	}
	return all
}

// reads1 are the files of a controller that the guest reads, in the order of their descriptors: what its limit has led
// to, and what is used.
var reads1 = map[string][]string{"memory": {"memory.oom_control", "memory.usage_in_bytes", "memory.stat"}, "pids": {"pids.events"}}

const cpuPeriod = 100_000 // microseconds

func (c *cgroup1) create(name string, l driver.Limits, _ uint32) (g *group, err error) {
	g = &group{version: 1}
	defer func() {
		if err != nil {
			g.close()
			g = nil
		}
	}()
	for _, controller := range c.controllers() {
		dir := filepath.Join(c.dirs[controller], cgroupParent, name)
		if err := mkdirGroup(dir); err != nil {
			return g, err
		}
		switch controller {
		case "memory":
			err = setMemory1(dir, l.MemoryBytes)
		case "pids":
			err = set(dir, "pids.max", limit(l.Pids, "max"))
		case "cpu":
			if l.CPUWeight > 0 {
				err = set(dir, "cpu.shares", strconv.FormatInt(max(l.CPUWeight*1024/driver.DefaultCPUWeight, 2), 10))
			}
			if l.CPUs > 0 && err == nil {
				if err = set(dir, "cpu.cfs_period_us", strconv.Itoa(cpuPeriod)); err == nil {
					err = set(dir, "cpu.cfs_quota_us", strconv.FormatInt(int64(l.CPUs*cpuPeriod), 10))
				}
			}
		}
		if err != nil {
			return g, err
		}
		f, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			return g, err
		}
		g.tasks = append(g.tasks, f)
		for _, name := range reads1[controller] {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				return g, err
			}
			g.tasks = append(g.tasks, f)
		}
	}
	return g, nil
}

// setMemory1 limits memory, and memory with swap to the same where the kernel counts swap.
func setMemory1(dir string, bytes int64) error {
	value := limit(bytes, "-1")
	if err := set(dir, "memory.limit_in_bytes", value); err != nil {
		return err
	}
	err := set(dir, "memory.memsw.limit_in_bytes", value)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// mkdirGroup makes a group, and the parent of all when it isn't there yet.
func mkdirGroup(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(dir), 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// kill ends every process that has a thread in the group. It does not wait.
func (c *cgroup1) kill(name string) error {
	for _, controller := range c.controllers() {
		text, err := os.ReadFile(filepath.Join(c.dirs[controller], cgroupParent, name, "tasks"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, thread := range strings.Fields(string(text)) {
			if pid := threadGroup(thread); pid > 1 {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					return os.NewSyscallError("kill", err)
				}
			}
		}
	}
	return nil
}

// threadGroup is the process that a thread belongs to; 0 when the thread has ended.
func threadGroup(thread string) int {
	text, err := os.ReadFile("/proc/" + thread + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			if err == nil {
				return pid
			}
		}
	}
	return 0
}

func (c *cgroup1) remove(ctx context.Context, name string) error {
	errs := []error{c.kill(name)}
	for _, controller := range c.controllers() {
		errs = append(errs, removeGroup(ctx, filepath.Join(c.dirs[controller], cgroupParent, name)))
	}
	return errors.Join(errs...)
}

func (c *cgroup1) names() ([]string, error) {
	var all []string
	for _, controller := range c.controllers() {
		names, err := subdirs(filepath.Join(c.dirs[controller], cgroupParent))
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
