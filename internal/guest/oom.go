package guest

import (
	"bytes"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// oomCounter watches the kernel's count of processes that it killed for want of
// memory in the commands' control group.
type oomCounter struct {
	fd   int
	mu   sync.Mutex
	last int64
}

func newOOMCounter(fd int) *oomCounter {
	c := &oomCounter{fd: fd}
	c.grew()
	return c
}

// grew reports whether the count has grown since it was last asked for.
func (c *oomCounter) grew() bool {
	if c.fd <= 2 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var buf [512]byte
	n, err := unix.Pread(c.fd, buf[:], 0)
	if err != nil || n <= 0 {
		return false
	}
	now, ok := parseOOM(buf[:n])
	if !ok {
		return false
	}
	grew := now > c.last
	c.last = now
	return grew
}

// parseOOM finds the line "oom_kill N", which both versions of the interface have.
func parseOOM(b []byte) (int64, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
