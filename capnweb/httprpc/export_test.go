package httprpc

import (
	"bufio"
	"net"

	"github.com/tongs-dev/tongs/capnweb"
)

// NewSocket makes a transport of a connection on which the handshake was made.
func NewSocket(conn net.Conn, r *bufio.Reader, client bool, limit int) capnweb.Transport {
	return newSocket(conn, r, client, limit, 0)
}
