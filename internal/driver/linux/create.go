//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Directories of sandboxes that are being made or removed have these prefixes. An id can't begin with
// a dot.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// Create makes a sandbox in a directory that gets its name only when its guest is running.
func (d *Driver) Create(ctx context.Context, spec driver.Spec) error {
	const op = "create sandbox"
	if err := spec.Check(op); err != nil {
		return err
	}
	var from *source
	if spec.From != "" {
		var err error
		if from, err = d.source(ctx, op, spec); err != nil {
			return err
		}
		defer from.release()
		spec.Image, spec.Network = from.record.Spec.Image, from.record.Spec.Network
		spec.Driver = cmp.Or(spec.Driver, from.record.Spec.Driver)
		spec.From = "" // it has no meaning any more once it is made
	}
	if err := checkImage(op, spec.Image); err != nil {
		return err
	}
	if err := d.checkMap(op, spec.Image); err != nil {
		return err
	}
	if err := d.mayRoot(op, spec); err != nil {
		return err
	}
	spec.Driver = cmp.Or(spec.Driver, d.Name())
	if _, err := d.runtimeOf(op, record{Spec: spec}); err != nil {
		return err
	}
	unlock, err := d.locks.lock(ctx, spec.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.admit(op, &spec.Limits); err != nil {
		return driver.Wrap(op, err)
	}
	if err := d.create(ctx, op, spec, from); err != nil {
		return driver.Wrap(op, err)
	}
	return nil
}

func (d *Driver) create(ctx context.Context, op string, spec driver.Spec, from *source) error {
	final, dir := d.dir(spec.ID), filepath.Join(d.dirs.sandboxes, newPrefix+spec.ID)
	taken := &sandbox.Error{Code: sandbox.CodeAlreadyExists, Op: op, Message: fmt.Sprintf("there is a sandbox %q already", spec.ID),
		Hint: "start it, destroy it, or take another id"}
	if found, err := d.exists(spec.ID); err != nil {
		return err
	} else if found {
		return taken
	}
	lock, err := d.newDir(ctx, op, dir, spec.ID)
	if err != nil {
		return err
	}
	defer lock.unlock()

	r := record{Version: recordVersion, Created: time.Now().UTC(), Spec: spec, Owner: os.Geteuid(), Copied: d.cannotLayer()}
	undo := func(err error) error {
		if uerr := d.discard(context.WithoutCancel(ctx), spec.ID, dir, r.Base); uerr != nil {
			d.log.Error("what is left of a failed creation can't be removed", "sandbox", spec.ID, "error", uerr)
		}
		return err
	}
	if !d.rootless {
		if r.Base, err = d.ids.take(spec.ID); err != nil {
			return undo(err)
		}
	}
	if from != nil {
		r.Copied = from.record.Copied
	}
	err = d.fill(ctx, dir, r, from)
	if errors.Is(err, errNoLayers) && !copyable(spec.Image) {
		err = uncopyable(err.Error()) // another image may be mounted all the same
	} else if errors.Is(err, errNoLayers) && from == nil {
		d.noLayers(err)
		r.Copied = true
		err = d.fill(ctx, dir, r, nil)
	}
	if err != nil {
		return undo(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return undo(taken)
		}
		return undo(os.NewSyscallError("rename", err))
	}
	return nil
}

// newDirTries bounds how often the directory of a new sandbox is taken away before it could be locked.
const newDirTries = 8

// newDir makes and locks the directory of a sandbox that is being made. One that a dead process has
// left is cleaned away first.
func (d *Driver) newDir(ctx context.Context, op, dir, id string) (*dirLock, error) {
	for range newDirTries {
		err := os.Mkdir(dir, 0o700)
		made := err == nil
		if !made && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		lock, err := lockDir(ctx, op, dir, lockTimeout)
		if err == nil {
			err = lock.still(dir)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever had it has finished it, or found it without an owner and removed it
		}
		if err != nil || made {
			return lock, err
		}
		err = d.discard(ctx, id, dir, 0)
		lock.unlock()
		if err != nil {
			return nil, err
		}
	}
	return nil, &sandbox.Error{Code: driver.CodeBusy, Op: op, Message: "other processes make and remove this sandbox all the time", Hint: "wait for them"}
}

// fill lays a sandbox's directory out and starts its guest, both at once.
func (d *Driver) fill(ctx context.Context, dir string, r record, from *source) error {
	return d.launch(ctx, r, dir, r.Spec.Files, func() error { return d.layOut(ctx, dir, r, from) })
}

// layOut makes what there is in a sandbox's directory before its guest runs.
func (d *Driver) layOut(ctx context.Context, dir string, r record, from *source) error {
	if r.Copied && from == nil && !copyable(r.Spec.Image) {
		return uncopyable(d.whyNoLayers())
	}
	unfence, err := d.fence(dir, r)
	if err != nil {
		return err
	}
	if r.mapped() {
		err = layOutMapped(ctx, dir, r, from, r.Spec.Files)
	} else {
		err = layOutTree(ctx, dir, r, from)
	}
	if err != nil {
		return err
	}
	if err := unfence(); err != nil { // what follows is ours, and there must always be room for it
		return err
	}
	if err := writeJSON(dir, labelsFile, r.Spec.Labels); err != nil {
		return err
	}
	return writeJSON(dir, recordFile, r)
}

// layOutTree makes the tree that a new sandbox starts with.
func layOutTree(ctx context.Context, dir string, r record, from *source) error {
	if r.Copied && from != nil {
		return from.copy(ctx, rootDir, dir, r)
	}
	if r.Copied {
		return copyTree(ctx, r.Spec.Image.Lower[0], filepath.Join(dir, rootDir), r)
	}
	for _, name := range []string{upperDir, workDir, lowerDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if !r.rootless() {
		if err := os.Lchown(filepath.Join(dir, upperDir), int(r.Base), int(r.Base)); err != nil {
			return err
		}
	}
	if from != nil {
		return from.copy(ctx, upperDir, dir, r)
	}
	return nil
}

// discard removes everything of a sandbox whose directory is dir: processes, group, socket, files and
// range of ids, in an order in which it can be cut short anywhere and begun again.
func (d *Driver) discard(ctx context.Context, id, dir string, base uint32) error {
	if base == 0 {
		if r, err := readRecord(dir); err == nil {
			base = r.Base
		}
	}
	if err := d.endGuest(ctx, dir, 0); err != nil {
		return err
	}
	if err := d.removeRuntime(ctx, id); err != nil {
		return err
	}
	if err := d.removeTree(ctx, dir); err != nil {
		return err
	}
	if base != 0 {
		return d.giveBack(id, base)
	}
	return nil
}

// removeRuntime removes what a running sandbox has besides its directory.
func (d *Driver) removeRuntime(ctx context.Context, id string) error {
	var errs []error
	if d.groups != nil {
		ctx, cancel := within(ctx, killTimeout)
		errs = append(errs, d.groups.remove(ctx, d.groupName(id)))
		cancel()
	}
	errs = append(errs, d.removeRuntimeTraces(ctx, id))
	err := os.Remove(filepath.Join(d.dirs.run, socketName(id)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// endGuest ends the guest that is recorded in dir, if it runs, and forgets it.
func (d *Driver) endGuest(ctx context.Context, dir string, grace time.Duration) error {
	g, ok, err := readGuest(dir)
	if err != nil {
		return err
	}
	if !ok {
		return nil
	}
	p, err := find(g)
	if err != nil {
		return err
	}
	if p != nil {
		err = p.end(ctx, grace)
		p.close()
		if err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(dir, guestFile))
}

// Recover removes what was cut short. It goes by the directories first, which know everything, and
// then looks for what has none.
func (d *Driver) Recover(ctx context.Context) ([]string, error) {
	const op = "recover"
	var done []string
	var errs []error
	note := func(format string, args ...any) { done = append(done, fmt.Sprintf(format, args...)) }

	// What belongs to nobody is looked up before the directories: whoever makes a sandbox makes its
	// directory first, so what is older than the list of directories and in none of them is left over.
	sockets, err := os.ReadDir(d.dirs.run)
	errs = append(errs, err)
	var groups []string
	if d.groups != nil {
		groups, err = d.groups.names()
		errs = append(errs, err)
	}
	owners, err := d.ids.owners()
	errs = append(errs, err)
	var limited []int
	if d.quotas != nil {
		limited, err = d.quotas.limited()
		errs = append(errs, err)
	}

	entries, err := os.ReadDir(d.dirs.sandboxes)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	known := make(map[string]bool)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		name, dir := e.Name(), filepath.Join(d.dirs.sandboxes, e.Name())
		id, unfinished := unfinishedID(name)
		if !unfinished {
			known[name] = true
			continue
		}
		// A process that was killed while it started another is outlived by its locks for a moment.
		lock, err := lockDir(ctx, op, dir, recoverPatience)
		if err == nil {
			err = lock.still(dir)
		}
		if err != nil {
			known[id] = true // somebody is at it, or has finished it
			if !errors.Is(err, fs.ErrNotExist) && sandbox.CodeOf(err) != driver.CodeBusy {
				errs = append(errs, err)
			}
			continue
		}
		if strings.HasPrefix(name, newPrefix) {
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
	for _, group := range groups {
		if id, ours := d.groupID(group); ours && !known[id] {
			// Its directory may have been removed by hand while it ran: nothing else ends it then.
			ctx, cancel := within(ctx, killTimeout)
			err := d.groups.remove(ctx, group)
			cancel()
			if err != nil { // no reason not to go on; its user ids stay taken
				note("could not remove cgroup %s of no sandbox: %v", group, err)
				known[id] = true
				continue
			}
			note("ended what ran in cgroup %s of no sandbox, and removed it", group)
		}
	}
	names := make(map[string]bool)
	for id := range known {
		names[socketName(id)], names[runtimeDir(id)] = true, true
	}
	errs = append(errs, d.recoverRuntimes(ctx, sockets, names, note))
	for _, s := range sockets {
		if strings.HasSuffix(s.Name(), ".sock") && s.Type()&(fs.ModeSocket|fs.ModeSymlink) != 0 && !names[s.Name()] && len(s.Name()) == len(socketName("")) {
			if err := os.Remove(filepath.Join(d.dirs.run, s.Name())); err == nil {
				note("removed socket %s of no sandbox", s.Name())
			}
		}
	}
	for base, id := range owners {
		if !known[id] {
			errs = append(errs, d.giveBack(id, base))
			note("gave back the user ids of %s, which is gone", id)
		}
	}
	for _, slot := range limited {
		if base := uint32(slot) * rangeSize; owners[base] == "" && d.ids.owner(base) == "" {
			errs = append(errs, d.quotas.limit(base, 0, 0))
			note("removed a limit of disk of no sandbox")
		}
	}
	slices.Sort(done)
	return done, driver.Wrap(op, errors.Join(errs...))
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
