package guest

import (
	"net"
	"slices"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// portInterval is how often the kernel's tables are read while ports are watched.
const portInterval = 250 * time.Millisecond

// watchedPort is what makes a listening socket the one that it is.
type watchedPort struct {
	port    int
	address string
}

// serveWatch tells about listening ports: at first of all there are, then of what
// has changed since the last time. It reads, compares and writes in turn, so that
// a reader that is slow holds up its own watch and nothing else.
func (s *server) serveWatch(conn *net.UnixConn) {
	gone := make(chan struct{})
	s.wg.Go(func() {
		defer close(gone)
		var b [1]byte
		_, _ = conn.Read(b[:]) // nothing is ever sent: this ends with the connection
	})
	defer func() { conn.Close(); <-gone }()
	w := sandbox.NewFrameWriter(conn)
	tick := time.NewTicker(portInterval)
	defer tick.Stop()

	var before []listening
	known := map[watchedPort]sandbox.PortInfo{}
	for first := true; ; first = false {
		found, err := listeningSockets()
		if err != nil {
			_ = w.WriteError(err)
			return
		}
		if first || !slices.Equal(before, found) {
			before = found
			events := changes(known, s.describePorts(found))
			if first {
				events = append(events, sandbox.PortEvent{Kind: sandbox.PortsReady})
			}
			if !sendEvents(w, events) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-gone:
			return
		case <-s.stopped:
			return
		}
	}
}

// changes brings known up to date with what is there and tells what that took:
// what was closed before what was opened, each sorted.
func changes(known map[watchedPort]sandbox.PortInfo, now []sandbox.PortInfo) []sandbox.PortEvent {
	here := make(map[watchedPort]bool, len(now))
	var opened, closed []sandbox.PortEvent
	for _, p := range now {
		k := watchedPort{p.Port, p.Address}
		if here[k] {
			continue // several sockets share the address (SO_REUSEPORT)
		}
		here[k] = true
		if _, was := known[k]; !was {
			opened = append(opened, sandbox.PortEvent{Kind: sandbox.PortOpened, PortInfo: p})
		}
		known[k] = p
	}
	for k, p := range known {
		if !here[k] {
			closed = append(closed, sandbox.PortEvent{Kind: sandbox.PortClosed, PortInfo: p})
			delete(known, k)
		}
	}
	slices.SortFunc(closed, func(a, b sandbox.PortEvent) int { return a.Port - b.Port })
	return append(closed, opened...)
}

// eventsPerFrame keeps a frame far below its bound: an event takes some 300 bytes.
const eventsPerFrame = 512

func sendEvents(w *sandbox.FrameWriter, events []sandbox.PortEvent) bool {
	for part := range slices.Chunk(events, eventsPerFrame) {
		if w.WriteJSON(sandbox.FrameData, part) != nil {
			return false
		}
	}
	return true
}
