package plugin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/plugin"
)

// TestTools holds what the start check and the tools in the sandbox rely on.
func TestTools(t *testing.T) {
	t.Parallel()
	tools, err := plugin.Tools()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, tool := range tools {
		ids = append(ids, tool.ID)
		if !strings.HasSuffix(tool.Description, "Runs in the session's sandbox.") {
			t.Errorf("%s: the description does not end with where it runs", tool.ID)
		}
		var schema struct {
			Type       string
			Properties map[string]map[string]any
			Required   []string
		}
		if err := json.Unmarshal(tool.Parameters, &schema); err != nil {
			t.Errorf("%s: parameters: %v", tool.ID, err)
			continue
		}
		if schema.Type != "object" {
			t.Errorf("%s: parameters are of type %q, want object", tool.ID, schema.Type)
		}
		for _, name := range schema.Required {
			if schema.Properties[name] == nil {
				t.Errorf("%s: required parameter %q has no schema", tool.ID, name)
			}
		}
	}
	want := []string{"bash", "read", "write", "edit", "apply_patch", "glob", "grep", "list", "webfetch"}
	slices.Sort(ids)
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Errorf("tools are %q, want %q", ids, want)
	}
}

// TestBundle builds the bundles again from package-lock.json, tools.json and src,
// after checking the types, and compares them with the committed ones.
func TestBundle(t *testing.T) {
	t.Parallel()
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf // A build server has what it takes.
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip("the bundle is not built again: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "tools.json", "build.mjs"} {
		copyFile(t, name, filepath.Join(dir, name))
	}
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "testdata", "seed"), 0o755); err != nil {
		t.Fatal(err)
	}
	sources, err := fs.Glob(os.DirFS("."), "src/*.ts")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	sources = append(sources, "testdata/seed/seed.ts")
	for _, name := range sources {
		copyFile(t, name, filepath.Join(dir, name))
	}

	run := func(argv ...string) (string, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"); err != nil {
		for _, code := range []string{"ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ECONNRESET"} {
			if strings.Contains(out, code) {
				skip("the bundle is not built again: the package registry cannot be reached (%s)", code)
			}
		}
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if out, err := run("node", "node_modules/typescript/bin/tsc", "--noEmit"); err != nil {
		t.Errorf("types: %v\n%s", err, out)
	}
	if out, err := run("node", "build.mjs", "out"); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, name := range []string{"dist/tongs.js", "testdata/seed/seed.js"} {
		built, err := os.ReadFile(filepath.Join(dir, "out", name))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(built, committed) {
			t.Errorf(`%s is not what its source and package-lock.json give: run "npm ci && npm run build" in plugin/ and commit it`, name)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
