package capnweb_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// received is what an expression is when it is the result of a call.
func received(t *testing.T, expr string) any {
	t.Helper()
	v, err := resultOf(t, expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return v
}

func resultOf(t *testing.T, expr string) (any, error) {
	t.Helper()
	p := newRawPeer(t, nil)
	call := p.s.Main().Call("f")
	defer call.Close()
	done := make(chan error, 1)
	var v capnweb.Value
	go func() { done <- call.Await(testContext(t), &v) }()
	p.expect(`["push",["pipeline",0,["f"],[]]]`, `["pull",1]`)
	p.send(`["resolve",1,` + expr + `]`)
	err := <-done
	return v.V, err
}

// refused checks that a session does not survive an expression.
func refused(t *testing.T, expr, reason string) {
	t.Helper()
	p := newRawPeer(t, recordedMain())
	p.send(`["push",` + expr + `]`)
	if err := p.ended(); !strings.Contains(err.Error(), reason) || !errors.Is(err, capnweb.ErrDisconnected) {
		t.Errorf("%s: ended with %v, want %q", expr, err, reason)
	}
}

// wirePairs are values and what stands for them.
var wirePairs = []struct {
	v    any
	wire string
}{
	{123.0, `123`}, {nil, `null`}, {"foo", `"foo"`}, {true, `true`},
	{capnweb.Object{{Key: "foo", Value: 123.0}}, `{"foo":123}`},
	{capnweb.Object{{Key: "foo", Value: capnweb.Object{{Key: "bar", Value: 123.0}, {Key: "baz", Value: 456.0}}}, {Key: "qux", Value: 789.0}}, `{"foo":{"bar":123,"baz":456},"qux":789}`},
	{[]any{123.0}, `[[123]]`}, {[]any{[]any{123.0, 456.0}}, `[[[[123,456]]]]`},
	{capnweb.Object{{Key: "foo", Value: []any{123.0}}}, `{"foo":[[123]]}`},
	{capnweb.Object{{Key: "foo", Value: []any{123.0}}, {Key: "bar", Value: []any{456.0, 789.0}}}, `{"foo":[[123]],"bar":[[456,789]]}`},
	{big.NewInt(123), `["bigint","123"]`}, {time.UnixMilli(1234).UTC(), `["date",1234]`}, {[]byte("hello!"), `["bytes","aGVsbG8h"]`},
	{capnweb.Undefined, `["undefined"]`},
	{&capnweb.Error{Name: "Error", Message: "the message"}, `["error","Error","the message"]`},
	{&capnweb.Error{Name: "TypeError", Message: "the message"}, `["error","TypeError","the message"]`},
	{&capnweb.Error{Name: "RangeError", Message: "the message"}, `["error","RangeError","the message"]`},
	{inf(1), `["inf"]`}, {inf(-1), `["-inf"]`}, {inf(0), `["nan"]`},
	{capnweb.URL("https://example.com/path?q=1"), `["url","https://example.com/path?q=1"]`},
	{capnweb.Headers{}, `["headers",[]]`},
	{capnweb.Headers{{"content-type", "text/plain"}, {"x-custom", "hello"}}, `["headers",[["content-type","text/plain"],["x-custom","hello"]]]`},
	{&capnweb.Request{URL: "http://example.com/", Method: "HEAD"}, `["request","http://example.com/",{"method":"HEAD"}]`},
	{&capnweb.Request{URL: "http://example.com/", Method: "DELETE", Headers: capnweb.Headers{{"x-foo", "bar"}}}, `["request","http://example.com/",{"method":"DELETE","headers":[["x-foo","bar"]]}]`},
	{&capnweb.Request{URL: "http://example.com/", Init: capnweb.Object{{Key: "redirect", Value: "manual"}}}, `["request","http://example.com/",{"redirect":"manual"}]`},
	{&capnweb.Response{StatusText: "OK"}, `["response",null,{"statusText":"OK"}]`},
	{&capnweb.Response{Status: 404, StatusText: "Not Found"}, `["response",null,{"status":404,"statusText":"Not Found"}]`},
	{&capnweb.Response{Status: 201, StatusText: "Hello", Headers: capnweb.Headers{{"x-custom", "value"}}}, `["response",null,{"status":201,"statusText":"Hello","headers":[["x-custom","value"]]}]`},
}

func inf(sign int) float64 {
	zero := 0.0
	return float64(sign) / zero // NaN for zero
}

// alike compares values as the wire gave them; two NaNs are alike.
func alike(a, b any) string {
	return cmp.Diff(a, b, cmp.AllowUnexported(capnweb.Error{}),
		cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
		cmp.Comparer(func(a, b float64) bool { return a == b || a != a && b != b }),
		cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }))
}

// Group "simple serialization".
func TestSimpleSerialization(t *testing.T) {
	t.Parallel()
	newer := capnweb.WithNewerEncodings()
	both := func(t *testing.T, v any, wire string) {
		t.Helper()
		if got := wireForm(t, v, newer); got != wire {
			t.Errorf("%v is sent as %s, want %s", v, got, wire)
		}
		if d := alike(v, received(t, wire)); d != "" {
			t.Errorf("%s: %s", wire, d)
		}
	}
	t.Run("values have their form", func(t *testing.T) {
		t.Parallel()
		for _, c := range wirePairs {
			if got := wireForm(t, c.v, newer); got != c.wire {
				t.Errorf("%v is sent as %s, want %s", c.v, got, c.wire)
			}
		}
	})
	t.Run("forms have their value", func(t *testing.T) {
		t.Parallel()
		for _, c := range wirePairs {
			got := received(t, c.wire)
			if r, ok := got.(*capnweb.Response); ok && r.Status == 200 && c.v.(*capnweb.Response).Status == 0 {
				r.Status = 0
			}
			if d := alike(c.v, got); d != "" {
				t.Errorf("%s: %s", c.wire, d)
			}
		}
	})
	t.Run("what cannot be sent is named", func(t *testing.T) {
		t.Parallel()
		type hidden struct{ a int }
		p := newRawPeer(t, nil)
		for _, c := range []struct {
			v    any
			text string
		}{
			{make(chan int), "Cannot serialize value: chan int"}, {func() {}, "Cannot serialize value: func()"},
			{hidden{1}, "Cannot serialize value: capnweb_test.hidden has no exported fields"},
		} {
			err := await(testContext(t), p.s.Main().Call("f", c.v))
			var e *capnweb.Error
			if fails(t, err, c.text); !errors.As(err, &e) || e.Name != "TypeError" {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("circles", func(t *testing.T) {
		t.Parallel()
		type loop struct{ Self *loop }
		l := &loop{}
		l.Self = l
		m := map[string]any{}
		m["self"] = m
		p := newRawPeer(t, nil)
		for _, v := range []any{l, m} {
			fails(t, await(testContext(t), p.s.Main().Call("f", v)), "Does the message contain cycles?")
		}
	})
	t.Run("deeply nested values", func(t *testing.T) {
		t.Parallel()
		both(t, capnweb.Object{
			{Key: "level1", Value: capnweb.Object{{Key: "level2", Value: capnweb.Object{{Key: "level3", Value: capnweb.Object{
				{Key: "array", Value: []any{1.0, 2.0, capnweb.Object{{Key: "nested", Value: "deep"}}}},
				{Key: "date", Value: time.UnixMilli(5678)}, {Key: "nullVal", Value: nil}, {Key: "undefinedVal", Value: capnweb.Undefined},
			}}}}}},
			{Key: "top_array", Value: []any{[]any{1.0, 2.0}, []any{3.0, 4.0}}},
		}, `{"level1":{"level2":{"level3":{"array":[[1,2,{"nested":"deep"}]],"date":["date",5678],"nullVal":null,"undefinedVal":["undefined"]}}},"top_array":[[[[1,2]],[[3,4]]]]}`)
	})
	t.Run("malformed input", func(t *testing.T) {
		t.Parallel()
		refused(t, `{"unclosed": `, "is not valid JSON")
		refused(t, `["unknown_type", "param"]`, "unknown special value")
		refused(t, `["date"]`, "unknown special value")
		refused(t, `["error"]`, "unknown special value")
	})
	t.Run("many bytes", func(t *testing.T) {
		t.Parallel()
		data := make([]byte, 200_000)
		for i := range data {
			data[i] = byte(i)
		}
		if got, ok := received(t, wireForm(t, data)).([]byte); !ok || !bytes.Equal(got, data) {
			t.Error("the bytes are not the same")
		}
	})
	t.Run("bytes that end with an equals sign", func(t *testing.T) {
		t.Parallel()
		both(t, []byte("Hello="), `["bytes","SGVsbG89"]`)
		both(t, []byte("=="), `["bytes","PT0"]`)
	})
	t.Run("bytes are sent without padding, and taken with it", func(t *testing.T) {
		t.Parallel()
		both(t, []byte{1, 2, 3, 4, 5}, `["bytes","AQIDBAU"]`)
		if d := alike([]byte{1, 2, 3, 4, 5}, received(t, `["bytes","AQIDBAU="]`)); d != "" {
			t.Error(d)
		}
	})
	t.Run("bytes have no marker, and may have one", func(t *testing.T) {
		t.Parallel()
		both(t, []byte("Hello"), `["bytes","SGVsbG8"]`)
		if d := alike([]byte("Hello"), received(t, `["bytes","SGVsbG8","Uint8Array"]`)); d != "" {
			t.Error(d)
		}
	})
	t.Run("named types of bytes are bytes", func(t *testing.T) {
		t.Parallel()
		type buffer []byte
		if got := wireForm(t, buffer("hello!")); got != `["bytes","aGVsbG8h"]` {
			t.Error(got)
		}
	})
	t.Run("an ArrayBuffer has its marker", func(t *testing.T) {
		t.Parallel()
		both(t, capnweb.TypedArray{Type: "ArrayBuffer", Data: []byte("Hello")}, `["bytes","SGVsbG8","ArrayBuffer"]`)
	})
	t.Run("views have their markers", func(t *testing.T) {
		t.Parallel()
		for name, size := range map[string]int{
			"DataView": 1, "Int8Array": 1, "Uint8ClampedArray": 1, "Int16Array": 2, "Uint16Array": 2, "Int32Array": 4,
			"Uint32Array": 4, "BigInt64Array": 8, "BigUint64Array": 8, "Float32Array": 4, "Float64Array": 8,
		} {
			backing := make([]byte, 3*size+1)
			for i := range backing {
				backing[i] = byte(i + 1)
			}
			part := backing[size : 3*size]
			both(t, capnweb.TypedArray{Type: name, Data: part}, fmt.Sprintf(`["bytes","%s","%s"]`, capnweb.AppendBase64(nil, part), name))
		}
	})
	t.Run("numbers of several bytes are little endian", func(t *testing.T) {
		t.Parallel()
		both(t, capnweb.TypedArray{Type: "Uint32Array", Data: []byte{4, 3, 2, 1}}, `["bytes","BAMCAQ","Uint32Array"]`)
	})
	t.Run("lengths that do not fit the type", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			name         string
			length, size int
		}{{"Int16Array", 1, 2}, {"Float32Array", 3, 4}, {"BigUint64Array", 7, 8}} {
			refused(t, fmt.Sprintf(`["bytes","%s","%s"]`, capnweb.AppendBase64(nil, make([]byte, c.length)), c.name),
				fmt.Sprintf("Invalid byte length %d for %s; expected a multiple of %d", c.length, c.name, c.size))
		}
	})
	t.Run("unknown markers", func(t *testing.T) {
		t.Parallel()
		refused(t, `["bytes","SGVsbG8","invalidUint8Array"]`, "Unknown bytes type marker: invalidUint8Array")
		refused(t, `["bytes","SGVsbG8",123]`, "Unknown bytes type marker type: number")
	})
	t.Run("the invalid date", func(t *testing.T) {
		t.Parallel()
		both(t, capnweb.InvalidDate, `["date",null]`)
	})
}

// Group "blob serialization".
func TestBlobSerialization(t *testing.T) {
	t.Parallel()
	t.Run("malformed blobs", func(t *testing.T) {
		t.Parallel()
		for _, expr := range []string{`["blob"]`, `["blob","text/plain"]`, `["blob",123,["readable",0]]`, `["blob","text/plain",["readable",0],"extra"]`} {
			refused(t, expr, "")
		}
		refused(t, `["blob","text/plain",5]`, "Blob content must be serialized as a ReadableStream.")
	})
	t.Run("a transport without acknowledgements refuses blobs", func(t *testing.T) {
		t.Parallel()
		p := newRawPeer(t, nil, capnweb.WithoutStreams())
		fails(t, await(testContext(t), p.s.Main().Call("f", capnweb.NewBlob("text/plain", []byte("hello")))), "WebSocket")
		p.stats(1, 1)
	})
}

// Group "error serialization", of values.
func TestErrorSerialization(t *testing.T) {
	t.Parallel()
	roundTrip := func(t *testing.T, err error) *capnweb.Error {
		t.Helper()
		e, ok := received(t, wireForm(t, err)).(*capnweb.Error)
		if !ok {
			t.Fatal("no error came back")
		}
		return e
	}
	type props = capnweb.Object
	t.Run("own properties", func(t *testing.T) {
		t.Parallel()
		e := roundTrip(t, &capnweb.Error{Message: "the message", Props: props{
			{Key: "code", Value: "E_FOO"}, {Key: "details", Value: map[string]any{"reason": "x", "retries": 3}},
		}})
		if d := alike(&capnweb.Error{Name: "Error", Message: "the message", Props: props{
			{Key: "code", Value: "E_FOO"}, {Key: "details", Value: props{{Key: "reason", Value: "x"}, {Key: "retries", Value: 3.0}}},
		}}, e); d != "" {
			t.Error(d)
		}
	})
	t.Run("an error type of one's own", func(t *testing.T) {
		t.Parallel()
		e := roundTrip(t, wireErr{})
		if e.Message != "public" || e.Code() != "PUBLIC" {
			t.Error(e)
		}
	})
	t.Run("the class stays with properties", func(t *testing.T) {
		t.Parallel()
		e := roundTrip(t, &capnweb.Error{Name: "TypeError", Message: "t", Props: props{{Key: "code", Value: 1}}})
		if code, _ := e.Props.Get("code"); e.Name != "TypeError" || code != 1.0 {
			t.Error(e, e.Props)
		}
	})
	t.Run("three elements without properties", func(t *testing.T) {
		t.Parallel()
		if got := wireForm(t, errors.New("plain")); got != `["error","Error","plain"]` {
			t.Error(got)
		}
	})
	t.Run("five elements with properties, the stack null", func(t *testing.T) {
		t.Parallel()
		if got := wireForm(t, &capnweb.Error{Message: "x", Stack: "not sent", Props: props{{Key: "code", Value: "X"}}}); got != `["error","Error","x",null,{"code":"X"}]` {
			t.Error(got)
		}
	})
	t.Run("values of all types in properties", func(t *testing.T) {
		t.Parallel()
		huge, _ := new(big.Int).SetString("12345678901234567890", 10)
		e := roundTrip(t, &capnweb.Error{Message: "nested", Props: props{
			{Key: "when", Value: time.UnixMilli(1234)}, {Key: "big", Value: huge}, {Key: "bytes", Value: []byte("hi!")},
			{Key: "obj", Value: map[string]any{"a": 1, "b": []int{2, 3}}}, {Key: "inner", Value: &capnweb.Error{Name: "TypeError", Message: "inner"}},
		}})
		if d := alike(props{
			{Key: "when", Value: time.UnixMilli(1234)}, {Key: "big", Value: huge}, {Key: "bytes", Value: []byte("hi!")},
			{Key: "obj", Value: props{{Key: "a", Value: 1.0}, {Key: "b", Value: []any{2.0, 3.0}}}}, {Key: "inner", Value: &capnweb.Error{Name: "TypeError", Message: "inner"}},
		}, e.Props); d != "" {
			t.Error(d)
		}
	})
	t.Run("older peers understand the new form", func(t *testing.T) {
		t.Parallel()
		var parts []any
		if err := json.Unmarshal([]byte(wireForm(t, &capnweb.Error{Name: "TypeError", Message: "t", Props: props{{Key: "code", Value: "X"}}})), &parts); err != nil {
			t.Fatal(err)
		}
		// They look at the first four elements only; the fourth must be a text or nothing.
		if d := cmp.Diff([]any{"error", "TypeError", "t", nil}, parts[:4]); d != "" {
			t.Error(d)
		}
	})
	t.Run("the forms of older peers are understood", func(t *testing.T) {
		t.Parallel()
		if d := alike(&capnweb.Error{Name: "Error", Message: "msg"}, received(t, `["error","Error","msg"]`)); d != "" {
			t.Error(d)
		}
		if d := alike(&capnweb.Error{Name: "TypeError", Message: "msg", Stack: "trace"}, received(t, `["error","TypeError","msg","trace"]`)); d != "" {
			t.Error(d)
		}
	})
	t.Run("properties that are no object", func(t *testing.T) {
		t.Parallel()
		for _, p := range []string{`"not-an-object"`, `42`, `[1,2]`, `null`} {
			refused(t, `["error","Error","msg",null,`+p+`]`, "unknown special value")
		}
	})
	t.Run("a cause that is an error", func(t *testing.T) {
		t.Parallel()
		e := roundTrip(t, &capnweb.Error{Message: "outer", Cause: &capnweb.Error{Name: "TypeError", Message: "inner"}})
		if d := alike(any(&capnweb.Error{Name: "TypeError", Message: "inner"}), e.Cause); d != "" {
			t.Error(d)
		}
	})
	t.Run("a cause that is a text", func(t *testing.T) {
		t.Parallel()
		if e := roundTrip(t, &capnweb.Error{Message: "oops", Cause: "boom"}); e.Cause != "boom" {
			t.Error(e.Cause)
		}
	})
	t.Run("the errors of an AggregateError", func(t *testing.T) {
		t.Parallel()
		sent := &capnweb.Error{Name: "AggregateError", Message: "agg", Errors: []any{
			&capnweb.Error{Name: "TypeError", Message: "a"}, &capnweb.Error{Name: "RangeError", Message: "b"},
		}}
		if d := alike(sent, roundTrip(t, sent)); d != "" {
			t.Error(d)
		}
	})
	only := func(t *testing.T, e *capnweb.Error, wanted props) {
		t.Helper()
		if d := alike(wanted, e.Props); d != "" {
			t.Error(d)
		}
	}
	t.Run("properties that cannot be sent are left out", func(t *testing.T) {
		t.Parallel()
		only(t, roundTrip(t, &capnweb.Error{Message: "m", Props: props{{Key: "code", Value: "E_OK"}, {Key: "bad", Value: func() {}}}}),
			props{{Key: "code", Value: "E_OK"}})
	})
	t.Run("properties that contain themselves are left out", func(t *testing.T) {
		t.Parallel()
		circle := map[string]any{}
		circle["self"] = circle
		only(t, roundTrip(t, &capnweb.Error{Message: "m", Props: props{{Key: "code", Value: "E_OK"}, {Key: "cycle", Value: circle}}}),
			props{{Key: "code", Value: "E_OK"}})
	})
	t.Run("an error travels though no property does", func(t *testing.T) {
		t.Parallel()
		e := roundTrip(t, &capnweb.Error{Message: "all-bad", Props: props{{Key: "a", Value: make(chan int)}, {Key: "b", Value: func() {}}}})
		if e.Message != "all-bad" || len(e.Props) != 0 {
			t.Error(e, e.Props)
		}
	})
}
