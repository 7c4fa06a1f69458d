package idmaptest

import (
	"context"
	"testing"

	"github.com/tongs-dev/tongs/internal/idmap"
)

// TempDir is t.TempDir for what may come to hold files of the calling user's range of ids, as the home of a
// driver does: the user alone can't remove them.
func TempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := idmap.Remove(context.WithoutCancel(t.Context()), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
