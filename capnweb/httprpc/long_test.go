package httprpc_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// sockets are the two ends of a WebSocket over TCP.
func sockets(t *testing.T) (client, server capnweb.Transport) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := l.Accept()
		accepted <- conn
	}()
	a, err := net.DialTimeout("tcp", l.Addr().String(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b := <-accepted
	if b == nil {
		t.Fatal("no connection")
	}
	if err := a.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	const limit = 64 << 20
	return httprpc.NewSocket(a, bufio.NewReader(a), true, limit), httprpc.NewSocket(b, bufio.NewReader(b), false, limit)
}

// Bytes that are most of a very long message are decoded where they stand, and the
// application gets the message with them. What arrives is what was sent, however
// it was written.
func TestLongBytes(t *testing.T) {
	t.Parallel()
	raw, theirs := sockets(t)
	kept := make(chan []byte, 16)
	s := capnweb.NewSession(theirs, capnweb.NewTarget(capnweb.Methods{
		"sum": func(big []byte, after string, small []byte) string {
			kept <- big
			return fmt.Sprintf("%d %08x %s %x", len(big), crc32.ChecksumIEEE(big), after, small)
		},
	}), capnweb.WithLimits(capnweb.Limits{MaxMessageBytes: 64 << 20}))
	defer s.Close(nil)
	defer raw.Close(nil)

	big := make([]byte, 9<<20+1)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(big)
	small := bytes.Repeat([]byte{7}, 300)
	plain := base64.RawStdEncoding.EncodeToString(big)
	want := fmt.Sprintf("%d %08x after %x", len(big), crc32.ChecksumIEEE(big), small)
	for i, c := range []struct{ name, text string }{
		{"plain", plain},
		{"padded", base64.StdEncoding.EncodeToString(big)},
		{"of the URL alphabet", base64.RawURLEncoding.EncodeToString(big)},
		{"escaped", strings.ReplaceAll(plain, "/", `\/`)},
		{"with junk at the end", plain + " "},
		{"plain again", plain},
	} {
		msg := fmt.Sprintf(`["push",["pipeline",0,["sum"],[["bytes","%s"],"after",["bytes","%s"]]]]`,
			c.text, base64.RawStdEncoding.EncodeToString(small))
		if err := raw.WriteMessages([][]byte{[]byte(msg), fmt.Appendf(nil, `["pull",%d]`, i+1)}); err != nil {
			t.Fatal(err)
		}
		answer, err := raw.ReadMessage()
		if err != nil || string(answer) != fmt.Sprintf(`["resolve",%d,"%s"]`, i+1, want) {
			t.Fatalf("%s: %.200s %v", c.name, answer, err)
		}
	}
	close(kept)
	for b := range kept { // not overwritten by later messages
		if !bytes.Equal(b, big) {
			t.Error("bytes that were handed out have changed")
		}
	}

	// A control character in a string is refused in a long message too.
	bad := fmt.Sprintf("[\"push\",[\"pipeline\",0,[\"sum\"],[[\"bytes\",\"%s\n\"]]]]", plain)
	if err := raw.WriteMessages([][]byte{[]byte(bad)}); err != nil {
		t.Fatal(err)
	}
	answer, err := raw.ReadMessage()
	if err != nil || !bytes.HasPrefix(answer, []byte(`["abort",["error","SyntaxError",`)) {
		t.Errorf("%.200s %v", answer, err)
	}
}
