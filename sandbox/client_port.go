package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	rep, err := call[*TokenReply](ctx, c, "dial", "dial", network, address)
	if err != nil {
		return nil, err
	}
	return c.raw(ctx, "dial", rep.Token)
}

// DialPort is Dial of a TCP port on the sandbox's loopback.
func (c *Client) DialPort(ctx context.Context, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, Errf(CodeInvalidPort, "dial", strconv.Itoa(port)+" is not a port", "ports are 1 to 65535")
	}
	return c.Dial(ctx, "tcp", strconv.Itoa(port))
}

func (c *Client) Listen(ctx context.Context, name, address string) (net.Listener, error) {
	f, err := c.listener(ctx, "tcp", name, address)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, asError(opListen, err)
	}
	return ln, nil
}

func (c *Client) ListenPacket(ctx context.Context, name, address string) (net.PacketConn, error) {
	f, err := c.listener(ctx, "udp", name, address)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, asError(opListen, err)
	}
	return pc, nil
}

const opListen = "listen"

// A SocketFinder is a connection to a guest that can't hand a socket over, because its kernel isn't the host's.
// Whoever made the connection gets at the socket in another way. A [Dialer] may return one.
type SocketFinder interface {
	net.Conn
	// FindSocket gives the socket with which the guest listens on an address of the sandbox's loopback.
	// network is "tcp" or "udp".
	FindSocket(ctx context.Context, network, address string) (*os.File, error)
}

// listener asks for a socket and receives it.
func (c *Client) listener(ctx context.Context, network, name, address string) (*os.File, error) {
	rep, err := call[*TokenReply](ctx, c, opListen, "listen", name, address, network)
	if err != nil {
		return nil, err
	}
	conn, err := c.raw(ctx, opListen, rep.Token)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if finder, ok := conn.(SocketFinder); ok {
		f, err := finder.FindSocket(ctx, network, address)
		if err != nil {
			return nil, asError(opListen, err)
		}
		return f, nil
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, Errf(CodeNotSupported, opListen, "a listener can only be handed over a unix socket", "use the driver of this machine")
	}
	stop := context.AfterFunc(ctx, func() { _ = u.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = u.SetReadDeadline(time.Now().Add(greetingTimeout))
	f, err := receiveFile(u)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &Error{Code: CodeConnectionLost, Op: opListen, Message: "the listener did not arrive: " + err.Error(), Err: err}
	}
	return f, nil
}

// receiveFile takes one descriptor from a message.
func receiveFile(u *net.UnixConn) (*os.File, error) {
	buf, oob := make([]byte, 1), make([]byte, syscall.CmsgSpace(4*4))
	_, n, _, _, err := u.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range msgs {
		if got, err := syscall.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) == 0 {
		return nil, errors.New("no descriptor came")
	}
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		if i > 0 {
			_ = syscall.Close(fd)
		}
	}
	return os.NewFile(uintptr(fds[0]), "listener"), nil
}

func (c *Client) Unlisten(ctx context.Context, name string) error {
	_, err := call[none](ctx, c, "close listener", "unlisten", name)
	return err
}
