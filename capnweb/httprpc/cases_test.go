package httprpc_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

type tally struct{ n int }

func (c *tally) increment(by *int) int {
	if by == nil {
		c.n++
	} else {
		c.n += *by
	}
	return c.n
}

var tallies = capnweb.NewClass[*tally](capnweb.Methods{"increment": (*tally).increment})

func countingMain(*http.Request) (any, error) {
	return capnweb.NewTarget(capnweb.Methods{
		"square":      func(i int) int { return i * i },
		"makeCounter": func(n int) *capnweb.Target { return tallies.New(&tally{n}) },
		"incrementCounter": func(ctx context.Context, c *capnweb.Stub, by int) (int, error) {
			return capnweb.Call[int](ctx, c, "increment", by)
		},
	}), nil
}

// Groups "HTTP requests" and "WebSockets" of the reference's tests.
func TestRequests(t *testing.T) {
	t.Parallel()
	result := func(t *testing.T, ctx context.Context, p *capnweb.Promise, wanted int) {
		t.Helper()
		if n, err := capnweb.Await[int](ctx, p); err != nil || n != wanted {
			t.Errorf("%d, %v; want %d", n, err, wanted)
		}
	}
	t.Run("a batch of calls on each other's results", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		s := httprpc.NewBatch(ctx, batchServer(t, &httprpc.Handler{Main: countingMain}), nil)
		api := s.Main()
		square, counter := api.Call("square", 6), api.Call("makeCounter", 2)
		first, second := counter.Call("increment", 3), api.Call("incrementCounter", counter, 4)
		result(t, ctx, square, 36)
		result(t, ctx, first, 5)
		result(t, ctx, second, 9)
		<-s.Done()
	})
	t.Run("only POST makes a batch", func(t *testing.T) {
		t.Parallel()
		url := batchServer(t, &httprpc.Handler{Main: countingMain})
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodHead} {
			req, err := http.NewRequestWithContext(testContext(t), method, url, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s: %s", method, resp.Status)
			}
		}
	})
	t.Run("calls over a WebSocket", func(t *testing.T) {
		t.Parallel()
		ctx := testContext(t)
		s := dial(t, serve(t, &httprpc.Handler{Main: countingMain}), nil)
		api := s.Main()
		result(t, ctx, api.Call("square", 5), 25)
		counter := api.Call("makeCounter", 2)
		result(t, ctx, counter.Call("increment", 3), 5)
		counter.Close()
		result(t, ctx, api.Call("incrementCounter", tallies.New(&tally{4}), 9), 13)
	})
}
