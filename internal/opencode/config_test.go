package opencode_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/internal/modelproxy"
	"github.com/tongs-dev/tongs/internal/opencode"
)

const canaryKey = "sk-canary-0123456789"

// configure configures with an opencode.json of the given text.
func configure(t testing.TB, text string, env ...string) (*opencode.Configured, error) {
	t.Helper()
	return opencode.Configure(configFile(t, text, env...))
}

func configFile(t testing.TB, text string, env ...string) opencode.ConfigureOptions {
	t.Helper()
	dir := t.TempDir()
	o := opencode.ConfigureOptions{Env: append([]string{"HOME=" + dir}, env...)}
	if text != "" {
		o.File = filepath.Join(dir, "opencode.json")
		if err := os.WriteFile(o.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// content decodes what OpenCode gets.
func content(t testing.TB, c *opencode.Configured) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(c.Content, &m); err != nil {
		t.Fatalf("%v: %s", err, c.Content)
	}
	return m
}

// at returns a member by its path, nil if it is not there.
func at(v any, path ...string) any {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func route(t testing.TB, c *opencode.Configured, id string) modelproxy.Provider {
	t.Helper()
	for _, p := range c.Providers {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no route for %s: %v", id, c.Providers)
	return modelproxy.Provider{}
}

func refusedKeys(c *opencode.Configured) []string {
	var keys []string
	for _, r := range c.Refused {
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	return keys
}

func TestConfigureEnforces(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"without a file": ``,
		"against a file": `{"autoupdate": true, "share": "auto", "snapshot": true, "lsp": true, "formatter": true, "shell": "/bin/bash",
			"permission": "allow", "enabled_providers": ["opencode", "openai"], "mcp": {"x": {"type": "local", "command": ["sh"]}},
			"plugin": ["evil"], "instructions": ["/etc/passwd"], "tool_output": {"max_lines": 3}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := configure(t, text)
			if err != nil {
				t.Fatal(err)
			}
			got := content(t, c)
			for key, want := range map[string]any{
				"autoupdate": false, "share": "disabled", "snapshot": false, "lsp": false, "formatter": false,
				"tool_output": map[string]any{"max_lines": 4000.0, "max_bytes": 200000.0}, // as internal/tool's BoundedMaxLines and BoundedMaxBytes
				"shell":       opencode.DefaultShell, "mcp": nil, "plugin": nil, "instructions": nil,
				"enabled_providers": []any{"opencode"},
			} {
				if diff := cmp.Diff(want, got[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
			for _, tool := range []string{"websearch", "lsp", "skill", "execute", "plan_exit"} {
				if at(got, "permission", tool) != "deny" {
					t.Errorf("%s is %v, want deny", tool, at(got, "permission", tool))
				}
			}
		})
	}
}

func TestConfigureNamesWhatItRefuses(t *testing.T) {
	t.Parallel()
	c, err := configure(t, `{
		// a comment
		"$schema": "https://opencode.ai/config.json",
		"autoupdate": true, "share": "disabled", "snapshot": false,
		"shell": "/bin/zsh", "server": {"port": 1}, "plugin": ["p"], "instructions": ["i"],
		"mcp": {"local": {"type": "local", "command": ["x"]}, "far": {"type": "remote", "url": "https://x"}},
		"formatter": {"prettier": {}}, "lsp": {"ts": {"command": ["x"]}},
		"references": {"r": "x"}, "skills": {"urls": ["x"]}, "watcher": {"ignore": ["x"]}, "enterprise": {"url": "x"},
		"tool_output": {"max_lines": 3}, "no_such_key": 1,
		"experimental": {"openTelemetry": true, "disable_paste_summary": true},
		"permission": {"skill": "allow", "webfetch": "allow", "bash": "ask"},
		"tools": {"websearch": true, "bash": true},
		"agent": {"a": {"permission": {"skill": "allow"}, "tools": {"websearch": true}}, "b": 7},
		"command": {"bad": 7, "runs": {"template": "look: !`+"`ls`"+`"}, "good": {"template": "do $ARGUMENTS"}},
		"model": "anthropic/claude", "small_model": "nonsense",
		"provider": {
			"amazon-bedrock": {"options": {"region": "x"}}, "azure": {}, "google-vertex": {}, "github-copilot": {},
			"odd": {"npm": "left-pad", "options": {"baseURL": "https://x.example"}},
			"file": {"npm": "file:///tmp/evil.js", "options": {"baseURL": "https://x.example"}},
			"bedrock2": {"npm": "@ai-sdk/amazon-bedrock", "options": {"apiKey": "k"}},
			"nourl": {"options": {"apiKey": "k"}}, "bad/id": {"options": {"baseURL": "https://x.example"}},
			"groq": {"options": {"timeout": 5}}, "tongs": {"options": {"baseURL": "https://x.example"}},
			"fine": {"options": {"baseURL": "https://x.example", "secretThing": "s", "fetch": {"a": 1}, "timeout": 5, "includeUsage": false, "organization": "o"},
				"models": {"m": {"provider": {"api": "https://other.example"}}, "n": {"provider": {"npm": "evil"}}, "o": {}}},
		},
	}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"agent.a.permission.skill", "agent.a.tools.websearch", "agent.b", "autoupdate", "command.bad", "enterprise", "experimental.openTelemetry",
		"formatter.prettier", "instructions", "lsp.ts", "mcp.far", "mcp.local", "model", "no_such_key", "permission.skill", "plugin",
		"provider.amazon-bedrock", "provider.azure", "provider.bad/id", "provider.bedrock2", "provider.file", "provider.fine.models.m", "provider.fine.models.n",
		"provider.fine.options.fetch", "provider.fine.options.secretThing", "provider.github-copilot", "provider.google-vertex", "provider.groq",
		"provider.nourl", "provider.odd", "provider.tongs", "references.r", "server", "shell", "skills", "small_model", "tool_output", "tools.websearch", "watcher",
	}
	if diff := cmp.Diff(want, refusedKeys(c)); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	for _, r := range c.Refused {
		if len(r.Reason) < 10 {
			t.Errorf("%s has no reason: %q", r.Key, r.Reason)
		}
		for key, word := range map[string]string{"model": "ANTHROPIC_API_KEY", "provider.groq": "GROQ_API_KEY", "provider.azure": "Azure", "provider.amazon-bedrock": "Bedrock",
			"provider.google-vertex": "Vertex", "provider.github-copilot": "OAuth", "provider.nourl": "options.baseURL"} {
			if r.Key == key && !strings.Contains(r.Reason, word) {
				t.Errorf("%s: %q does not say %q", r.Key, r.Reason, word)
			}
		}
	}
	got := content(t, c)
	if diff := cmp.Diff(map[string]any{"runs": map[string]any{"template": "look: !`ls`"}, "good": map[string]any{"template": "do $ARGUMENTS"}}, got["command"]); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"disable_paste_summary": true}, got["experimental"]); diff != "" {
		t.Errorf("experimental (-want +got):\n%s", diff)
	}
	wantFine := map[string]any{
		"options": map[string]any{"baseURL": "http://127.0.0.1:4100/fine", "apiKey": modelproxy.Placeholder, "timeout": 5.0, "includeUsage": false, "organization": "o"},
		"models":  map[string]any{"o": map[string]any{}},
	}
	if diff := cmp.Diff(wantFine, at(got, "provider", "fine")); diff != "" {
		t.Errorf("provider fine (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"fine", "opencode"}, got["enabled_providers"]); diff != "" {
		t.Errorf("enabled (-want +got):\n%s", diff)
	}
	if at(got, "permission", "webfetch") != "allow" || at(got, "agent", "a", "permission", "skill") != "deny" || at(got, "agent", "b") != nil {
		t.Errorf("agents: %v", got["agent"])
	}
}

// Of the permission rules that match, the last one holds: the operator's keep
// their order, and the denials are behind them, in each agent that has rules.
func TestConfigureKeepsTheOrderOfRules(t *testing.T) {
	t.Parallel()
	c, err := configure(t, `{"permission": {"z": "ask", "websearch": "deny", "bash": {"rm *": "deny", "git *": "allow", "*": "ask"}, "*": "allow", "a": "ask"},
		"agent": {"x": {"permission": "allow"}, "y": {"tools": {"bash": false}}, "plain": {"prompt": "p"}}, "mode": {"m": {"permission": {"*": "allow"}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	text := string(c.Content)
	for _, words := range [][]string{
		{`"agent":`, `"*":"allow"`, `"websearch":"deny"`, `"y":`},
		{`"y":`, `"tools":{"bash":false}`, `"websearch":"deny"`, `"plain":{"prompt":"p"}`},
		{`"mode":`, `"*":"allow"`, `"websearch":"deny"`, `"permission":{"external_directory":"allow","z"`},
		{`"permission":{"external_directory":"allow","z":"ask"`, `"bash":{"rm *":"deny","git *":"allow","*":"ask"}`, `"*":"allow"`, `"a":"ask"`, `"websearch":"deny"`, `"codesearch":"deny"`},
	} {
		rest := text
		for _, w := range words {
			i := strings.Index(rest, w)
			if i < 0 {
				t.Fatalf("%s is not in this order in %s", words, text)
			}
			rest = rest[i+len(w):]
		}
	}
	if len(c.Refused) != 0 {
		t.Errorf("refused: %v", c.Refused)
	}
}

func TestConfigureKeysFromTheEnvironment(t *testing.T) {
	t.Parallel()
	for _, known := range modelproxy.KnownProviders() {
		for _, variable := range known.Env {
			t.Run(variable, func(t *testing.T) {
				t.Parallel()
				c, err := configure(t, "", variable+"="+canaryKey)
				if err != nil {
					t.Fatal(err)
				}
				p := route(t, c, known.ID)
				if p.Key.Reveal() != canaryKey || p.Auth != known.Auth || p.Upstream.String() != known.Base || p.Operator {
					t.Errorf("route %+v", p)
				}
				got := content(t, c)
				want := map[string]any{"options": map[string]any{"baseURL": "http://127.0.0.1:4100/" + known.ID, "apiKey": modelproxy.Placeholder}}
				if diff := cmp.Diff(want, at(got, "provider", known.ID)); diff != "" {
					t.Errorf("provider (-want +got):\n%s", diff)
				}
				ids := []any{known.ID, "opencode"}
				if known.ID == "opencode" {
					ids = ids[:1]
				}
				slices.SortFunc(ids, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
				if diff := cmp.Diff(ids, got["enabled_providers"]); diff != "" {
					t.Errorf("enabled (-want +got):\n%s", diff)
				}
				if strings.Contains(string(c.Content), canaryKey) {
					t.Errorf("the key is in %s", c.Content)
				}
			})
		}
	}
}

func TestConfigureWhichKey(t *testing.T) {
	t.Parallel()
	file := `{"provider": {"openai": {"options": {"apiKey": "of-the-file"}}}}`
	for _, tc := range []struct {
		name, text string
		env        []string
		keys       map[string]string
		want       string
	}{
		{"file over all", file, []string{"OPENAI_API_KEY=of-the-env"}, map[string]string{"openai": "of-the-keys"}, "of-the-file"},
		{"environment over keys", "", []string{"OPENAI_API_KEY=of-the-env"}, map[string]string{"openai": "of-the-keys"}, "of-the-env"},
		{"keys", "", nil, map[string]string{"openai": "of-the-keys"}, "of-the-keys"},
		{"empty variable", "", []string{"OPENAI_API_KEY="}, map[string]string{"openai": "of-the-keys"}, "of-the-keys"},
		{"named variable", `{"provider": {"openai": {"env": ["WORK_KEY"]}}}`, []string{"OPENAI_API_KEY=no", "WORK_KEY=of-work"}, nil, "of-work"},
		{"expanded", `{"provider": {"openai": {"options": {"apiKey": "{env:WORK_KEY}"}}}}`, []string{"WORK_KEY=of-\"work\\"}, nil, "of-\"work\\"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := configFile(t, tc.text, tc.env...)
			o.Keys = tc.keys
			c, err := opencode.Configure(o)
			if err != nil {
				t.Fatal(err)
			}
			if got := route(t, c, "openai").Key.Reveal(); got != tc.want {
				t.Errorf("key %q, want %q", got, tc.want)
			}
			if strings.Contains(string(c.Content), tc.want) || strings.Contains(string(c.Content), "WORK_KEY") {
				t.Errorf("OpenCode gets the key: %s", c.Content)
			}
		})
	}
}

func TestConfigureKeylessOpenCode(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no file": "", "public": `{"provider": {"opencode": {"options": {"apiKey": "public"}}}}`} {
		c, err := configure(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := route(t, c, "opencode").Key.Reveal(); got != "public" {
			t.Errorf("%s: key %q, want public", name, got)
		}
		// With a key of its own OpenCode would offer the models that cost, too.
		if diff := cmp.Diff(map[string]any{"baseURL": "http://127.0.0.1:4100/opencode"}, at(content(t, c), "provider", "opencode", "options")); diff != "" {
			t.Errorf("%s: options (-want +got):\n%s", name, diff)
		}
	}
	c, err := configure(t, `{"disabled_providers": ["opencode"]}`)
	if err != nil || len(c.Providers) != 0 || !strings.Contains(string(c.Content), `"enabled_providers":[]`) {
		t.Errorf("%v, %v: %s", err, c.Providers, c.Content)
	}
}

func TestConfigureOwnProviders(t *testing.T) {
	t.Parallel()
	c, err := configure(t, `{
		"model": "ollama/qwen", "small_model": "router/x/y",
		"provider": {
			"ollama": {"name": "Local", "npm": "@ai-sdk/openai-compatible", "options": {"baseURL": "http://127.0.0.1:11434/v1"}, "models": {"qwen": {"tool_call": true}}},
			"claude-ish": {"npm": "@ai-sdk/anthropic", "options": {"baseURL": "https://c.example/v1", "apiKey": "`+canaryKey+`"}},
			"token": {"npm": "@ai-sdk/anthropic", "options": {"baseURL": "https://c.example/v1", "authToken": "`+canaryKey+`"}},
			"gem": {"npm": "@ai-sdk/google", "options": {"baseURL": "https://g.example/v1beta", "apiKey": "`+canaryKey+`"}},
			"mixed": {"options": {"baseURL": "https://m.example", "apiKey": "`+canaryKey+`"}, "models": {"a": {"provider": {"npm": "@ai-sdk/anthropic"}}, "b": {}}},
			"router": {"api": "https://r.example/api", "env": ["R_KEY"], "models": {
				"x/y": {"headers": {"X-Model": "m1", "Authorization": "`+canaryKey+`-model"}, "options": {"reasoningEffort": "high"}},
				"alias": {"id": "real-id", "headers": {"X-Model": "m2"}}}},
			"openai": {"options": {"baseURL": "http://10.0.0.8/v1", "headers": {"X-Team": "blue", "X-Token": "`+canaryKey+`-team"}}},
		}}`, "R_KEY=router-key-1", "OPENAI_API_KEY="+canaryKey)
	if err != nil {
		t.Fatal(err)
	}
	type summary struct {
		Base, Key, Auth string
		Operator        bool
		Headers         map[string]string
		Models          map[string]map[string]string
	}
	got := map[string]summary{}
	reveal := func(m map[string]modelproxy.Secret) map[string]string {
		var out map[string]string
		for k, v := range m {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v.Reveal()
		}
		return out
	}
	for _, p := range c.Providers {
		s := summary{Base: p.Upstream.String(), Key: p.Key.Reveal(), Auth: p.Auth.String(), Operator: p.Operator, Headers: reveal(p.Headers)}
		for m, h := range p.ModelHeaders {
			if s.Models == nil {
				s.Models = map[string]map[string]string{}
			}
			s.Models[m] = reveal(h)
		}
		got[p.ID] = s
	}
	want := map[string]summary{
		"ollama":     {"http://127.0.0.1:11434/v1", "", "authorization", true, nil, nil},
		"claude-ish": {"https://c.example/v1", canaryKey, "x-api-key", true, nil, nil},
		"token":      {"https://c.example/v1", canaryKey, "authorization", true, nil, nil},
		"gem":        {"https://g.example/v1beta", canaryKey, "x-goog-api-key", true, nil, nil},
		"mixed":      {"https://m.example", canaryKey, "by path", true, nil, nil},
		"router": {"https://r.example/api", "router-key-1", "authorization", true, nil,
			map[string]map[string]string{"x/y": {"X-Model": "m1", "Authorization": canaryKey + "-model"}, "real-id": {"X-Model": "m2"}}},
		"openai":   {"http://10.0.0.8/v1", canaryKey, "authorization", true, map[string]string{"X-Team": "blue", "X-Token": canaryKey + "-team"}, nil},
		"opencode": {"https://opencode.ai/zen/v1", "public", "by path", false, nil, nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if len(c.Refused) != 0 {
		t.Errorf("refused: %v", c.Refused)
	}
	text := string(c.Content)
	for _, word := range []string{canaryKey, "router-key-1", "R_KEY", "blue", "X-Model", "11434", "c.example", `"headers"`} {
		if strings.Contains(text, word) {
			t.Errorf("OpenCode gets %q: %s", word, text)
		}
	}
	if got := at(content(t, c), "provider", "router", "models", "x/y", "options", "reasoningEffort"); got != "high" {
		t.Errorf("a model's options were lost: %v", got)
	}
	for _, m := range []opencode.Model{{Provider: "ollama", ID: "qwen"}, {Provider: "router", ID: "x/y"}, {Provider: "router", ID: "real-id"}, {Provider: "mixed", ID: "a"}} {
		if !slices.Contains(c.Models, m) {
			t.Errorf("%v is not among the models: %v", m, c.Models)
		}
	}
	if _, err := modelproxy.New(modelproxy.Config{Providers: c.Providers}); err != nil {
		t.Error(err)
	}
}

func TestConfigureScripted(t *testing.T) {
	t.Parallel()
	o := configFile(t, `{"enabled_providers": [], "model": "tongs/scripted"}`)
	o.Scripted = "http://127.0.0.1:4321/v1"
	c, err := opencode.Configure(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := route(t, c, "tongs").Upstream.String(); got != "http://127.0.0.1:4321/v1" {
		t.Errorf("upstream %s", got)
	}
	got := content(t, c)
	if at(got, "provider", "tongs", "models", "scripted") == nil || got["model"] != "tongs/scripted" || len(c.Refused) != 0 {
		t.Errorf("%v; refused %v", got, c.Refused)
	}
	if diff := cmp.Diff([]any{"tongs"}, got["enabled_providers"]); diff != "" {
		t.Errorf("enabled (-want +got):\n%s", diff)
	}
}

// What the operator has left open: paths outside the project are in the same sandbox, and the scripted
// model is the default of whoever has asked for it and set up no other.
func TestConfigureDefaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file       string
		keys             map[string]string
		model, directory any
	}{
		{"nothing set", `{}`, nil, "tongs/scripted", "allow"},
		{"an own model", `{"model": "opencode/big-pickle"}`, nil, "opencode/big-pickle", "allow"},
		{"a key", `{}`, map[string]string{"groq": "gsk-0123456789"}, nil, "allow"},
		{"an own rule", `{"permission": {"external_directory": "ask"}}`, nil, "tongs/scripted", "ask"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := configFile(t, tc.file)
			o.Scripted, o.Keys = "http://127.0.0.1:4321/v1", tc.keys
			c, err := opencode.Configure(o)
			if err != nil {
				t.Fatal(err)
			}
			got := content(t, c)
			if got["model"] != tc.model || at(got, "permission", "external_directory") != tc.directory {
				t.Errorf("model %v, external_directory %v, want %v and %v", got["model"], at(got, "permission", "external_directory"), tc.model, tc.directory)
			}
		})
	}
}

func TestConfigureExpands(t *testing.T) {
	t.Parallel()
	o := configFile(t, `{
		"username": "{env:WHO}", "agent": {"a": {"prompt": "{file:prompt.txt}"}, "b": {"prompt": "{file:~/prompt.txt} {env:NONE}!"},
		"c": {"prompt": "keep {env:} {other:x} { env:WHO}"}}, // {file:none}
	}`, `WHO=a "quoted" \ {env:HOME} {file:/etc/passwd} name`)
	if err := os.WriteFile(filepath.Join(filepath.Dir(o.File), "prompt.txt"), []byte("\n line \"one\"\n{env:WHO}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := opencode.Configure(o)
	if err != nil {
		t.Fatal(err)
	}
	got := content(t, c)
	for want, v := range map[string]any{
		`a "quoted" \ {env:HOME} {file:/etc/passwd} name`: got["username"],
		"line \"one\"\n{env:WHO}":                         at(got, "agent", "a", "prompt"),
		"line \"one\"\n{env:WHO} !":                       at(got, "agent", "b", "prompt"),
		"keep {env:} {other:x} { env:WHO}":                at(got, "agent", "c", "prompt"),
	} {
		if v != want {
			t.Errorf("%q, want %q", v, want)
		}
	}
	// OpenCode would expand these in the text once more.
	if text := string(c.Content); strings.Contains(text, "{env:") || strings.Contains(text, "{file:") {
		t.Errorf("something is left to expand: %s", text)
	}
	if diff := cmp.Diff([]string{"agent.b.prompt"}, refusedKeys(c)); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
}

func TestConfigureErrors(t *testing.T) {
	t.Parallel()
	prov := func(s string) string { return `{"provider": {"x": ` + s + `}}` }
	for name, tc := range map[string]struct{ text, word string }{
		"not JSON":             {`{"a": `, "not JSON"},
		"the line":             {"{\n\"a\": 1,\n\"b\": x}", "line 3"},
		"twice":                {`{"model": "a/b", "model": "c/d"}`, "duplicate"},
		"a list":               {`[]`, "must begin with {"},
		"too deep":             {strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), "deep"},
		"too large":            {`{"username": "` + strings.Repeat("x", 2<<20) + `"}`, "more than"},
		"too large at last":    {`{"username": "` + strings.Repeat("x", 130<<10) + `"}`, "shorten"},
		"missing file":         {`{"agent": {"a": {"prompt": "{file:none.txt}"}}}`, "agent.a.prompt"},
		"a device":             {`{"agent": {"a": {"prompt": "{file:/dev/zero}"}}}`, "regular file"},
		"base URL":             {prov(`{"options": {"baseURL": "not a url"}}`), "provider.x"},
		"variable of OpenCode": {prov(`{"options": {"baseURL": "https://${HOST}/"}}`), "{env:NAME}"},
		"password in URL":      {prov(`{"options": {"baseURL": "https://me:` + canaryKey + `@x.example/"}}`), "no user"},
		"key in query":         {prov(`{"options": {"baseURL": "https://x.example/?k=` + canaryKey + `"}}`), "query"},
		"header":               {prov(`{"options": {"baseURL": "https://x.example/", "headers": {"a b": "` + canaryKey + `"}}}`), "header name"},
		"line break in key":    {prov(`{"options": {"baseURL": "https://x.example/", "apiKey": "` + canaryKey + `\nX: y"}}`), "line break"},
		"key elsewhere":        {`{"username": "` + canaryKey + `", "provider": {"openai": {"options": {"apiKey": "` + canaryKey + `"}}}}`, "username holds the key"},
		"key as a name":        {`{"agent": {"` + canaryKey + `": {}}, "provider": {"openai": {"options": {"apiKey": "` + canaryKey + `"}}}}`, "holds the key"},
		"token elsewhere":      {`{"username": "` + canaryKey + `", "provider": {"openai": {"options": {"apiKey": "k", "headers": {"X-Token": "` + canaryKey + `"}}}}}`, "holds the header X-Token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := configure(t, tc.text)
			var ce *opencode.ConfigError
			if !errors.As(err, &ce) || !strings.Contains(err.Error(), tc.word) {
				t.Fatalf("%v, want a ConfigError with %q", err, tc.word)
			}
			if ce.File == "" || ce.Hint == "" || strings.Contains(err.Error(), canaryKey) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: file %q, hint %q", err, ce.File, ce.Hint)
			}
		})
	}
	for _, file := range []string{"/no/such/opencode.json", "/dev/null", t.TempDir()} {
		_, err := opencode.Configure(opencode.ConfigureOptions{File: file, Env: []string{}})
		if err == nil || !strings.Contains(err.Error(), "--opencode-config") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestConfigureNamesLogins(t *testing.T) {
	t.Parallel()
	o := configFile(t, "", "OPENAI_API_KEY=k")
	dir := filepath.Join(strings.TrimPrefix(o.Env[0], "HOME="), ".local", "share", "opencode")
	os.MkdirAll(dir, 0o700)
	if err := os.WriteFile(filepath.Join(dir, "auth.json"), []byte(`{"anthropic": {"type": "oauth", "refresh": "`+canaryKey+`"}, "openai": {"type": "api", "key": "x"}, "groq": {"type": "api", "key": "`+canaryKey+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := opencode.Configure(o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"login anthropic", "login groq"}, refusedKeys(c)); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	if all := fmt.Sprint(c.Refused, string(c.Content)); strings.Contains(all, canaryKey) || !strings.Contains(all, "OAuth") {
		t.Error(all)
	}
}

func FuzzConfigure(f *testing.F) {
	for _, s := range []string{`{}`, `{"provider":{"x":{"options":{"baseURL":"http://h/","apiKey":"{env:K}","headers":{"a":"b"}},"models":{"m":{"headers":{"c":"d"}}}}}}`,
		`{"agent":{"a":{"permission":"allow","tools":{"webfetch":true}}},"mode":{}}`, `{"permission":{"*":"allow"},"tools":{"*":true}}`,
		`{"enabled_providers":["opencode",1],"disabled_providers":{}}`, `{"model":"a","command":{"c":{"template":1}}}`, `{"username":"{env:K} {file:x} \u007benv:K}"}`, "{//\n}", `{"provider":{"opencode":{"options":7,"models":[]}}}`} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, fmt.Sprintf("%d.json", os.Getpid()))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := opencode.Configure(opencode.ConfigureOptions{File: file, Env: []string{"K=" + canaryKey, "OPENAI_API_KEY=" + canaryKey}})
		if err != nil {
			return
		}
		got := content(t, c)
		if s := string(c.Content); strings.Contains(s, canaryKey) || strings.Contains(s, "{env:") || strings.Contains(s, "{file:") {
			t.Errorf("%q became %s", text, s)
		}
		if got["shell"] != opencode.DefaultShell || at(got, "permission", "websearch") != "deny" || got["mcp"] != nil || got["plugin"] != nil {
			t.Errorf("%q became %s", text, c.Content)
		}
		if _, err := modelproxy.New(modelproxy.Config{Providers: c.Providers}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
