package capnweb_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
)

// TestLastWords: a peer says why it ends the session and closes, while this side is writing. The reason is
// the session's error, not that nothing could be written any more.
func TestLastWords(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 50 {
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s := capnweb.NewSession(capnweb.NewStreamTransport(conn, 0), nil)
		fmt.Fprintln(peer, `["abort",["error","RangeError","enough"]]`)
		peer.Close()
		p := s.Main().Call("anything", strings.Repeat("x", 1<<16))
		_ = p.Await(t.Context(), nil)
		p.Close()
		select {
		case <-s.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("the session goes on")
		}
		var reason *capnweb.Error
		if err := s.Err(); !errors.As(err, &reason) || reason.Message != "enough" {
			t.Fatalf("got %v", err)
		}
		s.Close(nil)
	}
}
