package httprpc_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// TestFetch carries an HTTP request and its response through a session.
func TestFetch(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.Header()["Set-Cookie"] = []string{"a=1", "b=2"}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, strings.ToUpper(string(b))+r.Header.Get("X-In"))
	}))
	t.Cleanup(web.Close)
	a, b := capnweb.Pipe()
	server := capnweb.NewSession(b, capnweb.NewTarget(capnweb.Methods{
		"fetch": func(ctx context.Context, r *capnweb.Request) (*capnweb.Response, error) {
			req, err := httprpc.HTTPRequest(ctx, r)
			if err != nil {
				return nil, err
			}
			resp, err := web.Client().Do(req)
			if err != nil {
				return nil, err
			}
			return httprpc.ResponseOf(resp), nil
		},
	}))
	client := capnweb.NewSession(a, nil)
	t.Cleanup(func() {
		client.Close(nil)
		<-server.Done()
	})
	for _, body := range []string{"", strings.Repeat("body", 50_000)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, web.URL+"/p?q=1", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-In", "!")
		got, err := capnweb.Call[*capnweb.Response](testContext(t), client.Main(), "fetch", httprpc.RequestOf(req))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := httprpc.HTTPResponse(got)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(text) != strings.ToUpper(body)+"!" {
			t.Fatal(len(text), err)
		}
		if resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-Method") != "PUT" || len(resp.Header["Set-Cookie"]) != 2 {
			t.Fatal(resp)
		}
	}
}
