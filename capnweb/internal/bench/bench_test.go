package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

const (
	rounds = 5                      // each row runs so many times on each server, in turns
	turn   = 400 * time.Millisecond // how long one turn is, at least
)

// BenchmarkInterop prints one line per row: what our server did (go_…), what the
// reference did beside it (node_…), the medians of their turns, and how many
// times better ours is (×_…). The server's CPU time per call, or per megabyte,
// is the figure that other programs on the machine disturb least.
func BenchmarkInterop(b *testing.B) {
	servers := []server{startGo(b), startNode(b)}
	floor := startFloor(b, "websocket")

	oneKiB := fmt.Sprintf(`[{"text":%q,"list":[[1,2,3,4,5,6,7,8]],"flag":true}]`, strings.Repeat("x", 970))
	for _, row := range []struct {
		name     string
		op       operation
		inFlight int
		floor    bool
	}{
		{"call", simple("square", "[12]"), 1, true},
		{"call_x64", simple("square", "[12]"), 64, true},
		{"chain_of_3", chain(), 1, false},
		{"chain_of_3_x16", chain(), 16, false},
		{"echo_1KiB", simple("echo", oneKiB), 1, false},
		{"echo_1KiB_x16", simple("echo", oneKiB), 16, false},
	} {
		b.Run(row.name, func(b *testing.B) {
			all := servers
			if row.floor {
				all = append(slices.Clip(servers), floor)
			}
			compare(b, all, func(b *testing.B, s server) map[string]float64 {
				s.forget(b)
				cpu := s.cpu(b)
				r, err := drive(s.addr, row.op, row.inFlight, turn)
				if err != nil {
					b.Fatalf("%s: %v", s.name, err)
				}
				return map[string]float64{
					"calls/s": r.perSecond, "p50-µs": micros(r.p50), "cpu-µs": micros(s.cpu(b)-cpu) / float64(r.calls),
					"peak-MB": s.peak(b),
				}
			})
		})
	}
	b.Run("batch_of_10", func(b *testing.B) { compare(b, servers, measureBatch) })
	for _, row := range clientRows {
		b.Run(row.name, func(b *testing.B) {
			compare(b, servers, func(b *testing.B, s server) map[string]float64 { return row.measure(b, s) })
		})
	}
}

// compare measures each server in turns and reports the medians and their ratios.
func compare(b *testing.B, servers []server, measure func(*testing.B, server) map[string]float64) {
	b.ReportMetric(0, "ns/op") // one run is many operations
	got := map[string]map[string][]float64{}
	for range rounds {
		for _, s := range servers {
			for unit, v := range measure(b, s) {
				if got[unit] == nil {
					got[unit] = map[string][]float64{}
				}
				got[unit][s.name] = append(got[unit][s.name], v)
			}
		}
	}
	for unit, by := range got {
		ours, theirs := median(by["go"]), median(by["node"])
		b.ReportMetric(ours, "go_"+unit)
		b.ReportMetric(theirs, "node_"+unit)
		if v := by["floor"]; len(v) > 0 {
			b.ReportMetric(median(v), "floor_"+unit)
		}
		ratio := ours / theirs
		if !strings.HasSuffix(unit, "/s") {
			ratio = theirs / ours // less is better
		}
		b.ReportMetric(ratio, "×_"+unit)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// clientRow is measured through our client.
type clientRow struct {
	name string
	// once runs once on a fresh session; the row reports how often it could per
	// second, or, when bytes is set, how many of them pass per second.
	once  func(ctx context.Context, api *capnweb.Stub) error
	bytes int
	unit  string
	scale float64 // how many units one run is
}

func (row clientRow) measure(b *testing.B, s server) map[string]float64 {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	session, err := httprpc.Dial(ctx, "ws://"+s.addr, &httprpc.DialOptions{
		MaxMessageBytes: 256 << 20,
		Session:         []capnweb.Option{capnweb.WithLimits(capnweb.Limits{MaxMessageBytes: 256 << 20, MaxQueuedBytes: 512 << 20})},
	})
	if err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	defer session.Close(nil)
	api := session.Main()
	defer api.Close()
	s.forget(b)
	cpu := s.cpu(b)
	began := time.Now()
	runs := 0
	for runs == 0 || time.Since(began) < turn {
		if err := row.once(ctx, api); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
		runs++
	}
	rate := float64(runs) / time.Since(began).Seconds()
	peak := s.peak(b)
	perRun := micros(s.cpu(b)-cpu) / float64(runs)
	if row.bytes > 0 {
		mb := float64(row.bytes) / 1e6
		return map[string]float64{"MB/s": rate * mb, "peak-MB": peak, "cpu-µs/MB": perRun / mb}
	}
	return map[string]float64{row.unit: rate * row.scale, "cpu-µs": perRun / row.scale, "peak-MB": peak}
}

// measureBatch sends HTTP batches of ten calls, one after the other.
func measureBatch(b *testing.B, s server) map[string]float64 {
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s.forget(b)
	cpu := s.cpu(b)
	began := time.Now()
	runs := 0
	for ; runs == 0 || time.Since(began) < turn; runs++ {
		if err := batchOfTen(ctx, client, "http://"+s.addr); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
	}
	return map[string]float64{
		"batches/s": float64(runs) / time.Since(began).Seconds(), "cpu-µs": micros(s.cpu(b)-cpu) / float64(runs),
		"peak-MB": s.peak(b),
	}
}

func batchOfTen(ctx context.Context, client *http.Client, url string) error {
	session := httprpc.NewBatch(ctx, url, &httprpc.BatchClientOptions{Client: client})
	defer session.Close(nil)
	api := session.Main()
	defer api.Close()
	var calls [10]*capnweb.Promise
	for i := range calls {
		calls[i] = api.Call("square", i)
	}
	for i, call := range calls {
		n, err := capnweb.Await[int](ctx, call)
		if err := expect(n, i*i, err); err != nil {
			return err
		}
	}
	return nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func expect[T comparable](got, want T, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return err
}
