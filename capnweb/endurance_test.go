package capnweb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// TestHourOfStreams moves what an hour at 1 MB/s brings (3.6 GB with TONGS_TEST_LONG=1, else a
// hundredth of it) through streams of many lengths and chunk sizes, both ways, directly and
// through a relay, four at a time. One in five does not end well: its reader stops, its writer
// gives up, or its source fails. Tables are then as they were, and so is the heap.
func TestHourOfStreams(t *testing.T) {
	total := int64(36_000_000)
	if long() {
		total = 3_600_000_000
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	back, server := connect(t, nil, hourMain())
	client, gate := connect(t, nil, back.Main())
	all := []*capnweb.Session{client, gate, back, server}
	direct, relayed := back.Main(), client.Main()
	defer direct.Close()
	defer relayed.Close()

	var moved, streams, ended atomic.Int64
	var next atomic.Int64
	run := func(until int64) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for moved.Load() < until && ctx.Err() == nil && !t.Failed() {
					i := int(next.Add(1))
					api := direct
					if i%2 == 0 {
						api = relayed
					}
					n, well, err := hourStream(ctx, api, i)
					if err != nil {
						t.Errorf("stream %d: %v", i, err)
						return
					}
					moved.Add(n)
					streams.Add(1)
					if !well {
						ended.Add(1)
					}
				}
			})
		}
		wg.Wait()
		for _, s := range all {
			waitStats(t, s, 1, 1)
		}
	}
	measure := func() (heap uint64, goroutines int) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	began := time.Now()
	run(total / 10)
	before, routines := measure()
	run(total)
	after, routinesAfter := measure()
	t.Logf("%d MB in %d streams, %d of them broken off, in %v; heap %d KiB after a tenth, %d KiB at the end; goroutines %d, %d",
		moved.Load()/1_000_000, streams.Load(), ended.Load(), time.Since(began).Round(time.Millisecond), before>>10, after>>10, routines, routinesAfter)
	if ctx.Err() != nil {
		t.Error(ctx.Err())
	}
	if after > before+8<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
}

var errGivenUp = errors.New("given up")

// hourMain has both directions of streams; the bytes are counted by who reads them.
func hourMain() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"count": func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
		"source": func(size, chunk int, fail bool) *capnweb.ReadableStream {
			return hourSource(size, chunk, fail)
		},
	}, capnweb.Concurrent())
}

func hourSource(size, chunk int, fail bool) *capnweb.ReadableStream {
	buf := make([]byte, chunk)
	return capnweb.NewSource(func(context.Context) (any, error) {
		if size <= 0 {
			if fail {
				return nil, errGivenUp
			}
			return nil, io.EOF
		}
		n := min(size, chunk)
		size -= n
		return buf[:n], nil
	}, nil)
}

// hourStream runs one stream, whose kind depends on its number, and returns how many bytes came and
// whether it was to end well.
func hourStream(ctx context.Context, api *capnweb.Stub, i int) (n int64, well bool, err error) {
	chunk := []int{100, 1000, 4096, 32 << 10, 65_537, 200_000}[i%6]
	size := min([]int{0, 1, 50_000, 1 << 20, 3_000_000}[i/2%5], chunk*2000)
	broken := i%5 == 4
	if i%4 < 2 { // to the server
		n, err = capnweb.Call[int64](ctx, api, "count", hourSource(size, chunk, broken))
		if broken {
			var e *capnweb.Error
			if !errors.As(err, &e) || e.Message != errGivenUp.Error() {
				return 0, false, fmt.Errorf("a source that fails: %w", err)
			}
			return int64(size), false, nil
		}
		if err == nil && n != int64(size) {
			err = fmt.Errorf("%d bytes came, %d were sent", n, size)
		}
		return n, true, err
	}
	r, err := capnweb.Call[*capnweb.ReadableStream](ctx, api, "source", size, chunk, broken && i%2 == 0)
	if err != nil {
		return 0, false, err
	}
	defer r.Close()
	if broken && i%2 == 1 { // the reader has enough
		n, err = io.CopyN(io.Discard, r, int64(size/2))
		return n, false, err
	}
	n, err = io.Copy(io.Discard, r)
	if broken {
		if err == nil {
			return n, false, errors.New("a source that fails: no error")
		}
		return n, false, nil
	}
	if err == nil && n != int64(size) {
		err = fmt.Errorf("%d bytes came, %d were sent", n, size)
	}
	return n, true, err
}
