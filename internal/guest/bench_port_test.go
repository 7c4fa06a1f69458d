package guest_test

import (
	"io"
	"net"
	"strconv"
	"testing"
)

// BenchmarkDial connects to a port, has one byte echoed, and closes: on the bare
// loopback, and through the guest.
func BenchmarkDial(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	b.Cleanup(func() { ln.Close(); <-done })
	port := ln.Addr().(*net.TCPAddr).Port
	echo := func(b *testing.B, dial func() (net.Conn, error)) {
		one := make([]byte, 1)
		for b.Loop() {
			c, err := dial()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Write(one); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, one); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	}
	b.Run("loopback", func(b *testing.B) {
		address := "127.0.0.1:" + strconv.Itoa(port)
		echo(b, func() (net.Conn, error) { return net.Dial("tcp", address) })
	})
	x := newBox(b)
	b.Run("guest", func(b *testing.B) {
		ctx := b.Context()
		echo(b, func() (net.Conn, error) { return x.DialPort(ctx, port) })
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			if _, err := x.ListPorts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
