package capnweb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/capnweb"
)

// unixPair connects two sockets.
func unixPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// plainConn hides everything but net.Conn of a connection.
type plainConn struct{ io.ReadWriteCloser }

// TestStreamTransport runs sessions over byte streams, with and without
// writing that does not wait.
func TestStreamTransport(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(net.Conn) io.ReadWriteCloser{
		"socket": func(c net.Conn) io.ReadWriteCloser { return c },
		"plain":  func(c net.Conn) io.ReadWriteCloser { return plainConn{c} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := unixPair(t)
			client := capnweb.NewSession(capnweb.NewStreamTransport(wrap(a), 0), nil)
			server := capnweb.NewSession(capnweb.NewStreamTransport(wrap(b), 0), testMain())
			ctx := testContext(t)
			// More than the socket's buffers, both ways at once.
			text := strings.Repeat("0123456789", 100_000)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for range 3 {
						if got, err := capnweb.Call[string](ctx, client.Main(), "echo", text); err != nil || got != text {
							t.Error(len(got), err)
						}
						if n, err := capnweb.Call[int](ctx, client.Main(), "square", 3); err != nil || n != 9 {
							t.Error(n, err)
						}
					}
				})
			}
			wg.Wait()
			waitStats(t, client, 1, 1)
			waitStats(t, server, 1, 1)
			if err := client.Close(nil); err != nil {
				t.Fatal(err)
			}
			<-server.Done()
			if err := server.Err(); !errors.Is(err, capnweb.ErrDisconnected) || !strings.Contains(err.Error(), "closed the connection") {
				t.Fatal(err)
			}
		})
	}
}

// TestStreamFraming: lines in pieces, too long lines, an end within a line.
func TestStreamFraming(t *testing.T) {
	t.Parallel()
	read := func(limit int, pieces ...string) (msgs []string, err error) {
		a, b := net.Pipe()
		go func() {
			for _, p := range pieces {
				_, _ = io.WriteString(a, p)
			}
			_ = a.Close()
		}()
		tr := capnweb.NewStreamTransport(b, limit)
		defer tr.Close(nil)
		for {
			m, err := tr.ReadMessage()
			if err != nil {
				return msgs, err
			}
			msgs = append(msgs, string(m))
		}
	}
	long := strings.Repeat("x", 50_000)
	msgs, err := read(0, "a", "b\n", "\nc\nd", "e\n"+long, long+"\n")
	if d := cmp.Diff([]string{"ab", "", "c", "de", long + long}, msgs); d != "" || !errors.Is(err, io.EOF) {
		t.Fatal(d, err)
	}
	if _, err = read(0, "abc"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if _, err = read(10, "0123456789\n", "0123456789a\n"); !errors.Is(err, capnweb.ErrLimit) {
		t.Fatal(err)
	}
	if _, err = read(10, long); !errors.Is(err, capnweb.ErrLimit) {
		t.Fatal(err)
	}
}

// TestStuckPeer: closing does not wait for a peer that does not read.
func TestStuckPeer(t *testing.T) {
	t.Parallel()
	a, b := unixPair(t)
	defer b.Close()
	s := capnweb.NewSession(capnweb.NewStreamTransport(a, 0), nil)
	for range 20 {
		s.Main().Call("f", make([]byte, 1<<20)).Close()
	}
	began := time.Now()
	if err := s.Close(errors.New("enough")); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Fatal(d)
	}
}

// TestDrain waits for what is owed to the peer.
func TestDrain(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	client, server := connect(t, nil, capnweb.NewTarget(capnweb.Methods{"wait": func() { <-gate }}))
	ctx := testContext(t)
	p := client.Main().Call("wait")
	defer p.Close()
	if n := client.PullAll(); n != 1 {
		t.Fatal(n)
	}
	for server.Stats().Calls == 0 {
		time.Sleep(time.Millisecond)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := server.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	close(gate)
	if err := server.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.Await(ctx, nil); err != nil {
		t.Fatal(err)
	}
}

// recorder is an observer.
type recorder struct {
	mu    sync.Mutex
	lines []string
	ended chan error
}

func (r *recorder) note(s string) { r.mu.Lock(); r.lines = append(r.lines, s); r.mu.Unlock() }

func (r *recorder) Message(_ *capnweb.Session, sent bool, text []byte) {
	if sent {
		r.note("> " + string(text))
	} else {
		r.note("< " + string(text))
	}
}

func (r *recorder) CallEnd(_ *capnweb.Session, method string, err error) {
	if err != nil {
		r.note(method + ": " + err.Error())
	} else {
		r.note(method)
	}
}

func (r *recorder) SessionEnd(_ *capnweb.Session, err error) { r.ended <- err }

func TestObserver(t *testing.T) {
	t.Parallel()
	r := &recorder{ended: make(chan error, 1)}
	p := newRawPeer(t, recordedMain(), capnweb.WithObserver(r))
	p.send(`["push",["pipeline",0,["fail"],[]]]`, `["pull",1]`)
	p.expect(`["reject",1,["error","TypeError","boom",null,{"code":"E1","cause":["error","RangeError","inner"]}]]`)
	_ = p.tr.Close(nil)
	if err := <-r.ended; !errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := strings.Join(r.lines, "\n")
	for _, want := range []string{`< ["pull",1]`, `> ["reject",1,`, "fail: TypeError: boom"} {
		if !strings.Contains(seen, want) {
			t.Errorf("%q is missing in\n%s", want, seen)
		}
	}
}

// TestContextOfHandlers: values and cancellation.
func TestContextOfHandlers(t *testing.T) {
	t.Parallel()
	type keyType struct{}
	cause := make(chan error, 1)
	client, server := func() (*capnweb.Session, *capnweb.Session) {
		a, b := capnweb.Pipe()
		return capnweb.NewSession(a, nil), capnweb.NewSession(b, capnweb.NewTarget(capnweb.Methods{
			"value": func(ctx context.Context) any { return ctx.Value(keyType{}) },
			"wait":  func(ctx context.Context) { <-ctx.Done(); cause <- context.Cause(ctx) },
		}), capnweb.WithContext(context.WithValue(t.Context(), keyType{}, "v")))
	}()
	ctx := testContext(t)
	want[string](t, "v")(capnweb.Call[string](ctx, client.Main(), "value"))
	p := client.Main().Call("wait")
	for server.Stats().Calls == 0 {
		time.Sleep(time.Millisecond)
	}
	client.Close(nil)
	if err := <-cause; !errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
	p.Close()
	<-server.Done()
}

// TestAbortReason: the reason reaches the other side, and only the reason.
func TestAbortReason(t *testing.T) {
	t.Parallel()
	client, server := connect(t, nil, testMain())
	server.Close(&capnweb.Error{Name: "RangeError", Message: "quota", Props: capnweb.Object{{Key: "code", Value: "Q"}}})
	<-client.Done()
	var e *capnweb.Error
	if err := client.Err(); !errors.As(err, &e) || e.Name != "RangeError" || e.Code() != "Q" || !errors.Is(err, capnweb.ErrDisconnected) {
		t.Fatal(err)
	}
	if st := client.Stats(); st.Imports != 0 || st.Exports != 0 {
		t.Fatal(st)
	}
}

// TestConcurrentUse: many goroutines share stubs, promises and sessions that end.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	for range 20 {
		a, b := capnweb.Pipe()
		server := capnweb.NewSession(b, testMain())
		client := capnweb.NewSession(a, nil)
		ctx := testContext(t)
		var wg sync.WaitGroup
		shared := client.Main().Call("makeCounter", 1)
		for i := range 8 {
			wg.Go(func() {
				for j := range 50 {
					p := shared.Call("increment", 1)
					q := client.Main().Call("add", p, j)
					// A closed reference that was passed on fails at the peer, which says so.
					if err := q.Await(ctx, nil); err != nil && !errors.Is(err, capnweb.ErrDisconnected) &&
						!errors.Is(err, capnweb.ErrClosed) && !strings.Contains(err.Error(), "after it was disposed") {
						t.Error(err)
					}
					s := shared.Stub()
					p.Close()
					s.Close()
					q.Close()
					if i == 0 && j == 40 {
						shared.Close()
						server.Close(nil)
					}
				}
			})
		}
		wg.Wait()
		client.Close(nil)
		<-client.Done()
		<-server.Done()
	}
}
