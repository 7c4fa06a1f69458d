package sandbox

import (
	"context"
	"net"
)

// Ports of a sandbox's loopback that belong to its way out, where it has one: all TCP, and all queries of
// DNS, are turned to listeners there that the host accepts.
const (
	EgressPort    = 3129
	EgressDNSPort = 3153
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
	// ListenPacket is Listen for UDP.
	ListenPacket(ctx context.Context, name, address string) (net.PacketConn, error)
	Unlisten(ctx context.Context, name string) error
	// ListPorts tells which TCP ports are listened on inside the sandbox,
	// sorted by port and address, at most MaxPorts of them.
	ListPorts(ctx context.Context) ([]PortInfo, error)
	// WatchPorts reports ports that are opened and closed, until the watch is
	// closed. ctx bounds the opening only.
	WatchPorts(ctx context.Context) (PortWatch, error)
}

// MaxPorts bounds how many listening sockets are listed or watched. Those with the
// lowest ports are.
const MaxPorts = 4096

// PortInfo is one listening TCP socket of a sandbox.
type PortInfo struct {
	Port int `json:"port"` // 1 to 65,535
	// Address is the IP address that it is bound to: "127.0.0.1", "0.0.0.0",
	// "::", "::1". Dial reaches all of these.
	Address string `json:"address"`
	// PID is a process, in the sandbox's numbers, that holds the socket; the
	// lowest where several do. 0 when the kernel doesn't say, as for
	// processes of another user than the sandbox's.
	PID int `json:"pid,omitempty"`
	// Process is the id of the process, in the sense of Processes, that PID
	// belongs to, be it as its child; "" for any other.
	Process string `json:"process,omitempty"`
	// Listener is the name of the Listen that made the socket, else "".
	Listener string `json:"listener,omitempty"`
}

// PortEventKind says what a PortEvent tells.
type PortEventKind string

const (
	PortOpened PortEventKind = "open"
	PortClosed PortEventKind = "close"
	// PortsReady comes once, after the events about what was open already when
	// the watch began. It has no port.
	PortsReady PortEventKind = "ready"
)

// PortEvent is a change.
type PortEvent struct {
	Kind PortEventKind `json:"kind"`
	PortInfo
}

// PortWatch is a stream of changes. It is not safe for use by several goroutines
// at once.
//
// The kernel tells nobody without privileges about listening sockets, so the guest
// looks for them four times a second while there is a watch: a port that is open
// for a shorter time may go unnoticed. A reader that is slow misses no change
// that lasts and costs no memory: what it is told next is what has changed since
// it was told last.
type PortWatch interface {
	// Next waits for the next event. When ctx ends between two events, Next
	// can be called again; CodeConnectionLost is final.
	Next(ctx context.Context) (PortEvent, error)
	Close() error
}
