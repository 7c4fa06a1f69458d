//go:build linux

package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// What looks like a leak may be something that another process is making or removing just now: it is one
// only when it is there each time. Once isn't enough: the kernel may leave out of a directory's list what is
// renamed meanwhile, and a sandbox is renamed when it is finished and when it is removed.
// The pauses between two looks grow from leakPause; a thread that has started a guest holds copies of descriptors until it
// has ended, which a busy machine delays.
const (
	leakPause    = 20 * time.Millisecond
	recoverLooks = 4
	leakLooks    = 7 // 1.3 s, if something is there
)

// strays are what there is of sandboxes that don't exist.
type strays struct {
	dirs      []string // unfinished ones that nobody works on
	groups    []string
	sockets   []string          // names of files
	listening []string          // names of sockets on which somebody listens, file or not
	ranges    map[uint32]string // of user ids, by the first
	limits    []uint32          // of disk, by the first user id
	runtimes  []string          // directories of OCI runtimes' sandboxes,
	others    []string

	runtimeGroups []string // and directories of groups that they have made
}

// Leaks lists what there is on this machine of sandboxes of this home that don't exist: what Recover
// would remove, and what nothing should ever leave, like a mount. It changes nothing. What a process is at
// work on is no leak.
func (d *Driver) Leaks(ctx context.Context) ([]string, error) {
	s, err := d.strays(ctx, leakLooks)
	var left []string
	note := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }
	for _, dir := range slices.Concat(s.dirs, s.runtimes) {
		note("directory %s", dir)
	}
	for _, name := range s.sockets {
		note("socket %s", filepath.Join(d.dirs.run, name))
	}
	for _, name := range slices.Concat(s.groups, s.runtimeGroups) {
		note("cgroup %s", name)
	}
	for base, id := range s.ranges {
		note("user ids from %d, of %s", base, id)
	}
	for _, name := range s.listening {
		note("guest that listens on %s", filepath.Join(d.dirs.run, name))
	}
	for _, base := range s.limits {
		note("limit of disk for user ids from %d", base)
	}
	left = append(left, s.others...)
	slices.Sort(left)
	return left, driver.Wrap("look for leaks", err)
}

// strays looks so many times, if there is anything at all.
func (d *Driver) strays(ctx context.Context, looks int) (strays, error) {
	s, err := d.straysNow()
	for i := range looks - 1 {
		if err != nil || s.none() {
			break
		}
		select {
		case <-time.After(leakPause << i):
		case <-ctx.Done():
			return strays{}, ctx.Err()
		}
		var again strays
		again, err = d.straysNow()
		s.keep(again)
	}
	return s, err
}

func (s *strays) none() bool {
	return len(s.dirs)+len(s.groups)+len(s.sockets)+len(s.listening)+len(s.ranges)+len(s.limits)+len(s.runtimes)+len(s.runtimeGroups)+len(s.others) == 0
}

// keep leaves what is in both.
func (s *strays) keep(again strays) {
	for _, list := range []struct{ here, there *[]string }{
		{&s.dirs, &again.dirs}, {&s.groups, &again.groups}, {&s.sockets, &again.sockets}, {&s.listening, &again.listening}, {&s.others, &again.others},
		{&s.runtimes, &again.runtimes}, {&s.runtimeGroups, &again.runtimeGroups},
	} {
		*list.here = slices.DeleteFunc(*list.here, func(v string) bool { return !slices.Contains(*list.there, v) })
	}
	maps.DeleteFunc(s.ranges, func(base uint32, id string) bool { return again.ranges[base] != id })
	s.limits = slices.DeleteFunc(s.limits, func(base uint32) bool { return !slices.Contains(again.limits, base) })
}

// straysNow looks once. What might be left over is looked up before the directories of sandboxes: whoever makes
// a sandbox makes its directory first.
func (d *Driver) straysNow() (s strays, err error) {
	var errs []error
	sockets, err := os.ReadDir(d.dirs.run)
	errs = append(errs, err)
	var groups []string
	if d.groups != nil {
		groups, err = d.groups.names()
		errs = append(errs, err)
	}
	runtimeGroups, err := runtimeGroupDirs()
	errs = append(errs, err)
	s.ranges, err = d.ids.owners()
	errs = append(errs, err)
	listening, err := listeningIn(d.dirs.run)
	errs = append(errs, err)

	entries, err := os.ReadDir(d.dirs.sandboxes)
	if err != nil {
		return strays{}, err
	}
	boot, err := bootID()
	errs = append(errs, err)
	known := make(map[string]bool)  // by id
	names := make(map[string]bool)  // sockets there may be
	answer := make(map[string]bool) // those that a guest may listen on
	for _, e := range entries {
		id, unfinished := unfinishedID(e.Name())
		dir := filepath.Join(d.dirs.sandboxes, e.Name())
		if !unfinished {
			if driver.CheckID("", e.Name()) == nil {
				known[e.Name()], names[socketName(e.Name())], names[runtimeDir(e.Name())] = true, true, true
				g, ok, err := readGuest(dir)
				answer[socketName(e.Name())] = answer[socketName(e.Name())] || err != nil || ok && alive(g, boot)
			}
			continue
		}
		if free, err := unlocked(dir); err != nil {
			errs = append(errs, err)
		} else if free {
			s.dirs = append(s.dirs, dir)
			continue
		}
		known[id], names[socketName(id)], answer[socketName(id)] = true, true, true
		names[runtimeDir(id)] = true
	}
	for _, e := range sockets {
		if strings.HasSuffix(e.Name(), ".sock") && e.Type()&(os.ModeSocket|os.ModeSymlink) != 0 && !names[e.Name()] && len(e.Name()) == len(socketName("")) {
			s.sockets = append(s.sockets, e.Name())
		}
		if e.IsDir() && strings.HasSuffix(e.Name(), runtimeSuffix) && !names[e.Name()] {
			s.runtimes = append(s.runtimes, filepath.Join(d.dirs.run, e.Name()))
		}
	}
	for _, dir := range runtimeGroups {
		if id, ours := d.groupID(filepath.Base(dir)); ours && !known[id] {
			s.runtimeGroups = append(s.runtimeGroups, dir)
		}
	}
	for _, name := range groups {
		if id, ours := d.groupID(name); ours && !known[id] {
			s.groups = append(s.groups, name)
		}
	}
	maps.DeleteFunc(s.ranges, func(_ uint32, id string) bool { return known[id] })
	// A guest that runs keeps its socket, whether there is a file of it or not.
	for _, name := range listening {
		if !answer[name] {
			s.listening = append(s.listening, name)
		}
	}
	if d.quotas != nil {
		slots, err := d.quotas.limited()
		errs = append(errs, err)
		for _, slot := range slots {
			if base := uint32(slot) * rangeSize; d.ids.owner(base) == "" {
				s.limits = append(s.limits, base)
			}
		}
	}
	s.others, err = d.strayMounts()
	return s, errors.Join(append(errs, err)...)
}

// unlocked reports whether nobody works on a directory, which may be gone.
func unlocked(dir string) (bool, error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("flock", err)
}

// strayMounts lists mounts below the home, and a device of the storage that isn't mounted.
func (d *Driver) strayMounts() ([]string, error) {
	home, err := filepath.EvalSymlinks(filepath.Dir(d.dirs.sandboxes))
	if err != nil {
		return nil, err
	}
	var left []string
	err = eachLine("/proc/self/mountinfo", func(line string) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return
		}
		dir := unescape(f[4])
		rel, err := filepath.Rel(home, dir)
		if err == nil && rel != "." && filepath.IsLocal(rel) && (rel != filepath.Base(d.dirs.sandboxes) || d.storage == nil) {
			left = append(left, "mount "+dir)
		}
	})
	if err != nil || d.storage == nil {
		return left, err
	}
	mounted, err := d.storage.mounted()
	if err != nil || mounted {
		return left, err
	}
	loop, err := d.storage.loop()
	if loop != nil {
		left = append(left, "device "+loop.Name()+" with "+d.storage.image)
		loop.Close()
	}
	return left, err
}

// accepting is the flag in /proc/net/unix of a socket that accepts connections.
const accepting = "00010000"

// listeningIn gives the names in a directory of the sockets on which somebody listens.
func listeningIn(dir string) ([]string, error) {
	var names []string
	err := eachLine("/proc/net/unix", func(line string) {
		if f := strings.Fields(line); len(f) >= 8 && f[3] == accepting && filepath.Dir(f[7]) == dir {
			names = append(names, filepath.Base(f[7]))
		}
	})
	return names, err
}

func eachLine(file string, f func(string)) error {
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f(lines.Text())
	}
	return lines.Err()
}
