package httprpc_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// A handler serves WebSockets and batches at one path.
func ExampleHandler() {
	main := capnweb.NewTarget(capnweb.Methods{
		"hello": func(name string) string { return "Hello, " + name },
	})
	server := httptest.NewServer(&httprpc.Handler{
		Main: func(r *http.Request) (any, error) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				return nil, &httprpc.StatusError{Code: http.StatusUnauthorized, Message: "a token is needed"}
			}
			return main, nil
		},
	})
	defer server.Close()

	ctx := context.Background()
	s, err := httprpc.Dial(ctx, server.URL, &httprpc.DialOptions{
		Header: http.Header{"Authorization": {"Bearer secret"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	text, err := capnweb.Call[string](ctx, s.Main(), "hello", "socket")
	fmt.Println(text, err)
	_ = s.Close(nil)
	<-s.Done()

	batch := httprpc.NewBatch(ctx, server.URL, &httprpc.BatchClientOptions{
		Client: server.Client(), Header: http.Header{"Authorization": {"Bearer secret"}},
	})
	text, err = capnweb.Call[string](ctx, batch.Main(), "hello", "batch")
	fmt.Println(text, err)
	<-batch.Done()
	// Output:
	// Hello, socket <nil>
	// Hello, batch <nil>
}
