//go:build linux

package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quotas bound what each sandbox keeps on the file system of the sandboxes, by the kernel's project quotas:
// what is made in a directory of a project belongs to that project, and the project has a limit of bytes and
// of inodes. It takes a few system calls for each sandbox, whatever its size. ext4 and xfs have them, if they
// are mounted so.
//
// Projects are numbered by the home and by the sandbox's range of user ids, so that those of two homes, and
// the small numbers that people give away in /etc/projects, stay apart.
type quotas struct {
	root *os.File // the directory of the sandboxes
	home uint32   // the upper 17 bits of the projects of this home, not 0
}

// The numbers are those of linux/fs.h and linux/quota.h.
const (
	fsGetXattr         = 0x801c581f
	fsSetXattr         = 0x401c5820
	projectInherit     = 0x200
	projectQuota       = 2
	quotaGet           = 0x800007
	quotaSet           = 0x800008
	quotaNext          = 0x800009
	quotaState         = 'X'<<8 + 8
	quotaStateVersion  = 1
	quotaStateEnforced = 0x20
	quotaLimits        = 1 | 4
	quotaBlock         = 1024

	slotBits = 15 // a range's number is at most lastSlot
)

// fileAttributes is struct fsxattr.
type fileAttributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

// quotaRecord is struct if_dqblk, and with its last field struct if_nextdqblk.
type quotaRecord struct {
	bytesHard, bytesSoft, bytes uint64 // limits in blocks of 1 KiB, 0 is none; what is used in bytes
	filesHard, filesSoft, files uint64
	bytesTime, filesTime        uint64
	valid                       uint32
	project                     uint32
}

// errNoQuotas says that a file system doesn't enforce project quotas.
var errNoQuotas = errors.New("it does not enforce project quotas")

// openQuotas looks whether the file system of dir enforces project quotas. seed is a hash of the home.
func openQuotas(dir string, seed []byte) (*quotas, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	q := &quotas{root: root, home: max(binary.BigEndian.Uint32(seed)>>slotBits, 1)}
	var state [256]byte // struct fs_quota_statv has 160
	state[0] = quotaStateVersion
	err = q.ctl(quotaState, 0, unsafe.Pointer(&state))
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || err == nil && binary.NativeEndian.Uint16(state[2:])&quotaStateEnforced == 0 {
		err = errNoQuotas
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return q, nil
}

func (q *quotas) close() {
	if q != nil {
		q.root.Close()
	}
}

func (q *quotas) ctl(command int, project uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, q.root.Fd(), uintptr(command<<8|projectQuota), uintptr(project), uintptr(data), 0, 0)
	runtime.KeepAlive(q.root)
	if errno != 0 {
		return os.NewSyscallError("quotactl", errno)
	}
	return nil
}

// project is the number of the project of the sandbox whose user ids begin at base.
func (q *quotas) project(base uint32) uint32 { return q.home<<slotBits | base/rangeSize }

// slot is the number of the range of user ids of a project of this home.
func (q *quotas) slot(project uint32) (int, bool) {
	return int(project & (1<<slotBits - 1)), project>>slotBits == q.home
}

// limit sets what a sandbox may keep. What isn't above 0 is not limited.
func (q *quotas) limit(base uint32, bytes, files int64) error {
	r := quotaRecord{bytesHard: uint64(max(bytes, 0)+quotaBlock-1) / quotaBlock, filesHard: uint64(max(files, 0)), valid: quotaLimits}
	return q.ctl(quotaSet, q.project(base), unsafe.Pointer(&r))
}

// check says whether a sandbox keeps to its limits. What root has put there counts and is not held to them.
func (q *quotas) check(base uint32) error {
	var r quotaRecord
	if err := q.ctl(quotaGet, q.project(base), unsafe.Pointer(&r)); err != nil {
		return err
	}
	if r.bytesHard != 0 && r.bytes > r.bytesHard*quotaBlock || r.filesHard != 0 && r.files > r.filesHard {
		return fmt.Errorf("%d bytes in %d files: %w", r.bytes, r.files, unix.EDQUOT)
	}
	return nil
}

// limited gives the ranges of this home for which there are limits.
func (q *quotas) limited() ([]int, error) {
	var all []int
	for next := q.home << slotBits; ; next++ {
		var r quotaRecord
		err := q.ctl(quotaNext, next, unsafe.Pointer(&r))
		slot, ours := q.slot(r.project)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || err == nil && !ours {
			return all, nil
		}
		if err != nil || r.project < next { // which would begin again for ever
			return all, err
		}
		if r.bytesHard != 0 || r.filesHard != 0 {
			all = append(all, slot)
		}
		if next = r.project; next == ^uint32(0) {
			return all, nil
		}
	}
}

// assign makes a directory hand a sandbox's project on to all that is made in it from now on, or no project
// when base is 0. What is in it already keeps its own.
func (q *quotas) assign(dir string, base uint32) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var a fileAttributes
	if err := fileAttribute(f, fsGetXattr, &a); err != nil {
		return err
	}
	a.project, a.flags = 0, a.flags&^projectInherit
	if base != 0 {
		a.project, a.flags = q.project(base), a.flags|projectInherit
	}
	return fileAttribute(f, fsSetXattr, &a)
}

func fileAttribute(f *os.File, request uintptr, a *fileAttributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(a)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return &os.PathError{Op: "set project", Path: f.Name(), Err: errno}
	}
	return nil
}

// fence makes a sandbox's project the owner of what is made in dir until the function that it gives is called,
// and of all that is made below that later; and sets the project's limits.
func (d *Driver) fence(dir string, r record) (func() error, error) {
	if d.quotas == nil || r.Base == 0 || r.Spec.Limits.DiskBytes <= 0 && r.Spec.Limits.DiskFiles <= 0 {
		return func() error { return nil }, nil
	}
	err := d.quotas.limit(r.Base, r.Spec.Limits.DiskBytes, r.Spec.Limits.DiskFiles)
	if err == nil {
		err = d.quotas.assign(dir, r.Base)
	}
	return func() error { return errors.Join(d.quotas.check(r.Base), d.quotas.assign(dir, 0)) }, err
}

// What a sandbox that starts may have over its limits: an overlay makes a directory of its own when it is mounted,
// and is read-only for ever when it can't.
const (
	slackBytes = 1 << 20
	slackFiles = 64
)

// loosen lets a sandbox start whose disk is full. The function that it gives sets the limits again.
func (d *Driver) loosen(r record) (func() error, error) {
	l := r.Spec.Limits
	if d.quotas == nil || r.Base == 0 || l.DiskBytes <= 0 && l.DiskFiles <= 0 {
		return func() error { return nil }, nil
	}
	more := func(limit, slack int64) int64 {
		if limit > 0 {
			limit += slack
		}
		return limit
	}
	return func() error { return d.quotas.limit(r.Base, l.DiskBytes, l.DiskFiles) },
		d.quotas.limit(r.Base, more(l.DiskBytes, slackBytes), more(l.DiskFiles, slackFiles))
}

// giveBack gives back a sandbox's range of user ids, and with it its project.
func (d *Driver) giveBack(id string, base uint32) error {
	if d.quotas != nil && base != 0 && d.ids.owner(base) == id {
		if err := d.quotas.limit(base, 0, 0); err != nil {
			return err
		}
	}
	return d.ids.release(id, base)
}
