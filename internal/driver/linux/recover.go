//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Recover removes what was cut short. It goes by the directories first, which know everything, and
// then looks for what has none.
func (d *Driver) Recover(ctx context.Context) ([]string, error) {
	const op = "recover"
	var done []string
	var errs []error
	note := func(format string, args ...any) { done = append(done, fmt.Sprintf(format, args...)) }

	entries, err := os.ReadDir(d.dirs.sandboxes)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		id, unfinished := unfinishedID(e.Name())
		if !unfinished {
			continue
		}
		dir := filepath.Join(d.dirs.sandboxes, e.Name())
		// A process that was killed while it started another is outlived by its locks for a moment.
		lock, err := abandoned(ctx, op, dir)
		if err != nil { // somebody is at it, or has finished it
			if !errors.Is(err, fs.ErrNotExist) && sandbox.CodeOf(err) != driver.CodeBusy {
				errs = append(errs, err)
			}
			continue
		}
		if strings.HasPrefix(e.Name(), newPrefix) {
			err = d.discard(ctx, id, dir, 0)
		} else {
			err = d.discardGone(ctx, id, dir)
		}
		lock.unlock()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		note("removed %s, which was never finished", dir)
	}
	left, err := d.strays(ctx, recoverLooks)
	errs = append(errs, err)
	kept := make(map[string]bool)
	for _, group := range left.groups {
		// Its directory may have been removed by hand while it ran: nothing else ends it then.
		ctx, cancel := within(ctx, killTimeout)
		err := d.groups.remove(ctx, group)
		cancel()
		if err != nil { // no reason not to go on; its user ids stay taken
			note("could not remove cgroup %s of no sandbox: %v", group, err)
			id, _ := d.groupID(group)
			kept[id] = true
			continue
		}
		note("ended what ran in cgroup %s of no sandbox, and removed it", group)
	}
	errs = append(errs, recoverRuntimes(ctx, left, note))
	for _, s := range left.sockets {
		if err := os.Remove(filepath.Join(d.dirs.run, s)); err == nil {
			note("removed socket %s of no sandbox", s)
		}
	}
	for base, id := range left.ranges {
		if !kept[id] {
			errs = append(errs, d.giveBack(id, base))
			note("gave back the user ids of %s, which is gone", id)
		}
	}
	for _, base := range left.limits {
		errs = append(errs, d.quotas.limit(base, 0, 0))
		note("removed the limit of disk for user ids from %d, of no sandbox", base)
	}
	slices.Sort(done)
	return done, driver.Wrap(op, errors.Join(errs...))
}

// abandoned locks an unfinished directory that nobody works on; the error is fs.ErrNotExist when there is none any
// more. Whoever makes one locks it right after, so one that is empty is left alone for a moment.
func abandoned(ctx context.Context, op, dir string) (*dirLock, error) {
	for first := true; ; first = false {
		lock, err := lockDir(ctx, op, dir, recoverPatience)
		if err == nil {
			err = lock.still(dir)
		}
		if err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			lock.unlock()
			return nil, err
		}
		if len(entries) > 0 || !first {
			return lock, nil
		}
		lock.unlock()
		select {
		case <-time.After(leakPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unfinishedID gives the id in the name of a directory of a sandbox that is being made or removed.
func unfinishedID(name string) (string, bool) {
	if id, ok := strings.CutPrefix(name, newPrefix); ok {
		return id, true
	}
	if id, ok := strings.CutPrefix(name, gonePrefix); ok {
		if i := strings.LastIndexByte(id, '~'); i >= 0 {
			id = id[:i]
		}
		return id, true
	}
	return "", false
}
