package drivertest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../../.."

// TestSecurityPage holds docs/security.md to what there is: each row of the table of escapes is on it, once, and each
// row and test that it names exists.
func TestSecurityPage(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(data)), " ")
	rows := make(map[string]bool)
	for _, e := range table() {
		if rows[e.name] {
			t.Errorf("two rows are called %q", e.name)
		}
		rows[e.name] = true
		if n := strings.Count(text, "*"+e.name+"*"); n != 1 {
			t.Errorf("the row %q is %d times on the page", e.name, n)
		}
	}
	named := 0
	for _, m := range regexp.MustCompile(`(?:^|[^*])\*([^* ][^*]*)\*(?:[^*]|$)`).FindAllStringSubmatch(text, -1) {
		if m[1] == "italics" {
			continue
		}
		named++
		if !rows[m[1]] {
			t.Errorf("the page names %q, which is no row", m[1])
		}
	}
	if named < len(rows)/2 {
		t.Errorf("only %d rows were found on the page", named)
	}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z]+)(?:/([A-Za-z]+))?`").FindAllStringSubmatch(text, -1) {
		if !exists(t, m[1], m[2]) {
			t.Errorf("the page names the test %s, which there is not", m[0])
		}
	}
	if exists(t, "TestNoSuchThing", "") || exists(t, "TestDriver", "NoSuchThing") {
		t.Error("control: a test that there isn't is found")
	}
	for _, count := range regexp.MustCompile(`(\d+) rows as user:`).FindAllStringSubmatch(text, -1) {
		if want := fmt.Sprint(countFor("")); count[1] != want {
			t.Errorf("the page says that there are %s rows for the user; there are %s", count[1], want)
		}
	}
}

// countFor counts the rows that are tried as a user.
func countFor(user string) (n int) {
	for _, e := range table() {
		if !(e.as == "root" && user != "root" || e.as == "user" && user == "root") {
			n++
		}
	}
	return n
}

// exists looks for a test of the drivers or of images, or a part of the suite.
func exists(t *testing.T, test, part string) bool {
	t.Helper()
	if part != "" {
		for _, p := range parts {
			if p.name == part {
				return exists(t, test, "")
			}
		}
		return false
	}
	for _, dir := range []string{"internal/driver/linux", "internal/driver/linux/boot", "internal/driver/oci", "internal/driver/drivertest", "internal/image", "internal/image/layer", "internal/image/registry"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), "\nfunc "+test+"(t *testing.T)") {
				return true
			}
		}
	}
	return false
}
