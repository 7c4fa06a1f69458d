package interop_test

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// Any value that we send comes back from the reference as it was. (The other
// direction is the case "random values" of js/cases-calls.mjs.)
func TestRandomValues(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			s, err := httprpc.Dial(ctx, fmt.Sprintf("ws://127.0.0.1:%d/%s?id=random", node.Port, version), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(nil)
			api := s.Main()
			defer api.Close()
			rapid.Check(t, func(t *rapid.T) {
				want := drawValue(t, 4)
				got, err := capnweb.Call[capnweb.Value](ctx, api, "echo", want)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got.V, sameNumbers, sameTimes, sameBigInts); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}

var (
	sameBigInts = cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })
	sameTimes   = cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
	// JSON has no negative zero.
	sameNumbers = cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })
)

// drawValue draws a value as a peer would see it.
func drawValue(t *rapid.T, depth int) any {
	kinds := 12
	if depth == 0 {
		kinds = 10
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return nil
	case 1:
		return capnweb.Undefined
	case 2:
		return rapid.Bool().Draw(t, "bool")
	case 3:
		return float64(rapid.Int32().Draw(t, "integer"))
	case 4:
		return rapid.Float64().Draw(t, "number")
	case 5:
		return rapid.String().Draw(t, "string")
	case 6:
		b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "digits")
		n := new(big.Int).SetBytes(b)
		if rapid.Bool().Draw(t, "negative") {
			n.Neg(n)
		}
		return n
	case 7:
		const most = 8.64e15 // milliseconds: the range of Date
		return time.UnixMilli(rapid.Int64Range(-most, most).Draw(t, "ms"))
	case 8:
		return append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")...)
	case 9:
		return rapid.SampledFrom([]any{math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, capnweb.InvalidDate}).Draw(t, "special")
	case 10:
		list := []any{}
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			list = append(list, drawValue(t, depth-1))
		}
		return list
	default:
		object := capnweb.Object{}
		for i := range rapid.IntRange(0, 4).Draw(t, "members") {
			// Numbers as keys would be sorted first by JavaScript.
			key := fmt.Sprintf("%s#%d", rapid.String().Draw(t, "key"), i)
			object = append(object, capnweb.Member{Key: key, Value: drawValue(t, depth-1)})
		}
		return object
	}
}
