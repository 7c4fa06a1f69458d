// Command conformancepeer is a Cap'n Web peer for test suites, ours and others',
// to talk to. It prints one line, LISTEN host:port, and then serves until it is
// interrupted:
//
//	/            a small object with calls, callbacks, objects, errors and blobs,
//	             over WebSocket and over HTTP batch (POST), to any origin
//	/mitm/target?id=X, /mitm/client?id=X
//	             two WebSockets that are joined: what the target's side exports
//	             as its main object is the main object that the client's side
//	             gets, and when one ends, so does the other
//
// With -bench, / serves the object of the benchmark instead, with message
// limits of 256 MiB. It trusts everybody, so it listens on loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/capnweb/internal/conformancepeer/peer"
)

func main() {
	bench := flag.Bool("bench", false, "serve the object of the benchmark")
	addr := flag.String("addr", "127.0.0.1:0", "`host:port` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *addr, *bench); err != nil {
		fmt.Fprintln(os.Stderr, "conformancepeer:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, stdout io.Writer, addr string, bench bool) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           peer.New(peer.Options{Bench: bench}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	fmt.Fprintf(stdout, "LISTEN %s\n", listener.Addr())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case <-ctx.Done():
		err = server.Close()
		<-failed
		return err
	case err := <-failed:
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	}
}
