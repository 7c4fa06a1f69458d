package peer

import (
	"context"
	"io"
	"runtime/metrics"

	"github.com/tongs-dev/tongs/capnweb"
)

// newBench makes the object served on / with Options.Bench.
func newBench() *capnweb.Target {
	m := capnweb.Methods{
		"nop":         func() {},
		"square":      func(i float64) float64 { return i * i },
		"echo":        func(v capnweb.Value) capnweb.Value { return v },
		"makeCounter": newCounter,
		"sinkBytes":   func(b []byte) int { return len(b) },
		"sourceBytes": func(n int) ([]byte, error) {
			if n < 0 || n > benchMessageBytes/2 {
				return nil, &capnweb.Error{Name: "RangeError", Message: "sourceBytes: n must be from 0 to 128 MiB"}
			}
			return make([]byte, n), nil
		},
		"sinkStream": func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
		"sourceStream": func(n, chunk int) (*capnweb.ReadableStream, error) {
			if n < 0 || chunk <= 0 || chunk > benchMessageBytes/2 {
				return nil, &capnweb.Error{Name: "RangeError", Message: "sourceStream: chunk must be from 1 to 128 MiB"}
			}
			return sourceStream(n, chunk), nil
		},
		"callback": func(ctx context.Context, f *capnweb.Stub, n int) (float64, error) {
			sum := 0.0
			for i := range n {
				v, err := capnweb.Call[float64](ctx, f, "", i)
				if err != nil {
					return 0, err
				}
				sum += v
			}
			return sum, nil
		},
		"getList": func(n int) ([]int, error) {
			if n < 0 || n > 1<<20 {
				return nil, &capnweb.Error{Name: "RangeError", Message: "getList: n must be from 0 to 1048576"}
			}
			list := make([]int, n)
			for i := range list {
				list[i] = i
			}
			return list, nil
		},
		"stats": stats,
	}
	return capnweb.NewTarget(m)
}

// sourceStream makes a stream of n zeros. All chunks are the same bytes, as the
// reference's are in the benchmark.
func sourceStream(n, chunk int) *capnweb.ReadableStream {
	zeros := make([]byte, min(n, chunk))
	return capnweb.NewSource(func(context.Context) (any, error) {
		if n == 0 {
			return nil, io.EOF
		}
		size := min(n, chunk)
		n -= size
		return zeros[:size:size], nil
	}, nil)
}

type memory struct {
	RSS  int64  `json:"rss"`
	Heap uint64 `json:"heap"`
}

// stats tells the memory of this process, in bytes.
func stats() (memory, error) {
	rss, err := residentBytes()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return memory{rss, sample[0].Value.Uint64()}, err
}
