package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// Frames that no good client sends: made at random from the parts of the
// protocol, sent to the reference's server and to ours, which must answer alike.
func TestRandomFrames(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	server := serveSuite(t, "0.12.0")
	randomFrames(t, node, func(_ context.Context, id string) (string, func() error, error) {
		return server.url("ws", id), nil, nil
	})
}

// The same frames through a relay of ours to the reference's object, which must
// answer through it as it answers directly.
func TestRandomFramesRelayed(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	relay := httptest.NewServer(newRelay(newSessions(t)))
	t.Cleanup(relay.Close)
	url := func(side, id string) string {
		return fmt.Sprintf("ws://%s/mitm/%s?id=%s", relay.Listener.Addr(), side, id)
	}
	randomFrames(t, node, func(ctx context.Context, id string) (string, func() error, error) {
		args := map[string]any{"lib": "0.12.0", "session": id, "url": url("target", id)}
		end := func() error { return node.Do(ctx, "close", args, nil) }
		return url("client", id), end, node.Do(ctx, "serveTo", args, nil)
	})
}

// randomFrames sends sequences of frames to the reference and to another server,
// for which dial gives the URL, and how to end what was begun for it.
func randomFrames(t *testing.T, node *interop.Node, dial func(ctx context.Context, id string) (string, func() error, error)) {
	t.Helper()
	sequences := 400
	if long() {
		sequences = 15_000
	}
	var group errgroup.Group
	group.SetLimit(32)
	var different atomic.Int64
	for seed := range sequences {
		group.Go(func() error {
			frames, ids := newFrameMaker(uint64(seed)).sequence()
			id := fmt.Sprint("frames-", seed)
			theirs, err := answers(t.Context(), fmt.Sprintf("ws://127.0.0.1:%d/0.12.0?id=%s", node.Port, id), frames, ids)
			if err != nil {
				return err
			}
			url, end, err := dial(t.Context(), id)
			if err != nil {
				return err
			}
			ours, err := answers(t.Context(), url, frames, ids)
			if err != nil {
				return err
			}
			if end != nil {
				if err := end(); err != nil {
					return err
				}
			}
			if !alike(frames, theirs, ours) && different.Add(1) < 30 {
				t.Errorf("seed %d\n\tsent:\n\t%s\n\tthe reference answers:\n\t%s\n\twe answer:\n\t%s", seed,
					strings.Join(frames, "\n\t"), strings.Join(theirs, "\n\t"), strings.Join(ours, "\n\t"))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// alike compares answers. Where the reference cannot return a stub or a stream
// that it got as a parameter, we can; and whether it can depends on the moment.
func alike(frames, theirs, ours []string) bool {
	sent := strings.Join(frames, "")
	return slices.EqualFunc(theirs, ours, func(a, b string) bool {
		passedOn := strings.Contains(b, `"stub"`) || strings.Contains(b, `["readable",`) || strings.Contains(b, `["import",`) ||
			strings.Contains(sent, `["remap",`) || strings.Contains(sent, `["export",`)
		return a == b || passedOn && strings.Contains(a+b, `["rejected",`)
	})
}

// frameMaker makes sequences of frames.
type frameMaker struct {
	r      *rand.Rand
	ids    int64   // positive IDs given out so far
	usable []int64 // those that may be referred to, and 0
	// unpulled is one that is only ever released.
	unpulled int64
}

func newFrameMaker(seed uint64) *frameMaker {
	return &frameMaker{r: rand.New(rand.NewPCG(seed, 7)), usable: []int64{0}}
}

// sequence returns a few frames and how many positive IDs they use up.
func (m *frameMaker) sequence() ([]string, int64) {
	var frames []string
	if m.r.IntN(3) == 0 {
		frames = append(frames, `["push",["pipeline",0,["counter"]]]`)
		m.ids++
		m.unpulled = m.ids
	}
	for range 1 + m.r.IntN(6) {
		b, err := json.Marshal(m.frame())
		if err != nil {
			panic(err)
		}
		frames = append(frames, string(b))
	}
	return frames, m.ids
}

func (m *frameMaker) pick(fs ...func() any) any { return fs[m.r.IntN(len(fs))]() }

func (m *frameMaker) frame() []any {
	var f []any
	switch n := m.r.IntN(20); {
	case n < 9:
		f = []any{"push", m.expr(3)}
		m.ids++
		m.usable = append(m.usable, m.ids)
	case n < 10:
		f = []any{"stream", m.expr(3)}
		m.ids++ // which ends by itself, and so must not be referred to
	case n < 15:
		f = []any{"pull", m.id()}
	case n < 16:
		// Whether something was settled before its release is a matter of time.
		f = []any{"release", m.unpulled, m.r.IntN(3)}
	case n < 17:
		f = []any{"resolve", m.negative(), m.expr(2)}
	case n < 18:
		f = []any{"reject", m.negative(), m.expr(2)}
	case n < 19:
		f = []any{"pipe"}
		m.ids++
		m.usable = append(m.usable, m.ids)
	default:
		f = []any{"abort", m.expr(1)}
	}
	// Now and then one part is missing, doubled or of another kind.
	switch m.r.IntN(25) {
	case 0:
		f = f[:len(f)-1]
	case 1:
		f = append(f, m.junk())
	case 2:
		f[m.r.IntN(len(f))] = m.junk()
	}
	return f
}

func (m *frameMaker) id() any {
	if m.r.IntN(12) == 0 {
		return m.junk()
	}
	if m.r.IntN(20) == 0 {
		return m.ids + 1 // not there yet
	}
	return m.usable[m.r.IntN(len(m.usable))]
}

func (m *frameMaker) negative() int64 { return -1 - m.r.Int64N(3) }

func (m *frameMaker) junk() any {
	return m.pick(
		func() any { return nil }, func() any { return 77 }, func() any { return "1" },
		func() any { return []any{} }, func() any { return map[string]any{} }, func() any { return true },
	)
}

// methodNames are methods and properties that take whatever they are given: what
// a language does with arguments of other types is not the protocol's matter.
var methodNames = []string{"echo", "echo", "echo", "nothing", "nul", "users", "nested", "config", "counter", "fail", "nope", "constructor"}

func (m *frameMaker) path() []any {
	p := []any{methodNames[m.r.IntN(len(methodNames))]}
	for m.r.IntN(4) == 0 {
		p = append(p, m.pick(func() any { return "list" }, func() any { return 0 }, func() any { return "deep" }, func() any { return "__proto__" }, func() any { return "0" }))
	}
	if m.r.IntN(30) == 0 {
		p[0] = m.junk()
	}
	if m.r.IntN(15) == 0 {
		p = p[:0]
	}
	return p
}

func (m *frameMaker) args(depth int) []any {
	a := []any{}
	for range m.r.IntN(3) {
		a = append(a, m.expr(depth-1))
	}
	return a
}

// expr makes an expression, mostly a valid one.
func (m *frameMaker) expr(depth int) any {
	if depth <= 0 || m.r.IntN(4) == 0 {
		return m.pick(func() any { return m.r.IntN(10) }, func() any { return "text" }, func() any { return nil }, func() any { return true })
	}
	switch m.r.IntN(24) {
	case 0, 1, 2, 3, 4, 5:
		return []any{"pipeline", 0, m.path(), m.args(depth)}
	case 6:
		return []any{"pipeline", m.id(), m.path()}
	case 7:
		return []any{"pipeline", m.id(), m.path(), m.args(depth)}
	case 8:
		return []any{"import", 0}
	case 9:
		return []any{"pipeline", m.id()}
	case 10:
		return []any{"export", m.negative()}
	case 11:
		return []any{"promise", m.negative() - 3} // not an ID that an export may have had
	case 12:
		return []any{[]any{m.expr(depth - 1), m.expr(depth - 1)}}
	case 13:
		return map[string]any{"a": m.expr(depth - 1), "b": m.expr(depth - 1)}
	case 14:
		return []any{"error", "RangeError", "m"}
	case 15:
		return []any{"bigint", strconv.Itoa(m.r.IntN(100))}
	case 16:
		return []any{"date", m.r.IntN(1000)}
	case 17:
		return []any{"bytes", []string{"AQID", "AQ==", "", "A"}[m.r.IntN(4)]}
	case 18:
		return []any{[]string{"undefined", "inf", "-inf", "nan", "bogus", "headers", "readable", "writable", "remap"}[m.r.IntN(9)]}
	case 19:
		return []any{"readable", m.id()}
	case 20:
		return []any{"headers", []any{[]any{"a", "b"}}}
	case 21:
		return []any{"remap", 0, m.path(), []any{[]any{"import", 0}}, []any{
			[]any{"pipeline", -1, []any{"echo"}, []any{[]any{"pipeline", 0}}}, []any{"pipeline", 1},
		}}
	case 22:
		return []any{m.junk(), m.junk()}
	default:
		return map[string]any{"toString": 1, "x": m.expr(depth - 1)}
	}
}

// answers sends frames and returns what came back, as far as it is defined:
// one line for each message that settles something, in order of ID.
func answers(ctx context.Context, url string, frames []string, ids int64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, caseTime)
	defer cancel()
	ws, response, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	if response.Body != nil {
		defer response.Body.Close()
	}
	defer ws.CloseNow()
	// What a frame starts may end after what a later one does: a call that takes
	// its time, made last, is waited for.
	last := ids + 1
	frames = append(frames[:len(frames):len(frames)],
		`["push",["pipeline",0,["later"],["the end",40]]]`, fmt.Sprintf(`["pull",%d]`, last))
	for _, f := range frames {
		if err := ws.Write(ctx, websocket.MessageText, []byte(f)); err != nil {
			break // it may have closed already
		}
	}
	got := map[string]any{}
	for {
		_, b, err := ws.Read(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("no end after %q; got %q", frames, got)
			}
			return []string{"the session is over"}, nil
		}
		var f []any
		if err := json.Unmarshal(b, &f); err != nil || len(f) == 0 {
			return nil, fmt.Errorf("after %q: not a message: %q", frames, b)
		}
		switch f[0] {
		case "abort":
			return []string{"the session is over"}, nil // what was settled before that is a matter of time
		case "resolve", "reject":
			if f[1] == float64(last) {
				delete(got, fmt.Sprint(last))
				return settlements(got), nil
			}
			got[fmt.Sprint(f[1])] = outcomeOf(f)
		}
	}
}

// outcomeOf reduces a settlement to what both sides must agree on: the texts of
// errors are our own, their classes are not.
func outcomeOf(f []any) any {
	if f[0] == "resolve" {
		return f[2]
	}
	if e, ok := f[2].([]any); ok && len(e) >= 2 && e[0] == "error" {
		return []any{"rejected", e[1]}
	}
	return []any{"rejected", f[2]}
}

// settlements lists what was settled, by the IDs of the one who asked. Promises
// in a value are replaced by what became of them: whether a value is sent at once
// or later is free.
func settlements(got map[string]any) []string {
	var replace func(v any, depth int) any
	replace = func(v any, depth int) any {
		if depth > 50 {
			return "deep"
		}
		switch x := v.(type) {
		case []any:
			if len(x) == 2 && x[0] == "export" {
				return "stub"
			}
			if len(x) == 2 && x[0] == "promise" {
				return replace(got[fmt.Sprint(x[1])], depth+1)
			}
			c := make([]any, len(x))
			for i := range x {
				c[i] = replace(x[i], depth+1)
			}
			return c
		case map[string]any:
			c := map[string]any{}
			for k := range x {
				c[k] = replace(x[k], depth+1)
			}
			return c
		}
		return v
	}
	var lines []string
	for id, v := range got {
		if strings.HasPrefix(id, "-") {
			continue
		}
		b, _ := json.Marshal(replace(v, 0)) // it was decoded from JSON
		lines = append(lines, id+": "+string(b))
	}
	slices.Sort(lines)
	return append(lines, "the end")
}
