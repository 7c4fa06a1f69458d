package guest_test

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// echoServer answers each connection with what it says, after it has said all.
func echoServer(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				data, _ := io.ReadAll(c)
				_, _ = c.Write(data)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).Port
}

func TestDial(t *testing.T) {
	t.Parallel()
	port := echoServer(t)
	b := newBox(t)
	ctx := b.context()
	data := bytes.Repeat([]byte("0123456789"), 1<<18)
	for _, address := range []string{strconv.Itoa(port), "localhost:" + strconv.Itoa(port), "127.0.0.1:" + strconv.Itoa(port)} {
		c, err := b.Dial(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = c.Write(data)
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, %v", address, len(got), len(data), err)
		}
		c.Close()
	}
	c, err := b.DialPort(ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, bad := range []struct {
		network, address string
		code             sandbox.Code
	}{
		{"tcp", "127.0.0.1:1", sandbox.CodeServiceNotResponding},
		{"tcp", "0", sandbox.CodeInvalidPort},
		{"tcp", "65536", sandbox.CodeInvalidPort},
		{"tcp", "http", sandbox.CodeInvalidPort},
		{"tcp", "", sandbox.CodeInvalidPort},
		{"tcp", "10.0.0.1:80", sandbox.CodeInvalidArgument},
		{"tcp", "example.com:80", sandbox.CodeInvalidArgument},
		{"tcp", "0.0.0.0:80", sandbox.CodeInvalidArgument},
		{"udp", "53", sandbox.CodeNotSupported},
		{"unix", "nothing", sandbox.CodeFileNotFound},
		{"unix", "a\x00b", sandbox.CodeInvalidPath},
	} {
		_, err := b.Dial(ctx, bad.network, bad.address)
		wantCode(t, err, bad.code)
	}
	_, err = b.DialPort(ctx, -1)
	wantCode(t, err, sandbox.CodeInvalidPort)
}

// The guest keeps the socket: connections that came while nobody accepted are
// there for the next who asks.
func TestListen(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	ln, err := b.Listen(ctx, "front", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	serve := func(ln net.Listener, word string) {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(s, word); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != word {
			t.Errorf("%q, %v", got, err)
		}
	}
	serve(ln, "first")
	_, err = b.Listen(ctx, "front", "127.0.0.1:1")
	wantCode(t, err, sandbox.CodeAlreadyExists)
	_, err = b.Listen(ctx, "other", address)
	wantCode(t, err, sandbox.CodePortInUse)
	_, err = b.Listen(ctx, "far", "192.0.2.1:0")
	wantCode(t, err, sandbox.CodeInvalidArgument)
	_, err = b.Listen(ctx, "", "0")
	wantCode(t, err, sandbox.CodeInvalidArgument)

	ln.Close()
	waiting, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("nobody listens between two owners: %v", err)
	}
	defer waiting.Close()
	second := b.connect()
	defer second.Close()
	again, err := second.Listen(ctx, "front", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := again.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got, err := io.ReadAll(waiting); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	serve(again, "second")
	if err := b.Unlisten(ctx, "front"); err != nil {
		t.Fatal(err)
	}
	if c, err := again.Accept(); err == nil {
		c.Close()
		t.Error("a connection was accepted after the end")
	}
	again.Close()
	wantCode(t, b.Unlisten(ctx, "front"), sandbox.CodeFileNotFound)
}
