package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

// golden is a call that the built-in and we carry out on the same files.
type golden struct {
	name  string
	files map[string]string // before, below the project
	tool  string
	args  map[string]any
	// differs says why ours is another answer on purpose; then check, if any,
	// says what it has to be.
	differs string
	check   func(t *testing.T, theirs, ours outcome)
}

func (g golden) lay(t *testing.T, project string) {
	t.Helper()
	entries, err := os.ReadDir(project)
	must(t, err)
	for _, e := range entries {
		if e.Name() != ".git" {
			must(t, os.RemoveAll(filepath.Join(project, e.Name())))
		}
	}
	for name, text := range g.files {
		path := filepath.Join(project, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch target, link := strings.CutPrefix(text, "->"); {
		case link:
			must(t, os.Symlink(target, path))
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(path, 0o755))
		default:
			must(t, os.WriteFile(path, []byte(text), 0o644))
		}
	}
}

// tree reads all files below the project back.
func tree(t *testing.T, project string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(project, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == ".git" {
			if d != nil && d.IsDir() && err == nil {
				return filepath.SkipDir
			}
			return err
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		}
		return nil
	}))
	return files
}

// within puts the project's path into the arguments.
func within(project string, args map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range args {
		if s, ok := v.(string); ok {
			v = strings.ReplaceAll(s, "{P}", project)
		}
		out[k] = v
	}
	return out
}

// ours runs our tool on the project.
func ours(t *testing.T, project, home, name string, args map[string]any, rg string) outcome {
	t.Helper()
	text, err := json.Marshal(args)
	must(t, err)
	var out outcome
	env := tool.Env{
		Directory: project, Worktree: project, Home: home, OutputDir: filepath.Join(home, "output"),
		Shell: hostShell{}, Environ: os.Environ(), Ripgrep: rg,
		// As large as what the built-ins give without cutting once more.
		MaxLines: 4000, MaxBytes: 200_000,
		Session: t.Name(), Instructions: new(tool.Instructions),
	}
	if name == "bash" {
		env.MaxLines, env.MaxBytes = 0, 0
	}
	hooks := tool.Hooks{Ask: func(_ context.Context, req tool.AskRequest) error {
		out.Asks = append(out.Asks, ask{req.Permission, req.Patterns, req.Always, req.Metadata})
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	res, err := tool.Call(ctx, env, name, text, hooks)
	if err != nil {
		var e *sandbox.Error
		if !errors.As(err, &e) {
			t.Fatalf("an error without a code: %v", err)
		}
		out.Error = e.Message
		return out
	}
	out.Title, out.Output, out.Metadata = res.Title, res.Output, res.Metadata
	for _, a := range res.Attachments {
		out.Attachments = append(out.Attachments, map[string]any{"type": a.Type, "mime": a.Mime, "url": a.URL})
	}
	return out
}

var savedTo = regexp.MustCompile(`Full output saved to: \S+`)

// plain makes outcomes comparable: as JSON, without what no two runs share.
func plain(t *testing.T, o outcome, tool string) outcome {
	t.Helper()
	text, err := json.Marshal(o)
	must(t, err)
	var out outcome
	must(t, json.Unmarshal(text, &out))
	out.Output = savedTo.ReplaceAllString(out.Output, "Full output saved to: FILE")
	if out.Metadata["outputPath"] != nil {
		out.Metadata["outputPath"] = "FILE"
	}
	if tool != "bash" && tool != "read" && tool != "glob" && tool != "grep" {
		delete(out.Metadata, "truncated") // OpenCode sets it for every tool
	}
	for i := range out.Attachments {
		for _, key := range []string{"id", "sessionID", "messageID"} {
			delete(out.Attachments[i], key)
		}
	}
	if len(out.Attachments) == 0 {
		out.Attachments = nil
	}
	if out.Error != "" {
		out.Metadata = nil // of a failed call it is what was shown while it ran
	}
	if tool == "glob" || tool == "grep" {
		out.Output = sorted(out.Output, tool)
	}
	return out
}

// sorted orders what ripgrep gives in the order its threads come to it.
func sorted(output, tool string) string {
	if tool == "glob" {
		lines := strings.Split(output, "\n")
		n := slices.IndexFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "/") })
		if n < 0 {
			n = len(lines)
		}
		sort.Strings(lines[:n])
		return strings.Join(lines, "\n")
	}
	const note = "\n\n(Results truncated."
	body, tail := output, ""
	if at := strings.LastIndex(output, note); at >= 0 {
		body, tail = output[:at], output[at:]
	}
	parts := strings.Split(body, "\n/")
	for i := range parts {
		parts[i] = strings.TrimRight(parts[i], "\n")
	}
	sort.Strings(parts[1:])
	return strings.Join(parts, "\n/") + tail
}

// TestGolden compares with the tools built into a stock OpenCode, which
// TONGS_TEST_OPENCODE names; TONGS_TEST_RIPGREP names the rg it shall use.
func TestGolden(t *testing.T) {
	binary, rg := os.Getenv("TONGS_TEST_OPENCODE"), os.Getenv("TONGS_TEST_RIPGREP")
	if rg == "" {
		rg, _ = exec.LookPath("rg")
	}
	if binary == "" || rg == "" {
		t.Skip("set TONGS_TEST_OPENCODE to an opencode 1.18.33 binary and TONGS_TEST_RIPGREP to an rg to compare with the built-in tools")
	}
	b := startBuiltin(t, binary, rg)
	home := filepath.Dir(b.project)
	for _, g := range goldens() {
		t.Run(g.tool+"/"+g.name, func(t *testing.T) {
			b.t = t
			args := within(b.project, g.args)
			g.lay(t, b.project)
			theirs := plain(t, b.run(g.tool, args), g.tool)
			theirFiles := tree(t, b.project)
			for _, how := range []string{"", rg} {
				if how != "" && g.tool != "grep" {
					continue
				}
				g.lay(t, b.project)
				mine := plain(t, ours(t, b.project, home, g.tool, args, how), g.tool)
				myFiles := tree(t, b.project)
				diff := cmp.Diff(theirs, mine) + cmp.Diff(theirFiles, myFiles)
				if g.differs != "" {
					if diff == "" {
						t.Errorf("no longer different: %s", g.differs)
					}
					if g.check != nil {
						g.check(t, theirs, mine)
					}
					continue
				}
				if diff != "" {
					t.Errorf("built-in (-) and ours (+), rg %q:\n%s", how, diff)
				}
			}
		})
	}
}
