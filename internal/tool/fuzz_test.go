package tool_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/internal/tool/tooltest"
)

func FuzzPatch(f *testing.F) {
	for _, g := range tooltest.PatchCases() {
		f.Add(g.Args["patchText"].(string), g.Files["a.txt"])
	}
	f.Fuzz(func(t *testing.T, patch, text string) {
		n, err := tool.ParsePatch(patch)
		if err == nil && n > strings.Count(patch, "***") {
			t.Fatalf("%d sections", n)
		}
		got, err := tool.ApplyPatchText(patch, text)
		if err == nil && got != text && got != "" && !strings.HasSuffix(got, "\n") {
			t.Fatalf("%q does not end in a newline", got)
		}
	})
}

func FuzzReplace(f *testing.F) {
	for _, g := range tooltest.EditCases() {
		all, _ := g.Args["replaceAll"].(bool)
		f.Add(g.Files["a.txt"], g.Args["oldString"].(string), g.Args["newString"].(string), all)
	}
	f.Fuzz(func(t *testing.T, content, old, new string, all bool) {
		if old == "" || old == new {
			return
		}
		got, err := tool.Replace(content, old, new, all)
		if err != nil {
			if got != "" {
				t.Fatalf("%q beside an error", got)
			}
			return
		}
		if strings.Contains(content, old) && all && got != strings.ReplaceAll(content, old, new) {
			t.Fatalf("exact matches were not all replaced: %q", got)
		}
	})
}

func FuzzPattern(f *testing.F) {
	for _, g := range tooltest.SearchCases() {
		f.Add(g.Args["pattern"].(string), "lib/deep/er/x.ts")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		_, _ = tool.MatchPattern(pattern, path, false)
	})
}

func FuzzCommand(f *testing.F) {
	f.Add("A=(")
	for _, g := range tooltest.BashCases() {
		f.Add(g.Args["command"].(string))
	}
	f.Fuzz(func(t *testing.T, line string) {
		patterns, _, read := tool.ScanCommand(line)
		if !read && (len(patterns) != 1 || patterns[0] != line) {
			t.Fatalf("a line that can't be read is asked for as %q", patterns)
		}
	})
}

// FuzzCall hands a tool any JSON: an answer or an error, no panic, nothing that
// is no UTF-8, nothing too long.
func FuzzCall(f *testing.F) {
	for _, all := range [][]tooltest.Case{tooltest.ReadCases(), tooltest.SearchCases(), tooltest.EditCases()} {
		for _, g := range all {
			text, _ := json.Marshal(g.Args)
			f.Add(g.Tool, string(text))
		}
	}
	f.Fuzz(func(t *testing.T, name, args string) {
		if name == "bash" || strings.Contains(args, "/") || strings.Contains(args, "..") || strings.Contains(args, `\`) {
			return // stay within the project
		}
		b := newBench(t, map[string]string{"a.txt": "one\ntwo\n\xff\n", "d/b.go": "package b\n"})
		must(t, os.Mkdir(b.path("e"), 0o755))
		res, err := b.call(name, json.RawMessage(args))
		if err != nil {
			return
		}
		if !utf8.ValidString(res.Output) || !utf8.ValidString(res.Title) {
			t.Fatalf("%q", res.Output)
		}
		if _, err := json.Marshal(res); err != nil {
			t.Fatal(err)
		}
	})
}
