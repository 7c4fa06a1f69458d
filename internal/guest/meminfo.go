package guest

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// How old what /proc/meminfo shows may be: so much when a command starts, unless one has ended since that ran longer,
// and so much while any runs. While none does, nobody is there to read it and no timer runs.
const (
	meminfoFresh = 100 * time.Millisecond
	meminfoPause = time.Second
)

// meminfo keeps the file that shows as the sandbox's /proc/meminfo: as large as the commands' limit, used as their
// control group says. A nil one does nothing.
type meminfo struct {
	file        int
	usage, stat int
	total       int64      // bytes
	running     func() int // commands

	mu     sync.Mutex
	last   time.Time // when it was written
	timer  *time.Timer
	armed  bool
	closed bool
}

// newMeminfo writes the file for the first time: nothing is used yet. running must not be called by who holds its lock
// while calling a method.
func newMeminfo(c Cgroup, running func() int) (*meminfo, error) {
	if c.MeminfoFD <= 2 {
		return nil, nil
	}
	m := &meminfo{file: c.MeminfoFD, usage: c.UsageFD, stat: c.StatFD, total: c.Memory, running: running}
	if c.Version == 2 {
		for name, fd := range map[string]*int{"memory.current": &m.usage, "memory.stat": &m.stat} {
			var err error
			if *fd, err = unix.Openat(c.DirFD, name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return nil, &os.PathError{Op: "open", Path: name, Err: err}
			}
		}
	}
	return m, m.write(memoryUse{})
}

// begin is called before a command starts.
func (m *meminfo) begin() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	if time.Since(m.last) >= meminfoFresh {
		m.refresh()
	}
	if m.armed {
		return
	}
	m.armed = true
	if m.timer == nil {
		m.timer = time.AfterFunc(meminfoPause, m.tick)
	} else {
		m.timer.Reset(meminfoPause)
	}
}

// ended is told of a command that ran for some time: what it has used is free when the next one starts. After a short
// one that could be missed, as what it used could be; asking after each would take longer than many of them.
func (m *meminfo) ended(after time.Duration) {
	if m == nil || after < meminfoFresh {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = time.Time{}
}

// tick is called again while commands run, and a last time after that.
func (m *meminfo) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.refresh()
	if m.armed = m.running() > 0; m.armed {
		m.timer.Reset(meminfoPause)
	}
}

// maxStatBytes is more than a memory.stat has; the lines that count come first.
const maxStatBytes = 4 << 10

// refresh writes what is used now. When the kernel doesn't say, what was written last stays. The lock is held.
func (m *meminfo) refresh() {
	var buf [maxStatBytes]byte
	n, err := unix.Pread(m.usage, buf[:32], 0)
	if err != nil {
		return
	}
	usage, err := strconv.ParseInt(string(bytes.TrimSpace(buf[:n])), 10, 64)
	if err != nil {
		return
	}
	if n, err = unix.Pread(m.stat, buf[:], 0); err != nil {
		return
	}
	use := parseMemoryStat(buf[:n])
	use.all = usage
	_ = m.write(use)
}

func (m *meminfo) write(use memoryUse) error {
	m.last = time.Now()
	// Its size is always the same, so there is no moment in which a reader finds less.
	_, err := unix.Pwrite(m.file, formatMeminfo(make([]byte, 0, 2<<10), m.total, use), 0)
	return os.NewSyscallError("pwrite", err)
}

func (m *meminfo) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	closeAll([]int{m.file, m.usage, m.stat})
}

// memoryUse is what a control group's memory is used for, in bytes.
type memoryUse struct {
	all                                                    int64 // with what the kernel keeps for it
	file, anon, shmem, mapped, dirty, writeback, huge      int64
	activeAnon, inactiveAnon, activeFile, inactiveFile     int64
	unevictable, reclaimable, unreclaimable, stacks, pages int64
}

// parseMemoryStat reads a memory.stat of either version (cgroup-v1/memory.rst, 5.2; cgroup-v2.rst, "Memory"). Lines
// that it doesn't know, that make no sense or that were cut are passed over.
func parseMemoryStat(b []byte) (u memoryUse) {
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return u
		}
		b = rest
		name, value, _ := bytes.Cut(line, []byte(" "))
		var to *int64
		switch string(name) {
		case "cache", "file":
			to = &u.file
		case "rss", "anon":
			to = &u.anon
		case "shmem":
			to = &u.shmem
		case "mapped_file", "file_mapped":
			to = &u.mapped
		case "dirty", "file_dirty":
			to = &u.dirty
		case "writeback", "file_writeback":
			to = &u.writeback
		case "rss_huge", "anon_thp":
			to = &u.huge
		case "active_anon":
			to = &u.activeAnon
		case "inactive_anon":
			to = &u.inactiveAnon
		case "active_file":
			to = &u.activeFile
		case "inactive_file":
			to = &u.inactiveFile
		case "unevictable":
			to = &u.unevictable
		case "slab_reclaimable":
			to = &u.reclaimable
		case "slab_unreclaimable":
			to = &u.unreclaimable
		case "kernel_stack":
			to = &u.stacks
		case "pagetables":
			to = &u.pages
		default:
			continue
		}
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil && n >= 0 {
			*to = n
		}
	}
}

// formatMeminfo appends a /proc/meminfo of a machine with so many bytes of memory and no swap, in the kernel's layout and
// order. Its size depends on total alone. What is not counted for a control group is 0 where programs expect the
// line, and left out where it is about the machine (CommitLimit, Vmalloc, HugePages, DirectMap and the like).
func formatMeminfo(b []byte, total int64, u memoryUse) []byte {
	total = max(total, 0)
	free := max(total-u.all, 0)
	// What may be taken back: page cache that is in no tmpfs, and caches of the kernel.
	available := free + u.activeFile + u.inactiveFile + u.reclaimable
	width := len(strconv.FormatInt(total>>10, 10))
	for _, l := range [...]struct {
		name  string
		bytes int64
	}{
		{"MemTotal", total}, {"MemFree", free}, {"MemAvailable", available},
		{"Buffers", 0}, {"Cached", u.file}, {"SwapCached", 0},
		{"Active", u.activeAnon + u.activeFile}, {"Inactive", u.inactiveAnon + u.inactiveFile},
		{"Active(anon)", u.activeAnon}, {"Inactive(anon)", u.inactiveAnon},
		{"Active(file)", u.activeFile}, {"Inactive(file)", u.inactiveFile},
		{"Unevictable", u.unevictable}, {"Mlocked", 0},
		{"SwapTotal", 0}, {"SwapFree", 0},
		{"Dirty", u.dirty}, {"Writeback", u.writeback},
		{"AnonPages", u.anon}, {"Mapped", u.mapped}, {"Shmem", u.shmem},
		{"KReclaimable", u.reclaimable}, {"Slab", u.reclaimable + u.unreclaimable},
		{"SReclaimable", u.reclaimable}, {"SUnreclaim", u.unreclaimable},
		{"KernelStack", u.stacks}, {"PageTables", u.pages},
		{"NFS_Unstable", 0}, {"Bounce", 0}, {"WritebackTmp", 0},
		{"AnonHugePages", u.huge},
	} {
		b = append(append(b, l.name...), ':')
		for range meminfoName - len(l.name) - 1 {
			b = append(b, ' ')
		}
		// Counts that were taken one after the other may not go together.
		b = appendNumber(b, min(max(l.bytes, 0), total)>>10, max(width, meminfoWidth))
		b = append(b, " kB\n"...)
	}
	return b
}

// The kernel's columns for a name with its colon, and for a number.
const (
	meminfoName  = 16
	meminfoWidth = 8
)

// appendNumber appends n in at least so many columns, on the right.
func appendNumber(b []byte, n int64, width int) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	for range width - len(d) {
		b = append(b, ' ')
	}
	return append(b, d...)
}
