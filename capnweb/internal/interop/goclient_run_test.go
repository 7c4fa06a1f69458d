package interop_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// Our client against the reference's server.
func TestGoClient(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			for i, c := range goCases {
				if c.since != "" && version == "0.8.0" {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					id := fmt.Sprintf("go-%s-%d", version, i)
					runGo(t, c, fmt.Sprintf("ws://127.0.0.1:%d/%s?id=%s", node.Port, version, id), version, func() {
						sides := map[string]tables{}
						if err := node.Do(t.Context(), "served", map[string]any{"session": id}, &sides); err != nil {
							t.Fatal(err)
						}
						if sides["server"] != idle {
							t.Errorf("the server's tables after the case: %+v, want %+v", sides["server"], idle)
						}
					})
				})
			}
		})
	}
}

// Our client against our own server: what fails here is not the fault of the line between two languages.
func TestGoClientGoServer(t *testing.T) {
	t.Parallel()
	server := serveSuite(t, "0.12.0")
	for i, c := range goCases {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprint("own-", i)
			runGo(t, c, server.url("ws", id), "0.12.0", func() { expectIdle(t, "server", server.sessions.get(t, "/", id)) })
		})
	}
}

// Our client over HTTP batches, to the reference's server and to ours.
func TestGoClientBatch(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, c := range goCases {
		if !c.batch {
			continue
		}
		for _, version := range versions {
			t.Run(version+"/"+c.name, func(t *testing.T) {
				runGoBatch(t, c, fmt.Sprintf("http://127.0.0.1:%d/%s", node.Port, version))
			})
		}
		t.Run("ours/"+c.name, func(t *testing.T) {
			runGoBatch(t, c, serveSuite(t, "0.12.0").url("http", "batch"))
		})
	}
}

func runGoBatch(t *testing.T, c goCase, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	s := httprpc.NewBatch(ctx, url, nil)
	defer s.Close(nil)
	api := s.Main()
	defer api.Close()
	c.run(t, ctx, api)
	if t.Failed() {
		return
	}
	wait(t, ctx, s.Done(), "the batch has ended") // with its response
	got := s.Stats()
	equal(t, tables{got.Imports, got.Exports}, tables{})
}

// runGo runs a case over a WebSocket and checks our tables and, by theirs, the server's.
func runGo(t *testing.T, c goCase, url, version string, theirs func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	var opts []capnweb.Option
	if version != "0.8.0" {
		opts = append(opts, capnweb.WithNewerEncodings())
	}
	s, err := httprpc.Dial(ctx, url, &httprpc.DialOptions{Session: opts})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	api := s.Main()
	c.run(t, ctx, api)
	api.Close()
	if t.Failed() {
		return
	}
	expectIdle(t, "client", s)
	theirs()
}
