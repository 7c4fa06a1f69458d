//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// loop gives the loop device that has the image, nil when none has. It can't become another's until it is closed.
func (s *storage) loop() (*os.File, error) {
	var image unix.Stat_t
	if err := unix.Stat(s.image, &image); errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, &os.PathError{Op: "stat", Path: s.image, Err: err}
	}
	entries, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(e)), os.O_RDWR, 0)
		if err != nil {
			continue // gone since
		}
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err == nil && info.Device == image.Dev && info.Inode == image.Ino {
			return f, nil
		}
		f.Close()
	}
	return nil, nil
}

// loopPatience is for what is about to end: a process that was just started somewhere has copies of all mounts and
// of all descriptors of the one that started it, for some milliseconds.
const loopPatience = 3 * time.Second

// unused waits until no device has the image any more, and gives the one that still has it when patience ran out.
func (s *storage) unused(ctx context.Context) (*os.File, error) {
	ctx, cancel := within(ctx, loopPatience)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		loop, err := s.loop()
		if err != nil || loop == nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return loop, nil
		default:
		}
		loop.Close() // or it would never be
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// loopTries bounds how often another device is taken when somebody else was faster.
const loopTries = 32

// newLoop puts the image on a free loop device. It is free again as soon as nobody has it open or mounted.
func (s *storage) newLoop() (*os.File, error) {
	image, err := os.OpenFile(s.image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, noLoop(err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Size: 4096}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO // what is cached above need not be below
	copy(config.Info.File_name[:len(config.Info.File_name)-1], s.image)
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, noLoop(os.NewSyscallError("ioctl", err))
		}
		f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, noLoop(err)
		}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if errors.Is(err, unix.EINVAL) && config.Info.Flags&unix.LO_FLAGS_DIRECT_IO != 0 {
			config.Info.Flags &^= unix.LO_FLAGS_DIRECT_IO // not every file system can
			config.Size = 0
			err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		}
		if err == nil {
			return f, nil
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, &os.PathError{Op: "configure", Path: f.Name(), Err: err}
		}
	}
	return nil, &sandbox.Error{Code: driver.CodeBusy, Op: "attach storage", Message: "others take every loop device that is free", Hint: "try again"}
}

func noLoop(err error) error {
	return &sandbox.Error{Code: driver.CodeUnsupported, Op: "attach storage", Message: "there are no loop devices: " + err.Error(), Err: err,
		Hint: "modprobe loop; in a container, give it --privileged; or do without a storage"}
}

// mount mounts the image on the directory of the sandboxes: with quotas, or without where the kernel has none.
func (s *storage) mount(ctx context.Context, op string) error {
	loop, err := s.loop()
	if err != nil {
		return err
	}
	used := loop != nil
	if !used {
		if loop, err = s.newLoop(); err != nil {
			return err
		}
	}
	m, err := mountExt4(loop.Name(), "prjquota", "noinit_itable")
	if !used && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH)) {
		// Such a kernel doesn't even mount what has them.
		loop.Close()
		if err := s.tool(ctx, 0, "tune2fs", "-O", "^quota,^project", s.image); err != nil {
			return err
		}
		if loop, err = s.newLoop(); err != nil {
			return err
		}
		m, err = mountExt4(loop.Name(), "noinit_itable")
	}
	defer loop.Close() // the mount keeps the device
	if errors.Is(err, unix.ENODEV) {
		return &sandbox.Error{Code: driver.CodeUnsupported, Op: op, Message: "this kernel has no ext4", Hint: "modprobe ext4, or do without a storage", Err: err}
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", s.image, err)
	}
	defer m.Close()
	// Nothing but e2fsck uses it, and that makes it when it has to.
	_ = unix.Unlinkat(int(m.Fd()), "lost+found", unix.AT_REMOVEDIR)
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, s.dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: s.dir, Err: err}
	}
	return nil
}

// mountExt4 mounts what is on a device, attached nowhere.
func mountExt4(device string, flags ...string) (*os.File, error) {
	fd, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fd)
	err = unix.FsconfigSetString(fd, "source", device)
	for _, flag := range flags {
		if err == nil {
			err = unix.FsconfigSetFlag(fd, flag)
		}
	}
	if err == nil {
		err = unix.FsconfigCreate(fd)
	}
	if err != nil {
		return nil, explain(fd, err)
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(m), device), nil
}
