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
	// Whoever makes this sandbox holds this directory until it is finished, so from here on nobody else does.
	if found, err := d.exists(spec.ID); found || err != nil {
		if err == nil {
			err = taken
		}
		return errors.Join(err, os.Remove(dir))
	}
	if err := d.finishGone(ctx, op, spec.ID); err != nil {
		return errors.Join(err, os.Remove(dir))
	}

	r := record{Version: recordVersion, Created: time.Now().UTC(), Spec: spec, Owner: os.Geteuid(), Copied: d.cannotLayer()}
	undo := func(err error) error {
		err = d.explainSpace(err)
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
	if finished, err := d.exists(id); err != nil {
		return err
	} else if !finished { // else another process has made it, and these are its own
		if err := d.removeRuntime(ctx, id); err != nil {
			return err
		}
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
	errs := []error{d.endGroup(ctx, id), d.removeRuntimeTraces(ctx, id)}
	err := os.Remove(filepath.Join(d.dirs.run, socketName(id)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// endGroup ends what is in a sandbox's control group.
func (d *Driver) endGroup(ctx context.Context, id string) error {
	if d.groups == nil {
		return nil
	}
	ctx, cancel := within(ctx, killTimeout)
	defer cancel()
	return d.groups.remove(ctx, d.groupName(id))
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
