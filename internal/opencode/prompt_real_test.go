package opencode_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// TestSystemPromptAsBuiltIn holds that a model is told of the sandbox what OpenCode tells of the
// machine it runs on: directory, git, platform and the files of instructions, word for word.
func TestSystemPromptAsBuiltIn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	realBinary(t)
	root, err := filepath.EvalSymlinks(t.TempDir())
	mustDo(t, err)
	theirHome, ourHome := filepath.Join(root, "a"), filepath.Join(root, "b")
	for _, home := range []string{theirHome, ourHome} {
		mustDo(t, os.Mkdir(home, 0o755))
		newProject(t, filepath.Join(home, "project"))
	}
	content := func(model string) []byte { // no skills there either
		var c map[string]any
		mustDo(t, json.Unmarshal(testContent(model), &c))
		c["permission"] = map[string]any{"webfetch": "deny", "websearch": "deny", "skill": "deny"}
		text, err := json.Marshal(c)
		mustDo(t, err)
		return text
	}
	boxes := &guests{all: newGuest(t, guest.Config{Project: filepath.Join(ourHome, "project"), LeaseSeconds: -1,
		User: guest.User{Root: os.Geteuid() == 0, Home: ourHome}})}
	model := scriptmodel.New(scriptmodel.Options{})
	theirs := bareRig(t, theirHome, model, content, "OPENCODE_DISABLE_PROJECT_CONFIG=")
	ours := newRigWith(t, rigOptions{model: model, content: content, sandboxes: boxes})
	// What the agent host has does not count.
	mustDo(t, os.WriteFile(filepath.Join(ours.project, "AGENTS.md"), []byte("of the agent host"), 0o644))

	ctx := deadline(t, 4*time.Minute)
	system := func(r *rig, session string) string {
		t.Helper()
		parts := r.prompt(ctx, session, scripted, map[string]any{"text": "{{system}}"})
		text := ""
		for _, p := range parts {
			if p.Type == "text" {
				text = p.Text // of the last answer
			}
		}
		return text
	}
	theirSession, ourSession := theirs.session(ctx, "", nil), ours.session(ctx, "", nil)
	big := strings.Repeat("a line of advice\n", 2000)
	for _, step := range []struct {
		name  string
		files map[string]string // below home; "" removes one
		words string            // that ours has to have
		never string
	}{
		{"none", nil, "/b/project\n", "of the agent host"},
		{"of the project", map[string]string{"project/AGENTS.md": "Be brief.\n", "project/CLAUDE.md": "Be long."}, "project/AGENTS.md\nBe brief.", "Be long"},
		{"changed", map[string]string{"project/AGENTS.md": "Be blunt.\n"}, "Be blunt.", "Be brief"},
		{"another name", map[string]string{"project/AGENTS.md": ""}, "project/CLAUDE.md\nBe long.", "Be blunt"},
		{"of the user", map[string]string{".claude/CLAUDE.md": "Be kind."}, "Be kind.", ""},
		{"of the user, in OpenCode's place", map[string]string{".config/opencode/AGENTS.md": "Be \u00e9xact."}, "Be \u00e9xact.", "Be kind"},
		{"large", map[string]string{"project/CLAUDE.md": big}, big, ""},
		{"empty", map[string]string{"project/CLAUDE.md": "", "project/CONTEXT.md": " ", ".config/opencode/AGENTS.md": ""}, "project/CONTEXT.md\n ", ""},
	} {
		for _, home := range []string{theirHome, ourHome} {
			for name, text := range step.files {
				path := filepath.Join(home, name)
				if text == "" {
					mustDo(t, os.Remove(path))
					continue
				}
				mustDo(t, os.MkdirAll(filepath.Dir(path), 0o755))
				mustDo(t, os.WriteFile(path, []byte(text), 0o644))
			}
		}
		a, b := system(theirs, theirSession), system(ours, ourSession)
		if diff := cmp.Diff(strings.ReplaceAll(a, theirHome, ourHome), b); diff != "" {
			t.Errorf("%s: OpenCode's own (-) and ours (+):\n%s", step.name, diff)
		}
		if !strings.Contains(b, step.words) || step.never != "" && strings.Contains(b, step.never) {
			t.Errorf("%s: the prompt has to have %.100q and must not have %q:\n%.5000s", step.name, step.words, step.never, b)
		}
	}

	t.Run("configuration in the project has no effect", func(t *testing.T) {
		for name, text := range map[string]string{
			"opencode.json":           `{"instructions": ["EXTRA.md"], "permission": {"bash": "deny"}, "command": {"evil": {"template": "x"}}}`,
			"EXTRA.md":                "of a hostile file",
			".opencode/command/e2.md": "evil2",
			".opencode/plugins/e.js":  `require("fs").writeFileSync("` + ourHome + `/escaped", "x")`,
			".env":                    "EVIL=1",
		} {
			path := filepath.Join(ourHome, "project", name)
			mustDo(t, os.MkdirAll(filepath.Dir(path), 0o755))
			mustDo(t, os.WriteFile(path, []byte(text), 0o644))
		}
		session := ours.session(ctx, "", nil)
		if text := system(ours, session); strings.Contains(text, "hostile") {
			t.Error("the project's opencode.json added instructions")
		}
		parts := tools(ours.prompt(ctx, session, scripted, bash("echo $EVIL runs"), map[string]any{"text": "ok"}))
		if len(parts) != 1 || parts[0].State.Output != "runs\n" {
			t.Errorf("bash: %+v", parts)
		}
		var commands []struct{ Name string }
		ours.api(ctx, "GET", "/command", nil, &commands)
		for _, c := range commands {
			if c.Name == "evil" || c.Name == "e2" {
				t.Errorf("there is a command %s", c.Name)
			}
		}
		if _, err := os.Stat(filepath.Join(ourHome, "escaped")); err == nil {
			t.Error("the project's plugin ran")
		}
	})
}
