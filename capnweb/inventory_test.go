package capnweb_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testSource knows the tests of one folder: for each function and package-level variable, the
// texts in it and the identifiers that it uses.
type testSource struct {
	texts map[string][]string
	uses  map[string][]string
}

func readTests(t *testing.T, dir string) *testSource {
	t.Helper()
	src := &testSource{map[string][]string{}, map[string][]string{}}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no tests: %v", dir, err)
	}
	add := func(name string, n ast.Node) {
		src.texts[name] = append(src.texts[name], "")
		ast.Inspect(n, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.BasicLit:
				if x.Kind == token.STRING {
					s, _ := strconv.Unquote(x.Value)
					src.texts[name] = append(src.texts[name], s)
				}
			case *ast.Ident:
				src.uses[name] = append(src.uses[name], x.Name)
			}
			return true
		})
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			switch x := d.(type) {
			case *ast.FuncDecl:
				if x.Name.Name != "init" {
					add(x.Name.Name, x)
					continue
				}
				ast.Inspect(x, func(n ast.Node) bool { // what is added to a variable belongs to it
					if a, ok := n.(*ast.AssignStmt); ok {
						if id, ok := a.Lhs[0].(*ast.Ident); ok {
							add(id.Name, a)
						}
					}
					return true
				})
			case *ast.GenDecl:
				for _, spec := range x.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok {
						for _, id := range v.Names {
							add(id.Name, v)
						}
					}
				}
			}
		}
	}
	// The cases of the JavaScript side are texts of whoever lists them.
	scripts, _ := filepath.Glob(filepath.Join(dir, "js", "cases-*.mjs"))
	for _, name := range scripts {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^add\("([^"]+)"`).FindAllStringSubmatch(string(b), -1) {
			src.texts["jsCases"] = append(src.texts["jsCases"], m[1])
		}
	}
	return src
}

// has reports whether a text is in a test, or in the variables and helpers that it uses.
func (s *testSource) has(test, text string) bool {
	seen := map[string]bool{}
	var look func(name string, depth int) bool
	look = func(name string, depth int) bool {
		if seen[name] || depth > 3 {
			return false
		}
		seen[name] = true
		if slices.Contains(s.texts[name], text) {
			return true
		}
		for _, u := range s.uses[name] {
			if !strings.HasPrefix(u, "Test") && look(u, depth+1) {
				return true
			}
		}
		return false
	}
	return look(test, 0)
}

var (
	testNamed  = regexp.MustCompile(`^(?:([a-z/]+): )?(Test\w+)(?: "([^"]+)")?$`)
	groupTitle = regexp.MustCompile(`^### (.+) \((\d+)\)$`)
)

// TestInventory holds testdata/INVENTORY.md to the tests.
func TestInventory(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/INVENTORY.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]*testSource{}
	source := func(dir string) *testSource {
		if sources[dir] == nil {
			sources[dir] = readTests(t, filepath.Join(".", dir))
		}
		return sources[dir]
	}
	groups := map[string]int{} // the cases of each that the page owes
	rows := map[string][]string{}
	group, tests := "", 0
	for n, line := range strings.Split(string(b), "\n") {
		if m := groupTitle.FindStringSubmatch(line); m != nil {
			group = m[1]
			if _, twice := groups[group]; twice {
				t.Errorf("line %d: the group %s is there twice", n+1, group)
			}
			groups[group], _ = strconv.Atoi(m[2])
			continue
		}
		if strings.HasPrefix(line, "## ") {
			group = ""
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| behaviour ") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if group != "" {
			groups[group]--
		}
		rows[cells[0]] = cells[1:]
		found := false
		for _, cell := range cells[1:] {
			for _, ref := range strings.Split(cell, "; ") {
				m := testNamed.FindStringSubmatch(strings.TrimSpace(ref))
				if m == nil {
					continue
				}
				found = true
				tests++
				if src := source(m[1]); src.texts[m[2]] == nil {
					t.Errorf("line %d: there is no test %s", n+1, ref)
				} else if m[3] != "" && !src.has(m[2], m[3]) {
					t.Errorf("line %d: %s has no %q", n+1, m[2], m[3])
				}
			}
		}
		if group != "" && !found && !strings.HasPrefix(cells[1], "does not exist in Go: ") {
			t.Errorf("line %d: the case has neither a test nor a reason", n+1)
		}
	}
	for g, left := range groups {
		if left != 0 {
			t.Errorf("%s: %d cases are missing", g, left)
		}
	}
	if len(groups) != 32 || tests < 200 {
		t.Errorf("%d groups and %d tests", len(groups), tests)
	}
	expectRow := func(name string, states ...string) {
		t.Helper()
		cells, ok := rows[name]
		if !ok {
			t.Errorf("the recording %q is missing", name)
			return
		}
		for i, state := range states {
			if i >= len(cells) || !strings.HasPrefix(cells[i], state) {
				t.Errorf("the recording %q: %q, want %q", name, cells, states)
			}
		}
	}
	state := func(not map[string]string, departs bool, name string) string {
		switch reason, is := not[name]; {
		case is:
			return "not: " + reason
		case departs:
			return "replayed; differs: "
		}
		return "replayed"
	}
	for _, sc := range readScenarios(t, "testdata/transcripts.txt") {
		_, server := differs[sc.name]
		client := slices.ContainsFunc(sc.lines, func(l string) bool {
			return slices.Contains(slices.Collect(maps.Keys(clientDiffers)), strings.TrimPrefix(l, "C> "))
		})
		expectRow(sc.name, state(notByServer, server, sc.name), state(notByClient, client, sc.name))
	}
	for _, sc := range readScenarios(t, "testdata/probes.txt") {
		_, departs := probeAnswers[sc.name]
		expectRow(sc.name, state(nil, departs, sc.name))
	}
	recorded, err := os.ReadFile("testdata/batch.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(recorded)), "\n") {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(rows)), func(name string) bool {
			name, _, _ = strings.Cut(name, " (")
			return strings.HasPrefix(line, name+" ")
		}) {
			t.Errorf("the batch %q is missing", line)
		}
	}
}

// TestOwnershipPage: the tests that OWNERSHIP.md names exist.
func TestOwnershipPage(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("OWNERSHIP.md")
	if err != nil {
		t.Fatal(err)
	}
	src := readTests(t, ".")
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(b), -1)
	if len(named) < 10 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, name := range named {
		if src.texts[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}
