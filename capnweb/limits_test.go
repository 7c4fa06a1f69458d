package capnweb_test

import (
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// accepted checks that a session lives on after an expression.
func accepted(t *testing.T, expr string, limits capnweb.Limits) {
	t.Helper()
	p := newRawPeer(t, recordedMain(), capnweb.WithLimits(limits))
	p.send(`["push",`+expr+`]`, `["push",["pipeline",0,["square"],[3]]]`, `["pull",2]`)
	p.expect(`["resolve",2,9]`)
}

// exceeds checks that a session ends, and says why.
func exceeds(t *testing.T, expr string, limits capnweb.Limits, reason string) {
	t.Helper()
	p := newRawPeer(t, recordedMain(), capnweb.WithLimits(limits))
	p.send(`["push",` + expr + `]`)
	err := p.ended()
	var said string
	for m := range p.in { // it is closed with the session
		if strings.HasPrefix(m, `["abort",`) {
			said = m
		}
	}
	if !strings.Contains(err.Error(), reason) || !strings.Contains(said, reason) {
		t.Errorf("%.60s…: ended with %v, and said %s; want %s", expr, err, said, reason)
	}
}

func bigint(digits string) string { return `["bigint","` + digits + `"]` }

// Group "bigint deserialization limits".
func TestBigIntLimit(t *testing.T) {
	t.Parallel()
	const exceeded = "bigint exceeds maximum length"
	t.Run("as many digits as are allowed", func(t *testing.T) {
		t.Parallel()
		digits := strings.Repeat("9", 16384)
		wanted, _ := new(big.Int).SetString(digits, 10)
		if d := alike(any(wanted), received(t, bigint(digits))); d != "" {
			t.Error("the number is another")
		}
	})
	t.Run("a digit more", func(t *testing.T) {
		t.Parallel()
		exceeds(t, bigint(strings.Repeat("9", 16385)), capnweb.Limits{}, exceeded)
	})
	t.Run("numbers there and back", func(t *testing.T) {
		t.Parallel()
		huge := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 4096), big.NewInt(123456789))
		for _, n := range []*big.Int{big.NewInt(0), big.NewInt(255), big.NewInt(-255), huge, new(big.Int).Neg(huge)} {
			wire := wireForm(t, n)
			if wire != bigint(n.String()) {
				t.Errorf("%s is sent as %s", n, wire)
			}
			if d := alike(any(n), received(t, wire)); d != "" {
				t.Error(d)
			}
		}
	})
	t.Run("decimal numbers", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int64{123, -123} {
			if d := alike(any(big.NewInt(n)), received(t, bigint(big.NewInt(n).String()))); d != "" {
				t.Error(d)
			}
		}
	})
	t.Run("a limit of one's own, in which the sign counts", func(t *testing.T) {
		t.Parallel()
		four := capnweb.Limits{MaxBigIntDigits: 4}
		accepted(t, bigint("1234"), four)
		exceeds(t, bigint("12345"), four, exceeded)
		accepted(t, bigint("-123"), four)
		exceeds(t, bigint("-1234"), four, exceeded)
		accepted(t, bigint("12345"), capnweb.Limits{})
	})
}

func nestedLists(depth int) string {
	return strings.Repeat("[[", depth) + "1" + strings.Repeat("]]", depth)
}

func nestedCalls(depth int) string {
	return strings.Repeat(`["pipeline",0,["echo"],[`, depth) + "1" + strings.Repeat("]]", depth)
}

// Group "message depth limits".
func TestDepthLimit(t *testing.T) {
	t.Parallel()
	const exceeded = "maximum allowed message depth"
	t.Run("just as deep as allowed", func(t *testing.T) {
		t.Parallel()
		if _, ok := received(t, nestedLists(255)).([]any); !ok {
			t.Error("no list came back")
		}
	})
	t.Run("deeper", func(t *testing.T) {
		t.Parallel()
		exceeds(t, nestedLists(256), capnweb.Limits{}, exceeded)
		exceeds(t, nestedLists(261), capnweb.Limits{}, exceeded)
	})
	t.Run("a limit of one's own", func(t *testing.T) {
		t.Parallel()
		exceeds(t, nestedLists(10), capnweb.Limits{MaxDepth: 4}, exceeded)
		accepted(t, nestedLists(10), capnweb.Limits{})
	})
	t.Run("calls as arguments of calls count on", func(t *testing.T) {
		t.Parallel()
		exceeds(t, nestedCalls(8), capnweb.Limits{MaxDepth: 8}, exceeded)
	})
	t.Run("calls as arguments of calls within the limit", func(t *testing.T) {
		t.Parallel()
		accepted(t, nestedCalls(64), capnweb.Limits{})
	})
	t.Run("as deep an argument as can be sent is accepted", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, mathMain())
		deep := func(n int) any {
			v := any(1.0)
			for range n {
				v = []any{v}
			}
			return v
		}
		n := 1
		for ; ; n++ {
			got, err := capnweb.Call[capnweb.Value](h.ctx, h.api, "echo", deep(n))
			if err != nil {
				fails(t, err, "maximum allowed depth")
				break
			}
			if !reflect.DeepEqual(deep(n), got.V) {
				t.Fatalf("%d levels came back changed", n)
			}
		}
		if n < 253 {
			t.Errorf("only %d levels can be sent", n-1)
		}
		if err := h.client.Err(); err != nil {
			t.Error(err)
		}
	})
}

// Group "message size limits".
func TestMessageLimit(t *testing.T) {
	t.Parallel()
	t.Run("a message over the limit", func(t *testing.T) {
		t.Parallel()
		exceeds(t, `"`+strings.Repeat("a", 200)+`"`, capnweb.Limits{MaxMessageBytes: 64}, "exceeds maximum size")
	})
	t.Run("a message under the limit", func(t *testing.T) {
		t.Parallel()
		accepted(t, `"small"`, capnweb.Limits{MaxMessageBytes: 1024})
	})
}

// Group "limits backwards compatibility".
func TestLimitDefaults(t *testing.T) {
	t.Parallel()
	t.Run("the defaults are those of the reference", func(t *testing.T) {
		t.Parallel()
		// TestBigIntLimit and TestDepthLimit hold 16384 and 256; this is the size, 32 MiB.
		fits := `["push","` + strings.Repeat("x", 32<<20-11) + `"]`
		p := newRawPeer(t, recordedMain())
		p.send(fits, `["push",["pipeline",0,["ret"],[]]]`, `["pull",2]`)
		p.expect(`["resolve",2,7]`)
		p.send(fits + " ")
		fails(t, p.ended(), "Incoming message exceeds maximum size of 33554432")
	})
	t.Run("values without any options", func(t *testing.T) {
		t.Parallel()
		for _, c := range []struct {
			v    any
			wire string
		}{
			{big.NewInt(123), bigint("123")}, {[]any{[]any{123.0, 456.0}}, `[[[[123,456]]]]`},
			{capnweb.Object{{Key: "foo", Value: capnweb.Object{{Key: "bar", Value: 123.0}}}}, `{"foo":{"bar":123}}`},
		} {
			if d := alike(c.v, received(t, c.wire)); d != "" {
				t.Error(d)
			}
		}
	})
	for name, opts := range map[string][]capnweb.Option{
		"a session without options":   nil,
		"a session with empty limits": {capnweb.WithLimits(capnweb.Limits{})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, mathMain(), opts...)
			for _, v := range []any{
				big.NewInt(999), []any{[]any{1.0, 2.0, 3.0}},
				capnweb.Object{{Key: "a", Value: capnweb.Object{{Key: "b", Value: capnweb.Object{{Key: "c", Value: 1.0}}}}}},
			} {
				got, err := capnweb.Call[capnweb.Value](h.ctx, h.api, "echo", v)
				if d := alike(v, got.V); d != "" || err != nil {
					t.Error(d, err)
				}
			}
		})
	}
}
