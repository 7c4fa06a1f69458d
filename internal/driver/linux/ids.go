//go:build linux

package linux

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Ranges of user ids. Each sandbox has one of its own, so that its processes can't be told or counted
// together with another's, and what they own on disk is nobody's on the host. They are taken from the
// span that systemd sets aside for containers, 524,288 to 1,879,048,191.
const (
	rangeSize = 65536
	firstSlot = 8
	lastSlot  = 28671
)

// idRanges hands out ranges. A range in use is a symbolic link in dir, named by its number, that "leads"
// to the sandbox's id; making it is one step, and is what takes the range, so two processes never take
// the same one.
type idRanges struct {
	dir   string
	start int // where this home begins to look, so that two homes rarely share ranges

	mu    sync.Mutex
	taken map[int]bool
	last  int
}

func openRanges(dir string, seed []byte) (*idRanges, error) {
	const slots = lastSlot - firstSlot + 1
	r := &idRanges{dir: dir, taken: make(map[int]bool), start: firstSlot + int(binary.BigEndian.Uint32(seed)%slots)}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if err := r.avoid(file, 1, 2); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		if err := r.avoid(file, 2, -1); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if slot, err := strconv.Atoi(e.Name()); err == nil {
			r.taken[slot] = true
		}
	}
	r.last = r.start - 1
	return r, nil
}

// avoid marks what a file of accounts gives to others: fields first and count (1 without that field).
func (r *idRanges) avoid(file string, first, count int) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) <= max(first, count) {
			continue
		}
		from, err := strconv.ParseUint(fields[first], 10, 32)
		n := uint64(1)
		if err == nil && count >= 0 {
			n, err = strconv.ParseUint(fields[count], 10, 32)
		}
		if err != nil || n == 0 {
			continue
		}
		for slot := from / rangeSize; slot <= (from+n-1)/rangeSize && slot <= lastSlot; slot++ {
			r.taken[int(slot)] = true
		}
	}
	return lines.Err()
}

// take gives a sandbox a range and returns its first id.
func (r *idRanges) take(id string) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := r.last
	for range lastSlot - firstSlot + 1 {
		if slot++; slot > lastSlot {
			slot = firstSlot
		}
		if r.taken[slot] {
			continue
		}
		err := os.Symlink(id, filepath.Join(r.dir, strconv.Itoa(slot)))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
		r.taken[slot] = true
		if err == nil {
			r.last = slot
			return uint32(slot) * rangeSize, nil
		}
	}
	return 0, fmt.Errorf("all %d ranges of user ids are in use: destroy some sandboxes", lastSlot-firstSlot+1)
}

// release gives a range back, if it is this sandbox's.
func (r *idRanges) release(id string, base uint32) error {
	slot := int(base / rangeSize)
	if slot < firstSlot || slot > lastSlot {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := filepath.Join(r.dir, strconv.Itoa(slot))
	owner, err := os.Readlink(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner != id {
		return nil
	}
	if err := os.Remove(p); err != nil {
		return err
	}
	delete(r.taken, slot)
	return nil
}

// owner gives the sandbox that has the range which begins at base, "" when none has.
func (r *idRanges) owner(base uint32) string {
	id, err := os.Readlink(filepath.Join(r.dir, strconv.Itoa(int(base/rangeSize))))
	if err != nil {
		return ""
	}
	return id
}

// owners gives the ranges that are taken by sandboxes, by first id.
func (r *idRanges) owners() (map[uint32]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	all := make(map[uint32]string)
	for _, e := range entries {
		slot, err := strconv.Atoi(e.Name())
		if err != nil || slot < firstSlot || slot > lastSlot {
			continue
		}
		if id, err := os.Readlink(filepath.Join(r.dir, e.Name())); err == nil {
			all[uint32(slot)*rangeSize] = id
		}
	}
	return all, nil
}
