package peer_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/conformancepeer/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, o peer.Options) string {
	t.Helper()
	s := httptest.NewServer(peer.New(o))
	t.Cleanup(s.Close)
	return "ws://" + s.Listener.Addr().String()
}

func dial(t *testing.T, url string, main any) (*capnweb.Session, *capnweb.Stub) {
	t.Helper()
	s, err := httprpc.Dial(t.Context(), url, &httprpc.DialOptions{Main: main})
	if err != nil {
		t.Fatal(err)
	}
	api := s.Main()
	t.Cleanup(func() {
		_ = api.Close()
		_ = s.Close(nil)
	})
	return s, api
}

func is[T any](t *testing.T, ref capnweb.Ref, want T, method string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got, err := capnweb.Call[T](ctx, ref, method, args...)
	if err != nil {
		t.Errorf("%s: %v", method, err)
	} else if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", method, diff)
	}
}

func TestConformanceObject(t *testing.T) {
	t.Parallel()
	_, api := dial(t, serve(t, peer.Options{}), nil)
	is(t, api, 25.0, "square", 5)
	is(t, api, map[string]int{"result": 25}, "callSquare", api, 5)
	is(t, api, map[string]int{"result": 42}, "callFunction", capnweb.Func(func(i int) int { return 2 * i }), 21)
	is(t, api, []int{0, 1, 1, 2, 3, 5, 8, 13}, "generateFibonacci", 8)
	is(t, api, []int{}, "generateFibonacci", 0)
	is(t, api, capnweb.Value{}, "returnNull")
	is(t, api, capnweb.Value{V: capnweb.Undefined}, "returnUndefined")
	is(t, api, -2.5, "returnNumber", -2.5)

	_, err := capnweb.Call[any](t.Context(), api, "throwError")
	var e *capnweb.Error
	if !errors.As(err, &e) || e.Name != "RangeError" || e.Message != "test error" {
		t.Errorf("throwError: %v", err)
	}

	counter := api.Call("makeCounter", 4)
	defer counter.Close()
	is(t, counter, 5, "increment")
	is(t, counter, 8, "increment", 3)
	is(t, api, 10, "incrementCounter", counter, 2)
	is(t, api, 11, "incrementCounter", counter)
	if v, err := capnweb.Await[int](t.Context(), counter.Get("value")); v != 11 || err != nil {
		t.Errorf("value: %d, %v", v, err)
	}

	blob, err := capnweb.Call[*capnweb.Blob](t.Context(), api, "echoBlob", capnweb.NewBlob("text/plain", []byte("hello")))
	if err != nil || blob.Type != "text/plain" || string(blob.Data) != "hello" {
		t.Errorf("echoBlob: %+v, %v", blob, err)
	}
}

func TestBenchObject(t *testing.T) {
	t.Parallel()
	_, api := dial(t, serve(t, peer.Options{Bench: true}), nil)
	is(t, api, capnweb.Value{V: capnweb.Undefined}, "nop")
	is(t, api, 9, "square", 3)
	is(t, api, map[string][]int{"a": {1}}, "echo", map[string][]int{"a": {1}})
	is(t, api, 3, "sinkBytes", []byte("abc"))
	is(t, api, []byte{0, 0}, "sourceBytes", 2)
	is(t, api, []int{0, 1, 2}, "getList", 3)
	is(t, api, 3, "callback", capnweb.Func(func(i int) int { return i }), 3)
	is(t, api, 5000, "sinkStream", capnweb.NewReader(&zeros{5000}))
	counter := api.Call("makeCounter", 1)
	defer counter.Close()
	next := counter.Call("next")
	defer next.Close()
	is(t, next, 4, "increment", 2)

	stream, err := capnweb.Call[*capnweb.ReadableStream](t.Context(), api, "sourceStream", 10, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var sizes []int
	for chunk, err := range capnweb.Chunks[[]byte](t.Context(), stream) {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(chunk))
	}
	if diff := cmp.Diff([]int{4, 4, 2}, sizes); diff != "" {
		t.Errorf("sourceStream (-want +got):\n%s", diff)
	}

	type memory struct {
		RSS  int64 `json:"rss"`
		Heap int64 `json:"heap"`
	}
	stats, err := capnweb.Call[memory](t.Context(), api, "stats")
	if err != nil || stats.RSS < 1<<20 || stats.Heap < 1<<10 {
		t.Errorf("stats: %+v, %v", stats, err)
	}
}

// zeros reads as n zeros, without a Close.
type zeros struct{ n int }

func (z *zeros) Read(b []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(z.n, len(b))
	clear(b[:n])
	z.n -= n
	return n, nil
}

// Either side of a relay may come first, and the end of one ends the other.
func TestRelay(t *testing.T) {
	t.Parallel()
	url := serve(t, peer.Options{})
	main := capnweb.NewTarget(capnweb.Methods{"hello": func(name string) string { return "hello " + name }})

	connected := make(chan *capnweb.Session, 1)
	go func() {
		defer close(connected)
		s, err := httprpc.Dial(t.Context(), url+"/mitm/client?id=a", nil)
		if err != nil {
			t.Error(err)
			return
		}
		connected <- s
	}()
	target, _ := dial(t, url+"/mitm/target?id=a", main)
	client, ok := <-connected
	if !ok {
		t.FailNow()
	}
	api := client.Main()
	is(t, api, "hello there", "hello", "there")
	_ = api.Close()
	_ = client.Close(nil)
	ended(t, target, "the target after the client")

	// The same id can be used again.
	target, _ = dial(t, url+"/mitm/target?id=a", main)
	client, api = dial(t, url+"/mitm/client?id=a", nil)
	is(t, api, "hello again", "hello", "again")
	_ = target.Close(nil)
	ended(t, client, "the client after the target")
}

func TestRelayRefuses(t *testing.T) {
	t.Parallel()
	url := serve(t, peer.Options{})
	dial(t, url+"/mitm/target?id=taken", nil)
	for query, want := range map[string]int{
		"/mitm/target":          http.StatusBadRequest,
		"/mitm/client?id=":      http.StatusBadRequest,
		"/mitm/target?id=taken": http.StatusConflict,
	} {
		_, err := httprpc.Dial(t.Context(), url+query, nil)
		var e *httprpc.HandshakeError
		if !errors.As(err, &e) || e.StatusCode != want {
			t.Errorf("%s: %v, want status %d", query, err, want)
		}
	}
}

func ended(t *testing.T, s *capnweb.Session, what string) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Errorf("not ended: %s", what)
	}
}
