//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// backlog is how many connections may wait for a guest to take them.
const backlog = 256

// maxSunPath is the most that the path of a socket may have, without its final zero byte.
const maxSunPath = 107

// socketPath gives a path for a socket in dir that is short enough, whatever dir's length, and what
// must be closed after its use.
func socketPath(dir, name string) (string, func(), error) {
	p := filepath.Join(dir, name)
	if len(p) <= maxSunPath {
		return p, func() {}, nil
	}
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name), func() { f.Close() }, nil
}

// listen binds a socket for a guest to listen on. One that an earlier guest has left is replaced.
func listen(dir, name string) (*os.File, error) {
	p, done, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: p}); err != nil {
		f.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		f.Close()
		return nil, os.NewSyscallError("listen", err)
	}
	return f, nil
}

// connect opens a connection to a guest's socket.
func connect(ctx context.Context, dir, name string) (net.Conn, error) {
	p, done, err := socketPath(dir, name)
	if err != nil {
		return nil, err
	}
	defer done()
	// A link leads to the directory in which a kernel of the sandbox's own has made the socket, and in which the
	// sandbox's root can put what it wants: a link to a socket of the host's, or of another sandbox.
	if link, lerr := os.Readlink(p); lerr == nil {
		f, err := os.OpenFile(filepath.Join(dir, link), unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return nil, err
		} else if info.Mode().Type() != fs.ModeSocket {
			return nil, &sandbox.Error{Code: driver.CodeGuestFailed, Op: "connect to sandbox", Message: "something that is no socket is in the place of the guest's",
				Hint: "somebody has changed " + SocketDir + " in the sandbox: stop it and start it again"}
		}
		p = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	return dialer.DialContext(ctx, "unix", p)
}

// channel is a pair of connected sockets that keep messages apart: one for this process, one for a new
// guest.
func channel() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "channel")
	f := os.NewFile(uintptr(fds[0]), "channel")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}
