package capnweb_test

import (
	"context"
	"errors"
	"io"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// scenario is one recorded conversation.
type scenario struct {
	name  string
	lines []string
}

func readScenarios(t *testing.T, file string) []scenario {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []scenario
	for _, l := range strings.Split(string(b), "\n") {
		if name, ok := strings.CutPrefix(l, "## "); ok {
			out = append(out, scenario{name: name})
		} else if len(out) > 0 && l != "" {
			s := &out[len(out)-1]
			s.lines = append(s.lines, l)
		}
	}
	if len(out) < 25 {
		t.Fatalf("%s has only %d scenarios", file, len(out))
	}
	return out
}

// recordedMain is the main object of the recordings.
func recordedMain() *capnweb.Target {
	m := capnweb.Methods{
		"square": func(i int) int { return i * i },
		"add":    func(a, b float64) float64 { return a + b },
		"echo":   func(v capnweb.Value) any { return v },
		"undef":  func() {},
		"ret":    func() int { return 7 },
		"prop":   capnweb.Getter(func() any { return map[string]any{"deep": []int{10, 20}} }),
		"g":      capnweb.Getter(func() int { return 3 }),
		"fail": func() error {
			return &capnweb.Error{
				Name: "TypeError", Message: "boom", Props: capnweb.Object{{Key: "code", Value: "E1"}},
				Cause: &capnweb.Error{Name: "RangeError", Message: "inner"},
			}
		},
		"thr":  func() error { return capnweb.Thrown("str") },
		"thro": func() error { return capnweb.Thrown(map[string]int{"a": 1}) },
		"obj": func() any {
			return capnweb.Object{
				{Key: "a", Value: []any{1, map[string]any{"b": time.UnixMilli(5)}}},
				{Key: "f", Value: capnweb.Func(func(i int) int { return i + 1 })},
			}
		},
		"makeCounter": func(n int) *capnweb.Target { return counters.New(newCounter(n)) },
		"inc": func(ctx context.Context, c *capnweb.Stub, n int) (int, error) {
			return capnweb.Call[int](ctx, c, "increment", n)
		},
		"call": func(ctx context.Context, f *capnweb.Stub, i int) (any, error) {
			return capnweb.Call[any](ctx, f, "", i)
		},
		"callNoAwait": func(f *capnweb.Stub, i int) *capnweb.Promise { return f.Call("", i) },
		"both":        func(a, b *capnweb.Stub) bool { return a == b },
		"keep":        func(a, b *capnweb.Stub) int { return 1 },
		"three": func() any {
			s := capnweb.NewStub(counters.New(newCounter(0)))
			defer s.Close()
			return []*capnweb.Stub{s.Dup(), s.Dup(), s.Dup()}
		},
		"list": func(n int) []int {
			l := make([]int, n)
			for i := range l {
				l[i] = i
			}
			return l
		},
		"nested": func() any { return [][]int{{1, 2}, {3}} },
		"nul":    func() any { return nil },
		"hang":   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"slow":   func() int { return 1 },
		"later": func() any {
			p, r := capnweb.NewPromise()
			time.AfterFunc(20*time.Millisecond, func() { _ = r.Resolve(42) })
			return map[string]any{"p": p}
		},
		"sum": func(ctx context.Context, s *capnweb.ReadableStream) (int, error) {
			total := 0
			for v, err := range capnweb.Chunks[any](ctx, s) {
				if err != nil {
					return 0, err
				}
				switch x := v.(type) {
				case float64:
					total += int(x)
				case []byte:
					total += len(x)
				}
			}
			return total, nil
		},
		"src": func() *capnweb.ReadableStream {
			list := []any{[]byte{1, 2, 3}, "str"}
			return capnweb.NewSource(func(context.Context) (any, error) {
				if len(list) == 0 {
					return nil, errEnd
				}
				v := list[0]
				list = list[1:]
				return v, nil
			}, nil)
		},
		"sink": func(ctx context.Context, w *capnweb.WritableStream) (string, error) {
			if err := w.WriteValue(ctx, "hi"); err != nil {
				return "", err
			}
			if err := w.WriteValue(ctx, []byte{9}); err != nil {
				return "", err
			}
			return "done", w.CloseContext(ctx)
		},
		"bad": func() any { return make(chan int) },
	}
	return capnweb.NewTarget(m, capnweb.Concurrent())
}

// differs lists the recordings from which a session here departs on purpose, with
// what it says instead.
var differs = map[string][]string{
	// The index "1" of an array is accepted as a string.
	"nested property path": {`S> ["resolve",1,20]`},
	// A parameter may be returned.
	"echo a remote stub back": {`S> ["resolve",1,["export",-1]]`, `S> ["resolve",2,["export",-2]]`},
	// A map is answered with one message.
	"map": {`S> ["resolve",2,[[0,1,4]]]`},
	"map with object result and capture args": {`S> ["resolve",2,[[{"i":0,"sq":0,"s":10,"k":[[1,"x"]]},{"i":1,"sq":1,"s":11,"k":[[1,"x"]]}]]]`},
	"map property access only":                {`S> ["resolve",2,[[1,3]]]`},
	"nested map":                              {`S> ["resolve",2,[[[[1,4]],[[9]]]]]`},
	// What cannot be serialized is named by its Go type.
	"unserializable result": {`S> ["reject",1,["error","TypeError","Cannot serialize value: chan int"]]`},
}

// notByServer lists recordings that our server does not replay, with the reason.
var notByServer = map[string]string{
	"Request/Response echo":      "the reference loses the body: TestFetchOverRPC, and TestGoClient \"responses\"",
	"dispose main stub":          "no frames",
	"map capturing a local stub": "a map is answered with one message, after the callbacks: TestMapCallsBack",
	"serialize()":                "values, no frames: TestRecordedValues",
}

// recordedOptions are those of a session that has more than the usual.
var recordedOptions = map[string][]capnweb.Option{
	"bytes/typed arrays/bigint/date/url/headers/nonfinite": {capnweb.WithNewerEncodings()},
	"error, onSendError returns it (stack sent)": {capnweb.WithErrorHook(func(e *capnweb.Error) *capnweb.Error {
		c := *e
		c.Stack = "STACK"
		return &c
	})},
}

// TestTranscriptsServer plays the client's part of each recording, and compares
// what the session says with what the reference's server said.
func TestTranscriptsServer(t *testing.T) {
	t.Parallel()
	for _, sc := range readScenarios(t, "testdata/transcripts.txt") {
		if _, ok := notByServer[sc.name]; ok {
			continue
		}
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			p := newRawPeer(t, recordedMain(), recordedOptions[sc.name]...)
			own := differs[sc.name]
			var wanted []string
			flush := func() {
				p.expectAny(wanted...)
				wanted = nil
			}
			drop := false
			for _, l := range sc.lines {
				switch {
				case strings.HasPrefix(l, "S> "):
					if own != nil {
						if len(own) > 0 {
							wanted = append(wanted, own[0][3:])
							own = own[1:]
							continue
						}
						drop = true
						continue
					}
					wanted = append(wanted, l[3:])
				case strings.HasPrefix(l, "C> "):
					flush()
					if drop && strings.HasPrefix(l, `C> ["release",-`) {
						continue // of what our answer does not contain
					}
					p.send(l[3:])
				}
			}
			flush()
			if strings.Contains(sc.name, "=> abort") {
				p.ended()
			}
		})
	}
}

// probeAnswers departs from the recordings on purpose.
var probeAnswers = map[string]string{
	// A reference that is mentioned twice is counted twice.
	"same export id introduced twice in one message": `["release",-1,2]  ["resolve",1,1]`,
	// There are no instance properties in Go: what is not exported does not exist.
	"instance prop / getter / private": `["resolve",1,["undefined"]]  ["resolve",2,3]`,
	// Names of errors survive.
	"unknown error name & proto name": `["resolve",1,["error","MyErr","m"]]  ["resolve",2,["error","constructor","m"]]`,
}

// TestProbes sends the hand-made frames of the recordings.
func TestProbes(t *testing.T) {
	t.Parallel()
	for _, sc := range readScenarios(t, "testdata/probes.txt") {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			var main any = recordedMain()
			if sc.name == "no main object" {
				main = nil
			}
			p := newRawPeer(t, main)
			var in, out []string
			aborted := ""
			for _, l := range sc.lines {
				if s, ok := strings.CutPrefix(strings.TrimLeft(l, " "), "in :"); ok {
					in = strings.Split(strings.TrimPrefix(s, " "), "  ")
				}
				if s, ok := strings.CutPrefix(strings.TrimLeft(l, " "), "out:"); ok {
					s = strings.TrimSpace(s)
					if own, ok := probeAnswers[sc.name]; ok {
						s = own
					}
					if i := strings.Index(s, "ABORTED "); i >= 0 {
						aborted = s[i+len("ABORTED "):]
						s = strings.TrimSpace(s[:i])
					}
					if s != "" {
						out = strings.Split(s, "  ")
					}
				}
			}
			p.send(in...)
			switch sc.name {
			case "promise arg that never resolves delays the call; later call overtakes":
				p.expect(out[0])
				p.send(`["resolve",-1,"late"]`)
				out = out[1:]
			case "promise arg rejected":
				p.send(`["reject",-1,["error","RangeError","nope"]]`)
			}
			if aborted != "" {
				p.expect(out...)
				if err := p.ended(); !strings.Contains(err.Error(), aborted) || !errors.Is(err, capnweb.ErrDisconnected) {
					t.Fatalf("ended with %v, want %s", err, aborted)
				}
				return
			}
			p.expectAny(out...)
		})
	}
}

var errEnd = io.EOF

// TestMapCallsBack plays the client's part of the recording of a map that calls the client
// back. The session asks for the results and answers with all of them, where the reference
// answers with promises.
func TestMapCallsBack(t *testing.T) {
	t.Parallel()
	p := newRawPeer(t, recordedMain())
	p.send(`["push",["pipeline",0,["list"],[2]]]`,
		`["push",["remap",1,[],[["export",-1]],[["pipeline",-1,[],[["pipeline",0]]],["pipeline",1]]]]`, `["pull",2]`)
	p.expectAny(`["push",["pipeline",-1,[],[["promise",-1]]]]`, `["resolve",-1,0]`,
		`["push",["pipeline",-1,[],[["promise",-2]]]]`, `["resolve",-2,1]`, `["release",-1,1]`, `["pull",1]`, `["pull",2]`)
	p.send(`["release",-1,1]`, `["release",-2,1]`, `["resolve",1,100]`, `["resolve",2,101]`)
	p.expectAny(`["release",1,1]`, `["release",2,1]`, `["resolve",2,[[100,101]]]`)
	p.send(`["release",2,1]`, `["release",1,1]`)
	p.stats(1, 1)
}

// TestRecordedValues sends the values whose forms were recorded without frames.
func TestRecordedValues(t *testing.T) {
	t.Parallel()
	values := []any{
		1, nil, "s", []int{1}, [][]int{{1}}, map[string]any{"a": []any{}}, capnweb.Undefined, big.NewInt(5), time.UnixMilli(1), []byte{255},
		&capnweb.Error{Message: "m"}, &capnweb.Error{Message: "m", Props: capnweb.Object{{Key: "code", Value: 1}}},
		math.Copysign(0, -1), 1e21, "\u2028",
	}
	for _, sc := range readScenarios(t, "testdata/transcripts.txt") {
		if sc.name != "serialize()" {
			continue
		}
		if len(sc.lines) != len(values) {
			t.Fatalf("%d values were recorded", len(sc.lines))
		}
		for i, v := range values {
			if got := wireForm(t, v); got != sc.lines[i] {
				t.Errorf("%v is sent as %s, want %s", v, got, sc.lines[i])
			}
		}
		return
	}
	t.Fatal("the recording is missing")
}
