package api_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
	"github.com/tongs-dev/tongs/sandbox/sandboxtest"
)

// TestSuite holds sandboxes to the contract through the public endpoint: Cap'n Web over a WebSocket,
// relayed to the guest.
func TestSuite(t *testing.T) {
	t.Parallel()
	e := begin(t)
	var serial atomic.Int64
	var names sync.Map // *sandbox.Client → name
	dial := func(t *testing.T, name string) *sandbox.Client {
		c, err := remote.Dial(deadline(t), e.url, remote.DialOptions{Token: e.token, Sandbox: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		names.Store(c, name)
		return c
	}
	sandboxtest.Run(t, sandboxtest.Harness{
		Open: func(t *testing.T) *sandbox.Client {
			h := e.connect(t, e.token)
			info := create(t, h, remote.CreateOptions{Name: fmt.Sprintf("case-%d", serial.Add(1))})
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if _, err := h.Destroy(ctx, info.ID); err != nil {
					t.Error(err)
				}
			})
			return dial(t, info.Name)
		},
		Again: func(t *testing.T, c *sandbox.Client) *sandbox.Client {
			name, ok := names.Load(c)
			if !ok {
				t.Fatal("this client is of no sandbox here")
			}
			return dial(t, name.(string))
		},
		Pids:     os.Geteuid() == 0,
		Isolated: true,
	})
}
