package verify_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/verify"
)

const root = "../.."

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/doors.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section is what stands between a heading and the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/doors.md has no section %q", heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// TestPageHasEveryDoor holds that the table in docs/doors.md was made with the doors that there are,
// and that it says of none that it escaped.
func TestPageHasEveryDoor(t *testing.T) {
	t.Parallel()
	text := section(t, "Where each door leads")
	var got, want []string
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 4 || strings.Contains(line, "---") {
			continue
		}
		name := strings.TrimSpace(cells[1])
		if len(cells) == 6 { // group, door, leads to, seen
			name = strings.TrimSpace(cells[2])
		}
		if name != "" && name != "door" {
			got = append(got, strings.ReplaceAll(name, "&lt;", "<"))
		}
	}
	for _, d := range verify.Doors() {
		want = append(want, d.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/doors.md is not of these doors (-code +page); make the tables anew with: tongs verify --markdown\n%s", diff)
	}
	for _, bad := range []verify.Result{verify.Escaped, verify.Broken} {
		if strings.Contains(text, "| "+string(bad)+" |") {
			t.Errorf("docs/doors.md says that a door is %s", bad)
		}
	}
}

// TestDefectsHaveTests holds that each test named in the table of defects exists.
func TestDefectsHaveTests(t *testing.T) {
	t.Parallel()
	text := section(t, "What the demo gets wrong, and the test that holds it here")
	rows := regexp.MustCompile(`(?m)^\| ([0-9]+[bc]?|[a-i]) \|.*\| (.*) \|$`).FindAllStringSubmatch(text, -1)
	if len(rows) != 31+9 {
		t.Errorf("%d rows, want 29 defects with 10b and 10c, and nine more", len(rows))
	}
	name := regexp.MustCompile("`([a-z0-9/]+) ([^`]+)`")
	for _, row := range rows {
		named := name.FindAllStringSubmatch(row[2], -1)
		if len(named) == 0 && !strings.HasPrefix(row[2], "as ") {
			t.Errorf("%s has no test", row[1])
		}
		for _, one := range named {
			if !hasTest(t, one[1], one[2]) {
				t.Errorf("%s: package %s has no test or case %q", row[1], one[1], one[2])
			}
		}
	}
}

// hasTest says whether a package's tests, or the suite that it is, have a test or a case of that name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(dir, "test") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") || strings.Contains(string(text), `"`+name+`"`) {
			return true
		}
	}
	return false
}

// TestNamesAreUnique holds that a door is named once, for --json and the page.
func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, d := range verify.Doors() {
		if seen[d.Name] || d.Group == "" {
			t.Errorf("%q of group %q is there twice, or has no group", d.Name, d.Group)
		}
		seen[d.Name] = true
	}
}
