package guest_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// A guest that can't put commands into their control group, where their limits are, starts none, says why and ends: also
// when nobody asks for one. Here the group's file refuses what is written to it (full(4)).
func TestNoGroup(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{true, false} {
		t.Run(map[bool]string{true: "asked", false: "not asked"}[asked], func(t *testing.T) {
			t.Parallel()
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Skip(err)
			}
			defer full.Close()
			b := launchWith(t, []*os.File{full}, func(cfg *guest.Config) {
				cfg.Cgroup = guest.Cgroup{Version: 1, TasksFDs: []int{firstExtraFD}}
			})
			// It ends soon, so there may be nobody to connect to.
			if asked {
				if c, err := sandbox.Connect(t.Context(), b.dial); err == nil {
					defer c.Close()
					if _, err := c.Exec(t.Context(), bash("touch ran")); err == nil {
						t.Error("no error")
					}
				}
			}
			select {
			case <-b.exited:
			case <-time.After(30 * time.Second):
				t.Fatal("the guest goes on")
			}
			if b.exit == nil || !strings.Contains(b.stderr.String(), "enter the commands' control group") {
				t.Errorf("it ended with %v, and said %q", b.exit, b.stderr)
			}
			if _, err := os.Lstat(b.path("ran")); err == nil {
				t.Error("a command ran without limits")
			}
		})
	}
}
