package interop_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/capnweb/internal/interop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// versions are the releases of the reference that we are compatible with.
var versions = []string{"0.12.0", "0.8.0"}

// caseTime bounds one case, also with the race detector on a machine that is busy with other tests.
const caseTime = 2 * time.Minute

// jsCase is a case of js/cases-calls.mjs and js/cases-media.mjs.
type jsCase struct {
	Name  string `json:"name"`
	Batch bool   `json:"batch"` // also works in one HTTP batch
}

// tables are the sizes of a session's tables.
type tables struct {
	Imports int `json:"imports"`
	Exports int `json:"exports"`
}

// idle is what is left in the tables when nothing is: the two main objects.
var idle = tables{1, 1}

// jsCases lists the cases that a version of the JavaScript client can do.
func jsCases(t *testing.T, n *interop.Node, version string) []jsCase {
	t.Helper()
	var list []jsCase
	if err := n.Do(t.Context(), "list", map[string]any{"lib": version}, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) < 40 {
		t.Fatalf("only %d cases: %v", len(list), list)
	}
	return list
}

// runJS has node run one case and checks the tables: of node's sides, and, by
// ours, of our own sides, while the connection is still there.
func runJS(t *testing.T, n *interop.Node, how string, args map[string]any, ours func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), caseTime)
	defer cancel()
	defer func() {
		if err := n.Do(ctx, "close", args, nil); err != nil {
			t.Errorf("closing the connection: %v", err)
		}
	}()
	sides := map[string]tables{}
	if err := n.Do(ctx, how, args, &sides); err != nil {
		t.Error(err)
	}
	for side, got := range sides {
		if got != idle {
			t.Errorf("the %s's tables after the case: %+v, want %+v", side, got, idle)
		}
	}
	if ours != nil && !t.Failed() {
		ours()
	}
}

// The cases themselves are right: the reference passes them all against itself.
func TestReferenceAgainstItself(t *testing.T) {
	t.Parallel()
	client, server := interop.Start(t), interop.Start(t)
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			for i, c := range jsCases(t, client, version) {
				t.Run(c.Name, func(t *testing.T) {
					id := fmt.Sprintf("self-%s-%d", version, i)
					address := fmt.Sprintf("127.0.0.1:%d/%s?id=%s", server.Port, version, id)
					runJS(t, client, "case", map[string]any{"lib": version, "name": c.Name, "url": "ws://" + address, "session": id}, nil)
					if c.Batch {
						runJS(t, client, "batch", map[string]any{"lib": version, "name": c.Name, "url": "http://" + address}, nil)
					}
				})
			}
		})
	}
}
