//go:build linux

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// memfd is a file in memory.
type memfd struct{ f *os.File }

// highFD is where descriptors are put that a new process must still have open while its own, which are
// the lowest, are being arranged.
const highFD = 256

// sealedCopy puts a program into memory so that nobody, whatever their rights, can change it: what
// runs in a sandbox is never the file on the host's disk.
func sealedCopy(name string, r io.Reader) (*memfd, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there was no flag, and all were executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	w, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, highFD)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(w), name)
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Chmod(0o555); err != nil {
		f.Close()
		return nil, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("seal memory", err)
	}
	return &memfd{f}, nil
}

// sum names the program by its content.
func (m *memfd) sum() (string, error) {
	h := sha256.New()
	if err := m.copyTo(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func (m *memfd) copyTo(w io.Writer) error {
	info, err := m.f.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(m.f, 0, info.Size()))
	return err
}

// logBytes is how much a guest can say on stdout and stderr in its whole life. More is refused to it
// by the kernel: no guest can fill a disk or block on a pipe that nobody reads.
const logBytes = 64 << 10

// boundedLog is a file in memory that can't grow beyond logBytes.
func boundedLog() (*os.File, error) {
	fd, err := unix.MemfdCreate("tongs-guest-log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "tongs-guest-log")
	if err := f.Truncate(logBytes); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, os.NewSyscallError("seal memory", err)
	}
	return f, nil
}

// written gives what was written to a bounded log.
func written(f *os.File) []byte {
	buf := make([]byte, logBytes)
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	for n > 0 && buf[n-1] == 0 {
		n--
	}
	return buf[:n]
}

// memory gives a file in memory with these bytes, at its start.
func memory(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (m *memfd) close() { m.f.Close() }
