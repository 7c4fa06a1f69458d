package opencode_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/tool/tooltest"
	"github.com/tongs-dev/tongs/internal/webfetch"
	"github.com/tongs-dev/tongs/sandbox"
)

// perPrompt is how many calls the model makes in one turn: with each the conversation grows that
// OpenCode sends along.
const perPrompt = 20

// stage is an OpenCode on which calls are made: one as it comes, or one with our plugin.
type stage struct {
	*rig
	model *stagehand
	name  string

	mu   sync.Mutex
	asks map[string][]tooltest.Ask // by session and call
}

// play makes the calls of cases, of which all or none are apply_patch, in one turn.
func (s *stage) play(ctx context.Context, session string, cases []tooltest.Case) ([]tooltest.Outcome, error) {
	s.model.set(cases)
	id := "scripted"
	if cases[0].Tool == "apply_patch" {
		id = "gpt-5" // which has it instead of write and edit
	}
	err := s.try(ctx, "POST", "/session/"+session+"/message", map[string]any{
		"model": map[string]string{"providerID": "tongs", "modelID": id},
		"parts": []any{map[string]string{"type": "text", "text": "go"}},
	}, nil)
	if err != nil {
		return nil, err
	}
	var messages []struct {
		Parts []struct {
			Type, Tool, CallID string
			State              struct {
				Status, Title, Output, Error string
				Metadata                     map[string]any
				Attachments                  []map[string]any
			}
		}
	}
	if err := s.try(ctx, "GET", "/session/"+session+"/message", nil, &messages); err != nil {
		return nil, err
	}
	outcomes, seen := make([]tooltest.Outcome, len(cases)), 0
	for _, m := range messages {
		for _, p := range m.Parts {
			if p.Type != "tool" {
				continue
			}
			if seen == len(cases) || p.CallID != callID(seen) || p.Tool != cases[seen].Tool {
				return nil, errors.New("unexpected call " + p.CallID + " of " + p.Tool)
			}
			c, st := cases[seen], p.State
			s.mu.Lock()
			asks := s.asks[session+" "+p.CallID]
			s.mu.Unlock()
			o, err := tooltest.Outcome{Title: st.Title, Output: st.Output, Metadata: st.Metadata, Attachments: st.Attachments, Error: st.Error,
				Asks: asks, Files: s.model.files[seen]}.Plain(c.Tool)
			if err != nil {
				return nil, err
			}
			outcomes[seen] = o
			seen++
		}
	}
	if seen != len(cases) {
		return nil, errors.New("the turn ended after " + callID(seen))
	}
	return outcomes, nil
}

// grant follows the events until ctx ends, notes each question for permission and says yes.
func (s *stage) grant(ctx context.Context, ready chan<- struct{}) {
	var once sync.Once
	for ctx.Err() == nil {
		_ = s.events(ctx, func(kind string, properties map[string]any) bool {
			once.Do(func() { close(ready) }) // the first is server.connected
			if kind != "permission.asked" {
				return false
			}
			var asked struct {
				ID, SessionID string
				tooltest.Ask
				Tool struct{ CallID string }
			}
			text, err := json.Marshal(properties)
			if err == nil {
				err = json.Unmarshal(text, &asked)
			}
			if err != nil {
				s.t.Errorf("a question: %v: %s", err, text)
			}
			s.mu.Lock()
			key := asked.SessionID + " " + asked.Tool.CallID
			s.asks[key] = append(s.asks[key], asked.Ask)
			s.mu.Unlock()
			if err := s.try(ctx, "POST", "/permission/"+asked.ID+"/reply", map[string]string{"reply": "once"}, nil); err != nil && ctx.Err() == nil {
				s.t.Error(err)
			}
			return false
		})
	}
}

func (s *stage) granting(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); s.grant(ctx, ready) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-ready:
	case <-time.After(time.Minute):
		t.Fatal("no events within a minute")
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newProject makes a repository with one empty commit, as every sandbox has one.
func newProject(t *testing.T, project string) {
	t.Helper()
	mustDo(t, os.Mkdir(project, 0o755))
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "init"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = project
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

// bareStage is an OpenCode as it comes, whose own tools work on the project.
func bareStage(t *testing.T, home string, env []string) *stage {
	t.Helper()
	project := filepath.Join(home, "project")
	s := &stage{model: &stagehand{t: t, project: project}, name: "built-in", asks: map[string][]tooltest.Ask{}}
	s.rig = bareRig(t, home, s.model, func(model string) []byte { return goldenContent(model, false) }, env...)
	return s
}

// bareRig is an OpenCode as it comes, in home, with its project below it.
func bareRig(t *testing.T, home string, model http.Handler, content func(model string) []byte, env ...string) *rig {
	t.Helper()
	r := &rig{t: t, project: filepath.Join(home, "project")}
	server := httptest.NewServer(model)
	t.Cleanup(server.Close)
	config := filepath.Join(home, ".config", "opencode")
	mustDo(t, os.MkdirAll(filepath.Join(config, "node_modules"), 0o755))
	lock := `{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`
	mustDo(t, os.WriteFile(filepath.Join(config, "package-lock.json"), []byte(lock), 0o644))
	r.base = serve(t, realBinary(t).Path, r.project, append([]string{"PATH=/usr/bin:/bin", "HOME=" + home, "OPENCODE_CONFIG_CONTENT=" + string(content(server.URL))}, env...))
	return r
}

// ourStage is an OpenCode with our plugin, whose sessions work on the project through a guest.
func ourStage(t *testing.T, boxes opencode.Sandboxes, project string) *stage {
	t.Helper()
	s := &stage{model: &stagehand{t: t, project: project}, name: "ours", asks: map[string][]tooltest.Ask{}}
	s.rig = newRigWith(t, rigOptions{fetch: plainFetch, model: s.model, content: func(model string) []byte { return goldenContent(model, true) }, sandboxes: boxes})
	return s
}

// plainFetch fetches as this machine does, and keeps what is too long nowhere.
func plainFetch(ctx context.Context, _ string, args map[string]any, ask func(context.Context, sandbox.AskRequest) error) (*sandbox.ToolResult, error) {
	return webfetch.Fetch(ctx, webfetch.Config{Dial: new(net.Dialer).DialContext, Ask: ask}, args)
}

// goldenContent is testContent with every permission asked for. Our tools cut their output themselves.
func goldenContent(model string, uncut bool) []byte {
	var content map[string]any
	if err := json.Unmarshal(testContent(model), &content); err != nil {
		panic(err)
	}
	content["permission"] = map[string]any{"*": "ask", "websearch": "deny"}
	if !uncut {
		delete(content, "tool_output")
	}
	text, err := json.Marshal(content)
	if err != nil {
		panic(err)
	}
	return text
}

// sample leaves out half of those cases of bash, glob and grep that do not differ.
func sample(cases []tooltest.Case) []tooltest.Case {
	n := 0
	return slices.DeleteFunc(cases, func(c tooltest.Case) bool {
		if c.Differs != "" || c.Tool != "bash" && c.Tool != "glob" && c.Tool != "grep" {
			return false
		}
		n++
		return n%2 == 0
	})
}

// TestToolsAsBuiltIn has the built-in tools of the pinned OpenCode and ours, through plugin, bridge and
// guest, carry out the same calls on the same files, and compares what OpenCode stores of them, what
// they ask, and what becomes of the files. Answers that differ on purpose say why: see docs/tools.md.
func TestToolsAsBuiltIn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	rg, err := exec.LookPath("rg")
	if err != nil {
		t.Skip("there is no ripgrep here, which OpenCode's own search needs: install it")
	}
	realBinary(t)
	home, err := filepath.EvalSymlinks(t.TempDir())
	mustDo(t, err)
	// Paths of one length, so that nothing is cut elsewhere.
	homes := map[string]string{"built-in": filepath.Join(home, "a"), "ours": filepath.Join(home, "b")}
	for _, h := range homes {
		mustDo(t, os.Mkdir(h, 0o755))
		newProject(t, filepath.Join(h, "project"))
	}
	environ := []string{"PATH=" + filepath.Dir(rg) + ":/usr/local/bin:/usr/bin:/bin", "SHELL=/bin/bash"}
	cfg := guest.Config{Project: filepath.Join(homes["ours"], "project"), Env: environ, LeaseSeconds: -1,
		User: guest.User{Root: os.Geteuid() == 0, Home: homes["ours"]}}
	boxes := &guests{all: newGuest(t, cfg)}
	cfg.Env = []string{"PATH=" + t.TempDir()}
	without := newGuest(t, cfg)

	bare := bareStage(t, homes["built-in"], environ)
	ours := ourStage(t, boxes, cfg.Project)
	web := httptest.NewServer(tooltest.Web())
	t.Cleanup(web.Close)
	bare.model.web, ours.model.web = web.URL, web.URL
	bare.granting(t)
	ours.granting(t)
	ctx := deadline(t, 8*time.Minute)

	cases := byTool(tooltest.Cases())
	if os.Getenv("TONGS_TEST_LONG") == "" {
		cases = sample(cases)
	}
	grep := slices.DeleteFunc(slices.Clone(cases), func(c tooltest.Case) bool { return c.Tool != "grep" })
	var theirs, mine, mineWithout []tooltest.Outcome
	began := time.Now()
	both, ctx := errgroup.WithContext(deadline(t, 8*time.Minute))
	both.Go(func() (err error) {
		theirs, err = bare.playAll(ctx, cases, nil)
		return err
	})
	both.Go(func() (err error) {
		if mine, err = ours.playAll(ctx, cases, nil); err == nil {
			mineWithout, err = ours.playAll(ctx, grep, func(session string) { boxes.give(session, without) })
		}
		return err
	})
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d calls of each in %v", len(theirs), time.Since(began).Round(time.Millisecond))
	for i, c := range cases {
		t.Run(c.String(), func(t *testing.T) { compareOutcomes(t, c, theirs[i].Moved(homes["built-in"], homes["ours"]), mine[i]) })
	}
	first := slices.IndexFunc(cases, func(c tooltest.Case) bool { return c.Tool == "grep" })
	for i, c := range grep {
		t.Run(c.String()+", without ripgrep", func(t *testing.T) {
			compareOutcomes(t, c, theirs[first+i].Moved(homes["built-in"], homes["ours"]), mineWithout[i])
		})
	}
}

func compareOutcomes(t *testing.T, c tooltest.Case, theirs, mine tooltest.Outcome) {
	diff := cmp.Diff(theirs, mine)
	switch {
	case c.Differs != "" && diff == "":
		t.Errorf("it differs no longer: %s", c.Differs)
	case c.Differs == "" && diff != "":
		t.Errorf("built-in (-) and ours (+):\n%s", diff)
	}
	if c.Check != nil {
		c.Check(t, theirs, mine)
	}
}

// byTool puts the cases of one tool beside each other. TONGS_TEST_TOOL takes those whose name begins so.
func byTool(cases []tooltest.Case) []tooltest.Case {
	only := os.Getenv("TONGS_TEST_TOOL")
	cases = slices.DeleteFunc(cases, func(c tooltest.Case) bool { return !strings.HasPrefix(c.String(), only) })
	slices.SortStableFunc(cases, func(a, b tooltest.Case) int { return strings.Compare(a.Tool, b.Tool) })
	return cases
}

// playAll makes the calls of cases in turns of one tool each. begin, if given, is told of each session.
func (s *stage) playAll(ctx context.Context, cases []tooltest.Case, begin func(session string)) ([]tooltest.Outcome, error) {
	var all []tooltest.Outcome
	for len(cases) > 0 {
		n := slices.IndexFunc(cases, func(c tooltest.Case) bool { return c.Tool != cases[0].Tool })
		if n < 0 {
			n = len(cases)
		}
		n = min(n, perPrompt)
		var made struct{ ID string }
		if err := s.try(ctx, "POST", "/session", map[string]any{"title": "tools"}, &made); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		if begin != nil {
			begin(made.ID)
		}
		o, err := s.play(ctx, made.ID, cases[:n])
		if err != nil {
			return nil, fmt.Errorf("%s: %v and those after it: %w", s.name, cases[0], err)
		}
		all, cases = append(all, o...), cases[n:]
	}
	return all, nil
}
