package interop_test

import (
	"fmt"
	"testing"

	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// The reference's client against our server.
func TestJSClient(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		server := serveSuite(t, version)
		t.Run(version, func(t *testing.T) {
			for i, c := range jsCases(t, node, version) {
				t.Run(c.Name, func(t *testing.T) {
					id := fmt.Sprint(i)
					args := map[string]any{"lib": version, "name": c.Name, "url": server.url("ws", id), "session": version + id}
					runJS(t, node, "case", args, func() { expectIdle(t, "server", server.sessions.get(t, "/", id)) })
				})
			}
		})
	}
}

// The reference's client over HTTP batches.
func TestJSClientBatch(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		server := serveSuite(t, version)
		t.Run(version, func(t *testing.T) {
			for _, c := range jsCases(t, node, version) {
				if !c.Batch {
					continue
				}
				t.Run(c.Name, func(t *testing.T) {
					runJS(t, node, "batch", map[string]any{"lib": version, "name": c.Name, "url": server.url("http", "batch")}, func() { server.expectNoneLive(t) })
				})
			}
		})
	}
}

// The reference's own WebSocket transport, which the other tests replace to see its tables.
func TestJSClientStockTransport(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	for _, version := range versions {
		server := serveSuite(t, version)
		for _, name := range []string{"call", "callback", "large messages", "stream of bytes up", "stream of bytes down"} {
			t.Run(version+"/"+name, func(t *testing.T) {
				runJS(t, node, "stock", map[string]any{"lib": version, "name": name, "url": server.url("ws", name)}, nil)
			})
		}
	}
}
