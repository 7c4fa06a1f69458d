package guest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
)

const (
	// maxTCPTable bounds what is read of one of the kernel's tables of
	// sockets. Its listening ones come first.
	maxTCPTable = 1 << 20
	// maxDescriptors bounds how many descriptors of processes are looked at
	// to find whose the sockets are.
	maxDescriptors = 1 << 18
)

// listening is one listening socket.
type listening struct {
	inode uint64
	at    netip.AddrPort
}

// listeningSockets reads the kernel's tables of this network namespace.
func listeningSockets() ([]listening, error) {
	var all []listening
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		table, err := readBounded(name, maxTCPTable)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, sandbox.FileError("list ports", err)
		}
		all = append(all, parseTCP(table)...)
	}
	slices.SortFunc(all, func(a, b listening) int {
		return cmp.Or(cmp.Compare(a.at.Port(), b.at.Port()), a.at.Addr().Compare(b.at.Addr()), cmp.Compare(a.inode, b.inode))
	})
	return all[:min(len(all), sandbox.MaxPorts)], nil
}

func readBounded(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := make([]byte, 0, 8<<10)
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := f.Read(buf[len(buf):min(cap(buf), limit)])
		buf = buf[:len(buf)+n]
		if n == 0 || err != nil {
			break // the end; what could be read of a table counts
		}
	}
	return buf, nil
}

// parseTCP reads the listening sockets of a table like /proc/net/tcp: lines of
// fields, of which the second is the local address, the fourth the state and the
// tenth the inode. Lines that are not so are passed over.
func parseTCP(table []byte) []listening {
	var all []listening
	for line := range bytes.Lines(table) {
		if !bytes.Contains(line, []byte(" 0A ")) {
			continue
		}
		f := bytes.Fields(line)
		if len(f) < 10 || string(f[3]) != "0A" {
			continue
		}
		at, ok := parseTableAddress(f[1])
		inode, err := strconv.ParseUint(string(f[9]), 10, 64)
		if !ok || err != nil || at.Port() == 0 {
			continue
		}
		all = append(all, listening{inode: inode, at: at})
	}
	return all
}

// parseTableAddress reads "0100007F:0BB8": an address as the kernel has it in
// memory, in words of 32 bits that are written as numbers, and a port.
func parseTableAddress(s []byte) (netip.AddrPort, bool) {
	address, port, ok := bytes.Cut(s, []byte(":"))
	if !ok || len(port) != 4 || len(address) != 8 && len(address) != 32 {
		return netip.AddrPort{}, false
	}
	var raw [16]byte
	n, err := hex.Decode(raw[:], address)
	if err != nil {
		return netip.AddrPort{}, false
	}
	var p [2]byte
	if _, err := hex.Decode(p[:], port); err != nil {
		return netip.AddrPort{}, false
	}
	for i := 0; i < n; i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw[:n])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(p[:])), true
}

// ports lists what listens, with what is known of whose it is.
func (s *server) ports() ([]sandbox.PortInfo, error) {
	found, err := listeningSockets()
	if err != nil {
		return nil, err
	}
	return s.describePorts(found), nil
}

func (s *server) describePorts(found []listening) []sandbox.PortInfo {
	infos := make([]sandbox.PortInfo, 0, len(found))
	if len(found) == 0 {
		return infos
	}
	held := s.listeners.inodes()
	wanted := make(map[uint64]procStat, len(found))
	for _, l := range found {
		if _, ours := held[l.inode]; !ours {
			wanted[l.inode] = procStat{}
		}
	}
	findHolders(wanted)
	ids := s.engine.sessions()
	for _, l := range found {
		p := wanted[l.inode]
		infos = append(infos, sandbox.PortInfo{
			Port: int(l.at.Port()), Address: l.at.Addr().String(),
			PID: p.pid, Process: ids[p.session], Listener: held[l.inode],
		})
	}
	return infos
}

// inodes names the sockets of the held listeners.
func (l *listeners) inodes() map[uint64]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[uint64]string, len(l.byName))
	for name, h := range l.byName {
		var st unix.Stat_t
		if unix.Fstat(h.fd, &st) == nil {
			all[st.Ino] = name
		}
	}
	return all
}

// sessions gives the ids of processes by the number of the session that each began.
// Of two with the same number the later one has it now.
func (g *engine) sessions() map[int]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := make(map[int]string, len(g.byID))
	last := make(map[int]*process, len(g.byID))
	for id, p := range g.byID {
		if p == nil {
			continue
		}
		if q := last[p.child.pid]; q == nil || q.started.Before(p.started) {
			ids[p.child.pid], last[p.child.pid] = id, p
		}
	}
	return ids
}

// findHolders fills in, for each inode of a socket, the process with the lowest
// number that has a descriptor of it, as far as this process may look.
func findHolders(wanted map[uint64]procStat) {
	if len(wanted) == 0 {
		return
	}
	budget := maxDescriptors
	eachProcess(func(p procStat) {
		dir := "/proc/" + strconv.Itoa(p.pid) + "/fd"
		d, err := os.Open(dir)
		if err != nil {
			return
		}
		defer d.Close()
		for budget > 0 {
			names, err := d.Readdirnames(512)
			for _, name := range names {
				budget--
				var link [64]byte
				n, err := unix.Readlinkat(int(d.Fd()), name, link[:])
				if err != nil {
					continue
				}
				inode, ok := socketInode(link[:n])
				if !ok {
					continue
				}
				if q, want := wanted[inode]; want && (q.pid == 0 || p.pid < q.pid) {
					wanted[inode] = p
				}
			}
			if err != nil {
				return
			}
		}
	})
}

// socketInode reads "socket:[1234]".
func socketInode(link []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok {
		return 0, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte("]"))
	n, err := strconv.ParseUint(string(rest), 10, 64)
	return n, ok && err == nil
}
