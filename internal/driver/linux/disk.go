//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// openDisk attaches the storage, if there is one, and looks how the disk of single sandboxes can be bounded.
func (d *Driver) openDisk(op string, seed []byte) error {
	s := newStorage(filepath.Dir(d.dirs.sandboxes))
	there, err := s.attach(context.Background(), op, d.cfg.StorageBytes)
	if err != nil {
		return err
	}
	if there {
		d.storage = s
		if err := os.Chmod(d.dirs.sandboxes, 0o700); err != nil {
			return driver.Wrap(op, err)
		}
	}
	if d.rootless {
		d.noQuotas = errors.New("only root can set limits of a file system")
		return nil
	}
	d.quotas, d.noQuotas = openQuotas(d.dirs.sandboxes, seed)
	if d.noQuotas != nil {
		d.noQuotas = fmt.Errorf("the file system of %s: %w", d.dirs.sandboxes, d.noQuotas)
	}
	return nil
}

// Detach unmounts the sandboxes' own storage, if there is one, no sandbox runs, and no other process uses it.
// The driver can only be closed then.
func (d *Driver) Detach(ctx context.Context) error {
	if d.storage == nil {
		return nil
	}
	all, err := d.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Running {
			return nil
		}
	}
	d.quotas.close()
	d.quotas = nil
	if _, err := d.storage.detach(ctx); err != nil {
		return driver.Wrap("detach storage", err)
	}
	return nil
}

// admit says whether one more sandbox can be made with these limits.
func (d *Driver) admit(op string, l *driver.Limits) error {
	if err := d.bound(op, l); err != nil {
		return err
	}
	return d.room(op)
}

// bound fills in the limits of a sandbox's disk that were not given, and refuses some that can't be kept.
func (d *Driver) bound(op string, l *driver.Limits) error {
	if d.quotas != nil {
		if l.DiskBytes == 0 {
			l.DiskBytes = driver.DefaultDiskBytes
		}
		if l.DiskFiles == 0 {
			l.DiskFiles = driver.DefaultDiskFiles
		}
		return nil
	}
	if l.DiskBytes > 0 || l.DiskFiles > 0 {
		_, cure := d.unbounded()
		return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "the disk of one sandbox can't be limited here: " + d.noQuotas.Error(), Err: d.noQuotas,
			Hint: "leave the limit out (disk and disk_files in [sandbox], or --disk); or " + cure}
	}
	return nil
}

// room says whether there is space for one more sandbox. The limits of single sandboxes, where there are any,
// add up to more than there is; and the machine needs some of it too.
func (d *Driver) room(op string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dirs.sandboxes, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: d.dirs.sandboxes, Err: err}
	}
	free, reserve := d.space(st)
	files := min(st.Files/20, maxReserveFiles) // some file systems have no number of inodes: 0
	if free >= reserve && st.Ffree >= files {
		return nil
	}
	what := fmt.Sprintf("%d MiB are free there, and %d MiB are kept back", free>>20, reserve>>20)
	if free >= reserve {
		what = fmt.Sprintf("%d inodes are free there, and %d are kept back", st.Ffree, files)
	}
	return &sandbox.Error{Code: sandbox.CodeNoSpace, Op: op, Message: "no new sandbox is made while the disk of " + d.dirs.sandboxes + " is nearly full: " + what,
		Hint: "destroy sandboxes (`tongs sandbox rm`), free something else there, or set another `reserve` in [storage]"}
}

// What is kept back of a file system, at the most: new sandboxes are refused when there is less.
const (
	maxReserve      = 2 << 30
	maxReserveFiles = 1000
)

// space gives how many bytes are free, and how many must be.
func (d *Driver) space(st unix.Statfs_t) (free, reserve uint64) {
	reserve = min(st.Blocks*uint64(st.Bsize)/20, maxReserve)
	if r := d.cfg.ReserveBytes; r != 0 {
		reserve = uint64(max(r, 0))
	}
	return st.Bavail * uint64(st.Bsize), reserve
}

// unbounded says why the disk of one sandbox can't be limited, and the cure.
func (d *Driver) unbounded() (why, cure string) {
	const own = "give sandboxes a file system of their own: `tongs up --storage 50GiB` (or `size` in [storage]), while there are none yet"
	switch {
	case d.rootless:
		return d.noQuotas.Error(), "run tongs as root"
	case d.storage != nil:
		return "this kernel has no quotas of ext4 (CONFIG_QUOTA and CONFIG_QFMT_V2); together they have " + storageImage, "a kernel with them: every distribution's has"
	}
	m, err := mountOf(d.dirs.sandboxes)
	if err != nil {
		return d.noQuotas.Error(), own
	}
	why = fmt.Sprintf("%s on %s does not enforce project quotas", m.kind, m.source)
	switch m.kind {
	case "ext4":
		how := "mount it with the option prjquota"
		if m.dir == "/" {
			how = "put rootflags=prjquota on the kernel's command line"
		}
		cure = fmt.Sprintf("with %s unmounted (for / from a rescue system), `tune2fs -O quota,project -Q prjquota %s`, and %s", m.dir, m.source, how)
	case "xfs":
		cure = fmt.Sprintf("mount %s with the option pquota (its file system can't be switched while it is mounted; for / it is rootflags=pquota on the kernel's command line)", m.dir)
	default:
		return why, own
	}
	return why, cure + "; or " + own
}

// checkDisk says how the disk of sandboxes is bounded.
func (d *Driver) checkDisk() driver.Finding {
	const name = "disk of a sandbox"
	var st unix.Statfs_t
	if err := unix.Statfs(d.dirs.sandboxes, &st); err != nil {
		return finding(name, driver.Failure, err.Error(), "")
	}
	_, reserve := d.space(st)
	if d.quotas == nil {
		why, cure := d.unbounded()
		return finding(name, driver.Warning, fmt.Sprintf("not bounded: %s; new sandboxes are refused when less than %d MiB are free", why, reserve>>20), cure)
	}
	return finding(name, driver.OK, fmt.Sprintf("bounded by project quotas; new sandboxes are refused when less than %d MiB are free", reserve>>20), "")
}

// fileSystem is a mounted one.
type fileSystem struct{ dir, kind, source string }

// mountOf finds the mount that a path is on.
func mountOf(path string) (fileSystem, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileSystem{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return fileSystem{}, &os.PathError{Op: "stat", Path: real, Err: err}
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	var found fileSystem
	err = eachLine("/proc/self/mountinfo", func(line string) {
		head, tail, ok := strings.Cut(line, " - ")
		h, t := strings.Fields(head), strings.Fields(tail)
		if !ok || len(h) < 6 || len(t) < 2 || h[2] != device {
			return
		}
		dir := unescape(h[4])
		if rel, err := filepath.Rel(dir, real); err == nil && filepath.IsLocal(rel) && len(dir) >= len(found.dir) {
			found = fileSystem{dir, t[0], unescape(t[1])}
		}
	})
	if err == nil && found.dir == "" {
		err = fmt.Errorf("%s is on no mount that can be seen", path)
	}
	return found, err
}

// As good as nothing: a guest or a runtime that fails with no more than this free fails for want of it.
const (
	noBytes = 256 << 10
	noFiles = 32
)

// explainSpace gives the error of a guest or a runtime that ended by itself the code NO_SPACE, if that is why. It
// has to be asked before anything is cleaned up.
func (d *Driver) explainSpace(err error) error {
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != driver.CodeGuestFailed {
		return err
	}
	var st unix.Statfs_t
	full := unix.Statfs(d.dirs.run, &st) == nil && (st.Bavail*uint64(st.Bsize) < noBytes || st.Files > 0 && st.Ffree < noFiles)
	if !full && !strings.Contains(e.Message, unix.ENOSPC.Error()) && !strings.Contains(e.Message, unix.EDQUOT.Error()) {
		return err
	}
	return &sandbox.Error{Code: sandbox.CodeNoSpace, Op: e.Op, Message: e.Message, Hint: driver.SpaceHint(unix.ENOSPC), Err: err}
}
