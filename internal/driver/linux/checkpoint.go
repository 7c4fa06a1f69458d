//go:build linux

package linux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// Names in a sandbox's directory. A checkpoint that is being made has another name than a finished one, so that
// whoever comes after a process that was killed knows which it is; and it says when somebody has begun to go on
// from it, since from then on its files may be newer than its memory.
const (
	newCheckpointDir = "checkpoint.new"
	checkpointDir    = "checkpoint"
	oldCheckpointDir = "checkpoint.old" // that is being removed
	checkpointFile   = "tongs.json"     // in it, beside what the runtime has written
	begunFile        = "begun"
)

const (
	saveTimeout    = 5 * time.Minute  // to write what runs, or to read it
	suspendTimeout = 15 * time.Second // for the guest to close its connections
	// suspendLimit is how long the guest stays out of reach when nobody tells it anything. While it is paused it
	// doesn't look at the time.
	suspendLimit = 30 * time.Second
	pollPause    = 5 * time.Millisecond
)

// checkpointRecord says what is needed to go on from a checkpoint.
type checkpointRecord struct {
	Version int       `json:"version"`
	Created time.Time `json:"created"`
	Build   string    `json:"build"` // of the runtime
	Guest   string    `json:"guest"` // the name of the guest binary, which runs in it
}

var _ driver.Checkpointer = (*Driver)(nil)

// freezer gives the runtime of a sandbox that can be checkpointed.
func (d *Driver) freezer(op string, r record) (Freezer, error) {
	rt, err := d.runtimeOf(op, r)
	if err != nil {
		return nil, err
	}
	f, ok := rt.(Freezer)
	if !ok {
		name := Name
		if rt != nil {
			name = rt.Name()
		}
		return nil, &sandbox.Error{Code: sandbox.CodeNotSupported, Op: op, Message: fmt.Sprintf("what runs on the host's kernel can't be checkpointed, and this sandbox's driver is %s", name),
			Hint: "make the sandbox with --driver " + driver.GVisor}
	}
	return f, nil
}

// held holds a sandbox that can be checkpointed and reads what it is made from.
func (d *Driver) held(ctx context.Context, op, id string) (release func(), r record, rt Freezer, err error) {
	release, err = d.hold(ctx, op, id)
	if err != nil {
		return nil, r, nil, err
	}
	if r, err = readRecord(d.dir(id)); err != nil {
		err = damaged(op, id, err)
	} else if rt, err = d.freezer(op, r); err == nil && r.Owner != os.Geteuid() {
		err = noUser(op, rt.Name())
	}
	if err != nil {
		release()
		return nil, r, nil, err
	}
	return release, r, rt, nil
}

// Checkpoint implements driver.Checkpointer.
func (d *Driver) Checkpoint(ctx context.Context, id string) error {
	const op = "checkpoint sandbox"
	release, r, rt, err := d.held(ctx, op, id)
	if err != nil {
		return err
	}
	defer release()
	dir := d.dir(id)
	if _, err := d.running(op, id); err != nil {
		return err
	}
	if err := d.settle(ctx, r, rt); err != nil {
		return driver.Wrap(op, err)
	}
	g, err := d.running(op, id) // what was written already has ended
	if err != nil {
		return err
	}
	if err := d.roomFor(op, g.PID); err != nil {
		return err
	}
	l := &runtimeLaunch{d: d, rt: rt, r: r, dir: dir, home: filepath.Join(d.dirs.run, runtimeDir(id))}
	if l.program, err = rt.Program(); err != nil {
		return err
	}
	c := checkpointRecord{Version: 1, Created: time.Now().UTC()}
	if c.Build, err = rt.Build(l.program); err != nil {
		return driver.Wrap(op, err)
	}
	if c.Guest, err = d.guestOf(dir); err != nil {
		return driver.Wrap(op, err)
	}
	made := filepath.Join(dir, newCheckpointDir)
	if err := errors.Join(os.RemoveAll(made), os.Mkdir(made, 0o700), l.makeSpares()); err != nil {
		return errors.Join(driver.Wrap(op, err), os.RemoveAll(made))
	}
	if err := d.suspend(ctx, l); err != nil {
		return errors.Join(driver.Wrap(op, err), l.goOn(ctx), os.RemoveAll(made))
	}
	// From here on a caller that gives up wants no sandbox that stands still.
	if err := l.save(made, c); err != nil {
		return errors.Join(err, l.resume(ctx), os.RemoveAll(made))
	}
	if err := d.endGuest(context.WithoutCancel(ctx), dir, 0); err != nil {
		return driver.Wrap(op, err)
	}
	return driver.Wrap(op, d.removeRuntime(context.WithoutCancel(ctx), id))
}

// running gives the guest of a sandbox, which must run.
func (d *Driver) running(op, id string) (guestRecord, error) {
	boot, err := bootID()
	if err != nil {
		return guestRecord{}, driver.Wrap(op, err)
	}
	g, ok, err := readGuest(d.dir(id))
	if err != nil {
		return g, driver.Wrap(op, err)
	}
	if !ok || !alive(g, boot) {
		return g, &sandbox.Error{Code: driver.CodeNotRunning, Op: op, Message: fmt.Sprintf("nothing runs in sandbox %q that could be written down", id), Hint: "its files are kept anyway"}
	}
	return g, nil
}

// guestOf gives the name of the guest binary that a sandbox was started with.
func (d *Driver) guestOf(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, guestNameFile))
	if err == nil {
		if name := string(data); name != "" && name == filepath.Base(name) {
			return name, nil
		}
		err = errors.New(guestNameFile + " is damaged")
	}
	return "", &sandbox.Error{Code: sandbox.CodeCheckpointFailed, Op: "find guest", Message: "it isn't known with which guest the sandbox was started: " + err.Error(), Err: err,
		Hint: "an earlier Tongs has started it; stop everything with `tongs down`, and start again"}
}

// roomFor says whether a checkpoint has space.
func (d *Driver) roomFor(op string, pid int) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dirs.sandboxes, &st); err != nil {
		return driver.Wrap(op, &os.PathError{Op: "statfs", Path: d.dirs.sandboxes, Err: err})
	}
	free, reserve := d.space(st)
	need, err := memoryOf(pid)
	if err != nil {
		return driver.Wrap(op, err)
	}
	files := min(st.Files/20, maxReserveFiles) // some file systems have no number of inodes: 0
	if free >= reserve+need && st.Ffree >= files {
		return nil
	}
	return &sandbox.Error{Code: sandbox.CodeNoSpace, Op: op, Message: fmt.Sprintf("the checkpoint may take %d MiB; %d MiB and %d inodes are free below %s, of which %d MiB and %d are kept back",
		need>>20, free>>20, st.Ffree, d.dirs.sandboxes, reserve>>20, files),
		Hint: "destroy sandboxes (`tongs sandbox rm`), free something else there, or end what needs much memory in this one"}
}

// memoryOf gives how many bytes a kernel of a sandbox's own has for what runs on it: files in memory.
func memoryOf(pid int) (uint64, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var total uint64
	seen := make(map[uint64]bool)
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if to, err := os.Readlink(p); err != nil || !strings.Contains(to, "memfd:") || unix.Stat(p, &st) != nil || seen[st.Ino] {
			continue
		}
		seen[st.Ino] = true
		total += uint64(st.Blocks) * 512
	}
	return total, nil
}

// suspend has the guest close what is the host's, and waits until it has.
func (d *Driver) suspend(ctx context.Context, l *runtimeLaunch) error {
	ctx, cancel := within(ctx, suspendTimeout)
	defer cancel()
	client, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) { return connect(ctx, d.dirs.run, socketName(l.r.Spec.ID)) })
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Suspend(ctx, suspendLimit); err != nil {
		return err
	}
	return await(ctx, func() bool { _, err := os.Lstat(l.beside(socketFile)); return errors.Is(err, fs.ErrNotExist) }, "the guest did not close its connections")
}

// beside is a file in the directory of the guest's socket.
func (l *runtimeLaunch) beside(name string) string {
	return filepath.Join(l.home, filepath.Base(placeSocket), name)
}

// await waits until something is so; when ctx's time is over it says what has not happened.
func await(ctx context.Context, so func() bool, otherwise string) error {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return &sandbox.Error{Code: driver.CodeGuestFailed, Op: "wait for guest", Message: otherwise + " in time", Hint: "try again when the machine has less to do"}
		}
	}
	return nil
}

// spares are empty files that are made while there is room for them, so that a disk that has become full meanwhile
// keeps nobody from telling the guest to go on, by the first, nor the guest from making its socket. (What a kernel of
// its own removes may take its place for a while longer.)
const spares = 4

func (l *runtimeLaunch) spare(i int) string { return filepath.Join(l.home, "spare"+strconv.Itoa(i)) }

func (l *runtimeLaunch) makeSpares() (err error) {
	for i := range spares {
		err = errors.Join(err, os.WriteFile(l.spare(i), nil, 0o600))
	}
	return err
}

// tell makes one of the files that the guest waits for. What is there already, be it a link, is not followed.
func (l *runtimeLaunch) tell(name string) error {
	for i := 1; i < spares; i++ {
		if err := os.Remove(l.spare(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(l.spare(0), l.beside(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(l.beside(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// goOn has a guest that isn't paused open its socket again, and waits until it has.
func (l *runtimeLaunch) goOn(ctx context.Context) error {
	return driver.Wrap("go on", errors.Join(l.tell(sandbox.ResumedFile), l.d.reachable(context.WithoutCancel(ctx), l.r.Spec.ID)))
}

// resume is goOn for a sandbox that may be paused.
func (l *runtimeLaunch) resume(ctx context.Context) error {
	if err := l.tell(sandbox.ResumedFile); err != nil {
		return driver.Wrap("go on", err)
	}
	if err := l.control(Resume, ""); err != nil {
		l.d.log.Debug("a sandbox was not paused", "sandbox", l.r.Spec.ID, "reason", err) // else it isn't reached
	}
	return l.goOn(ctx)
}

// save writes what runs into dir and gives it its name. The sandbox stands still from then on.
func (l *runtimeLaunch) save(dir string, c checkpointRecord) error {
	const op = "checkpoint sandbox"
	err := l.control(Pause, "")
	if err == nil {
		err = l.control(Save, dir)
	}
	if err != nil {
		return notSaved(op, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return driver.Wrap(op, err)
	}
	for _, e := range entries {
		if err := errors.Join(os.Chmod(filepath.Join(dir, e.Name()), 0o600), syncPath(filepath.Join(dir, e.Name()))); err != nil {
			return driver.Wrap(op, err)
		}
	}
	final := filepath.Join(l.dir, checkpointDir)
	if err := errors.Join(writeJSON(dir, checkpointFile, c), syncPath(filepath.Join(dir, checkpointFile)), syncPath(dir), removeCheckpoint(l.dir)); err != nil {
		return driver.Wrap(op, err)
	}
	return driver.Wrap(op, errors.Join(os.Rename(dir, final), syncPath(l.dir)))
}

// syncPath makes sure that a file or directory survives a power failure.
func syncPath(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// notSaved explains why a runtime could not write what runs.
func notSaved(op string, err error) error {
	text := err.Error()
	line, _, _ := strings.Cut(text, "\n") // the others are where in the runtime
	e := &sandbox.Error{Code: sandbox.CodeCheckpointFailed, Op: op, Message: line + "; the sandbox goes on", Err: err}
	switch {
	case strings.Contains(text, "bound host socket"):
		e.Message = "a program listens on a socket in the sandbox's files, which a checkpoint can't hold; the sandbox goes on"
		e.Hint = "have it listen below /tmp, on a port, or end it"
	case strings.Contains(text, unix.ENOSPC.Error()), strings.Contains(text, unix.EDQUOT.Error()):
		e.Code, e.Hint = sandbox.CodeNoSpace, driver.SpaceHint(unix.ENOSPC)
	}
	return e
}

// control runs the runtime's program to do something with a sandbox that is up. An error has what the program
// said. The program outlives whoever has started it and is killed; until it has ended, it is the one that controls
// the sandbox.
func (l *runtimeLaunch) control(a Action, image string) error {
	lock, err := lockDir(context.Background(), "control sandbox", l.home, saveTimeout)
	if err != nil {
		return err
	}
	defer lock.unlock()
	out, err := boundedLog()
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	var pid int
	err = onThread(func() error {
		if err := errors.Join(ownDescriptors(), newKeyring(), privateMounts()); err != nil {
			return err
		}
		parts := l.parts()
		if image != "" {
			parts = append(parts, placePart{image, placeImage, unix.MOUNT_ATTR_NOEXEC, true})
		}
		if err := laySet(parts); err != nil {
			return err
		}
		var err error
		pid, _, err = syscall.StartProcess(placeProgram, append([]string{filepath.Base(l.program)}, l.rt.(Freezer).FreezerArgs(a, l.where())...), &syscall.ProcAttr{
			Dir: "/", Env: []string{runtimePath}, Files: []uintptr{null.Fd(), out.Fd(), out.Fd(), lock.f.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := l.wait(pid, saveTimeout); err != nil {
		if said := strings.TrimSpace(string(written(out))); said != "" {
			return fmt.Errorf("%w: %s", err, said[:min(len(said), maxSaid)])
		}
		return err
	}
	return nil
}

// maxSaid bounds what of a runtime's words goes into an error.
const maxSaid = 1500

// settle ends what a process has begun that was killed while it made a checkpoint of a sandbox or had it go on
// from one. The sandbox's guest is there.
func (d *Driver) settle(ctx context.Context, r record, rt Freezer) error {
	dir := d.dir(r.Spec.ID)
	final, made := filepath.Join(dir, checkpointDir), filepath.Join(dir, newCheckpointDir)
	if err := os.RemoveAll(filepath.Join(dir, oldCheckpointDir)); err != nil {
		return err
	}
	if _, err := os.Lstat(made); err == nil {
		l := &runtimeLaunch{d: d, rt: rt, r: r, dir: dir, home: filepath.Join(d.dirs.run, runtimeDir(r.Spec.ID))}
		if l.program, err = rt.Program(); err != nil {
			return err
		}
		d.log.Warn("a checkpoint was cut short; the sandbox goes on", "sandbox", r.Spec.ID)
		return errors.Join(l.resume(ctx), os.RemoveAll(made))
	}
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// What has gone on from it can't do that again.
	if _, err := os.Lstat(filepath.Join(final, begunFile)); err == nil {
		return errors.Join(d.reachable(ctx, r.Spec.ID), removeCheckpoint(dir))
	}
	return d.endGuest(ctx, dir, 0) // it was written and stands still
}

// reachable waits until a guest takes connections.
func (d *Driver) reachable(ctx context.Context, id string) error {
	ctx, cancel := within(ctx, suspendLimit+bootTimeout)
	defer cancel()
	return await(ctx, func() bool {
		c, err := connect(ctx, d.dirs.run, socketName(id))
		if err == nil {
			c.Close()
		}
		return err == nil
	}, "the guest can't be reached")
}

// removeCheckpoint removes a finished checkpoint, if there is one: all of it at once for whoever comes after a process
// that was killed.
func removeCheckpoint(dir string) error {
	old := filepath.Join(dir, oldCheckpointDir)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, checkpointDir), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(old)
}

// readCheckpoint reads a finished checkpoint; ok is false when there is none.
func readCheckpoint(dir string) (c checkpointRecord, ok bool, err error) {
	data, err := os.ReadFile(filepath.Join(dir, checkpointDir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err == nil && (c.Version != 1 || c.Guest == "" || c.Guest != filepath.Base(c.Guest)) {
		err = fmt.Errorf("%s of version %d is not one that this tongs knows", checkpointFile, c.Version)
	}
	return c, true, err
}
