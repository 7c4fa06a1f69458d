package bench

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/conformancepeer/peer"
)

// serve runs the benchmark's object in this process, and hands over its sessions.
func serve(t *testing.T) (addr string, sessions <-chan *capnweb.Session) {
	t.Helper()
	seen := make(chan *capnweb.Session, 8)
	s := httptest.NewServer(peer.New(peer.Options{Bench: true, OnSession: func(_ *http.Request, s *capnweb.Session) { seen <- s }}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), seen
}

// The generator's operations do what they say, and leave nothing behind on the server.
func TestDrive(t *testing.T) {
	t.Parallel()
	addr, sessions := serve(t)
	for name, op := range map[string]operation{
		"call":  simple("square", "[12]"),
		"echo":  simple("echo", `[{"a":[[1]]}]`),
		"chain": chain(),
	} {
		got, err := drive(addr, op, 16, 50*time.Millisecond)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.calls < 16 || got.perSecond <= 0 || got.p50 <= 0 {
			t.Errorf("%s: %+v", name, got)
		}
		s := <-sessions
		<-s.Done() // the generator has hung up
		if s.Err() == nil {
			t.Errorf("%s: the session did not end", name)
		}
	}
	if _, err := drive(addr, simple("nope", "[]"), 1, time.Millisecond); err == nil || !strings.Contains(err.Error(), "reject") {
		t.Errorf("a call that fails: %v", err)
	}
}

// The rows that are driven by our client work.
func TestClientRows(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := httprpc.Dial(ctx, "ws://"+addr, &httprpc.DialOptions{MaxMessageBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	api := s.Main()
	defer api.Close()
	for _, row := range clientRows {
		if row.bytes > mib {
			continue
		}
		if err := row.once(ctx, api); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	if err := batchOfTen(ctx, client, "http://"+addr); err != nil {
		t.Errorf("batch: %v", err)
	}
	// What was let go of last is still on its way.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for got := s.Stats(); got.Imports != 1 || got.Exports != 1; got = s.Stats() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the client's tables: %+v", got)
		}
	}
}
