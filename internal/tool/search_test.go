package tool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.go", "a.go", true}, {"*.go", "d/e/a.go", true}, {"/*.go", "d/a.go", false}, {"*.go", ".go", true},
		{"d/*.go", "d/a.go", true}, {"d/*.go", "d/e/a.go", false}, {"d/**/a.go", "d/a.go", true}, {"d/**/a.go", "d/e/f/a.go", true},
		{"**/x", "x", true}, {"**/x", "d/x", true}, {"**/x", "d/yx", false}, {"d/**", "d/e", true}, {"d/**", "d", false},
		{"**", "a/b", true}, {"**/**/x", "x", true}, {"a/**/**/b", "a/b", true}, {"a**b", "axxb", true}, {"a**b", "a/b", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[^a]x", "bx", true}, {"[]]x", "]x", true}, {"[a-]x", "-x", true},
		{"{a,b/c}.go", "b/c.go", true}, {"{a,b{c,d}}", "bd", true}, {"{,a}b", "b", true}, {"{**/x,y}", "d/x", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {"?", "é", true}, {"?", "ab", false}, {"a+b(c)", "a+b(c)", true}, {"build/", "build", false},
		{"*é*", "xéy", true}, {"foo.*", "foo.tar.gz", true}, {"#x", "#x", false}, {`\#x`, "#x", true}, {`\!x`, "!x", true},
	} {
		got, err := tool.MatchPattern(c.pattern, c.path, false)
		if err != nil || got != c.want {
			t.Errorf("%q on %q: %v %v, want %v", c.pattern, c.path, got, err, c.want)
		}
	}
}

// TestSearchOrder: the first by path are the answer, with rg and without.
func TestSearchOrder(t *testing.T) {
	t.Parallel()
	files := f{}
	for i := range 300 {
		files[fmt.Sprintf("d%d/f%03d", 9-i%3, i)] = "needle\nhay\nneedle\n"
	}
	b := newBench(t, files)
	var want []string
	for i := 1; len(want) < 100; i += 3 { // d8 comes after d7
		want = append(want, fmt.Sprintf("%s/d7/f%03d", b.dir, i+1))
	}
	res := b.ok("glob", m{"pattern": "f*"})
	got := strings.Split(res.Output, "\n")
	if diff := cmp.Diff(want, got[:100]); diff != "" {
		t.Error(diff)
	}
	if res.Metadata["truncated"] != true || res.Metadata["count"] != 100 {
		t.Errorf("%v", res.Metadata)
	}
	first := b.ok("grep", m{"pattern": "needle"})
	if !strings.HasPrefix(first.Output, "Found 100 matches (more matches available)\n"+want[0]+":\n  Line 1: needle\n\n  Line 3: needle\n\n\n"+want[1]+":") {
		t.Errorf("%.300s", first.Output)
	}
	if rg := os.Getenv("TONGS_TEST_RIPGREP"); rg != "" {
		b.env.Ripgrep = rg
		if diff := cmp.Diff(first, b.ok("grep", m{"pattern": "needle"})); diff != "" {
			t.Errorf("ours (-) and with rg (+):\n%s", diff)
		}
	}
}

// TestRipgrepThatFails: whatever is wrong with it, there is an answer.
func TestRipgrepThatFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "x needle(\n", "bad-rg": "#!/bin/sh\necho rg: no\nexit 2\n", "sh-rg": "#!/bin/sh\nkill -9 $$\n"})
	for _, rg := range []string{"/nowhere/rg", b.path("a.txt"), b.path("bad-rg"), b.path("sh-rg")} {
		_ = os.Chmod(rg, 0o755)
		b.env.Ripgrep = rg
		if res := b.ok("grep", m{"pattern": `\Qneedle(\E`}); res.Metadata["matches"] != 1 {
			t.Errorf("with %s: %v %s", rg, res.Metadata, res.Output)
		}
	}
}

func TestSearchOfHugeLines(t *testing.T) {
	t.Parallel()
	wide := strings.Repeat("abcdefgh", 400_000) // 3.2 MB
	b := newBench(t, f{
		"wide.js": wide + "needle" + wide + "\nneedle\n",
		"end":     strings.Repeat("x\n", 700_000) + "needle",
		"late":    strings.Repeat("needle\n", 1) + strings.Repeat("x\n", 50_000) + "\x00needle\n",
		"piece":   strings.Repeat("y", 1<<20-3) + "needle\n", // over the end of a piece
	})
	res := b.ok("grep", m{"pattern": "needle$"})
	for _, want := range []string{"/end:\n  Line 700001: needle\n", "/wide.js:\n  Line 2: needle\n", "/late:\n  Line 1: needle"} {
		if !strings.Contains(res.Output+"\n", want) {
			t.Errorf("no %q in\n%.600s", want, res.Output)
		}
	}
	if len(res.Output) > 20_000 {
		t.Errorf("an answer of %d bytes", len(res.Output))
	}
	if rg := os.Getenv("TONGS_TEST_RIPGREP"); rg != "" {
		b.env.Ripgrep = rg
		b.ok("grep", m{"pattern": "needle"})
	}
}

func TestSearchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	files := f{}
	for i := range 400 {
		files[fmt.Sprintf("d%d/f%d", i%20, i)] = strings.Repeat("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", 3000)
	}
	b := newBench(t, files)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := tool.Call(ctx, b.env, "grep", []byte(`{"pattern":"(a?){60}a{60}b"}`), tool.Hooks{})
	if sandbox.CodeOf(err) != sandbox.CodeAborted {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestDeepAndLoopingTrees(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	deep := b.dir
	for range 300 {
		deep = filepath.Join(deep, "dddd")
	}
	must(t, os.MkdirAll(deep, 0o755))
	must(t, os.WriteFile(filepath.Join(deep, "needle.txt"), []byte("needle\n"), 0o644))
	must(t, os.Symlink("..", filepath.Join(deep, "up")))
	must(t, os.Symlink("/", b.path("root")))
	if res := b.ok("glob", m{"pattern": "needle*"}); res.Metadata["count"] != 1 {
		t.Errorf("%v %s", res.Metadata, res.Output)
	}
	if res := b.ok("grep", m{"pattern": "needle"}); res.Metadata["matches"] != 1 {
		t.Errorf("%v", res.Metadata)
	}
}

func TestManyFiles(t *testing.T) {
	t.Parallel()
	count := 5_000
	if os.Getenv("TONGS_TEST_LONG") != "" {
		count = 100_000
	}
	b := newBench(t, nil)
	for i := range count {
		if i%1000 == 0 {
			must(t, os.MkdirAll(b.path(fmt.Sprintf("d/%03d", i/1000)), 0o755))
		}
		must(t, os.WriteFile(b.path(fmt.Sprintf("d/%03d/f%06d.txt", i/1000, i)), []byte("hay\n"), 0o644))
	}
	b.put("d/zzz/last.txt", "needle\n")
	if res := b.ok("grep", m{"pattern": "needle"}); res.Metadata["matches"] != 1 {
		t.Errorf("%v", res.Metadata)
	}
	if res := b.ok("glob", m{"pattern": "**/last.txt"}); res.Metadata["count"] != 1 {
		t.Errorf("%v", res.Metadata)
	}
	flat := b.path("flat")
	must(t, os.Mkdir(flat, 0o755))
	for i := range count {
		must(t, os.WriteFile(fmt.Sprintf("%s/%06d", flat, i), nil, 0o644))
	}
	res := b.ok("list", m{"path": "flat"})
	if !strings.Contains(res.Output, fmt.Sprintf(" of %d entries. Use 'offset' parameter", count)) {
		t.Errorf("...%s", res.Output[len(res.Output)-200:])
	}
	b.fails(sandbox.CodeFileNotFound, "read", m{"filePath": "flat/00"}, "Did you mean one of these?", "flat/000000\n")
}

// TestReadPages: reading on from each answer gives every line once.
func TestReadPages(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&text, "%d %s\n", i+1, strings.Repeat("é", i%90))
	}
	b := newBench(t, f{"a.txt": text.String()})
	var got strings.Builder
	offset := 1
	for range 100 {
		res := b.ok("read", m{"filePath": "a.txt", "offset": offset})
		shown := res.Metadata["display"].(map[string]any)
		got.WriteString(shown["text"].(string) + "\n")
		if shown["truncated"] == false {
			break
		}
		offset = int(shown["lineEnd"].(int64)) + 1
		if want := fmt.Sprintf("Use offset=%d to continue.", offset); !strings.Contains(res.Output, want) {
			t.Fatalf("no %q", want)
		}
	}
	if got.String() != text.String() {
		t.Error("the pages are not the file")
	}
}

func TestInstructionsOncePerSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"d/AGENTS.md": "Be kind.\n", "d/a.txt": "a\n", "AGENTS.md": "never\n", "e/AGENTS.md": strings.Repeat("long\n", 5000), "e/a.txt": "a\n"})
	b.env.Instructions = new(tool.Instructions)
	given := func(session, file string) bool {
		b.env.Session = session
		return strings.Contains(b.ok("read", m{"filePath": file}).Output, "<system-reminder>\nInstructions from: "+b.path("d/AGENTS.md")+"\nBe kind.\n")
	}
	if !given("one", "d/a.txt") || given("one", "d/a.txt") || !given("two", "d/a.txt") {
		t.Error("want the instructions once for each session")
	}
	b.put("d/AGENTS.md", "Be kind.\nAlways.\n")
	later := time.Now().Add(time.Minute)
	must(t, os.Chtimes(b.path("d/AGENTS.md"), later, later))
	if !given("one", "d/a.txt") {
		t.Error("want changed instructions again")
	}
	if res := b.ok("read", m{"filePath": "e/a.txt"}); !strings.Contains(res.Output, "1: a\n") {
		t.Errorf("%.300s", res.Output)
	}
}
