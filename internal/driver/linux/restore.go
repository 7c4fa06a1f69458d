//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Restore implements driver.Checkpointer.
func (d *Driver) Restore(ctx context.Context, id string) error {
	const op = "restore sandbox"
	release, _, _, err := d.held(ctx, op, id)
	if err != nil {
		return err
	}
	_, err = os.Lstat(filepath.Join(d.dir(id), checkpointDir))
	release()
	if errors.Is(err, fs.ErrNotExist) {
		return noCheckpoint(op, id)
	}
	if err != nil {
		return driver.Wrap(op, err)
	}
	return d.Start(ctx, id)
}

// DropCheckpoint implements driver.Checkpointer.
func (d *Driver) DropCheckpoint(ctx context.Context, id string) error {
	const op = "drop checkpoint"
	release, r, rt, err := d.held(ctx, op, id)
	if err != nil {
		return err
	}
	defer release()
	p := filepath.Join(d.dir(id), checkpointDir)
	if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
		return noCheckpoint(op, id)
	}
	if _, err := d.running(op, id); err == nil {
		if err := d.settle(ctx, r, rt); err != nil {
			return driver.Wrap(op, err)
		}
	}
	return driver.Wrap(op, removeCheckpoint(d.dir(id)))
}

func noCheckpoint(op, id string) error {
	return &sandbox.Error{Code: sandbox.CodeCheckpointNotFound, Op: op, Message: fmt.Sprintf("sandbox %q has no checkpoint", id),
		Hint: "`tongs sandbox checkpoint` makes one while it runs; a stopped sandbox is started by its next call"}
}

// fromCheckpoint starts a sandbox from its checkpoint, if it has one; done is false when it has to be started from its
// files. Nothing of it runs.
func (d *Driver) fromCheckpoint(ctx context.Context, r record, rt Freezer) (done bool, err error) {
	const op = "restore sandbox"
	dir := d.dir(r.Spec.ID)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, newCheckpointDir)), os.RemoveAll(filepath.Join(dir, oldCheckpointDir))); err != nil {
		return false, err
	}
	c, ok, err := readCheckpoint(dir)
	if err == nil && !ok {
		return false, nil
	}
	if err != nil {
		return false, notRestored(op, "the checkpoint can't be read: "+err.Error(), err)
	}
	l := &runtimeLaunch{d: d, rt: rt, r: r, dir: dir, home: filepath.Join(d.dirs.run, runtimeDir(r.Spec.ID)), image: filepath.Join(dir, checkpointDir),
		guest: filepath.Join(d.dirs.run, guestDir, programDir, c.Guest)}
	if _, err := os.Lstat(filepath.Join(l.image, begunFile)); err == nil {
		if over, done, err := l.takeOver(ctx); over || err != nil {
			return done, err
		}
	}
	if l.program, err = rt.Program(); err != nil {
		return false, err
	}
	build, err := rt.Build(l.program)
	if err != nil {
		return false, driver.Wrap(op, err)
	}
	if build != c.Build {
		return false, notRestored(op, fmt.Sprintf("the checkpoint was made by %s (%s), and there is another one now (%s)", rt.Name(), c.Build, build), nil)
	}
	if _, err := os.Stat(l.guest); err != nil {
		return false, notRestored(op, "the guest binary that runs in the checkpoint is gone: "+err.Error(), err)
	}
	return true, l.restore(ctx)
}

// takeOver deals with a checkpoint from which a process had begun to go on that was killed meanwhile. over says that
// the checkpoint is used up, done that the sandbox runs.
func (l *runtimeLaunch) takeOver(ctx context.Context) (over, done bool, err error) {
	d, id := l.d, l.r.Spec.ID
	pid := filepath.Join(l.home, filepath.Base(placeState), pidFile)
	if p, err := l.adopt(); err == nil && ofRange(p.pid, l.r.Base) {
		// The runtime goes on without whoever has started it.
		err := d.writeGuest(l.dir, p)
		if err == nil {
			err = d.reachable(ctx, id)
		}
		if err == nil {
			p.close()
			return true, true, removeCheckpoint(l.dir)
		}
		err = errors.Join(err, p.end(context.WithoutCancel(ctx), 0))
		p.close()
		d.log.Warn("what was being restored did not answer", "sandbox", id, "error", err)
		_ = os.Remove(filepath.Join(l.dir, guestFile))
	} else if err == nil {
		p.close()
	}
	if err := d.endGroup(ctx, id); err != nil {
		return false, false, err
	}
	// The number of the process is written before anything of the checkpoint runs.
	if _, err := os.Lstat(pid); errors.Is(err, fs.ErrNotExist) && d.groups != nil {
		return false, false, os.Remove(filepath.Join(l.image, begunFile))
	}
	d.log.Warn("a checkpoint is used up: the sandbox had gone on from it", "sandbox", id)
	return true, false, removeCheckpoint(l.dir)
}

// ofRange says whether a process is in a user namespace that begins with this id of the host's: a sandbox's own.
func ofRange(pid int, base uint32) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == strconv.FormatUint(uint64(base), 10) {
			return true
		}
	}
	return false
}

// restore starts a sandbox from a checkpoint, which is used up then.
func (l *runtimeLaunch) restore(ctx context.Context) (err error) {
	const op = "restore sandbox"
	d, id := l.d, l.r.Spec.ID
	if l.out, err = boundedLog(); err != nil {
		return driver.Wrap(op, err)
	}
	defer func() {
		if err != nil {
			l.out.Close()
		}
	}()
	l.late = &lateParts{d: d, r: l.r}
	defer l.late.close()
	if err := l.prepare(); err != nil {
		return err
	}
	if err := l.tell(sandbox.RestoredFile); err != nil {
		return driver.Wrap(op, err)
	}
	begun := filepath.Join(l.image, begunFile)
	if err := errors.Join(os.WriteFile(begun, nil, 0o600), syncPath(l.image)); err != nil {
		return driver.Wrap(op, err)
	}
	if err := l.start(); err != nil {
		said := strings.TrimSpace(string(written(l.out)))
		message := err.Error() + ": " + said[:min(len(said), maxSaid)]
		clean := d.removeRuntime(context.WithoutCancel(ctx), id)
		var status *statusError
		var done *sandbox.Error
		if errors.As(err, &status) || errors.As(err, &done) { // nothing has gone on
			return errors.Join(notRestored(op, message, err), os.Remove(begun), clean)
		}
		return errors.Join(usedUp(op, message, err), clean)
	}
	p, err := l.adopt()
	if err == nil {
		err = d.writeGuest(l.dir, p)
	}
	if err == nil {
		err = d.reachable(ctx, id)
	}
	if err != nil {
		if p != nil {
			err = errors.Join(err, p.end(context.WithoutCancel(ctx), 0))
			p.close()
		}
		_ = os.Remove(filepath.Join(l.dir, guestFile))
		return usedUp(op, err.Error(), err)
	}
	d.watch.add(d.log, id, l.dir, p, l.out)
	d.log.Debug("sandbox restored", "sandbox", id, "driver", l.rt.Name(), "pid", p.pid)
	return driver.Wrap(op, removeCheckpoint(l.dir))
}

// notRestored is the error for a checkpoint that is left as it was.
func notRestored(op, message string, err error) error {
	return &sandbox.Error{Code: sandbox.CodeRestoreFailed, Op: op, Message: message, Err: err,
		Hint: "mend that and try again; or `tongs sandbox restore --fresh` starts the sandbox from its files, and what ran in it and what was in its /tmp is lost"}
}

func usedUp(op, message string, err error) error {
	return &sandbox.Error{Code: sandbox.CodeRestoreFailed, Op: op, Message: message + "; what ran has ended, and the checkpoint is used up", Err: err,
		Hint: "the next call starts the sandbox from its files"}
}
