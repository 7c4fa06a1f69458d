package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	dialTimeout  = 10 * time.Second
	maxListeners = 64
	backlog      = 4096
)

// loopback reads an address on the sandbox's loopback: "3000", "localhost:3000",
// "127.0.0.1:3000", "[::1]:3000". both says that no family was named.
func loopback(op, address string) (ap netip.AddrPort, both bool, err error) {
	host, port := "", address
	if h, p, serr := net.SplitHostPort(address); serr == nil {
		host, port = h, p
	}
	n, perr := strconv.ParseUint(port, 10, 16)
	if perr != nil {
		return ap, false, sandbox.Errf(sandbox.CodeInvalidPort, op, fmt.Sprintf("%.80q is not a port, nor a host and a port", address), `use "3000" or "127.0.0.1:3000"`)
	}
	addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if host == "" || host == "localhost" {
		both = true
	} else if addr, err = netip.ParseAddr(host); err != nil || !addr.IsLoopback() || addr.Zone() != "" {
		return ap, false, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("%.80q is not on the sandbox's loopback", address), "only 127.0.0.0/8, ::1 and localhost can be reached")
	}
	return netip.AddrPortFrom(addr, uint16(n)), both, nil
}

// dial connects to something that listens in the sandbox.
func (g *engine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	const op = "dial"
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	switch network {
	case "unix":
		path, err := g.path(op, address)
		if err != nil {
			return nil, err
		}
		c, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, dialError(op, address, err)
		}
		return c, nil
	case "", "tcp", "tcp4", "tcp6":
	default:
		return nil, sandbox.Errf(sandbox.CodeNotSupported, op, fmt.Sprintf("network %.20q can't be dialled", network), `use "tcp" or "unix"`)
	}
	ap, both, err := loopback(op, address)
	if err != nil {
		return nil, err
	}
	if ap.Port() == 0 {
		return nil, sandbox.Errf(sandbox.CodeInvalidPort, op, "port 0 can't be dialled", "")
	}
	c, err := d.DialContext(ctx, "tcp", ap.String())
	if err != nil && both && errors.Is(err, unix.ECONNREFUSED) {
		if c6, err6 := d.DialContext(ctx, "tcp", netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port()).String()); err6 == nil {
			return c6, nil
		}
	}
	if err != nil {
		return nil, dialError(op, address, err)
	}
	return c, nil
}

func dialError(op, address string, err error) error {
	e := &sandbox.Error{Code: sandbox.CodeServiceNotResponding, Op: op, Err: err, Message: fmt.Sprintf("nothing answers at %.200s in the sandbox", address),
		Hint: "start the server first; it may need a moment"}
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
	case errors.Is(err, unix.ENOENT):
		e.Code = sandbox.CodeFileNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Code, e.Hint = sandbox.CodePermissionDenied, "the sandbox's user may not use it"
	default:
		e.Message += ": " + err.Error()
	}
	return e
}

// listeners are the sockets that others accept on. Each is kept, so that it
// outlives who asked for it, with the connections that wait.
type listeners struct {
	mu     sync.Mutex
	byName map[string]*heldListener
}

type heldListener struct {
	network string
	address string
	fd      int
}

func newListeners() *listeners { return &listeners{byName: map[string]*heldListener{}} }

// get makes the named listener or finds it, and returns a new descriptor of it.
func (l *listeners) get(network, name, address string) (int, error) {
	const op = "listen"
	if !isID(name) {
		return -1, sandbox.Errf(sandbox.CodeInvalidArgument, op, fmt.Sprintf("the name %.140q is not 1 to 128 of A-Z a-z 0-9 . _ : -", name), "")
	}
	if network != "tcp" && network != "udp" {
		return -1, sandbox.Errf(sandbox.CodeNotSupported, op, fmt.Sprintf("network %.20q can't be listened on", network), `use "tcp" or "udp"`)
	}
	ap, _, err := loopback(op, address)
	if err != nil {
		return -1, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.byName[name]
	switch {
	case h != nil && (h.address != address || h.network != network):
		return -1, sandbox.Errf(sandbox.CodeAlreadyExists, op, fmt.Sprintf("listener %q is at %s %s, not at %s %.80s", name, h.network, h.address, network, address), "choose another name, or close that listener")
	case h == nil && len(l.byName) >= maxListeners:
		return -1, sandbox.Errf(sandbox.CodeTooManyConnections, op, fmt.Sprintf("there are %d listeners, and no more are allowed", maxListeners), "close one")
	case h == nil:
		fd, err := listen(network, ap)
		if err != nil {
			return -1, listenError(op, address, err)
		}
		h = &heldListener{network: network, address: address, fd: fd}
		l.byName[name] = h
	}
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, sandbox.FileError(op, err)
	}
	return fd, nil
}

// listen makes the socket with bare calls: it is never polled here.
func listen(network string, ap netip.AddrPort) (int, error) {
	family := unix.AF_INET
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(ap.Port()), Addr: [4]byte(ap.Addr().AsSlice()[:4])}
	if ap.Addr().Is6() {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
	}
	kind := unix.SOCK_STREAM
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if network == "tcp" {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && network == "tcp" {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func listenError(op, address string, err error) error {
	e := &sandbox.Error{Code: sandbox.CodeInternal, Op: op, Err: err, Message: fmt.Sprintf("can't listen at %.80s in the sandbox: %v", address, err)}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		e.Code, e.Hint = sandbox.CodePortInUse, "something in the sandbox listens there already"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Code, e.Hint = sandbox.CodePermissionDenied, "use a port from 1024 on"
	}
	return e
}

func (l *listeners) drop(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.byName[name]
	if h == nil {
		return sandbox.Errf(sandbox.CodeFileNotFound, "close listener", fmt.Sprintf("there is no listener %.140q", name), "")
	}
	delete(l.byName, name)
	h.close()
	return nil
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, h := range l.byName {
		h.close()
		delete(l.byName, name)
	}
}

// close ends listening, for those too who were given the socket.
func (h *heldListener) close() {
	_ = unix.Shutdown(h.fd, unix.SHUT_RDWR)
	_ = unix.Close(h.fd)
}

// handOver sends a descriptor over a connection, with one byte to carry it.
func handOver(conn *net.UnixConn, fd int) {
	defer unix.Close(fd)
	_, _, _ = conn.WriteMsgUnix([]byte{'F'}, unix.UnixRights(fd), nil)
}
