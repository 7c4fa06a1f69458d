package interop_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// When our server closes a session, the reference's pending calls fail with the reason.
func TestServerCloses(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			hanging := make(chan *capnweb.Session, 1)
			server := httptest.NewServer(&httprpc.Handler{Main: func(*http.Request) (any, error) {
				return capnweb.NewTarget(capnweb.Methods{"hang": func(ctx context.Context) error {
					hanging <- capnweb.FromContext(ctx).Session()
					<-ctx.Done()
					return context.Cause(ctx)
				}}), nil
			}})
			t.Cleanup(server.Close)
			ctx, cancel := context.WithTimeout(t.Context(), caseTime)
			defer cancel()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				select {
				case s := <-hanging:
					_ = s.Close(errors.New("the server goes down"))
				case <-ctx.Done():
				}
			}()
			var got struct{ Call, Broken, Reason string }
			args := map[string]any{"lib": version, "url": "ws://" + server.Listener.Addr().String()}
			if err := node.Do(ctx, "broken", args, &got); err != nil {
				t.Fatal(err)
			}
			<-closed
			for what, text := range map[string]string{"the call": got.Call, "onRpcBroken": got.Broken} {
				if !strings.Contains(text, "the server goes down") {
					t.Errorf("%s got %q", what, text)
				}
			}
		})
	}
}

// When the reference's server hangs up, our pending calls, streams and stubs fail as disconnected.
func TestServerHangsUp(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), caseTime)
			defer cancel()
			id := "hang-up-" + version
			s, err := httprpc.Dial(ctx, fmt.Sprintf("ws://127.0.0.1:%d/%s?id=%s", node.Port, version, id), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close(nil)
			api := s.Main()
			defer api.Close()
			stub := call[*capnweb.Stub](t, ctx, api, "makeCounter", 1)
			defer stub.Close()
			stream := call[*capnweb.ReadableStream](t, ctx, api, "endless")
			defer stream.Close()
			broken := make(chan error, 1)
			defer stub.OnBroken(func(err error) { broken <- err })()
			pending := api.Call("hang")
			defer pending.Close()

			if err := node.Do(ctx, "hangUp", map[string]any{"session": id}, nil); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-broken:
				disconnected(t, "OnBroken", err)
			case <-ctx.Done():
				t.Fatal("OnBroken was not called")
			}
			disconnected(t, "a pending call", pending.Await(ctx, nil))
			disconnected(t, "a new call", stub.Call("increment").Await(ctx, nil))
			for err == nil {
				var b []byte
				err = stream.Next(ctx, &b)
			}
			disconnected(t, "a stream", err)
			wait(t, ctx, s.Done(), "the session is over")
			disconnected(t, "the session", s.Err())
		})
	}
}

func disconnected(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, capnweb.ErrDisconnected) {
		t.Errorf("%s ended with %v, which is not ErrDisconnected", what, err)
	}
}

// A peer that answers pings keeps its session however long it is silent; one
// whose machine has gone loses it.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	seen := newSessions(t)
	server := httptest.NewServer(&httprpc.Handler{
		Main:         func(*http.Request) (any, error) { main, _ := newSuite(); return main, nil },
		OnSession:    seen.add,
		PingInterval: 100 * time.Millisecond,
	})
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	address := "ws://" + server.Listener.Addr().String() + "/?id=idle"
	args := map[string]any{"lib": "0.12.0", "name": "a long silence", "url": address, "session": "idle"}
	if err := node.Do(ctx, "case", args, nil); err != nil {
		t.Fatal(err)
	}
	s := seen.get(t, "/", "idle")
	if err := s.Err(); err != nil {
		t.Fatalf("the session of a silent peer ended: %v", err)
	}
	if err := node.Freeze(); err != nil {
		t.Fatal(err)
	}
	wait(t, ctx, s.Done(), "the session of a frozen peer is over")
	disconnected(t, "the session", s.Err())
}

// Messages in many frames with pings between them are put together; a binary message ends the session.
func TestFragments(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	var got struct {
		Pongs, Got []string
		Code       int
	}
	if err := node.Do(ctx, "fragments", map[string]any{"url": serveSuite(t, "0.12.0").url("ws", "fragments")}, &got); err != nil {
		t.Fatal(err)
	}
	equal(t, got.Got[0], `["resolve",1,49]`)
	if rest := got.Got[1:]; len(rest) > 1 || len(rest) == 1 && !strings.HasPrefix(rest[0], `["abort",`) {
		t.Errorf("after a binary message: %q, want an abort at most", rest)
	}
	equal(t, got.Pongs[len(got.Pongs)-1], "38")
	equal(t, got.Code, 3000)
}

// When one side of a relay is lost in the middle of streams, the other side is
// told, and nothing of ours stays behind (TestMain looks for goroutines).
func TestRelayLosesTarget(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"client", "target"} {
		t.Run(lost, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), caseTime)
			defer cancel()
			target, client, relayed := dialRelay(t, ctx)
			api := client.Main()
			defer api.Close()

			reader := call[*capnweb.Stub](t, ctx, api, "slowReader", patternStream(8<<20, 32<<10))
			defer reader.Close()
			down := call[*capnweb.ReadableStream](t, ctx, api, "endless")
			defer down.Close()
			var b []byte
			equal(t, down.Next(ctx, &b), nil)
			pending := api.Call("hang")
			defer pending.Close()

			victim, other := client, target
			if lost == "target" {
				victim, other = target, client
			}
			_ = victim.Close(nil)
			wait(t, ctx, other.Done(), "the other end is told")
			disconnected(t, "a pending call", pending.Await(ctx, nil))
			for _, s := range relayed {
				wait(t, ctx, s.Done(), "the relay's sessions are over")
			}
		})
	}
}

// dialRelay joins two ends of ours through a relay: target serves the suite to client.
func dialRelay(t *testing.T, ctx context.Context) (target, client *capnweb.Session, relayed []*capnweb.Session) {
	t.Helper()
	seen := newSessions(t)
	relay := httptest.NewServer(newRelay(seen))
	t.Cleanup(relay.Close)
	url := func(side string) string {
		return "ws://" + relay.Listener.Addr().String() + "/mitm/" + side + "?id=own"
	}
	opts := []capnweb.Option{capnweb.WithNewerEncodings()}
	main, _ := newSuite()
	target, err := httprpc.Dial(ctx, url("target"), &httprpc.DialOptions{Main: main, Session: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = target.Close(nil) })
	client, err = httprpc.Dial(ctx, url("client"), &httprpc.DialOptions{Session: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(nil) })
	// The handler of the client's side has answered, but may not have noted its session yet.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for seen.len() < 2 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the relay did not begin")
		}
	}
	return target, client, []*capnweb.Session{seen.get(t, "/mitm/client", "own"), seen.get(t, "/mitm/target", "own")}
}
