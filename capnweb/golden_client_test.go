package capnweb_test

import (
	"context"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// clientActions do with our client what the recorded client did.
var clientActions = map[string]func(ctx context.Context, t *testing.T, main *capnweb.Stub){
	"call": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		want[int](t, 25)(capnweb.Call[int](ctx, main, "square", 5))
	},
	"call returning undefined": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		want[any](t, nil)(capnweb.Call[any](ctx, main, "undef"))
	},
	"property get (getter)": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		var v struct {
			Deep []int `json:"deep"`
		}
		if err := main.Get("prop").Await(ctx, &v); err != nil || len(v.Deep) != 2 {
			t.Error(v, err)
		}
	},
	"nested property path": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		want[any](t, nil)(capnweb.Await[any](ctx, main.Get("prop", "deep", "1")))
	},
	"error with props and cause": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		_, err := capnweb.Call[any](ctx, main, "fail")
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Name != "TypeError" || e.Code() != "E1" {
			t.Error(err)
		}
		cause := new(capnweb.Error)
		if !errors.As(errors.Unwrap(errorsJoin(e)), &cause) {
			t.Error("no cause")
		}
	},
	"error, onSendError returns it (stack sent)": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		_, err := capnweb.Call[any](ctx, main, "fail")
		var e *capnweb.Error
		if !errors.As(err, &e) || e.Stack != "STACK" {
			t.Error(err)
		}
	},
	"no such method": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		if _, err := capnweb.Call[any](ctx, main, "nope", 1); err == nil {
			t.Error("no error")
		}
	},
	"object result with function; call it; dispose result": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		v, err := capnweb.Call[struct {
			F *capnweb.Stub `json:"f"`
		}](ctx, main, "obj")
		if err != nil {
			t.Error(err)
			return
		}
		want[int](t, 2)(capnweb.Call[int](ctx, v.F, "", 1))
		v.F.Close()
	},
	"returned RpcTarget: call then dispose": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c, err := capnweb.Call[*capnweb.Stub](ctx, main, "makeCounter", 3)
		if err != nil {
			t.Error(err)
			return
		}
		want[int](t, 5)(capnweb.Call[int](ctx, c, "increment", 2))
		c.Close()
	},
	"pipelined call on un-awaited promise": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c := main.Call("makeCounter", 3)
		want[int](t, 5)(capnweb.Call[int](ctx, c, "increment", 2))
		c.Close()
	},
	"pass promise for RpcTarget as arg": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c := main.Call("makeCounter", 3)
		want[int](t, 7)(capnweb.Call[int](ctx, main, "inc", c, 4))
		c.Close()
	},
	"pass local function as callback": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		want[int](t, 42)(capnweb.Call[int](ctx, main, "call", capnweb.Func(func(i int) int { return 2 * i }), 21))
	},
	"callback result returned as promise (callNoAwait)": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		want[int](t, 42)(capnweb.Call[int](ctx, main, "callNoAwait", capnweb.Func(func(i int) int { return 2 * i }), 21))
	},
	"pass local RpcTarget twice": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c := capnweb.NewStub(counters.New(newCounter(1)))
		defer c.Close()
		want[bool](t, false)(capnweb.Call[bool](ctx, main, "both", c, c))
	},
	"pass same RpcStub twice in one call": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c := capnweb.NewStub(counters.New(newCounter(1)))
		defer c.Close()
		want[bool](t, false)(capnweb.Call[bool](ctx, main, "both", c, c))
	},
	"same target three times in result": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		v, err := capnweb.Call[[]*capnweb.Stub](ctx, main, "three")
		if err != nil || len(v) != 3 {
			t.Error(v, err)
		}
		for _, s := range v {
			s.Close()
		}
	},
	"map": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("list", 3)
		v, err := capnweb.Await[[]int](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(main).Call("square", x)
		}))
		if err != nil || len(v) != 3 || v[2] != 4 {
			t.Error(v, err)
		}
		l.Close()
	},
	"map property access only": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("nested")
		if _, err := capnweb.Await[[]any](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return x.Get("0")
		})); err != nil {
			t.Error(err)
		}
		l.Close()
	},
	"nested map": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("nested")
		v, err := capnweb.Await[[][]int](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return capnweb.Map(x, func(m *capnweb.Mapper, y *capnweb.Promise) any { return m.Use(main).Call("square", y) })
		}))
		if err != nil || len(v) != 2 || v[1][0] != 9 {
			t.Error(v, err)
		}
		l.Close()
	},
	"map on null": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("nul")
		want[any](t, nil)(capnweb.Await[any](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(main).Call("square", x)
		})))
		l.Close()
	},
	"map capturing a local stub": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("list", 2)
		f := capnweb.NewStub(capnweb.Func(func(i int) int { return i + 100 }))
		v, err := capnweb.Await[[]int](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(f).Call("", x)
		}))
		if err != nil || len(v) != 2 || v[1] != 101 {
			t.Error(v, err)
		}
		f.Close()
		l.Close()
	},
	"dispose un-awaited promise": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		main.Call("makeCounter", 1).Close()
	},
	"dispose while pending and pulled": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		if _, err := capnweb.Call[any](ctx, main, "hang"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	},
	"exported promise resolving later": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		v, err := capnweb.Call[map[string]int](ctx, main, "later")
		if err != nil || v["p"] != 42 {
			t.Error(v, err)
		}
	},
	"dup a property": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		o := main.Call("obj")
		f := o.Get("f").Stub()
		want[int](t, 5)(capnweb.Call[int](ctx, f, "", 4))
		f.Close()
		o.Close()
	},
	"ReadableStream as arg": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		list := []any{[]byte{1, 2}, 7}
		s := capnweb.NewSource(func(context.Context) (any, error) {
			if len(list) == 0 {
				return nil, io.EOF
			}
			v := list[0]
			list = list[1:]
			return v, nil
		}, nil)
		want[int](t, 9)(capnweb.Call[int](ctx, main, "sum", s))
	},
	"ReadableStream as result": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		s, err := capnweb.Call[*capnweb.ReadableStream](ctx, main, "src")
		if err != nil {
			t.Error(err)
			return
		}
		b, err := io.ReadAll(s)
		if err != nil || string(b) != "\x01\x02\x03str" {
			t.Error(b, err)
		}
	},
	"WritableStream as arg": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		var b strings.Builder
		want[string](t, "done")(capnweb.Call[string](ctx, main, "sink", capnweb.NewWriter(&b)))
		if b.String() != "hi\t" {
			t.Errorf("%q", b.String())
		}
	},
	"promise as argument": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		a, b := main.Call("square", 3), main.Call("square", 2)
		want[int](t, 13)(capnweb.Call[int](ctx, main, "add", a, b))
		a.Close()
		b.Close()
	},
	"echo a remote stub back": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		c, err := capnweb.Call[*capnweb.Stub](ctx, main, "makeCounter", 1)
		if err != nil {
			t.Error(err)
			return
		}
		fails(t, await(ctx, main.Call("echo", c)), "after it was disposed")
		c.Close()
	},
	"map with object result and capture args": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		l := main.Call("list", 2)
		v, err := capnweb.Await[[]map[string]any](ctx, capnweb.Map(l, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return capnweb.Object{
				{Key: "i", Value: x}, {Key: "sq", Value: m.Use(main).Call("square", x)},
				{Key: "s", Value: m.Use(main).Call("add", x, 10)}, {Key: "k", Value: []any{1, "x"}},
			}
		}))
		if err != nil || len(v) != 2 || v[1]["s"] != 11.0 {
			t.Error(v, err)
		}
		l.Close()
	},
	"Blob echo": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		b, err := capnweb.Call[*capnweb.Blob](ctx, main, "echo", capnweb.NewBlob("text/plain;charset=utf-8", []byte("hi")))
		if err != nil || string(b.Data) != "hi" || b.Type != "text/plain;charset=utf-8" {
			t.Error(b, err)
		}
	},
	"bytes/typed arrays/bigint/date/url/headers/nonfinite": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		v := capnweb.Object{
			{Key: "u8", Value: []byte{1, 2}}, {Key: "ab", Value: capnweb.TypedArray{Type: "ArrayBuffer", Data: []byte{0, 0}}},
			{Key: "f", Value: capnweb.TypedArray{Type: "Float32Array", Data: []byte{0, 0, 192, 63}}}, {Key: "b", Value: big.NewInt(12)},
			{Key: "d", Value: time.UnixMilli(7)}, {Key: "bad", Value: capnweb.InvalidDate}, {Key: "u", Value: capnweb.URL("http://x/")},
			{Key: "h", Value: capnweb.Headers{{"a", "b"}}}, {Key: "i", Value: []any{inf(1), inf(-1), inf(0), capnweb.Undefined, 0.0}},
		}
		got, err := capnweb.Call[capnweb.Value](ctx, main, "echo", v)
		if d := alike(any(v), got.V); d != "" || err != nil {
			t.Error(d, err)
		}
	},
	"unserializable result": func(ctx context.Context, t *testing.T, main *capnweb.Stub) {
		if _, err := capnweb.Call[any](ctx, main, "bad"); err == nil {
			t.Error("no error")
		}
	},
}

// notByClient lists the recordings that our client does not replay, with the reason.
var notByClient = map[string]string{
	"Request/Response echo":                    "the reference loses the body: TestFetchOverRPC, and TestJSClient \"responses\"",
	"dispose main stub":                        "no frames",
	"serialize()":                              "values, no frames: TestRecordedValues",
	"bad message => abort":                     "made by hand: no client sends it",
	"reference to unknown export => abort":     "made by hand: no client sends it",
	"release too much => abort":                "made by hand: no client sends it",
	"pull of a main export (non-promise)":      "made by hand: no client sends it",
	"push of non-call data":                    "made by hand: no client sends it",
	"import-typed call expr evaluates to stub": "made by hand: no client sends it",
	"proto access":                             "made by hand: no client sends it",
}

// clientDiffers has what our client says instead of a recorded line.
var clientDiffers = map[string]string{
	// What is captured twice is one capture.
	`["push",["remap",1,[],[["import",0],["import",0]],[["pipeline",-1,["square"],[["pipeline",0]]],["pipeline",-2,["add"],[["pipeline",0],10]],{"i":["pipeline",0],"sq":["pipeline",1],"s":["pipeline",2],"k":[[1,"x"]]}]]]`: `["push",["remap",1,[],[["import",0]],[["pipeline",-1,["square"],[["pipeline",0]]],["pipeline",-1,["add"],[["pipeline",0],10]],{"i":["pipeline",0],"sq":["pipeline",1],"s":["pipeline",2],"k":[[1,"x"]]}]]]`,
}

func errorsJoin(e *capnweb.Error) error {
	if list := e.Unwrap(); len(list) > 0 {
		return wrapped{list[0]}
	}
	return nil
}

type wrapped struct{ error }

func (w wrapped) Unwrap() error { return w.error }

func want[T comparable](t *testing.T, w T) func(T, error) {
	t.Helper()
	return func(got T, err error) {
		t.Helper()
		if err != nil || got != w {
			t.Errorf("got %v, %v; want %v", got, err, w)
		}
	}
}

// TestTranscriptsClient plays the server's part of each recording.
func TestTranscriptsClient(t *testing.T) {
	t.Parallel()
	done := map[string]bool{}
	for _, sc := range readScenarios(t, "testdata/transcripts.txt") {
		act, ok := clientActions[sc.name]
		if _, not := notByClient[sc.name]; not == ok {
			t.Errorf("%q is neither replayed nor excused, or both", sc.name)
		}
		if !ok {
			continue
		}
		done[sc.name] = true
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			p := newRawPeer(t, nil, recordedOptions[sc.name]...)
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				act(testContext(t), t, p.s.Main())
			}()
			var wanted, replies []string
			flush := func() {
				p.expectAny(wanted...)
				wanted = nil
			}
			// What the server says between two messages of the client is sent once the
			// client has said what comes before; releases may come late.
			for _, l := range sc.lines {
				switch {
				case strings.HasPrefix(l, "C> "):
					if len(replies) > 0 {
						p.send(replies...)
						replies = nil
					}
					line := l[3:]
					if own, ok := clientDiffers[line]; ok {
						line = own
					}
					wanted = append(wanted, line)
				case strings.HasPrefix(l, "S> "):
					if len(wanted) > 0 {
						flush()
					}
					replies = append(replies, l[3:])
				}
			}
			p.send(replies...)
			flush()
			select {
			case <-finished:
			case <-time.After(10 * time.Second):
				t.Fatal("the client does not finish")
			}
			p.stats(1, 1)
		})
	}
	for name := range clientActions {
		if !done[name] {
			t.Errorf("no recording %q", name)
		}
	}
}
