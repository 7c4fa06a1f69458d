package bench

import (
	"context"
	"io"

	"github.com/tongs-dev/tongs/capnweb"
)

const mib = 1 << 20

var clientRows = []clientRow{
	{name: "callback", unit: "callbacks/s", scale: 100, once: func(ctx context.Context, api *capnweb.Stub) error {
		n, err := capnweb.Call[int](ctx, api, "callback", capnweb.Func(func(i int) int { return i }), 100)
		return expect(n, 4950, err)
	}},
	{name: "map_over_100", unit: "maps/s", scale: 1, once: func(ctx context.Context, api *capnweb.Stub) error {
		list := api.Call("getList", 100)
		defer list.Close()
		got, err := capnweb.Await[[]int](ctx, capnweb.Map(list, func(m *capnweb.Mapper, x *capnweb.Promise) any {
			return m.Use(api).Call("square", x)
		}))
		return expect(len(got), 100, err)
	}},
	{name: "bytes_up_1MiB", bytes: mib, once: sinkBytes(mib)},
	{name: "bytes_down_1MiB", bytes: mib, once: sourceBytes(mib)},
	{name: "stream_up_1MiB", bytes: mib, once: sinkStream(mib)},
	{name: "stream_down_1MiB", bytes: mib, once: sourceStream(mib)},
	{name: "stream_up_64MiB", bytes: 64 * mib, once: sinkStream(64 * mib)},
	{name: "stream_down_64MiB", bytes: 64 * mib, once: sourceStream(64 * mib)},
	// Last, as they leave memory behind that would count for the others.
	{name: "bytes_up_64MiB", bytes: 64 * mib, once: sinkBytes(64 * mib)},
	{name: "bytes_down_64MiB", bytes: 64 * mib, once: sourceBytes(64 * mib)},
}

func sinkBytes(size int) func(context.Context, *capnweb.Stub) error {
	data := make([]byte, size)
	return func(ctx context.Context, api *capnweb.Stub) error {
		n, err := capnweb.Call[int](ctx, api, "sinkBytes", data)
		return expect(n, size, err)
	}
}

func sourceBytes(size int) func(context.Context, *capnweb.Stub) error {
	return func(ctx context.Context, api *capnweb.Stub) error {
		data, err := capnweb.Call[[]byte](ctx, api, "sourceBytes", size)
		return expect(len(data), size, err)
	}
}

const chunkSize = 64 << 10

func sinkStream(size int) func(context.Context, *capnweb.Stub) error {
	chunk := make([]byte, chunkSize)
	return func(ctx context.Context, api *capnweb.Stub) error {
		left := size
		source := capnweb.NewSource(func(context.Context) (any, error) {
			if left == 0 {
				return nil, io.EOF
			}
			left -= chunkSize
			return chunk, nil
		}, nil)
		n, err := capnweb.Call[int](ctx, api, "sinkStream", source)
		return expect(n, size, err)
	}
}

func sourceStream(size int) func(context.Context, *capnweb.Stub) error {
	return func(ctx context.Context, api *capnweb.Stub) error {
		r, err := capnweb.Call[io.ReadCloser](ctx, api, "sourceStream", size, chunkSize)
		if err != nil {
			return err
		}
		defer r.Close()
		n, err := io.Copy(io.Discard, r)
		return expect(n, int64(size), err)
	}
}
