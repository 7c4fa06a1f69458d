//go:build linux

package linux

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// withSockets makes a connection to a guest on a kernel of its own one by which the guest's sockets are found.
// Such a guest has made its unix socket in a directory, to which a link leads.
func (d *Driver) withSockets(id string, c net.Conn) net.Conn {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return c
	}
	if _, err := os.Readlink(filepath.Join(d.dirs.run, socketName(id))); err != nil {
		return c
	}
	return &ownKernelConn{u, d, id}
}

// ownKernelConn is a connection to a guest on a kernel of its own.
type ownKernelConn struct {
	*net.UnixConn
	d  *Driver
	id string
}

var _ sandbox.SocketFinder = (*ownKernelConn)(nil)

// FindSocket takes the host's side of a socket in the sandbox out of the process that is the sandbox's kernel:
// what listens in a sandbox listens in its network namespace on the host, and that process holds it. The
// socket stays the guest's, with the connections that wait, when this process has gone.
func (c *ownKernelConn) FindSocket(ctx context.Context, network, address string) (*os.File, error) {
	const op = "find socket"
	ap, err := loopbackAddress(address)
	if err != nil {
		return nil, driver.Invalid(op, "%q is no address on the loopback", address)
	}
	g, ok, err := readGuest(c.d.dir(c.id))
	if err == nil && !ok {
		err = driver.NotFound(op, c.id)
	}
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	p, err := find(g)
	if err != nil || p == nil {
		return nil, &sandbox.Error{Code: driver.CodeNotRunning, Op: op, Message: fmt.Sprintf("the guest of sandbox %q isn't running", c.id), Hint: "start it", Err: err}
	}
	defer p.close()
	inode, err := socketInode(g.PID, network, ap)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	dir := fmt.Sprintf("/proc/%d/fd", g.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, driver.Wrap(op, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := p.f.SyscallConn()
		if err != nil {
			return nil, driver.Wrap(op, err)
		}
		fd := -1
		var gerr error
		if err := raw.Control(func(pidfd uintptr) { fd, gerr = unix.PidfdGetfd(int(pidfd), n, 0) }); err != nil {
			return nil, driver.Wrap(op, err)
		}
		if gerr != nil {
			return nil, driver.Wrap(op, os.NewSyscallError("pidfd_getfd", gerr))
		}
		return os.NewFile(uintptr(fd), network+" "+address), nil
	}
	return nil, driver.Wrap(op, fmt.Errorf("process %d has no socket %s", g.PID, inode))
}

// loopbackAddress reads an address as a guest does: "3000", "localhost:3000", "127.0.0.1:3000".
func loopbackAddress(address string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = "", address
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	return netip.ParseAddrPort(net.JoinHostPort(host, port))
}

// States of sockets in /proc/PID/net/tcp and udp, proc_net_tcp(5): one that listens, one that takes datagrams
// from everybody.
const (
	stateListen = "0A"
	stateOpen   = "07"
)

// socketInode finds the socket that listens on an address in a process's network namespace.
func socketInode(pid int, network string, ap netip.AddrPort) (string, error) {
	table, state := network, stateListen
	if network == "udp" {
		state = stateOpen
	}
	if ap.Addr().Is6() {
		table += "6"
	}
	want := socketAddress(ap)
	inode := ""
	err := eachLine(fmt.Sprintf("/proc/%d/net/%s", pid, table), func(line string) {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
		if f := strings.Fields(line); len(f) > 9 && f[1] == want && f[3] == state {
			inode = f[9]
		}
	})
	if err == nil && inode == "" {
		err = fmt.Errorf("nothing listens on %s %s in the sandbox", network, ap)
	}
	return inode, err
}

// socketAddress writes an address as the kernel does there: each four bytes as a number of this machine, all of
// which that there is a guest for have the low byte first.
func socketAddress(ap netip.AddrPort) string {
	b := ap.Addr().AsSlice()
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return strings.ToUpper(hex.EncodeToString(b)) + fmt.Sprintf(":%04X", ap.Port())
}
