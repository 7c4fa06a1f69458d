package guest_test

import (
	"os"
	"sync"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/sandboxtest"
)

// TestSuite holds a guest without a sandbox around it to the contract.
func TestSuite(t *testing.T) {
	t.Parallel()
	var boxes sync.Map // *sandbox.Client → *box
	sandboxtest.Run(t, sandboxtest.Harness{
		Open: func(t *testing.T) *sandbox.Client {
			b := newBox(t)
			boxes.Store(b.Client, b)
			return b.Client
		},
		Again: func(t *testing.T, c *sandbox.Client) *sandbox.Client {
			b, ok := boxes.Load(c)
			if !ok {
				t.Fatal("this client is of no sandbox here")
			}
			again := b.(*box).connect()
			t.Cleanup(func() { again.Close() })
			return again
		},
		Root:  os.Geteuid() == 0,
		Tools: true,
	})
}
