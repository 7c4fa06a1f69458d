package guest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/sandbox"
)

// A log, whatever is written to it and read from it, gives each byte with its
// stream once, or says that it is missing; and it stays within its bounds.
func TestLogModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int64{sandbox.MinLogBytes, 20_000, 1 << 20}).Draw(t, "limit")
		lossless := rapid.Bool().Draw(t, "lossless")
		l := newLog(limit, lossless)
		type piece struct {
			stream sandbox.Stream
			b      byte
		}
		var written []piece
		var off, confirmed int64
		next := byte(0)
		var pinned []view
		var copies [][]byte
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				stream := rapid.SampledFrom([]sandbox.Stream{sandbox.Stdout, sandbox.Stderr}).Draw(t, "stream")
				size := rapid.SampledFrom([]int{1, 100, 5000, 300_000}).Draw(t, "size")
				n, full, err := l.fill(stream, func(b []byte) (int, error) {
					b = b[:min(len(b), size)]
					for i := range b {
						next++
						b[i] = next
						written = append(written, piece{stream, next})
					}
					return len(b), nil
				})
				if err != nil || full != (n == 0) || full && !lossless {
					t.Fatalf("fill: %d, %v, %v", n, full, err)
				}
			case 2:
				v := l.read(off)
				if v.dropped > 0 && lossless {
					t.Fatalf("%d bytes were dropped", v.dropped)
				}
				off += v.dropped
				for i, b := range v.data {
					if want := written[off+int64(i)]; want.b != b || want.stream != v.stream {
						t.Fatalf("byte %d is %d of stream %d, want %+v", off+int64(i), b, v.stream, want)
					}
				}
				off += int64(len(v.data))
				if len(v.data) == 0 && off != int64(len(written)) {
					t.Fatalf("nothing at %d of %d", off, len(written))
				}
				if rapid.Bool().Draw(t, "keep") {
					pinned, copies = append(pinned, v), append(copies, bytes.Clone(v.data))
				} else {
					l.release(v)
				}
			case 3:
				confirmed = max(confirmed, off-rapid.Int64Range(0, 100).Draw(t, "less"))
				l.confirm(confirmed)
			case 4:
				for i, v := range pinned {
					if !bytes.Equal(v.data, copies[i]) {
						t.Fatal("bytes changed while they were looked at")
					}
					l.release(v)
				}
				pinned, copies = nil, nil
			}
			start, end, _ := l.span()
			if end != int64(len(written)) || start > end || lossless && end-start > limit || end-start > limit+l.biggest {
				t.Fatalf("the log spans %d to %d, %d were written", start, end, len(written))
			}
			if held := l.held(); len(pinned) == 0 && held > 2*limit+4*l.biggest+64*markBytes+limit {
				t.Fatalf("%d bytes are held under a limit of %d", held, limit)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Add([]byte("1 (a) b) c) S 0 1 1 0"))
	f.Add([]byte("1 () S"))
	f.Add([]byte(") 1 ("))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, ok := parseStat(data); ok && s.state == 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	s, ok := parseStat([]byte("42 (a) S 9 (b) Z 7 8 6 0 -1"))
	if !ok || s != (procStat{pid: 42, ppid: 7, group: 8, session: 6, threads: 1, state: 'Z'}) {
		t.Errorf("%+v, %v", s, ok)
	}
}

// Both versions of the kernel's interface are understood, and only growth counts.
func TestOutOfMemoryCounter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "oom")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := newOOMCounter(int(f.Fd()))
	if c.grew() {
		t.Error("it grew without a kill")
	}
	write("low 0\nhigh 0\nmax 9\noom 5\noom_kill 4\noom_group_kill 0\n")
	if !c.grew() || c.grew() {
		t.Error("one kill must count once")
	}
	write("nonsense")
	if c.grew() || newOOMCounter(-1).grew() {
		t.Error("nothing grew")
	}
}

func TestReadUpTo(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("x"), 1000)
	for _, c := range []struct {
		limit, hint int64
		n           int
		more        bool
	}{{1000, 1000, 1000, false}, {2000, 0, 1000, false}, {999, 1000, 1000, true}, {10, -5, 11, true}, {1 << 40, 1 << 10, 1000, false}} {
		got, more, err := readUpTo(bytes.NewReader(data), c.limit, c.hint)
		if err != nil || len(got) != c.n || more != c.more {
			t.Errorf("%+v: %d bytes, %v, %v", c, len(got), more, err)
		}
	}
	broken := errors.New("broken")
	if _, _, err := readUpTo(errReader{broken}, 10, 0); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
