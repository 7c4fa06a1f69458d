//go:build linux

package linux

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

var _ driver.Driver = (*Driver)(nil)

// Deadlines of what is done for a caller, each also ended by the caller's context.
const (
	bootTimeout = 20 * time.Second // from the first process to its answer
	stopGrace   = 5 * time.Second  // for a guest that was asked to end
	killTimeout = 20 * time.Second // for a killed one, with all its processes
	lockTimeout = 10 * time.Second // for another process that works on the same sandbox
	dialTimeout = 5 * time.Second

	recoverPatience = time.Second // for a lock on something unfinished; making a sandbox takes some milliseconds
)

// Config says where a Driver keeps things. Home and Logger are required.
type Config struct {
	// Home is $TONGS_HOME: sandboxes/, run/ and ids/ are made in it.
	Home string

	Logger *slog.Logger

	// Guest is the first process of each sandbox. Default: driver.GuestBinary.
	Guest *driver.Guest

	// Runtimes start sandboxes whose Spec.Driver is their name.
	Runtimes []Runtime

	// Default is the Spec.Driver of sandboxes that name none: Name, the default, or a runtime's.
	Default string

	// NoIdmap and NoCgroups make the driver do without, as on a machine that has none. For tests.
	NoIdmap, NoCgroups bool

	// StorageBytes is the size of a file system of the sandboxes' own, in a file of the home: it is made, mounted,
	// and grown when this is more than it has. 0 is none, or the one that there is. It needs root.
	StorageBytes int64

	// ReserveBytes is what the file system of the sandboxes must have free for another one to be made. Default: a
	// twentieth of it, at most 2 GiB; negative is nothing.
	ReserveBytes int64

	// CgroupV2 names a directory of a cgroup 2 hierarchy to use instead of what is found. For tests.
	CgroupV2 string
}

// Driver makes sandboxes out of namespaces. Make one with New.
type Driver struct {
	cfg     Config
	log     *slog.Logger
	homeTag string // tells this home's cgroups from another's
	dirs    dirs
	groups  cgroups
	noLimit error // why there are no groups
	ids     *idRanges

	storage  *storage // nil when sandboxes are on the home's own file system
	quotas   *quotas  // nil when the disk of one sandbox can't be limited,
	noQuotas error    // and why

	guestOnce sync.Mutex
	guest     *memfd // sealed copy of the guest binary
	guestPath string // of another copy, for runtimes

	rootless bool // this process isn't root: its sandboxes have the ids of their image's map, or its own one

	layers atomic.Pointer[error] // why an overlay on an idmapped image isn't possible, once that was found

	lobby lobby

	locks keyedLocks
	watch watcher
}

// dirs are the directories below Home.
type dirs struct{ sandboxes, run, ids string }

// New makes a driver for a home. It changes nothing but directories (Recover cleans up). A process of
// root leaves no core dumps any more and can't be traced by ordinary users.
//
// Without root, a sandbox has the ids of its image's Map. Without that it has one user id only, which on
// the host is this process's: commands run as their uid 1000, own the sandbox's whole tree, can become nobody
// else, and read of the visible parts of the host what this user may read. Limits of memory and processes need a
// control group of version 2 that is the user's and that this process is in. New moves this process, and what else is in
// that group, into a group below it.
func New(cfg Config) (*Driver, error) {
	const op = "open driver linux"
	if cfg.Home == "" || !filepath.IsAbs(cfg.Home) {
		return nil, driver.Invalid(op, "home %q must be an absolute path", cfg.Home)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// A process that this one starts has a copy of its memory for a moment, and is partly inside the
	// sandbox already; nobody there may look into it. An ordinary user needs the files in /proc of its
	// children, which this would take away; nobody is inside yet when they begin.
	if os.Geteuid() == 0 {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return nil, driver.Wrap(op, os.NewSyscallError("prctl", err))
		}
	}
	home := filepath.Clean(cfg.Home)
	d := &Driver{cfg: cfg, log: cfg.Logger, rootless: os.Geteuid() != 0, dirs: dirs{
		sandboxes: filepath.Join(home, "sandboxes"), run: filepath.Join(home, "run"), ids: filepath.Join(home, "ids"),
	}}
	for _, dir := range []string{d.dirs.sandboxes, d.dirs.run, d.dirs.ids} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, homeError(op, home, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, homeError(op, home, err)
		}
	}
	real, err := filepath.EvalSymlinks(home)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	sum := sha256.Sum256([]byte(real))
	d.homeTag = hex.EncodeToString(sum[:4])
	if d.ids, err = openRanges(d.dirs.ids, sum[:]); err != nil {
		return nil, driver.Wrap(op, err)
	}
	if err := d.openDisk(op, sum[4:]); err != nil {
		return nil, err
	}
	if !cfg.NoCgroups {
		if d.groups, err = findCgroups(cfg.CgroupV2); err != nil {
			d.noLimit = err
			d.log.Warn("sandboxes have no limits of memory and processes", "reason", err)
		}
	}
	return d, nil
}

func homeError(op, home string, err error) error {
	e := driver.Wrap(op, err)
	var se *sandbox.Error
	if errors.As(e, &se) && se.Hint == "" {
		se.Hint = "point TONGS_HOME to a directory that can be written; it is " + home
	}
	return e
}

// Name is the name of sandboxes' own driver where they are started by no runtime.
const Name = driver.Linux

// Name is that of the driver whose sandboxes are made where none is named.
func (d *Driver) Name() string { return cmp.Or(d.cfg.Default, Name) }

// Close lets go of what this process holds: the copy of the guest, and the watches on the guests it
// has started. Those go on running.
func (d *Driver) Close() error {
	d.watch.close()
	d.quotas.close()
	d.lobby.close()
	if d.storage != nil {
		d.storage.close()
	}
	d.guestOnce.Lock()
	defer d.guestOnce.Unlock()
	if d.guest != nil {
		d.guest.close()
		d.guest = nil
	}
	return nil
}

// guestImage gives the sealed copy of the guest binary, made when it is first needed.
func (d *Driver) guestImage() (*memfd, error) {
	d.guestOnce.Lock()
	defer d.guestOnce.Unlock()
	if d.guest != nil {
		return d.guest, nil
	}
	g := d.cfg.Guest
	if g == nil {
		found, err := driver.GuestBinary()
		if err != nil {
			return nil, err
		}
		g = &found
	}
	r, err := g.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	d.guest, err = sealedCopy("tongs-guest", r)
	if err != nil {
		return nil, driver.Wrap("copy guest binary", err)
	}
	return d.guest, nil
}

// socketName is the name of a sandbox's socket below run: short, because a socket's path may have only
// 107 bytes.
func socketName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8]) + ".sock"
}

// dir is where a sandbox is kept.
func (d *Driver) dir(id string) string { return filepath.Join(d.dirs.sandboxes, id) }

// exists reports whether there is a finished sandbox of that id.
func (d *Driver) exists(id string) (bool, error) {
	_, err := os.Lstat(d.dir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// within gives a context with a deadline for one step.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}
