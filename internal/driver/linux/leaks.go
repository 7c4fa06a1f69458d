//go:build linux

package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
)

// What looks like a leak may be something that another process is making or removing just now: it is one
// only when it is there each time.
const (
	leakRounds = 6
	leakPause  = 100 * time.Millisecond
)

// Leaks lists what there is on this machine of sandboxes of this home that don't exist: what Recover
// would remove, and what nothing should ever leave, like a mount. It changes nothing. What a process is at
// work on is no leak.
func (d *Driver) Leaks(ctx context.Context) ([]string, error) {
	const op = "look for leaks"
	left, err := d.leaksNow()
	for range leakRounds {
		if err != nil || len(left) == 0 {
			break
		}
		select {
		case <-time.After(leakPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var again []string
		again, err = d.leaksNow()
		left = slices.DeleteFunc(left, func(l string) bool { return !slices.Contains(again, l) })
	}
	return left, driver.Wrap(op, err)
}

// leaksNow looks once. What might be left over is looked up before the directories of sandboxes: whoever makes
// a sandbox makes its directory first.
func (d *Driver) leaksNow() ([]string, error) {
	var left []string
	var errs []error
	note := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }

	sockets, err := os.ReadDir(d.dirs.run)
	errs = append(errs, err)
	var groups []string
	if d.groups != nil {
		groups, err = d.groups.names()
		errs = append(errs, err)
	}
	runtimeGroups, err := runtimeGroupDirs()
	errs = append(errs, err)
	owners, err := d.ids.owners()
	errs = append(errs, err)
	listening, err := listeningIn(d.dirs.run)
	errs = append(errs, err)

	entries, err := os.ReadDir(d.dirs.sandboxes)
	if err != nil {
		return nil, err
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
				answer[socketName(e.Name())] = err != nil || ok && alive(g, boot)
			}
			continue
		}
		if free, err := unlocked(dir); err != nil {
			errs = append(errs, err)
		} else if free {
			note("directory %s", dir)
			continue
		}
		known[id], names[socketName(id)], answer[socketName(id)] = true, true, true
		names[runtimeDir(id)] = true
	}
	for _, s := range sockets {
		if strings.HasSuffix(s.Name(), ".sock") && !names[s.Name()] {
			note("socket %s", filepath.Join(d.dirs.run, s.Name()))
		}
		if strings.HasSuffix(s.Name(), runtimeSuffix) && !names[s.Name()] {
			note("directory %s", filepath.Join(d.dirs.run, s.Name()))
		}
	}
	for _, dir := range runtimeGroups {
		if id, ours := d.groupID(filepath.Base(dir)); ours && !known[id] {
			note("cgroup %s", dir)
		}
	}
	for _, name := range groups {
		if id, ours := d.groupID(name); ours && !known[id] {
			note("cgroup %s", name)
		}
	}
	for base, id := range owners {
		if !known[id] {
			note("user ids from %d, of %s", base, id)
		}
	}
	// A guest that runs keeps its socket, whether there is a file of it or not.
	for _, name := range listening {
		if !answer[name] {
			note("guest that listens on %s", filepath.Join(d.dirs.run, name))
		}
	}
	if d.quotas != nil {
		slots, err := d.quotas.limited()
		errs = append(errs, err)
		for _, slot := range slots {
			if d.ids.owner(uint32(slot)*rangeSize) == "" {
				note("limit of disk for user ids from %d", slot*rangeSize)
			}
		}
	}
	mounts, err := d.strayMounts()
	errs = append(errs, err)
	return append(left, mounts...), errors.Join(errs...)
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
