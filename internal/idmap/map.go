package idmap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Numbers of ids. Full is what a sandbox has when there are enough; Least is what makes a range worth
// having: the ids of a distribution's own users and of the sandbox's user, 1000, with some above it.
const (
	Full  = 65536
	Least = 2048
)

// nobody is the id that programs expect to be there, and to own nothing (65534, nfsnobody).
const nobody = 65534

// maxExtents bounds the pieces of a map. The kernel takes 340 (user_namespaces(7)).
const maxExtents = 64

// Extent is a piece of a map: Size ids, of which the first is Inside in a sandbox and Outside on the host.
type Extent struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Size    uint32 `json:"size"`
}

// Map says which ids of the host those of a sandbox are. The zero Map is none: the sandbox has one id.
type Map struct {
	UIDs []Extent `json:"uids,omitempty"`
	GIDs []Extent `json:"gids,omitempty"`
}

// None says whether there is no map.
func (m Map) None() bool { return len(m.UIDs) == 0 }

// Tag names a map, in few letters, for the names of what was written with its ids. Equal maps have equal
// tags; that of no map is "".
func (m Map) Tag() string {
	if m.None() {
		return ""
	}
	sum := sha256.Sum256(fmt.Append(nil, m.UIDs, m.GIDs))
	return hex.EncodeToString(sum[:6])
}

// IDs is how many ids of a sandbox mean something.
func (m Map) IDs() int { return min(total(m.UIDs), total(m.GIDs)) }

// Equal says whether two maps are the same.
func (m Map) Equal(o Map) bool { return slices.Equal(m.UIDs, o.UIDs) && slices.Equal(m.GIDs, o.GIDs) }

// Check says what is wrong with a map that was read from somewhere.
func (m Map) Check() error {
	if len(m.UIDs) == 0 != (len(m.GIDs) == 0) {
		return fmt.Errorf("a map of user ids needs one of group ids, and the other way round")
	}
	for _, extents := range [][]Extent{m.UIDs, m.GIDs} {
		if len(extents) > maxExtents {
			return fmt.Errorf("a map of %d pieces, the most is %d", len(extents), maxExtents)
		}
		for i, e := range extents {
			if e.Size == 0 || e.Outside == 0 || uint64(e.Inside)+uint64(e.Size) > Full || uint64(e.Outside)+uint64(e.Size) > math.MaxUint32 {
				return fmt.Errorf("%d ids from %d, on the host from %d: no piece of a map", e.Size, e.Inside, e.Outside)
			}
			for _, o := range extents[:i] {
				if e.Inside < o.Inside+o.Size && o.Inside < e.Inside+e.Size || e.Outside < o.Outside+o.Size && o.Outside < e.Outside+e.Size {
					return fmt.Errorf("two pieces of a map share ids")
				}
			}
		}
		if len(extents) > 0 && (!has(extents, 0) || !has(extents, 1000)) {
			return fmt.Errorf("a map without the ids 0 and 1000")
		}
	}
	return nil
}

func has(extents []Extent, id uint32) bool {
	return slices.ContainsFunc(extents, func(e Extent) bool { return id >= e.Inside && id-e.Inside < e.Size })
}

func total(extents []Extent) (n int) {
	for _, e := range extents {
		n += int(e.Size)
	}
	return n
}

// arrange puts the ids that a user has been given into a sandbox's 0 to Full-1, in the order in which they
// were given. When they are fewer, the last is nobody's.
func arrange(given []Range) []Extent {
	var all []Extent
	next := uint32(0)
	for _, r := range given {
		n := min(r.Size, Full-next)
		if n == 0 || len(all) == maxExtents-1 {
			break
		}
		all = append(all, Extent{next, r.First, n})
		next += n
	}
	if next > 1 && next <= nobody {
		last := &all[len(all)-1]
		last.Size--
		spare := last.Outside + last.Size
		if last.Size == 0 {
			all = all[:len(all)-1]
		}
		all = append(all, Extent{nobody, spare, 1})
	}
	return all
}

// arguments are those of newuidmap and newgidmap after the process's number.
func arguments(extents []Extent) []string {
	var all []string
	for _, e := range extents {
		for _, n := range []uint32{e.Inside, e.Outside, e.Size} {
			all = append(all, strconv.FormatUint(uint64(n), 10))
		}
	}
	return all
}

// grant is the command that gives the calling user exactly these ids.
func (m Map) grant() string {
	args := []string{"sudo", "usermod"}
	add := func(option string, extents []Extent) {
		for _, e := range extents {
			args = append(args, option, fmt.Sprintf("%d-%d", e.Outside, e.Outside+e.Size-1))
		}
	}
	add("--add-subuids", m.UIDs)
	add("--add-subgids", m.GIDs)
	names := loginNames()
	return strings.Join(append(args, names[len(names)-1]), " ")
}
