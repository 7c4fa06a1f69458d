package sandbox

import (
	"context"
	"net"
)

// Ports reaches what listens inside a sandbox, and listens there.
type Ports interface {
	// Dial connects to a TCP address inside the sandbox: "3000",
	// "127.0.0.1:3000", "[::1]:3000" or "localhost:3000"; or, with network
	// "unix", to a socket's path. Only the sandbox's own loopback can be
	// named. CodeServiceNotResponding when nothing answers there.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	// Listen makes a TCP listener inside the sandbox, on its loopback, whose
	// connections this process accepts itself. The guest keeps a duplicate:
	// the same name and address again (from a new process too) gives the same
	// listener with the connections that waited meanwhile. Unlisten, or the
	// sandbox's end, closes it.
	Listen(ctx context.Context, name, address string) (net.Listener, error)
	Unlisten(ctx context.Context, name string) error
}
