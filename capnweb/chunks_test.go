package capnweb_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// The buffers of chunks are used again when a reader or writer of bytes is done
// with them, and never while somebody has them: streams that run beside each other, read in
// every way, all bring what was sent, and chunks that were taken stay as they were.
func TestChunksAreNotShared(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const size = 512<<10 + 12345
	content := func(seed uint64) []byte {
		b := make([]byte, size)
		r := rand.New(rand.NewPCG(seed, 1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	a, b := capnweb.Pipe()
	server := capnweb.NewSession(a, capnweb.NewTarget(capnweb.Methods{
		"source": func(seed uint64) *capnweb.ReadableStream { return capnweb.NewReader(bytes.NewReader(content(seed))) },
		"sink": func(seed uint64, r io.Reader) (bool, error) {
			got, err := io.ReadAll(r)
			return bytes.Equal(got, content(seed)), err
		},
	}, capnweb.Concurrent()))
	defer server.Close(nil)
	client := capnweb.NewSession(b, nil)
	defer client.Close(nil)
	api := client.Main()
	defer api.Close()

	open := func(seed uint64) *capnweb.ReadableStream {
		s, err := capnweb.Call[*capnweb.ReadableStream](ctx, api, "source", seed)
		if err != nil {
			t.Error(err)
			return capnweb.NewReader(bytes.NewReader(nil))
		}
		return s
	}
	ways := map[string]func(seed uint64) ([]byte, error){
		"Read": func(seed uint64) ([]byte, error) {
			s := open(seed)
			defer s.Close()
			return io.ReadAll(s)
		},
		"WriteTo": func(seed uint64) ([]byte, error) {
			s := open(seed)
			defer s.Close()
			var out bytes.Buffer
			_, err := s.WriteTo(&out)
			return out.Bytes(), err
		},
		"Next": func(seed uint64) ([]byte, error) {
			s := open(seed)
			defer s.Close()
			var kept [][]byte
			for {
				var c []byte
				if err := s.Next(ctx, &c); errors.Is(err, io.EOF) {
					return bytes.Join(kept, nil), nil
				} else if err != nil {
					return nil, err
				}
				if cap(c) != len(c) {
					t.Errorf("a chunk of %d bytes has room for %d", len(c), cap(c))
				}
				kept = append(kept, c)
			}
		},
		"sink": func(seed uint64) ([]byte, error) {
			ok, err := capnweb.Call[bool](ctx, api, "sink", seed, capnweb.NewReader(bytes.NewReader(content(seed))))
			if err != nil || !ok {
				return nil, err
			}
			return content(seed), nil
		},
	}
	var wg sync.WaitGroup
	seed := uint64(0)
	for name, read := range ways {
		for range 3 {
			seed++
			seed := seed
			wg.Add(1)
			go func() {
				defer wg.Done()
				got, err := read(seed)
				if err != nil || !bytes.Equal(got, content(seed)) {
					t.Errorf("%s: %d bytes arrived wrong: %v", name, len(got), err)
				}
			}()
		}
	}
	wg.Wait()
}
