package doors

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxDescriptors bounds the search for the owner of a connection.
const maxDescriptors = 1 << 17

// program names the process at the other end of a connection from this machine: its id
// and when it began. It is empty for one from elsewhere, and where the kernel does not
// say. Two terminal clients of one person are told apart by it: each has a number of
// connections of its own.
func program(r *http.Request) string {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ""
	}
	here, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return ""
	}
	there, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !there.Addr().Unmap().IsLoopback() || !here.Addr().Unmap().IsLoopback() {
		return ""
	}
	inode := socketOf(there, here)
	if inode == "" {
		return ""
	}
	pid := ownerOf("socket:[" + inode + "]")
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if pid == "" || err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return pid + "." + fields[19] // starttime, proc_pid_stat(5)
}

// socketOf finds the inode of the socket at one end of a connection.
func socketOf(local, remote netip.AddrPort) string {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		wide := strings.HasSuffix(file, "6")
		from, to := kernelAddress(local, wide), kernelAddress(remote, wide)
		for sc := bufio.NewScanner(f); sc.Scan(); {
			// sl local rem st queues timer retransmits uid timeout inode
			if c := strings.Fields(sc.Text()); len(c) > 9 && c[1] == from && c[2] == to {
				f.Close()
				return c[9]
			}
		}
		f.Close()
	}
	return ""
}

// kernelAddress writes an address as /proc/net/tcp does: 32-bit words in the machine's
// order, which is the little end first on all that Tongs runs on.
func kernelAddress(a netip.AddrPort, wide bool) string {
	var raw []byte
	if wide {
		b := a.Addr().As16()
		raw = b[:]
	} else {
		if !a.Addr().Unmap().Is4() {
			return "-"
		}
		b := a.Addr().Unmap().As4()
		raw = b[:]
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	return strings.ToUpper(hex.EncodeToString(raw)) + fmt.Sprintf(":%04X", a.Port())
}

// ownerOf finds a process that has a descriptor of the socket.
func ownerOf(link string) string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	seen := 0
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		dir, err := os.Open(filepath.Join("/proc", e.Name(), "fd"))
		if err != nil {
			continue // another user's, or gone
		}
		names, _ := dir.Readdirnames(4096)
		dir.Close()
		for _, n := range names {
			if seen++; seen > maxDescriptors {
				return ""
			}
			if to, err := os.Readlink(filepath.Join("/proc", e.Name(), "fd", n)); err == nil && to == link {
				return e.Name()
			}
		}
	}
	return ""
}
