//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// storage is a file system for the sandboxes alone: an ext4 in a file of the home, mounted by root on the
// directory of the sandboxes. All of the file's space is taken when it is made, so that sandboxes never fill
// the disk that the home is on; and it has project quotas, so that one of them never fills the storage, where
// the kernel can do that.
//
// It is the one mount of ours that everybody on the machine sees. It stays while sandboxes run, also when the
// process that made it is killed. The loop device below it goes by itself when nothing mounts it any more.
type storage struct {
	home, dir   string
	image, lock string
	lockFile    *os.File // shared by all who use the storage; whoever attaches or detaches it has it alone
}

const (
	storageImage = "storage.img"
	storageLock  = "storage.lock"
	// MinStorageBytes is the least that a storage may have.
	MinStorageBytes = 64 << 20

	storageTimeout = 5 * time.Minute // for making, checking and growing one
	inodeBytes     = 8192            // one inode for so many bytes: projects have many small files
)

func newStorage(home string) *storage {
	return &storage{home: home, dir: filepath.Join(home, "sandboxes"), image: filepath.Join(home, storageImage), lock: filepath.Join(home, storageLock)}
}

// attach mounts the storage if there is one, or is to be one of size bytes (0: none is asked for). It reports
// whether there is one; if so, nobody detaches it until close.
func (s *storage) attach(ctx context.Context, op string, size int64) (bool, error) {
	if _, err := os.Lstat(s.image); errors.Is(err, fs.ErrNotExist) && size <= 0 {
		return false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, driver.Wrap(op, err)
	}
	if os.Geteuid() != 0 {
		return false, &sandbox.Error{Code: sandbox.CodePermissionDenied, Op: op, Message: "a storage of their own for sandboxes (" + s.image + ") can be mounted by root only",
			Hint: "run tongs as root, or leave `size` out of [storage] and use a home without one"}
	}
	if size > 0 && size < MinStorageBytes {
		return false, driver.Invalid(op, "a storage of %d bytes is too small: at least %d MiB", size, MinStorageBytes>>20)
	}
	size = (size + 1<<20 - 1) &^ (1<<20 - 1)
	ctx, cancel := within(ctx, storageTimeout)
	defer cancel()
	var err error
	if s.lockFile, err = os.OpenFile(s.lock, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return false, driver.Wrap(op, err)
	}
	if err = s.attachLocked(ctx, op, size); err != nil {
		s.close()
		return false, driver.Wrap(op, err)
	}
	return true, nil
}

func (s *storage) attachLocked(ctx context.Context, op string, size int64) error {
	for {
		if err := s.flock(ctx, op, unix.LOCK_SH); err != nil {
			return err
		}
		if mounted, err := s.mounted(); err != nil {
			return err
		} else if mounted {
			return s.checkSize(op, size, false)
		}
		// Nobody who has the lock now can be using it.
		if err := s.flock(ctx, op, unix.LOCK_EX); err != nil {
			return err
		}
		if mounted, err := s.mounted(); err != nil {
			return err
		} else if !mounted {
			if err := s.prepare(ctx, op, size); err != nil {
				return err
			}
			if err := s.mount(ctx, op); err != nil {
				return err
			}
		}
	}
}

// flock takes the lock in another way, and waits as long as ctx lets it. The kernel tells nobody when such a
// lock is free.
func (s *storage) flock(ctx context.Context, op string, how int) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := unix.Flock(int(s.lockFile.Fd()), how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &sandbox.Error{Code: driver.CodeBusy, Op: op, Message: "another process is attaching or detaching " + s.image, Hint: "wait for it, and try again"}
		}
	}
}

// close lets go of the storage; it stays mounted.
func (s *storage) close() {
	if s.lockFile != nil {
		s.lockFile.Close()
		s.lockFile = nil
	}
}

// mounted reports whether the directory of the sandboxes is the storage's mount. That it is something else's
// while there is an image is an error.
func (s *storage) mounted() (bool, error) {
	var above, st unix.Stat_t
	if err := unix.Stat(s.home, &above); err != nil {
		return false, &os.PathError{Op: "stat", Path: s.home, Err: err}
	}
	if err := unix.Stat(s.dir, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: s.dir, Err: err}
	}
	if st.Dev == above.Dev {
		return false, nil
	}
	loop, err := s.loop()
	if err != nil {
		return false, err
	}
	if loop != nil {
		defer loop.Close()
	}
	if loop == nil || !isDevice(loop, st.Dev) {
		return false, &sandbox.Error{Code: sandbox.CodeAlreadyExists, Op: "attach storage", Message: s.dir + " is a file system already, and not that of " + s.image,
			Hint: "unmount it, or do without a storage: leave out `size` in [storage], and move away " + s.image + " if there is one"}
	}
	return true, nil
}

func isDevice(f *os.File, dev uint64) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == dev
}

// checkSize says whether the storage has the size that was asked for. A larger one than it has is possible
// when it isn't in use.
func (s *storage) checkSize(op string, size int64, grow bool) error {
	info, err := os.Stat(s.image)
	if err != nil {
		return err
	}
	switch have := info.Size(); {
	case size > 0 && size < have:
		return driver.Invalid(op, "the storage %s has %d MiB and can't shrink to %d: ask for at least what it has, or begin with another home", s.image, have>>20, size>>20)
	case size > have && !grow:
		return &sandbox.Error{Code: driver.CodeBusy, Op: op, Message: fmt.Sprintf("the storage %s has %d MiB and can't grow while it is in use", s.image, have>>20),
			Hint: "run `tongs down` first, and then this again"}
	}
	return nil
}

// prepare makes the image, or grows it, or takes back space that it has lost, and checks it.
func (s *storage) prepare(ctx context.Context, op string, size int64) error {
	// A device that still has it means that it is mounted out of sight, by sandboxes that run for instance: then
	// nothing but that device may write to it.
	loop, err := s.unused(ctx)
	if err != nil {
		return err
	}
	info, err := os.Stat(s.image)
	if errors.Is(err, fs.ErrNotExist) {
		return s.create(ctx, op, size)
	}
	if err != nil {
		return err
	}
	if loop != nil {
		defer loop.Close()
	}
	if err := s.checkSize(op, size, loop == nil); err != nil || loop != nil {
		return err
	}
	f, err := os.OpenFile(s.image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.allocate(f, max(size, info.Size())); err != nil {
		return err
	}
	check := []string{"-p"}
	if size > info.Size() {
		check = []string{"-f", "-p"} // which resize2fs wants
	}
	if err := s.tool(ctx, 1, "e2fsck", append(check, s.image)...); err != nil {
		return err
	}
	if size > info.Size() {
		return s.tool(ctx, 0, "resize2fs", s.image)
	}
	return nil
}

// create makes the image, under another name until it is whole.
func (s *storage) create(ctx context.Context, op string, size int64) error {
	if entries, err := os.ReadDir(s.dir); err != nil {
		return err
	} else if len(entries) > 0 {
		return &sandbox.Error{Code: sandbox.CodeAlreadyExists, Op: op, Message: fmt.Sprintf("%s has sandboxes in it (%d entries), which a storage would hide", s.dir, len(entries)),
			Hint: "keep what you need of them (`tongs sandbox cp`) and destroy them (`tongs sandbox rm`), or give --storage together with a new --home"}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.home, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: s.home, Err: err}
	}
	if free := int64(st.Bavail) * st.Bsize; free < size {
		return &sandbox.Error{Code: sandbox.CodeNoSpace, Op: op, Message: fmt.Sprintf("a storage of %d MiB was asked for, and %s has %d MiB free", size>>20, s.home, free>>20),
			Hint: "ask for less, or free some space"}
	}
	unfinished := s.image + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	err = s.allocate(f, size)
	if err == nil {
		// Discarding would give the space back that was just taken.
		err = s.tool(ctx, 0, "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-i", fmt.Sprint(inodeBytes), "-O", "quota,project", "-E", "nodiscard,quotatype=prjquota,lazy_itable_init=1", unfinished)
	}
	if err == nil {
		err = s.allocate(f, size) // mkfs has no other way to write zeros on some file systems than to make holes
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(unfinished, s.image)
	}
	if err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	return nil
}

// allocate takes all of the image's space: also what it has lost by somebody's discarding.
func (s *storage) allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return &sandbox.Error{Code: driver.CodeUnsupported, Op: "make storage", Message: "the file system of " + s.home + " can't set space aside for a file", Err: err,
				Hint: "put the home on ext4, xfs, btrfs or tmpfs, or do without a storage"}
		case err != nil:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// tool runs one of e2fsprogs; statuses up to most are success.
func (s *storage) tool(ctx context.Context, most int, name string, args ...string) error {
	path, err := findTool(name)
	if err != nil {
		return &sandbox.Error{Code: driver.CodeUnsupported, Op: "prepare storage", Message: "there is no " + name + " on this machine", Hint: "install e2fsprogs", Err: err}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.ExtraFiles = []*os.File{s.lockFile} // so that it has the lock as long as it runs, should this process end
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && exit.Exited() && exit.ExitCode() <= most {
		return nil
	}
	said := strings.TrimSpace(string(out[:min(len(out), 2000)]))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &sandbox.Error{Code: sandbox.CodeInternal, Op: "prepare storage", Message: fmt.Sprintf("%s: %v: %s", name, err, said), Err: err,
		Hint: "if it is damaged, look at it with `e2fsck -f " + s.image + "`; the sandboxes are in it"}
}

// findTool looks where the tools of root are, too.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// detach unmounts the storage, if nobody else uses it, and reports whether it did. Whoever calls it must know
// that no sandbox runs.
func (s *storage) detach(ctx context.Context) (bool, error) {
	if s.lockFile == nil {
		return false, nil
	}
	if err := unix.Flock(int(s.lockFile.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.close() // what is left of the lock
		return false, nil
	}
	defer s.close()
	if mounted, err := s.mounted(); err != nil || !mounted {
		return false, err
	}
	end := time.Now().Add(loopPatience)
	for {
		err := unix.Unmount(s.dir, unix.UMOUNT_NOFOLLOW)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EBUSY) && time.Now().Before(end) && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond) // nobody tells when it isn't any more
			continue
		}
		return false, &sandbox.Error{Code: driver.CodeBusy, Op: "detach storage", Message: s.dir + " can't be unmounted: " + err.Error(), Err: err,
			Hint: "something has files open there (`fuser -m " + s.dir + "` says what); end it, and run `tongs down`"}
	}
	loop, err := s.unused(ctx)
	if loop != nil {
		loop.Close() // somebody's own copy of the mount has it, and it goes with that
	}
	return true, err
}
