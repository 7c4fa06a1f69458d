package guest

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// meminfoFields reads what formatMeminfo has written.
func meminfoFields(t interface{ Fatalf(string, ...any) }, text []byte) (names []string, kilobytes map[string]int64) {
	kilobytes = make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		n, err := strconv.ParseInt(strings.TrimLeft(strings.TrimSuffix(rest, " kB\n"), " "), 10, 64)
		if err != nil || !strings.HasSuffix(line, " kB\n") {
			t.Fatalf("the line %q is none of the kernel's", line)
		}
		names, kilobytes[name] = append(names, name), n
	}
	return names, kilobytes
}

// TestMeminfoLayout compares what is written with this machine's own /proc/meminfo, as programs may that know the
// kernel's columns and order.
func TestMeminfoLayout(t *testing.T) {
	t.Parallel()
	real, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Skip(err)
	}
	columns := make(map[string]int)
	var order []string
	for line := range strings.Lines(string(real)) {
		name, _, _ := strings.Cut(line, ":")
		order = append(order, name)
		columns[name] = len(line)
	}
	text := formatMeminfo(nil, 64<<20, memoryUse{})
	if !bytes.HasPrefix(text, []byte("MemTotal:          65536 kB\nMemFree:           65536 kB\nMemAvailable:      65536 kB\n")) {
		t.Errorf("64 MiB of which nothing is used:\n%s", text)
	}
	last := -1
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, ":")
		i := slices.Index(order, name)
		if i < 0 {
			t.Logf("this kernel has no %s", name)
			continue
		}
		if i < last {
			t.Errorf("%s is not in the kernel's order", name)
		}
		last = i
		if len(line) != columns[name] && columns[name] == len("MemTotal:       12345678 kB\n") {
			t.Errorf("the line %q has %d bytes, the kernel's %d", line, len(line), columns[name])
		}
	}
	if last < 0 {
		t.Error("no line is one of the kernel's")
	}
}

// TestMeminfoSize: whatever is used, the file keeps its size, and no number is larger than all there is.
func TestMeminfoSize(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Int64Range(0, math.MaxInt64).Draw(t, "total")
		size := len(formatMeminfo(nil, total, memoryUse{}))
		some := rapid.Int64Range(math.MinInt64/8, math.MaxInt64/8)
		u := memoryUse{
			all: some.Draw(t, "all"), file: some.Draw(t, "file"), anon: some.Draw(t, "anon"), activeFile: some.Draw(t, "active"),
			inactiveFile: some.Draw(t, "inactive"), reclaimable: some.Draw(t, "reclaimable"), unreclaimable: some.Draw(t, "unreclaimable"),
		}
		text := formatMeminfo(nil, total, u)
		if len(text) != size {
			t.Fatalf("%d bytes instead of %d:\n%s", len(text), size, text)
		}
		_, fields := meminfoFields(t, text)
		for name, n := range fields {
			if n < 0 || n > total>>10 {
				t.Fatalf("%s: %d kB of %d", name, n, total>>10)
			}
		}
	})
}

// In the forms of both versions, in which the same is told and version 2 tells more.
const (
	stat1 = "cache 3145728\nrss 5242880\nrss_huge 2097152\nshmem 1048576\nmapped_file 8192\ndirty 4096\nwriteback 12288\nswap 0\npgpgin 7\n" +
		"inactive_anon 6000640\nactive_anon 290816\ninactive_file 1048576\nactive_file 1044480\nunevictable 4096\nhierarchical_memory_limit 67108864\ntotal_cache 1\ntotal_rss 2\n"
	stat2 = "anon 5242880\nfile 3145728\nkernel 2097152\nkernel_stack 49152\npagetables 131072\nsec_pagetables 0\npercpu 0\nsock 0\nvmalloc 0\nshmem 1048576\n" +
		"file_mapped 8192\nfile_dirty 4096\nfile_writeback 12288\nswapcached 0\nanon_thp 2097152\nfile_thp 0\ninactive_anon 6000640\nactive_anon 290816\n" +
		"inactive_file 1048576\nactive_file 1044480\nunevictable 4096\nslab_reclaimable 700416\nslab_unreclaimable 307200\nslab 1007616\n"
)

func TestMeminfoUse(t *testing.T) {
	t.Parallel()
	common := map[string]int64{
		"MemTotal": 65536, "MemFree": 65536 - 10240, "Cached": 3072, "AnonPages": 5120, "AnonHugePages": 2048, "Shmem": 1024, "Mapped": 8, "Dirty": 4,
		"Writeback": 12, "Active": 1304, "Inactive": 6884, "Active(anon)": 284, "Inactive(anon)": 5860, "Active(file)": 1020, "Inactive(file)": 1024,
		"Unevictable": 4, "SwapTotal": 0, "SwapFree": 0, "Buffers": 0,
	}
	for _, c := range []struct {
		stat string
		more map[string]int64
	}{
		{stat1, map[string]int64{"MemAvailable": 65536 - 10240 + 2044, "Slab": 0, "SReclaimable": 0}},
		{stat2, map[string]int64{"MemAvailable": 65536 - 10240 + 2044 + 684, "Slab": 984, "SReclaimable": 684, "KReclaimable": 684, "SUnreclaim": 300, "KernelStack": 48, "PageTables": 128}},
	} {
		use := parseMemoryStat([]byte(c.stat))
		use.all = 10 << 20
		_, got := meminfoFields(t, formatMeminfo(nil, 64<<20, use))
		for _, want := range []map[string]int64{common, c.more} {
			for name, n := range want {
				if got[name] != n {
					t.Errorf("%.6q: %s is %d kB, want %d", c.stat, name, got[name], n)
				}
			}
		}
	}
}

func FuzzMemoryStat(f *testing.F) {
	for _, s := range []string{stat1, stat2, "", "\n", "cache", "cache x\n", "cache -1\n", "cache 12", "anon 99999999999999999999\n", "anon  1\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u := parseMemoryStat(data)
		for _, n := range []int64{u.all, u.file, u.anon, u.shmem, u.mapped, u.dirty, u.writeback, u.huge, u.activeAnon, u.inactiveAnon, u.activeFile, u.inactiveFile, u.unevictable, u.reclaimable, u.unreclaimable, u.stacks, u.pages} {
			if n < 0 {
				t.Fatalf("negative: %+v", u)
			}
		}
		if !bytes.Contains(data, []byte("\n")) && u != (memoryUse{}) {
			t.Fatalf("a line that was cut counts: %+v", u)
		}
		const total = 64 << 20
		text := formatMeminfo(nil, total, u)
		if len(text) != len(formatMeminfo(nil, total, memoryUse{})) {
			t.Fatalf("the size depends on what is used:\n%s", text)
		}
		meminfoFields(t, text)
	})
}

// shown is a sandbox's memory as files that a test changes.
type shown struct {
	t       *testing.T
	dir     string
	running atomic.Int64
	*meminfo
}

// newShown makes one, of 64 MiB, whose control group is of a version.
func newShown(t *testing.T, version int) *shown {
	t.Helper()
	s := &shown{t: t, dir: t.TempDir()}
	s.use(0)
	if err := os.WriteFile(filepath.Join(s.dir, "memory.stat"), []byte(stat1), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string, flags int) int {
		fd, err := unix.Open(filepath.Join(s.dir, name), flags|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	c := Cgroup{Version: version, Memory: 64 << 20, MeminfoFD: open("meminfo", unix.O_CREAT|unix.O_RDWR)}
	if version == 1 {
		c.UsageFD, c.StatFD = open("memory.current", unix.O_RDONLY), open("memory.stat", unix.O_RDONLY)
	} else {
		c.DirFD = open("", unix.O_PATH|unix.O_DIRECTORY)
		defer unix.Close(c.DirFD)
	}
	m, err := newMeminfo(c, func() int { return int(s.running.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	s.meminfo = m
	return s
}

// use says how many kilobytes are used.
func (s *shown) use(kilobytes int64) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "memory.current"), fmt.Appendln(nil, kilobytes<<10), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// want compares how many kilobytes are free with what shows.
func (s *shown) want(free int64, when string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "meminfo"))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, fields := meminfoFields(s.t, text); fields["MemTotal"] != 65536 || fields["MemFree"] != free {
		s.t.Errorf("%s: %d kB are free of %d, want %d", when, fields["MemFree"], fields["MemTotal"], free)
	}
}

// TestMeminfoRefresh follows when the file is written: not with each command, once a second while any runs, and not
// at all while none does.
func TestMeminfoRefresh(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			s := newShown(t, version)
			defer s.close()
			s.want(65536, "at first")
			s.use(1000)
			s.begin()
			s.want(65536, "at once")
			time.Sleep(meminfoFresh)
			s.begin()
			s.want(64536, "later")
			s.use(2000)
			s.ended(meminfoFresh / 2)
			s.begin()
			s.want(64536, "after a short command")
			s.ended(meminfoFresh)
			s.begin()
			s.want(63536, "after a long one")

			s.running.Store(1)
			for i := range 3 {
				used := int64(3000 + i)
				s.use(used)
				time.Sleep(meminfoPause)
				synctest.Wait()
				s.want(65536-used, "while a command runs")
			}
			s.running.Store(0)
			s.use(1)
			time.Sleep(meminfoPause)
			synctest.Wait()
			s.want(65535, "after the last one")
			s.use(4000)
			time.Sleep(10 * meminfoPause)
			synctest.Wait()
			s.want(65535, "while nothing runs")
			s.running.Store(1)
			s.begin()
			s.want(61536, "at the next command")
			s.use(5000)
			time.Sleep(meminfoPause)
			synctest.Wait()
			s.want(60536, "while that runs")
		})
	}
}

// TestMeminfoUnreadable: what the kernel doesn't say leaves what was shown; and where there is nothing to show, nothing
// is done.
func TestMeminfoUnreadable(t *testing.T) {
	t.Parallel()
	s := newShown(t, 1)
	s.use(1000)
	s.ended(meminfoPause)
	s.begin()
	s.want(64536, "control")
	if err := os.WriteFile(filepath.Join(s.dir, "memory.current"), []byte("max\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.ended(meminfoPause)
	s.begin()
	s.want(64536, "after nonsense")
	s.close()
	s.begin()
	s.tick()
	none, err := newMeminfo(Cgroup{Version: 1}, nil)
	if none != nil || err != nil {
		t.Fatalf("without a file: %v, %v", none, err)
	}
	none.begin()
	none.ended(meminfoPause)
	none.close()
	if m, err := newMeminfo(Cgroup{Version: 2, MeminfoFD: 99, DirFD: -1}, nil); err == nil {
		t.Errorf("without a directory: %+v", m)
	}
}

func BenchmarkMeminfo(b *testing.B) {
	stat, buf := []byte(stat1), make([]byte, 0, 2<<10)
	for b.Loop() {
		buf = formatMeminfo(buf[:0], 64<<20, parseMemoryStat(stat))
	}
}
