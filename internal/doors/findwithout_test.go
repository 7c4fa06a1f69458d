package doors_test

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSearchWithoutRipgrep finds the same in a sandbox that has none.
func TestSearchWithoutRipgrep(t *testing.T) {
	t.Parallel()
	project := newProject(t)
	bare := t.TempDir()
	for _, program := range []string{"git", "find", "sh"} {
		file, err := exec.LookPath(program)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(file, filepath.Join(bare, program)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, project)
	w.session("ses_with", newBox(t, project))
	w.session("ses_without", newBox(t, project, bare))
	with, without := w.person("X-Tongs-Session", "ses_with"), w.person("X-Tongs-Session", "ses_without")
	for _, pattern := range []string{"needle one", "needle two", "umlaut", `needle\s+h`, "nothing at all", "-e", "needle", "^text", "ü", "lph|meg"} {
		var want, got []map[string]any
		with.get("/find?pattern="+url.QueryEscape(pattern), &want)
		without.get("/find?pattern="+url.QueryEscape(pattern), &got)
		sorted := func(all []map[string]any) []string {
			var out []string
			for _, m := range all {
				b, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, string(b))
			}
			slices.Sort(out)
			return out
		}
		if d := cmp.Diff(sorted(want), sorted(got)); d != "" {
			t.Errorf("%s (-with +without) %s", pattern, d)
		}
	}
	if status, body, _ := without.do("GET", "/find?pattern=(", ""); status != 400 {
		t.Errorf("%d %s", status, body)
	}
	for _, query := range []string{"main", "untracked", "x.ts"} {
		_, want, _ := with.do("GET", "/find/file?query="+query, "")
		_, got, _ := without.do("GET", "/find/file?query="+query, "")
		if strings.Split(want, ",")[0] != strings.Split(got, ",")[0] {
			t.Errorf("%s: %s, with ripgrep %s", query, got, want)
		}
	}
}
