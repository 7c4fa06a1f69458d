//go:build linux

package linux

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memfd is a file in memory.
type memfd struct {
	f       *os.File
	joining sync.WaitGroup
}

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
	m := &memfd{f: f}
	m.joining.Go(m.join)
	return m, nil
}

// hugePage is what MADV_COLLAPSE works on, with pages of 4 KiB.
const hugePage = 2 << 20

// join lets the kernel keep the program in few large pages instead of many small ones (madvise(2), MADV_COLLAPSE, since
// Linux 6.1, whatever is set for files in memory otherwise). A program is mapped in parts of sixteen small pages, when it
// first touches them, and each page is looked at: of the 1.3 ms that a guest takes until its first line, that was a quarter.
// It takes some milliseconds, once. Where it fails, starts are slower.
func (m *memfd) join() {
	info, err := m.f.Stat()
	if err != nil {
		return
	}
	length := uintptr(info.Size()+hugePage-1) / hugePage * hugePage
	// What is mapped must begin at a multiple of a large page, so there is a place for one more.
	place, err := unix.MmapPtr(-1, 0, nil, length+hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return
	}
	defer unix.MunmapPtr(place, length+hugePage)
	at := unsafe.Add(place, (hugePage-uintptr(place)%hugePage)%hugePage)
	if _, err := unix.MmapPtr(int(m.f.Fd()), 0, at, length, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return
	}
	for done := uintptr(0); done < length; done += hugePage {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(at)+done, hugePage, unix.MADV_COLLAPSE); errno != 0 && errno != unix.EAGAIN {
			return
		}
	}
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

func (m *memfd) close() {
	m.joining.Wait()
	m.f.Close()
}
