package capnweb_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// roundTrip sends v to an echo and returns what went over the wire as its argument.
func wireForm(t *testing.T, v any, opts ...capnweb.Option) string {
	t.Helper()
	p := newRawPeer(t, nil, opts...)
	call := p.s.Main().Call("f", v)
	defer call.Close()
	select {
	case m := <-p.in:
		m = strings.TrimPrefix(m, `["push",["pipeline",0,["f"],[`)
		return strings.TrimSuffix(m, `]]]`)
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was sent")
		return ""
	}
}

// Group "simple serialization": pairs of a value and its form.
func TestSerialize(t *testing.T) {
	t.Parallel()
	type embedded struct {
		E int `json:"e"`
	}
	type record struct {
		embedded
		Name  string  `json:"name"`
		Empty string  `json:"empty,omitempty"`
		Zero  int     `json:"zero,omitzero"`
		Rpc   bool    `json:"json" rpc:"rpc"`
		Ptr   *int    `json:"ptr"`
		Deep  []int32 `json:"deep"`
	}
	seven := 7
	for _, c := range []struct {
		v    any
		want string
	}{
		{1, `1`}, {nil, `null`}, {"s", `"s"`}, {[]int{1}, `[[1]]`}, {[][]int{{1}}, `[[[[1]]]]`},
		{map[string]any{"a": []any{}}, `{"a":[[]]}`}, {capnweb.Undefined, `["undefined"]`},
		{big.NewInt(5), `["bigint","5"]`}, {time.UnixMilli(1), `["date",1]`}, {[]byte{255}, `["bytes","/w"]`},
		{&capnweb.Error{Message: "m"}, `["error","Error","m"]`},
		{&capnweb.Error{Message: "m", Props: capnweb.Object{{Key: "code", Value: 1}}}, `["error","Error","m",null,{"code":1}]`},
		{errors.New("plain"), `["error","Error","plain"]`},
		{math.Copysign(0, -1), `0`}, {1e21, `1e+21`}, {1e20, `100000000000000000000`}, {1e-7, `1e-7`}, {0.000001, `0.000001`},
		{math.MaxFloat64, `1.7976931348623157e+308`}, {5e-324, `5e-324`}, {float32(0.1), `0.1`},
		{math.Inf(1), `["inf"]`}, {math.Inf(-1), `["-inf"]`}, {math.NaN(), `["nan"]`},
		{"\u2028\x00\x1f\"\\\n\U0001F600", `"` + "\u2028" + `\u0000\u001f\"\\\n` + "\U0001F600" + `"`},
		{"bad\xff", `"bad` + "\uFFFD" + `"`},
		{record{embedded: embedded{1}, Name: "n", Ptr: &seven, Deep: []int32{1}}, `{"name":"n","rpc":false,"ptr":7,"deep":[[1]],"e":1}`},
		{record{}, `{"name":"","rpc":false,"ptr":null,"deep":[[]],"e":0}`},
		{map[int]string{2: "b", 1: "a"}, `{"1":"a","2":"b"}`},
		{capnweb.InvalidDate, `["date",null]`},
		{time.UnixMicro(1500), `["date",1.5]`},
		{uint8(3), `3`}, {int64(1<<53 - 1), `9007199254740991`},
		{capnweb.Object{{Key: "b", Value: 1}, {Key: "a", Value: 2}}, `{"b":1,"a":2}`},
		{capnweb.URL("http://x/"), `"http://x/"`},
		{capnweb.TypedArray{Type: "Int16Array", Data: []byte{1, 0}}, `["bytes","AQA"]`},
		{rawJSON(`{"a":[1,[]]}`), `{"a":[[1,[[]]]]}`},
		{textual{"x"}, `"<x>"`},
	} {
		if got := wireForm(t, c.v); got != c.want {
			t.Errorf("%#v: %s, want %s", c.v, got, c.want)
		}
	}
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

type textual struct{ s string }

func (x textual) MarshalText() ([]byte, error) { return []byte("<" + x.s + ">"), nil }

func TestNewerEncodings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    any
		want string
	}{
		{capnweb.URL("http://x/"), `["url","http://x/"]`},
		{capnweb.TypedArray{Type: "ArrayBuffer", Data: []byte{0, 0}}, `["bytes","AAA","ArrayBuffer"]`},
		{capnweb.TypedArray{Type: "Float32Array", Data: []byte{0, 0, 192, 63}}, `["bytes","AADAPw","Float32Array"]`},
		{[]byte{1, 2}, `["bytes","AQI"]`},
	} {
		if got := wireForm(t, c.v, capnweb.WithNewerEncodings()); got != c.want {
			t.Errorf("%#v: %s, want %s", c.v, got, c.want)
		}
	}
}

// TestUnserializable: the call fails at once, and nothing is sent for it.
func TestUnserializable(t *testing.T) {
	t.Parallel()
	type loop struct{ Next *loop }
	cycle := &loop{}
	cycle.Next = cycle
	deep := any(1)
	for range 300 {
		deep = []any{deep}
	}
	p := newRawPeer(t, nil)
	stub := capnweb.NewStub(capnweb.Func(func() {}))
	defer stub.Close()
	for name, v := range map[string]any{
		"func": func() {}, "chan": make(chan int), "complex": 1i, "large int": int64(1 << 53), "large uint": uint64(1 << 63),
		"cycle": cycle, "deep": deep, "map keys": map[[2]int]int{{1, 2}: 3}, "typed array": capnweb.TypedArray{Type: "Int16Array", Data: []byte{1}},
		"after a stub": []any{stub, make(chan int)}, "closed stub": closedStub(), "private": struct{ a int }{1},
	} {
		call := p.s.Main().Call("f", v)
		if err := call.Await(testContext(t), nil); err == nil || errors.Is(err, capnweb.ErrDisconnected) {
			t.Errorf("%s: %v", name, err)
		}
		call.Close()
	}
	p.stats(1, 1)
	ok := p.s.Main().Call("f", 1)
	defer ok.Close()
	p.expect(`["push",["pipeline",0,["f"],[1]]]`)
}

func closedStub() *capnweb.Stub {
	s := capnweb.NewStub(capnweb.Func(func() {}))
	s.Close()
	return s
}

// TestMalformed: each frame ends the session with a stated reason.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, reason string }{
		{`["push",["bytes","AAA","Int16Array","x"]]` + "\n" + `["push",["bytes","AA","Int16Array"]]`, "Invalid byte length 1 for Int16Array; expected a multiple of 2"},
		{`["push",["bytes","AA","Foo"]]`, "Unknown bytes type marker: Foo"},
		{`["push",["bytes","AA",5]]`, "Unknown bytes type marker type: number"},
		{`["push",["bytes",5]]`, "unknown special value"},
		{`["push",["date","x"]]`, "unknown special value"},
		{`["push",["bigint","1x"]]`, "Cannot convert 1x to a BigInt"},
		{`["push",["bigint",5]]`, "unknown special value"},
		{`["push",["error","E"]]`, "unknown special value"},
		{`["push",["error","E","m",null,5]]`, "unknown special value"},
		{`["push",["undefined",1]]`, "unknown special value"},
		{`["push",["url"]]`, "unknown special value"},
		{`["push",["headers",[["a"]]]]`, "pairs of strings"},
		{`["push",["request","x",5]]`, "unknown special value"},
		{`["push",["response",null,{"webSocket":{}}]]`, "webSocket"},
		{`["push",["response",5,{}]]`, "Response body must be of type ReadableStream."},
		{`["push",["blob","t","x"]]`, "Blob content must be serialized as a ReadableStream."},
		{`["push",["readable",5]]`, "Export 5 is not a pipe"},
		{`["push",["remap",0,[],[["x",1]],[1]]]`, "unknown map capture"},
		{`["push",["remap",9,[],[],[1]]]`, "no such entry on exports table: 9"},
		{`["push",["remap",0,[],[]]]`, "unknown special value"},
		{`["push",["regexp","a","g"]]`, "unknown special value"},
		{`["push",["export",5]]`, "negative"},
		{`["push"]`, "bad RPC message"},
		{`["release",0]`, "bad RPC message"},
		{`["release",0,-1]`, "bad RPC message"},
		{`["release",5,1]`, "no such export ID: 5"},
		{`["pull",1.5]`, "bad RPC message"},
		{`[["push",1]]`, "bad RPC message"},
		{`[]`, "bad RPC message"},
		{`5`, "bad RPC message"},
		{`["push",["pipeline",0,["a"],5]]`, "unknown special value"},
		{`["push",["pipeline","0",["a"]]]`, "unknown special value"},
		{`["push",["pipeline",0,["a"],[],5]]`, "unknown special value"},
	} {
		p := newRawPeer(t, recordedMain())
		p.send(strings.Split(c.in, "\n")...)
		if err := p.ended(); !strings.Contains(err.Error(), c.reason) || !errors.Is(err, capnweb.ErrDisconnected) {
			t.Errorf("%s: ended with %v, want %s", c.in, err, c.reason)
		}
	}
}

// Group "limits".
func TestLimits(t *testing.T) {
	t.Parallel()
	nest := func(n int) string {
		return `["push",["pipeline",0,["echo"],[` + strings.Repeat("[[", n) + "1" + strings.Repeat("]]", n) + `]]]`
	}
	for _, c := range []struct {
		name   string
		limits capnweb.Limits
		in     []string
		reason string
	}{
		{"bigint", capnweb.Limits{MaxBigIntDigits: 5}, []string{`["push",["bigint","123456"]]`}, "bigint exceeds maximum length of 5 digits"},
		{"bigint minus counts", capnweb.Limits{MaxBigIntDigits: 5}, []string{`["push",["bigint","-12345"]]`}, "bigint exceeds"},
		{"depth", capnweb.Limits{MaxDepth: 10}, []string{nest(10)}, "maximum allowed message depth of 10"},
		{"depth of JSON", capnweb.Limits{MaxDepth: 10}, []string{nest(1000)}, "maximum allowed message depth of 10"},
		{"depth by default", capnweb.Limits{}, []string{nest(256)}, "depth of 256"},
		{"message", capnweb.Limits{MaxMessageBytes: 100}, []string{`["push","` + strings.Repeat("x", 100) + `"]`}, "exceeds maximum size of 100"},
		{"exports", capnweb.Limits{MaxExports: 3}, []string{`["push",1]`, `["push",1]`, `["push",1]`}, "Too many exports"},
		{"pipes", capnweb.Limits{MaxExports: 3}, []string{`["pipe"]`, `["pipe"]`, `["pipe"]`}, "Too many exports"},
		{"imports", capnweb.Limits{MaxImports: 3}, []string{`["push",[["export",-1],["export",-2],["export",-3]]]`}, ""},
		{"imports", capnweb.Limits{MaxImports: 3}, []string{`["push",[[["export",-1],["export",-2],["export",-3]]]]`}, "Too many imports"},
	} {
		if c.reason == "" {
			continue
		}
		p := newRawPeer(t, recordedMain(), capnweb.WithLimits(c.limits))
		p.send(c.in...)
		if err := p.ended(); !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: ended with %v, want %s", c.name, err, c.reason)
		}
	}
	for _, in := range []string{`["push",["bigint","12345"]]`, nest(8)} {
		p := newRawPeer(t, recordedMain(), capnweb.WithLimits(capnweb.Limits{MaxBigIntDigits: 5, MaxDepth: 10}))
		p.send(in, `["pull",1]`)
		if m := <-p.in; !strings.HasPrefix(m, `["resolve",1,`) {
			t.Errorf("%s: %s", in, m)
		}
	}
}

// TestCallsInFlight: too many calls are rejected; the session goes on.
func TestCallsInFlight(t *testing.T) {
	t.Parallel()
	p := newRawPeer(t, recordedMain(), capnweb.WithLimits(capnweb.Limits{MaxCallsInFlight: 2}))
	p.send(`["push",["pipeline",0,["hang"],[]]]`, `["push",["pipeline",0,["hang"],[]]]`, `["push",["pipeline",0,["ret"],[]]]`, `["pull",3]`)
	p.expect(`["reject",3,["error","TypeError","Too many calls are in flight on this session (limit 2)."]]`)
}

// TestMapLimit: a map that asks for too much is rejected.
func TestMapLimit(t *testing.T) {
	t.Parallel()
	p := newRawPeer(t, recordedMain(), capnweb.WithLimits(capnweb.Limits{MaxMapCalls: 10}))
	p.send(`["push",["pipeline",0,["list"],[6]]]`,
		`["push",["remap",1,[],[["import",0]],[["pipeline",-1,["ret"],[]],["pipeline",1]]]]`, `["pull",2]`)
	p.expect(`["reject",2,["error","TypeError","A map makes too many calls (limit 10)."]]`)
	// Maps within maps count together.
	p.send(`["push",["remap",1,[],[["import",1]],[["remap",-1,[],[],[["pipeline",0]]],["pipeline",1]]]]`, `["pull",3]`)
	p.expect(`["reject",3,["error","TypeError","A map makes too many calls (limit 10)."]]`)
}

// TestUnreadPipe: what nobody reads is bounded.
func TestUnreadPipe(t *testing.T) {
	t.Parallel()
	p := newRawPeer(t, recordedMain(), capnweb.WithLimits(capnweb.Limits{MaxPipeBytes: 2000}))
	chunk := base64.RawStdEncoding.EncodeToString(make([]byte, 900))
	p.send(`["pipe"]`)
	for range 4 {
		p.send(`["stream",["pipeline",1,["write"],[["bytes","` + chunk + `"]]]]`)
	}
	const full = `["error","TypeError","Too much of a stream is waiting to be read (limit 2000 bytes)."]]`
	p.expectAny(`["reject",4,`+full, `["reject",2,`+full, `["reject",3,`+full, `["reject",5,`+full)
}

// TestSlowReader: a peer that asks without reading is cut off.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	mine, theirs := capnweb.Pipe()
	s := capnweb.NewSession(theirs, recordedMain(), capnweb.WithLimits(capnweb.Limits{MaxQueuedBytes: 100_000}))
	defer mine.Close(nil)
	text := strings.Repeat("x", 10_000)
	for i := 1; ; i++ {
		m := [][]byte{[]byte(`["push",["pipeline",0,["echo"],["` + text + `"]]]`), []byte(`["pull",` + big.NewInt(int64(i)).String() + `]`)}
		if mine.WriteMessages(m) != nil {
			break
		}
		if i > 1000 {
			t.Fatal("the session goes on")
		}
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the session does not end")
	}
	if err := s.Err(); !errors.Is(err, capnweb.ErrLimit) {
		t.Fatal(err)
	}
}

// TestCallersWait: a caller who sends faster than the peer reads is held back.
func TestCallersWait(t *testing.T) {
	t.Parallel()
	mine, theirs := capnweb.Pipe()
	s := capnweb.NewSession(theirs, nil, capnweb.WithLimits(capnweb.Limits{MaxQueuedBytes: 100_000}))
	sent := make(chan int, 1000)
	go func() {
		for i := range 100 {
			s.Main().Call("f", bytes.Repeat([]byte{1}, 9000)).Close()
			sent <- i
		}
		close(sent)
	}()
	// Nobody reads: it stops.
	deadline := time.After(10 * time.Second)
	for s.Stats().QueuedBytes <= 50_000 {
		select {
		case <-deadline:
			t.Fatal("the caller is not held back")
		case <-sent:
		}
	}
	if q := s.Stats().QueuedBytes; q > 75_000 {
		t.Fatal(q)
	}
	// A caller with a context is let go.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := capnweb.Call[any](ctx, s.Main(), "f"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	go func() {
		for {
			if _, err := mine.ReadMessage(); err != nil {
				return
			}
		}
	}()
	for range sent {
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	s.Close(nil)
	<-s.Done()
}
