package egress

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

// MaxNames bounds how many names of one sandbox have an address at a time; the one that was asked for
// longest ago goes first.
const MaxNames = 16384

// firstName is the first address that is given out: 198.18.0.0/15 without its first 256, and with room for
// MaxNames.
var firstName = binary.BigEndian.Uint32([]byte{198, 18, 1, 0})

// names gives each name that a sandbox asks for an address of its own.
type names struct {
	mu     sync.Mutex
	byName map[string]uint32 // index
	slots  []slot
	clock  uint64
}

type slot struct {
	name string
	used uint64
}

func newNames() *names { return &names{byName: make(map[string]uint32)} }

// address gives a name's address, a new one if it has none.
func (n *names) address(name string) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock++
	i, ok := n.byName[name]
	if !ok {
		if len(n.slots) < MaxNames {
			i = uint32(len(n.slots))
			n.slots = append(n.slots, slot{})
		} else {
			for j := range n.slots {
				if n.slots[j].used < n.slots[i].used {
					i = uint32(j)
				}
			}
			delete(n.byName, n.slots[i].name)
		}
		n.byName[name] = i
		n.slots[i].name = name
	}
	n.slots[i].used = n.clock
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], firstName+i)
	return netip.AddrFrom4(b)
}

// name gives the name that has an address; ours says whether the address is one that is given out at all.
func (n *names) name(a netip.Addr) (name string, ours bool) {
	a = a.Unmap()
	if !a.Is4() || !synthetic.Contains(a) {
		return "", false
	}
	b := a.As4()
	i := binary.BigEndian.Uint32(b[:]) - firstName
	n.mu.Lock()
	defer n.mu.Unlock()
	if i >= uint32(len(n.slots)) {
		return "", true
	}
	n.clock++
	n.slots[i].used = n.clock
	return n.slots[i].name, true
}

// synthetic is the range that names get their addresses from.
var synthetic = netip.MustParsePrefix("198.18.0.0/15")
