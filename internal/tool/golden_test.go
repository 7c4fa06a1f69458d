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

	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
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

// perTool is how many cases of each tool are compared unless TONGS_TEST_LONG is set.
const perTool = 3

// some takes perTool cases of each tool, spread over all that there are of it,
// and those whose answer is another on purpose count as a tool of their own.
func some(all []golden) []golden {
	kind := func(g golden) string {
		if g.differs != "" {
			return g.tool + " differs"
		}
		return g.tool
	}
	total, seen := map[string]int{}, map[string]int{}
	for _, g := range all {
		total[kind(g)]++
	}
	var list []golden
	for _, g := range all {
		k := kind(g)
		n, of, want := seen[k], total[k], perTool
		if g.differs != "" {
			want = 1
		}
		if seen[k]++; n == 0 || n*want/of != (n-1)*want/of {
			list = append(list, g)
		}
	}
	return list
}

// TestGolden compares with the tools built into the pinned OpenCode: some cases
// of each, all with TONGS_TEST_LONG. TONGS_TEST_RIPGREP names the rg that both
// use, if it is not the one on the PATH.
func TestGolden(t *testing.T) {
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	rg := os.Getenv("TONGS_TEST_RIPGREP")
	if rg == "" {
		rg, _ = exec.LookPath("rg")
	}
	if rg == "" {
		t.Skip("there is no ripgrep here, which OpenCode's own search needs: install it, or name one with TONGS_TEST_RIPGREP")
	}
	binary := opencodetest.Binary(t)
	cases := goldens()
	if os.Getenv("TONGS_TEST_LONG") == "" {
		cases = some(cases)
	}
	t.Logf("%d cases", len(cases))
	b := startBuiltin(t, binary, rg)
	home := filepath.Dir(b.project)
	for _, g := range cases {
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
