//go:build linux

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// hold takes a finished sandbox for one call: nobody else, in this process or another, changes it until
// it is let go.
func (d *Driver) hold(ctx context.Context, op, id string) (func(), error) {
	if err := driver.CheckID(op, id); err != nil {
		return nil, err
	}
	unlock, err := d.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, op, d.dir(id), lockTimeout)
	if err == nil {
		err = lock.still(d.dir(id))
	}
	if err != nil {
		unlock()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, driver.NotFound(op, id)
		}
		return nil, driver.Wrap(op, err)
	}
	return func() { lock.unlock(); unlock() }, nil
}

// Start starts the guest of a sandbox if it isn't running.
func (d *Driver) Start(ctx context.Context, id string) error {
	const op = "start sandbox"
	release, err := d.hold(ctx, op, id)
	if err != nil {
		return err
	}
	defer release()
	dir := d.dir(id)
	r, err := readRecord(dir)
	if err != nil {
		return damaged(op, id, err)
	}
	if r.Owner != os.Geteuid() {
		return &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: op, Message: fmt.Sprintf("sandbox %q was made by user id %d", id, r.Owner),
			Hint: "start it as that user, or make another; sandboxes of root and of users are built differently"}
	}
	rt, err := d.runtimeOf(op, r)
	if err != nil {
		return err
	}
	frozen, _ := rt.(Freezer)
	g, ok, err := readGuest(dir)
	if err != nil {
		return driver.Wrap(op, err)
	}
	if ok && frozen != nil {
		if boot, err := bootID(); err == nil && alive(g, boot) {
			if err := d.settle(ctx, r, frozen); err != nil {
				return driver.Wrap(op, err)
			}
		}
	}
	if ok {
		p, err := find(g)
		if err != nil {
			return driver.Wrap(op, err)
		}
		if p != nil {
			defer p.close()
			if _, ending, err := startTime(g.PID); err == nil && !ending {
				return nil
			}
			// Its files must not be mounted twice.
			ctx, cancel := within(ctx, killTimeout)
			defer cancel()
			if err := p.wait(ctx); err != nil {
				return driver.Wrap(op, err)
			}
		}
	}
	if !r.Copied {
		if err := checkImage(op, r.Spec.Image); err != nil {
			return err
		}
	}
	tighten, err := d.loosen(r)
	if err != nil {
		return driver.Wrap(op, err)
	}
	if frozen != nil {
		if done, err := d.fromCheckpoint(ctx, r, frozen); done || err != nil {
			return driver.Wrap(op, errors.Join(err, tighten()))
		}
	}
	return driver.Wrap(op, errors.Join(d.launch(ctx, r, dir, nil, nil), tighten()))
}

func damaged(op, id string, err error) error {
	return &sandbox.Error{Code: driver.CodeGuestFailed, Op: op, Message: fmt.Sprintf("the record of sandbox %q can't be read: %v", id, err),
		Hint: "its files are in $TONGS_HOME/sandboxes/" + id + "/" + upperDir + "; take what you need and destroy it", Err: err}
}

// Dial connects to the guest's socket.
func (d *Driver) Dial(ctx context.Context, id string) (net.Conn, error) {
	const op = "connect to sandbox"
	if err := driver.CheckID(op, id); err != nil {
		return nil, err
	}
	c, err := connect(ctx, d.dirs.run, socketName(id))
	if err == nil {
		return d.withSockets(id, c), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if found, eerr := d.exists(id); eerr == nil && !found {
		return nil, driver.NotFound(op, id)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, &sandbox.Error{Code: driver.CodeNotRunning, Op: op, Message: fmt.Sprintf("the guest of sandbox %q isn't running", id), Hint: "start it", Err: err}
	}
	return nil, driver.Wrap(op, err)
}

// Stop ends a sandbox's guest and with it all of its processes.
func (d *Driver) Stop(ctx context.Context, id string) error {
	const op = "stop sandbox"
	release, err := d.hold(ctx, op, id)
	if err != nil {
		return err
	}
	defer release()
	if err := d.endGuest(ctx, d.dir(id), stopGrace); err != nil {
		return driver.Wrap(op, err)
	}
	return driver.Wrap(op, d.removeRuntime(context.WithoutCancel(ctx), id))
}

// Destroy removes a sandbox. Its directory loses its name first, so that it is gone for everybody at
// once; if the rest is cut short, Recover ends it, or whoever makes a sandbox of the same id.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	const op = "destroy sandbox"
	release, err := d.hold(ctx, op, id)
	if err != nil {
		return err
	}
	defer release()
	if err := d.finishGone(ctx, op, id); err != nil {
		return driver.Wrap(op, err)
	}
	gone := d.goneDir(id)
	if err := os.Rename(d.dir(id), gone); err != nil {
		return driver.Wrap(op, err)
	}
	// From here on nobody else can end it, so a caller that gives up doesn't either.
	return driver.Wrap(op, d.discardGone(context.WithoutCancel(ctx), id, gone))
}

// goneDir is the name of the directory of a sandbox that is being removed. There is one for each id: until it is
// gone, nobody makes another sandbox of that id, since what goes by the id alone, on the machine, is removed
// with it.
func (d *Driver) goneDir(id string) string { return filepath.Join(d.dirs.sandboxes, gonePrefix+id) }

// finishGone waits until a sandbox of that id has been removed, if there was one, and ends it when a dead
// process has left it.
func (d *Driver) finishGone(ctx context.Context, op, id string) error {
	gone := d.goneDir(id)
	for range newDirTries {
		if _, err := os.Lstat(gone); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		lock, err := lockDir(ctx, op, gone, lockTimeout)
		if err == nil {
			err = lock.still(gone)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		err = d.discardGone(context.WithoutCancel(ctx), id, gone)
		lock.unlock()
		if err != nil {
			return err
		}
	}
	return &sandbox.Error{Code: driver.CodeBusy, Op: op, Message: "other processes make and remove this sandbox all the time", Hint: "wait for them"}
}

// discardGone removes a sandbox whose directory has lost its name. Its lock is held.
func (d *Driver) discardGone(ctx context.Context, id, dir string) error {
	r, rerr := readRecord(dir)
	if err := d.endGuest(ctx, dir, 0); err != nil {
		return err
	}
	// Earlier versions let another one of the same id be made meanwhile; then these are that one's.
	if another, err := d.exists(id); err != nil {
		return err
	} else if !another {
		if err := d.removeRuntime(ctx, id); err != nil {
			return err
		}
	}
	if err := d.removeTree(ctx, dir); err != nil {
		return err
	}
	if rerr != nil {
		return nil // Recover finds the range
	}
	return d.giveBack(id, r.Base)
}

// List reads the directory of sandboxes.
func (d *Driver) List(ctx context.Context) ([]driver.Status, error) {
	const op = "list sandboxes"
	entries, err := os.ReadDir(d.dirs.sandboxes)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	now, err := bootID()
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	all := make([]driver.Status, 0, len(entries))
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.IsDir() || driver.CheckID(op, e.Name()) != nil {
			continue
		}
		s, err := d.status(e.Name(), now)
		if errors.Is(err, fs.ErrNotExist) {
			if _, serr := os.Lstat(d.dir(e.Name())); errors.Is(serr, fs.ErrNotExist) {
				continue // destroyed meanwhile
			}
		}
		if err != nil {
			s = driver.Status{ID: e.Name(), Labels: readLabels(d.dir(e.Name())), Damaged: err.Error()}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b driver.Status) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

func (d *Driver) status(id, boot string) (driver.Status, error) {
	dir := d.dir(id)
	r, err := readRecord(dir)
	if err != nil {
		return driver.Status{}, err
	}
	s := driver.Status{ID: id, Labels: r.Spec.Labels, Created: r.Created, Image: r.Spec.Image, Driver: cmp.Or(r.Spec.Driver, Name)}
	g, ok, err := readGuest(dir)
	if err != nil {
		return driver.Status{}, err
	}
	if ok && alive(g, boot) {
		s.Running, s.PID = true, g.PID
	} else if rt, err := d.runtimeOf("", r); err == nil && rt != nil {
		if c, ok, err := readCheckpoint(dir); ok && err == nil {
			s.Checkpoint = c.Created
		}
	}
	return s, nil
}
