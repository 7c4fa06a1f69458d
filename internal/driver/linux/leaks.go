//go:build linux

package linux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
)

// Leaks lists what there is on this machine of sandboxes of this home that don't exist: what Recover
// would remove, and what nothing should ever leave, like a mount. It changes nothing. While sandboxes
// are being made or removed it lists what belongs to those, too.
func (d *Driver) Leaks(ctx context.Context) ([]string, error) {
	const op = "look for leaks"
	all, err := d.List(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	sockets := make(map[string]bool)
	for _, s := range all {
		known[s.ID] = true
		sockets[socketName(s.ID)] = s.Running
	}
	var left []string
	var errs []error
	note := func(format string, args ...any) { left = append(left, fmt.Sprintf(format, args...)) }

	entries, err := os.ReadDir(d.dirs.sandboxes)
	errs = append(errs, err)
	for _, e := range entries {
		if _, unfinished := unfinishedID(e.Name()); unfinished {
			note("directory %s", filepath.Join(d.dirs.sandboxes, e.Name()))
		}
	}
	entries, err = os.ReadDir(d.dirs.run)
	errs = append(errs, err)
	for _, e := range entries {
		if _, ok := sockets[e.Name()]; !ok && strings.HasSuffix(e.Name(), ".sock") {
			note("socket %s", filepath.Join(d.dirs.run, e.Name()))
		}
	}
	if d.groups != nil {
		names, err := d.groups.names()
		errs = append(errs, err)
		for _, name := range names {
			if id, ours := d.groupID(name); ours && !known[id] {
				note("cgroup %s", name)
			}
		}
	}
	owners, err := d.ids.owners()
	errs = append(errs, err)
	for base, id := range owners {
		if !known[id] {
			note("user ids from %d, of %s", base, id)
		}
	}
	home := filepath.Dir(d.dirs.sandboxes)
	errs = append(errs, eachLine("/proc/self/mountinfo", func(line string) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(unescape(f[4]), home+"/") {
			note("mount %s", unescape(f[4]))
		}
	}))
	// A guest that runs keeps its socket, whether there is a file of it or not.
	errs = append(errs, eachLine("/proc/net/unix", func(line string) {
		f := strings.Fields(line)
		if len(f) < 8 || f[3] != listening || filepath.Dir(f[7]) != d.dirs.run {
			return
		}
		if alive := sockets[filepath.Base(f[7])]; !alive {
			note("guest that listens on %s", f[7])
		}
	}))
	return left, driver.Wrap(op, errors.Join(errs...))
}

// listening is the flag in /proc/net/unix of a socket that accepts connections.
const listening = "00010000"

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
