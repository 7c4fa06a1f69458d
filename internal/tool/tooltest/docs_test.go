package tooltest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/tool/tooltest"
)

// TestDifferencesAreWritten holds that the table in docs/tools.md has every case whose answer differs
// from the built-in tool's on purpose, with the reason, and no other. TONGS_TEST_UPDATE=1 writes it.
func TestDifferencesAreWritten(t *testing.T) {
	const page, begin, end = "../../../docs/tools.md", "<!-- differences: begin -->\n", "<!-- differences: end -->\n"
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	got, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", page)
	}
	want := table()
	if os.Getenv("TONGS_TEST_UPDATE") != "" {
		if err := os.WriteFile(page, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table in %s (+) is not that of the cases (-); TONGS_TEST_UPDATE=1 writes it:\n%s", page, diff)
	}
}

func table() string {
	type row struct {
		tool, why string
		cases     []string
	}
	var rows []*row
	for _, c := range tooltest.Cases() {
		if c.Differs == "" {
			continue
		}
		var at *row
		for _, r := range rows {
			if r.tool == c.Tool && r.why == c.Differs {
				at = r
			}
		}
		if at == nil {
			at = &row{tool: c.Tool, why: c.Differs}
			rows = append(rows, at)
		}
		at.cases = append(at.cases, c.Name)
	}
	var b strings.Builder
	b.WriteString("| tool | call | why the answer is another |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.tool, strings.ReplaceAll(strings.Join(r.cases, "; "), "|", `\|`), r.why)
	}
	return b.String()
}

func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range tooltest.Cases() {
		if seen[c.String()] {
			t.Errorf("two cases are called %s", c)
		}
		seen[c.String()] = true
	}
	if len(seen) < 150 {
		t.Errorf("%d cases, want 150 at least", len(seen))
	}
}
