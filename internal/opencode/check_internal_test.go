package opencode

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestDenied(t *testing.T) {
	t.Parallel()
	deny := func(permission, pattern string) rule { return rule{permission, pattern, "deny"} }
	allow := func(permission string) rule { return rule{permission, "*", "allow"} }
	for name, tc := range map[string]struct {
		tool  string
		rules []rule
		want  bool
	}{
		"no rules":                 {"webfetch", nil, false},
		"denied":                   {"webfetch", []rule{allow("*"), deny("webfetch", "*")}, true},
		"denied by a wildcard":     {"webfetch", []rule{deny("web*", "*")}, true},
		"all denied":               {"webfetch", []rule{deny("*", "*")}, true},
		"allowed again":            {"webfetch", []rule{deny("webfetch", "*"), allow("*")}, false},
		"denied in part":           {"webfetch", []rule{deny("webfetch", "https://*")}, false},
		"another":                  {"websearch", []rule{deny("webfetch", "*")}, false},
		"asked":                    {"webfetch", []rule{{"webfetch", "*", "ask"}}, false},
		"write goes by edit":       {"write", []rule{deny("edit", "*")}, true},
		"write does not by write":  {"write", []rule{deny("write", "*")}, false},
		"MCP resources go by read": {"read_mcp_resource", []rule{deny("read", "*")}, true},
	} {
		if got := denied(tc.tool, tc.rules); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// ownTools is what OpenCode offers when all is well.
func ownTools(t testing.TB) ([]plugin.Tool, []offered) {
	ours, err := plugin.Tools()
	if err != nil {
		t.Fatal(err)
	}
	var list []offered
	for _, tool := range ours {
		list = append(list, offered{tool.ID, tool.Description, tool.Parameters})
	}
	return ours, list
}

func TestCheckTools(t *testing.T) {
	t.Parallel()
	ours, good := ownTools(t)
	model := Model{"p", "m"}
	agents := []agent{{"build", []rule{{"*", "*", "allow"}, {"websearch", "*", "deny"}}}}
	builtin := func(id string) offered { return offered{ID: id, Description: "built in"} }
	without := func(id string) []offered {
		var list []offered
		for _, o := range good {
			if o.ID != id {
				list = append(list, o)
			}
		}
		return list
	}
	changed := append([]offered(nil), good...)
	changed[0].Parameters = json.RawMessage(`{"type":"object","properties":{"other":{}}}`)
	for name, tc := range map[string]struct {
		tools []offered
		names string // what the error names; "" is no error
	}{
		"ours":                         {good, ""},
		"ours over the built-in":       {append([]offered{builtin("bash"), builtin("edit")}, good...), ""},
		"the built-in over ours":       {append(append([]offered(nil), good...), builtin("grep")), "grep"},
		"one is missing":               {without("bash"), "bash"},
		"none":                         {nil, "bash"},
		"other parameters":             {changed, good[0].ID},
		"harmless":                     {append([]offered{builtin("todowrite"), builtin("question")}, good...), ""},
		"denied":                       {append([]offered{builtin("websearch")}, good...), ""},
		"unknown":                      {append([]offered{builtin("teleport")}, good...), "teleport"},
		"no apply_patch for this kind": {without("apply_patch"), ""},
	} {
		err := checkTools(model, tc.tools, ours, agents)
		if tc.names == "" && err != nil || tc.names != "" && (sandbox.CodeOf(err) != CodeToolNotOurs || !strings.Contains(err.Error(), " "+tc.names+" ")) {
			t.Errorf("%s: %v, want an error that names %q", name, err, tc.names)
		}
	}
	if err := checkTools(model, append([]offered{builtin("websearch")}, good...), ours, nil); err == nil {
		t.Error("without agents nothing can be denied, and yet there is no error")
	}
	if err := checkTools(model, append([]offered{builtin("websearch")}, good...), ours, append(agents, agent{Name: "loose"})); err == nil || !strings.Contains(err.Error(), "loose") {
		t.Errorf("one agent is not denied it: %v", err)
	}
}

func TestNamedModels(t *testing.T) {
	t.Parallel()
	got := namedModels([]byte(`{"model":"a/b/c","small_model":"odd","provider":{"p":{"models":{"y":{},"x":null}},"o":{}}}`))
	if want := []Model{{"a", "b/c"}, {"p", "x"}, {"p", "y"}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := namedModels([]byte(`[]`)); got != nil {
		t.Errorf("%v", got)
	}
}

// FuzzCheckTools holds that whatever OpenCode answers, a tool that is not ours
// passes only when it is harmless or denied.
func FuzzCheckTools(f *testing.F) {
	f.Add(`[{"id":"bash","description":"x"}]`, `[{"name":"a","permission":[{"permission":"*","pattern":"*","action":"deny"}]}]`)
	f.Add(`[{"id":"bash","parameters":{"required":[1,{}],"type":null}}]`, `[]`)
	f.Fuzz(func(t *testing.T, toolText, agentText string) {
		var extra []offered
		var agents []agent
		if json.Unmarshal([]byte(toolText), &extra) != nil || json.Unmarshal([]byte(agentText), &agents) != nil {
			return
		}
		ours, good := ownTools(t)
		if checkTools(Model{"p", "m"}, append(good, extra...), ours, agents) != nil {
			return
		}
		for _, o := range extra {
			own := false
			for _, tool := range ours {
				own = own || tool.ID == o.ID
			}
			if own || harmless[o.ID] {
				continue
			}
			for _, a := range agents {
				if !denied(o.ID, a.Permission) {
					t.Errorf("%q passed and agent %q may use it", o.ID, a.Name)
				}
			}
			if len(agents) == 0 {
				t.Errorf("%q passed and nobody is denied it", o.ID)
			}
		}
	})
}

// FuzzWildcard compares with the obvious recursive matcher.
func FuzzWildcard(f *testing.F) {
	for _, s := range [][2]string{{"*", ""}, {"web*", "webfetch"}, {"a?c", "abc"}, {"**x*", "yxz"}, {"", "a"}, {"*a*b", "aab"}} {
		f.Add(s[0], s[1])
	}
	var match func(p, s string) bool
	match = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return match(p[1:], s) || s != "" && match(p, s[1:])
		}
		return s != "" && (p[0] == '?' || p[0] == s[0]) && match(p[1:], s[1:])
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 24 {
			return // The obvious one takes exponential time.
		}
		if got, want := wildcard(p, s), match(p, s); got != want {
			t.Errorf("wildcard(%q, %q) is %v, want %v", p, s, got, want)
		}
	})
}
