package opencode_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/guest"
)

// TestToolsInGuest holds what tools do besides answering, by the real OpenCode and a real guest.
func TestToolsInGuest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	realBinary(t)
	home, err := filepath.EvalSymlinks(t.TempDir())
	mustDo(t, err)
	project, output := filepath.Join(home, "project"), filepath.Join(home, "output")
	newProject(t, project)
	boxes := &guests{all: newGuest(t, guest.Config{Project: project, OutputDir: output, LeaseSeconds: -1,
		User: guest.User{Root: os.Geteuid() == 0, Home: home}, Env: []string{"PATH=/usr/bin:/bin"}})}
	r := newRigWith(t, rigOptions{sandboxes: boxes, content: func(model string) []byte { // as Configure has it
		return bytes.Replace(testContent(model), []byte(`"permission":{`), []byte(`"permission":{"external_directory":"allow",`), 1)
	}})
	ctx := deadline(t, 2*time.Minute)
	one := func(t *testing.T, session string, step map[string]any) part {
		t.Helper()
		parts := tools(r.prompt(ctx, session, scripted, step, map[string]any{"text": "done"}))
		if len(parts) == 0 {
			t.Fatal("no tool ran")
		}
		return parts[len(parts)-1]
	}

	t.Run("output of bash is seen while it runs", func(t *testing.T) {
		gate := filepath.Join(home, "gate")
		seen, connected := make(chan error, 1), make(chan struct{})
		evCtx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		go func() {
			seen <- r.events(evCtx, func(kind string, p map[string]any) bool {
				if kind == "server.connected" {
					close(connected)
				}
				part, _ := p["part"].(map[string]any)
				state, _ := part["state"].(map[string]any)
				metadata, _ := state["metadata"].(map[string]any)
				return state["status"] == "running" && metadata["output"] == "early\n" && os.WriteFile(gate, nil, 0o644) == nil
			})
		}()
		<-connected
		p := one(t, r.session(ctx, "", nil), bash("echo early; until [ -e "+gate+" ]; do sleep 0.05; done; echo late"))
		if err := <-seen; err != nil || p.State.Output != "early\nlate\n" {
			t.Errorf("%v, %+v", err, p)
		}
	})

	t.Run("an abort kills the command and its children", func(t *testing.T) {
		session := r.session(ctx, "", nil)
		ended := make(chan error, 1)
		go func() {
			_, err := r.tryPrompt(ctx, session, scripted, bash("sleep 300 & echo $! > pid.new; mv pid.new pid; sleep 301"), map[string]any{"text": "never"})
			ended <- err
		}()
		pid := 0
		for ctx.Err() == nil && pid == 0 {
			text, _ := os.ReadFile(filepath.Join(project, "pid"))
			pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
			time.Sleep(10 * time.Millisecond)
		}
		r.api(ctx, "POST", "/session/"+session+"/abort", nil, nil)
		mustDo(t, <-ended)
		for ctx.Err() == nil && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); strings.Contains(string(stat), ") Z ") {
				break // dead, and nobody's here to reap it
			}
			time.Sleep(10 * time.Millisecond)
		}
		if ctx.Err() != nil {
			t.Errorf("process %d lives", pid)
		}
		parts, err := r.parts(ctx, session)
		mustDo(t, err)
		if all := tools(parts); len(all) != 1 || all[0].State.Status != "error" || all[0].State.Error != "Tool execution aborted" {
			t.Errorf("parts %+v", all)
		}
	})

	t.Run("long output is kept whole where the model is told", func(t *testing.T) {
		session := r.session(ctx, "", nil)
		p := one(t, session, bash("seq 1 100000"))
		found := regexp.MustCompile(`Full output saved to: (\S+)`).FindStringSubmatch(p.State.Output)
		if found == nil || !strings.HasPrefix(found[1], output+"/") || p.State.Metadata["truncated"] != true ||
			len(p.State.Output) > 51200 || strings.Count(p.State.Output, "\n") > 2000 || strings.Count(p.State.Output, "Full output") != 1 {
			t.Fatalf("%d bytes, %d lines, truncated %v:\n%.300s", len(p.State.Output), strings.Count(p.State.Output, "\n"), p.State.Metadata["truncated"], p.State.Output)
		}
		p = one(t, session, call("read", map[string]any{"filePath": found[1], "offset": 99_999}))
		if !strings.Contains(p.State.Output, "99999: 99999\n100000: 100000\n") {
			t.Errorf("read: %.300s %s", p.State.Output, p.State.Error)
		}
	})

	t.Run("read attaches nested instructions once", func(t *testing.T) {
		mustDo(t, os.MkdirAll(filepath.Join(project, "d/e"), 0o755))
		for name, text := range map[string]string{"d/AGENTS.md": "Mind the gap.", "d/e/a.txt": "a\n", "d/e/b.txt": "b\n"} {
			mustDo(t, os.WriteFile(filepath.Join(project, name), []byte(text), 0o644))
		}
		session := r.session(ctx, "", nil)
		first := one(t, session, call("read", map[string]any{"filePath": "d/e/a.txt"}))
		second := one(t, session, call("read", map[string]any{"filePath": "d/e/b.txt"}))
		if !strings.Contains(first.State.Output, "Mind the gap.") || strings.Contains(second.State.Output, "Mind the gap.") {
			t.Errorf("first\n%s\nsecond\n%s", first.State.Output, second.State.Output)
		}
	})

	t.Run("list answers as read does on a directory", func(t *testing.T) {
		session := r.session(ctx, "", nil)
		for _, args := range []map[string]any{{}, {"path": "d"}, {"path": project + "/d", "limit": 1}, {"path": "d/e/a.txt"}, {"path": "nowhere"}} {
			as := map[string]any{"filePath": project}
			for k, v := range args {
				if k == "path" {
					k = "filePath"
				}
				as[k] = v
			}
			listed, read := one(t, session, call("list", args)).State, one(t, session, call("read", as)).State
			if args["path"] == "d/e/a.txt" {
				if listed.Status != "error" {
					t.Errorf("list of a file: %+v", listed)
				}
				continue
			}
			if diff := cmp.Diff(read, listed); diff != "" {
				t.Errorf("%v: read (-) and list (+):\n%s", args, diff)
			}
		}
	})
}
