package tool_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aymanbagabas/go-udiff"
	"pgregory.net/rapid"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestUnifiedRoundTrip: the difference that another implementation writes leads
// from the one text to the other, also when lines have come before it.
func TestUnifiedRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		old, new := lines().Draw(rt, "old"), lines().Draw(rt, "new")
		patch := udiff.Unified("a/f", "b/f", old, new)
		if patch == "" {
			return
		}
		shift := strings.Repeat("another line\n", rapid.IntRange(0, 3).Draw(rt, "shift"))
		got, err := tool.ApplyUnified(patch, shift+old)
		if err != nil && old == "" {
			return // where an addition without context belongs can't be known
		}
		// With lines before it, a piece that stands there twice may be meant twice.
		if err != nil || shift == "" && got != new {
			rt.Fatalf("%q: %v, want %q\n%s", got, err, new, patch)
		}
	})
}

func FuzzUnified(f *testing.F) {
	f.Add("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n", "a\nb\n")
	f.Add("diff --git \"a/\\303\\274\" \"b/\\303\\274\"\nnew file mode 100755\n", "")
	f.Add("diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n", "x")
	f.Add("--- f\n+++ f\n@@ -0,0 +1 @@\n+x\n", "")
	f.Fuzz(func(t *testing.T, patch, text string) {
		_, _ = tool.ApplyUnified(patch, text)
		dir := t.TempDir()
		project := filepath.Join(dir, "p")
		must(t, os.Mkdir(project, 0o755))
		must(t, os.WriteFile(filepath.Join(project, "f"), []byte(text), 0o644))
		_, err := tool.Patch(context.Background(), project, patch, 0)
		if err != nil && sandbox.CodeOf(err) == "" {
			t.Errorf("no typed error: %v", err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
			t.Errorf("outside there is %v, %v", names, err)
		}
	})
}
