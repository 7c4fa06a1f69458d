package guest

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/sandbox"
)

// The tables are written in the byte order of the machine; these are of one whose
// low byte comes first, as all that there is a guest for.
const (
	table4 = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1070 1 0000000000000000 100 0 0 10 0
   1: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2071 1 0000000000000000 100 0 0 10 0
   2: 0100007F:8583 0100007F:D5A0 06 00000000:00000000 03:00000F5A 00000000     0        0 0 3 0000000000000000
`
	table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0000000000000000 100 0 0 10 0
`
)

func TestParseTCP(t *testing.T) {
	t.Parallel()
	got := append(parseTCP([]byte(table4)), parseTCP([]byte(table6))...)
	want := []listening{
		{1070, netip.MustParseAddrPort("0.0.0.0:2024")},
		{2071, netip.MustParseAddrPort("127.0.0.1:3000")},
		{77, netip.MustParseAddrPort("[::1]:8080")},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(listening{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func FuzzParseTCP(f *testing.F) {
	f.Add([]byte(table4))
	f.Add([]byte(table6))
	f.Add([]byte("x: :0BB8 0 0A 0 0 0 0 0 1\n 0A "))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, l := range parseTCP(table) {
			if !l.at.IsValid() || l.at.Port() == 0 {
				t.Errorf("%v is no listening socket's address", l.at)
			}
		}
	})
}

// A socket of this process is found in the kernel's tables, and as this process's.
func TestListeningSockets(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		defer ln.Close()
		want := ln.Addr().(*net.TCPAddr).AddrPort()
		all, err := listeningSockets()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, l := range all {
			if l.at != want {
				continue
			}
			found = true
			holders := map[uint64]procStat{l.inode: {}}
			findHolders(holders)
			if got := holders[l.inode].pid; got != os.Getpid() {
				t.Errorf("%v is held by process %d, found %d", want, os.Getpid(), got)
			}
		}
		if !found {
			t.Errorf("%v is not among %v", want, all)
		}
	}
}

func TestPortChanges(t *testing.T) {
	t.Parallel()
	at := func(port int, address string) sandbox.PortInfo { return sandbox.PortInfo{Port: port, Address: address} }
	known := map[watchedPort]sandbox.PortInfo{}
	for i, step := range []struct {
		now  []sandbox.PortInfo
		want []sandbox.PortEvent
	}{
		{nil, nil},
		{[]sandbox.PortInfo{at(1, "a"), at(1, "a"), at(1, "b")},
			[]sandbox.PortEvent{{Kind: sandbox.PortOpened, PortInfo: at(1, "a")}, {Kind: sandbox.PortOpened, PortInfo: at(1, "b")}}},
		{[]sandbox.PortInfo{at(1, "b"), at(2, "a")},
			[]sandbox.PortEvent{{Kind: sandbox.PortClosed, PortInfo: at(1, "a")}, {Kind: sandbox.PortOpened, PortInfo: at(2, "a")}}},
		{nil, []sandbox.PortEvent{{Kind: sandbox.PortClosed, PortInfo: at(1, "b")}, {Kind: sandbox.PortClosed, PortInfo: at(2, "a")}}},
	} {
		if d := cmp.Diff(step.want, changes(known, step.now)); d != "" {
			t.Errorf("step %d: %s", i, d)
		}
	}
}
