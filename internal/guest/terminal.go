package guest

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

// plumbTerminal makes a pseudo-terminal of the given size: one descriptor for
// input and output here, the command's controlling terminal there.
func (p *process) plumbTerminal(size sandbox.TerminalSize, attr *syscall.ProcAttr) (theirs []int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("make a terminal: %w", errno)
	}
	theirs = []int{int(slave)}
	if err := setSize(fd, size); err != nil {
		return theirs, fmt.Errorf("make a terminal: %w", err)
	}
	// The kernel has made it the property of this thread's fsuid, the user.
	// Input has a descriptor of its own, so that closing it ends the writer
	// and not the reader.
	in, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return theirs, err
	}
	p.stdin = &stdin{f: os.NewFile(uintptr(in), "terminal"), terminal: true}
	m := newPump(p, master, sandbox.Stdout)
	m.terminal = true
	p.pumps = append(p.pumps, m)
	attr.Files = []uintptr{slave, slave, slave}
	attr.Sys.Setctty, attr.Sys.Ctty = true, 0
	return theirs, nil
}

func setSize(fd int, size sandbox.TerminalSize) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Columns)})
}

// resize changes the size of the terminal; its foreground processes get SIGWINCH
// from the kernel.
func (p *process) resize(size sandbox.TerminalSize) error {
	const op = "resize"
	if size.Columns < 1 || size.Columns > 65535 || size.Rows < 1 || size.Rows > 65535 {
		return sandbox.Errf(sandbox.CodeInvalidArgument, op, "a terminal has 1 to 65535 columns and rows", "")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil {
		return sandbox.Errf(sandbox.CodeNotSupported, op, "process "+p.id+" has no terminal", "start it with one")
	}
	if p.exit != nil {
		return sandbox.Errf(sandbox.CodeProcessExited, op, "process "+p.id+" has ended", "")
	}
	rc, err := p.pumps[0].f.SyscallConn()
	if err != nil {
		return sandbox.FileError(op, err)
	}
	if cerr := rc.Control(func(fd uintptr) { err = setSize(int(fd), size) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return sandbox.FileError(op, err)
	}
	p.terminal = &size
	return nil
}
