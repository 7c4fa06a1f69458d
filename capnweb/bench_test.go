package capnweb_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
)

// overUnix connects two sessions by a unix socket, as Tongs does.
func overUnix(b *testing.B, main any) *capnweb.Session {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server := capnweb.NewSession(capnweb.NewStreamTransport(<-accepted, 0), main)
	client := capnweb.NewSession(capnweb.NewStreamTransport(c, 0), nil)
	b.Cleanup(func() {
		_ = client.Close(nil)
		<-server.Done()
	})
	return client
}

func BenchmarkUnixCall(b *testing.B) {
	s := overUnix(b, testMain())
	ctx := context.Background()
	main := s.Main()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := capnweb.Call[int](ctx, main, "square", 12); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForwardedCall goes through a gateway.
func BenchmarkForwardedCall(b *testing.B) {
	back := overUnix(b, testMain())
	s := overUnix(b, back.Main())
	ctx := context.Background()
	main := s.Main()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := capnweb.Call[int](ctx, main, "square", 12); err != nil {
			b.Fatal(err)
		}
	}
}

func benchStream(b *testing.B, s *capnweb.Session, up bool) {
	ctx := context.Background()
	const size = 16 << 20
	b.SetBytes(size)
	for b.Loop() {
		if up {
			_, err := capnweb.Call[int64](ctx, s.Main(), "sink", capnweb.NewReader(io.LimitReader(zeros{}, size)))
			if err != nil {
				b.Fatal(err)
			}
			continue
		}
		r, err := capnweb.Call[*capnweb.ReadableStream](ctx, s.Main(), "source", size)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != size {
			b.Fatal(n, err)
		}
	}
}

func streamTarget() *capnweb.Target {
	return capnweb.NewTarget(capnweb.Methods{
		"sink":   func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
		"source": func(n int) *capnweb.ReadableStream { return capnweb.NewReader(io.LimitReader(zeros{}, int64(n))) },
	})
}

func BenchmarkStreamUp(b *testing.B)   { benchStream(b, overUnix(b, streamTarget()), true) }
func BenchmarkStreamDown(b *testing.B) { benchStream(b, overUnix(b, streamTarget()), false) }

func BenchmarkForwardedStream(b *testing.B) {
	back := overUnix(b, streamTarget())
	benchStream(b, overUnix(b, back.Main()), false)
}
