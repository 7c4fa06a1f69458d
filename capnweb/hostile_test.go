package capnweb_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// hostile plays frames and returns the peak of the heap's growth until the
// session has answered the last, or is over.
func hostile(t *testing.T, frames []string, answer string) uint64 {
	t.Helper()
	p := newRawPeer(t, recordedMain())
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := uint64(0)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > before.HeapAlloc {
				peak = max(peak, m.HeapAlloc-before.HeapAlloc)
			}
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	p.send(frames...)
	deadline := time.After(30 * time.Second)
wait:
	for {
		select {
		case m, ok := <-p.in:
			if !ok || strings.HasPrefix(m, answer) {
				break wait
			}
		case <-deadline:
			t.Fatal("no answer")
		}
	}
	close(done)
	<-watched
	return peak
}

// TestAmplification: a few frames that ask for much more than they are, in memory
// or in messages.
func TestAmplification(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	refs := func(n int, ref string) string { return strings.Repeat(ref+",", n-1) + ref }
	for _, c := range []struct {
		name   string
		frames []string
		answer string
	}{
		{"one promise in many places", []string{
			`["push","` + big + `"]`, `["push",["pipeline",0,["echo"],[[[` + refs(100_000, `["pipeline",1]`) + `]]]]]`, `["pull",2]`,
		}, `["reject",2,`},
		{"one element in many places", []string{
			`["push",[["` + big + `"]]]`, `["push",["remap",1,[],[],[[[` + refs(1000, `["pipeline",0]`) + `]]]]]`, `["pull",2]`,
		}, `["reject",2,`},
		{"a constant for each element", []string{
			`["push",[[` + refs(10_000, "1") + `]]]`, `["push",["remap",1,[],[],["` + big + `"]]]`, `["pull",2]`,
		}, `["reject",2,`},
		{"a long function for each element", []string{
			`["push",[[` + refs(10_000, "1") + `]]]`,
			`["push",["remap",1,[],[],[["remap",0,[],[],[1,"` + big + `"]],["pipeline",1]]]]`, `["pull",2]`,
		}, `["reject",2,`},
		{"doubling", func() []string {
			f := []string{`["push",1]`}
			for i := 1; i < 40; i++ {
				f = append(f, fmt.Sprintf(`["push",["pipeline",0,["echo"],[{"a":["pipeline",%d],"b":["pipeline",%d]}]]]`, i, i))
			}
			return append(f, `["pull",40]`)
		}(), `["reject",40,`},
		{"a long chain", func() []string {
			f := []string{`["push",1]`}
			for i := 1; i < 20_000; i++ {
				f = append(f, fmt.Sprintf(`["push",{"a":["pipeline",%d]}]`, i))
			}
			return append(f, `["pull",20000]`)
		}(), `["resolve",-19999,1]`},
		{"deep path", []string{
			`["push",["pipeline",0,[` + refs(100_000, `"a"`) + `]]]`, `["pull",1]`,
		}, `["reject",1,`},
		{"many maps", []string{
			`["push",[[` + refs(9000, "1") + `]]]`,
			`["push",["remap",1,[],[["import",1]],[["remap",-1,[],[["import",-1]],[["remap",-1,[],[],[["pipeline",0]]],["pipeline",1]]],["pipeline",1]]]]`, `["pull",2]`,
		}, `["reject",2,`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if peak := hostile(t, c.frames, c.answer); peak > 600<<20 {
				t.Errorf("%d MiB", peak>>20)
			} else {
				t.Logf("%d MiB", peak>>20)
			}
		})
	}
}

// TestManyCalls: tables and memory stay flat. A million calls with TONGS_TEST_LONG=1.
func TestManyCalls(t *testing.T) {
	n := 20_000
	if long() {
		n = 1_000_000
	}
	client, server := connect(t, nil, testMain())
	ctx := testContext(t)
	if long() {
		ctx = t.Context()
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var first uint64
	for i := 0; i < n; i += 100 {
		ps := make([]*capnweb.Promise, 0, 100)
		for j := range 20 {
			c := client.Main().Call("makeCounter", j)
			ps = append(ps, c.Call("increment"), client.Main().Call("square", j),
				client.Main().Call("call", capnweb.Func(func(i int) int { return i }), j), client.Main().Call("echo", "text"))
			c.Close()
		}
		for _, p := range ps {
			if _, err := capnweb.Await[any](ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		if i == n/4 {
			first = heap()
		}
	}
	waitStats(t, client, 1, 1)
	waitStats(t, server, 1, 1)
	last := heap()
	t.Logf("%d calls; the heap went from %d to %d KiB", n, first>>10, last>>10)
	if last > first+(4<<20) {
		t.Errorf("the heap grew from %d to %d", first, last)
	}
}

// TestManyStreams: the same for streams.
func TestManyStreams(t *testing.T) {
	n := 200
	if long() {
		n = 20_000
	}
	back, server := connect(t, nil, streamMain())
	client, gate := connect(t, nil, back.Main())
	ctx := t.Context()
	for range n {
		r, err := capnweb.Call[*capnweb.ReadableStream](ctx, client.Main(), "source", 100_000)
		if err != nil {
			t.Fatal(err)
		}
		var buf [1000]byte
		if _, err := r.Read(buf[:]); err != nil {
			t.Fatal(err)
		}
		r.Close() // not read to its end
		if _, err := capnweb.Call[string](ctx, client.Main(), "read", capnweb.NewReader(strings.NewReader("some text"))); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*capnweb.Session{client, gate, back, server} {
		waitStats(t, s, 1, 1)
	}
}
