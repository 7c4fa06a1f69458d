package tool_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tongs-dev/tongs/internal/tool"
)

func FuzzPatch(f *testing.F) {
	for _, g := range patchGoldens() {
		f.Add(g.args["patchText"].(string), g.files["a.txt"])
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
	for _, g := range editGoldens() {
		all, _ := g.args["replaceAll"].(bool)
		f.Add(g.files["a.txt"], g.args["oldString"].(string), g.args["newString"].(string), all)
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
	for _, g := range searchGoldens() {
		f.Add(g.args["pattern"].(string), "lib/deep/er/x.ts")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		_, _ = tool.MatchPattern(pattern, path, false)
	})
}

func FuzzCommand(f *testing.F) {
	f.Add("A=(")
	for _, g := range bashGoldens() {
		f.Add(g.args["command"].(string))
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
	for _, all := range [][]golden{readGoldens(), searchGoldens(), editGoldens()} {
		for _, g := range all {
			text, _ := json.Marshal(g.args)
			f.Add(g.tool, string(text))
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
