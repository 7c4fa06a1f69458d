package interop_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tongs-dev/tongs/capnweb/internal/conformancepeer/peer"
	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

// newRelay makes a relay whose sessions can be looked at.
func newRelay(seen *sessions) http.Handler { return peer.New(peer.Options{OnSession: seen.add}) }

// The reference's client to the reference's object, through two sessions of
// ours: whatever a case passes crosses from one to the other.
func TestRelay(t *testing.T) {
	t.Parallel()
	node := interop.Start(t)
	seen := newSessions(t)
	relay := httptest.NewServer(newRelay(seen))
	t.Cleanup(relay.Close)

	for _, pair := range []struct{ client, target string }{
		{"0.12.0", "0.12.0"}, {"0.8.0", "0.8.0"}, {"0.8.0", "0.12.0"}, {"0.12.0", "0.8.0"},
	} {
		cases := pair.client
		if pair.target == "0.8.0" {
			cases = pair.target // what the older one can do
		}
		t.Run(pair.client+" to "+pair.target, func(t *testing.T) {
			for i, c := range jsCases(t, node, cases) {
				t.Run(c.Name, func(t *testing.T) {
					id := fmt.Sprintf("%s-%s-%d", pair.client, pair.target, i)
					url := func(side string) string {
						return fmt.Sprintf("ws://%s/mitm/%s?id=%s", relay.Listener.Addr(), side, id)
					}
					args := map[string]any{
						"lib": pair.client, "target": pair.target, "name": c.Name,
						"server": url("target"), "client": url("client"), "session": id,
					}
					runJS(t, node, "relayed", args, func() {
						expectIdle(t, "relay, to the client", seen.get(t, "/mitm/client", id))
						expectIdle(t, "relay, to the target", seen.get(t, "/mitm/target", id))
					})
					for _, side := range []string{"client", "target"} {
						s := seen.get(t, "/mitm/"+side, id)
						wait(t, t.Context(), s.Done(), "the relay's session to the "+side+" has ended")
					}
				})
			}
		})
	}
}

// Our client to our object, through the same relay.
func TestRelayGo(t *testing.T) {
	t.Parallel()
	for _, c := range goCases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), caseTime)
			defer cancel()
			target, client, relayed := dialRelay(t, ctx)
			api := client.Main()
			c.run(t, ctx, api)
			api.Close()
			if t.Failed() {
				return
			}
			expectIdle(t, "client", client)
			expectIdle(t, "target", target)
			expectIdle(t, "relay, to the client", relayed[0])
			expectIdle(t, "relay, to the target", relayed[1])
		})
	}
}
