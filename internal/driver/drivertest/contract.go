package drivertest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/sandboxtest"
)

// testContract holds the driver's sandboxes to what every sandbox does.
func testContract(t *testing.T, s Suite) {
	b := newBed(t, s)
	var serial atomic.Int64
	var ids sync.Map // *sandbox.Client → id
	sandboxtest.Run(t, sandboxtest.Harness{
		Open: func(t *testing.T) *sandbox.Client {
			id := fmt.Sprintf("case-%d", serial.Add(1))
			b.create(t, b.spec(id))
			t.Cleanup(func() {
				if err := b.Destroy(b.ending(t), id); err != nil {
					t.Errorf("destroy %s: %v", id, err)
				}
			})
			c := b.connect(t, id)
			ids.Store(c, id)
			return c
		},
		Again: func(t *testing.T, c *sandbox.Client) *sandbox.Client {
			id, ok := ids.Load(c)
			if !ok {
				t.Fatal("this client is of no sandbox here")
			}
			return b.connect(t, id.(string))
		},
		Pids:     s.NoLimits() == "",
		Isolated: true, OwnKernel: s.OwnKernel,
		Tools: true,
	})
}
