package tool_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestArguments(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"a.txt": "one\n"})
	long := strings.Repeat("x", 10<<20)
	for _, c := range []struct {
		tool  string
		args  any
		words []string
	}{
		{"read", m{}, []string{"The read tool was called with invalid arguments", `"filePath"`, "a string"}},
		{"read", m{"filePath": 5}, []string{`"filePath" must be a string, got a number`}},
		{"read", m{"filePath": []string{"a"}}, []string{"got an array"}},
		{"read", m{"filePath": ""}, []string{"filePath is required"}},
		{"read", m{"filePath": "a\x00b"}, []string{"NUL"}},
		{"read", m{"filePath": long}, []string{"4095"}},
		{"read", m{"filePath": "a.txt", "offset": "2"}, []string{`"offset" must be an integer, got a string`}},
		{"read", m{"filePath": "a.txt", "offset": -1}, []string{`"offset"`, "from 0"}},
		{"read", m{"filePath": "a.txt", "limit": 1.5}, []string{`"limit" must be an integer, got a fraction`}},
		{"read", m{"filePath": "a.txt", "limit": 1e300}, []string{`"limit"`}},
		{"read", json.RawMessage(`[1]`), []string{"expected a JSON object, got an array"}},
		{"read", json.RawMessage(`null`), []string{"expected a JSON object"}},
		{"read", json.RawMessage(`{"filePath":`), []string{"not JSON"}},
		{"write", m{"filePath": "a.txt"}, []string{`"content"`}},
		{"write", m{"filePath": "a.txt", "content": true}, []string{"got a boolean"}},
		{"edit", m{"filePath": "a.txt", "oldString": "a"}, []string{`"newString"`}},
		{"edit", m{"filePath": "a.txt", "oldString": "a", "newString": "b", "replaceAll": "yes"}, []string{`"replaceAll" must be true or false`}},
		{"edit", m{"filePath": "a.txt", "oldString": long, "newString": "b"}, []string{"Could not find oldString"}},
		{"apply_patch", m{}, []string{`"patchText"`}},
		{"apply_patch", m{"patchText": long}, []string{"missing Begin/End markers"}},
		{"apply_patch", m{"patchText": "*** Begin Patch\n*** Add File: a\x00b\n+x\n*** End Patch"}, []string{"NUL"}},
		{"apply_patch", m{"patchText": "*** Begin Patch\n*** Add File: " + long + "\n+x\n*** End Patch"}, []string{"4095"}},
		{"glob", m{"pattern": 1}, []string{`"pattern"`}},
		{"glob", m{"pattern": "a\x00"}, []string{"NUL"}},
		{"glob", m{"pattern": long}, []string{"16384"}},
		{"glob", m{"pattern": "["}, []string{"unclosed character class"}},
		{"glob", m{"pattern": "{a"}, []string{"unclosed alternate"}},
		{"glob", m{"pattern": strings.Repeat("{a,", 40) + strings.Repeat("}", 40)}, []string{"braces"}},
		{"grep", m{"pattern": ""}, []string{"pattern is required"}},
		{"grep", m{"pattern": long}, []string{"KiB"}},
		{"grep", m{"pattern": "("}, []string{"regex parse error"}},
		{"grep", m{"pattern": "(?=x)"}, []string{"look-around"}},
		{"grep", m{"pattern": `a\nb`}, []string{"each line"}},
		{"grep", m{"pattern": "x{1000}{1000}{1000}"}, []string{"regex parse error"}},
		{"grep", m{"pattern": "a", "include": "["}, []string{"unclosed"}},
		{"bash", m{}, []string{`"command"`}},
		{"bash", m{"command": "a\x00b"}, []string{"NUL"}},
		{"bash", m{"command": long}, []string{"131071"}},
		{"bash", m{"command": "true", "timeout": 0}, []string{`"timeout"`, "from 1"}},
		{"bash", m{"command": "true", "timeout": -5}, []string{`"timeout"`}},
		{"list", m{"path": 3}, []string{`"path"`}},
	} {
		b.fails(sandbox.CodeInvalidArgument, c.tool, c.args, c.words...)
	}
	b.fails(sandbox.CodeToolNotFound, "nothing", m{}, "no tool", "apply_patch, bash")
	if got := b.get("a.txt"); got != "one\n" {
		t.Errorf("wrong arguments changed the file: %q", got)
	}
	b.ok("read", m{"filePath": "a.txt", "offset": nil, "limit": nil, "more": []int{1}})
	b.ok("list", json.RawMessage(``))
}

// TestDescriptions compares with what OpenCode is told about the tools.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../plugin/tools.json")
	must(t, err)
	var all []struct {
		ID, Description, Permission string
		Parameters                  struct {
			Properties map[string]struct{ Type string }
			Required   []string
		}
	}
	must(t, json.Unmarshal(data, &all))
	var ids []string
	for _, d := range all {
		if d.ID == "webfetch" {
			continue // carried out outside of sandboxes, in internal/webfetch
		}
		ids = append(ids, d.ID)
		if !strings.HasSuffix(d.Description, " Runs in the session's sandbox.") {
			t.Errorf("%s: the description does not end with where it runs", d.ID)
		}
		// Each parameter is one that the tool looks at, of that type.
		for name, p := range d.Parameters.Properties {
			args := map[string]any{}
			for _, r := range d.Parameters.Required {
				args[r] = "x"
			}
			args[name] = map[string]any{}
			b := newBench(t, nil)
			want := map[string]string{"string": "must be a string", "integer": "must be an integer", "boolean": "must be true or false"}[p.Type]
			b.fails(sandbox.CodeInvalidArgument, d.ID, args, `"`+name+`" `+want)
		}
		for _, name := range d.Parameters.Required {
			args := map[string]any{}
			for _, r := range d.Parameters.Required {
				if r != name {
					args[r] = "x"
				}
			}
			newBench(t, nil).fails(sandbox.CodeInvalidArgument, d.ID, args, `missing key "`+name+`"`)
		}
	}
	slices.Sort(ids)
	if want := tool.Names(); !slices.Equal(ids, want) {
		t.Errorf("described: %v, there are: %v", ids, want)
	}
}
