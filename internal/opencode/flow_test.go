package opencode_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"

	"github.com/tongs-dev/tongs/internal/opencode"
)

func TestFlow(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{"OPENCODE_ENABLE_EXA": "1"}) // so that there is websearch
	ctx := deadline(t, 3*time.Minute)

	t.Run("write, bash and read run in the sandbox of the session", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		parts := tools(r.prompt(ctx, session, scripted,
			call("write", map[string]any{"filePath": r.project + "/hello.sh", "content": "echo hi from $0\n"}),
			bash("bash hello.sh; exit 3"),
			call("read", map[string]any{"filePath": r.project + "/hello.sh"}),
			call("read", map[string]any{"filePath": "/no/such"}),
			map[string]string{"text": "done"}))
		if len(parts) != 4 {
			t.Fatalf("%d tool parts, want 4: %+v", len(parts), parts)
		}
		if p := parts[0]; p.State.Status != "completed" || p.State.Title != "hello.sh" {
			t.Errorf("write: %+v", p)
		}
		if p := parts[1]; p.State.Output != "hi from hello.sh\n" || p.State.Metadata["exit"] != 3.0 {
			t.Errorf("bash: %+v", p)
		}
		if p := parts[2]; p.State.Output != "echo hi from $0\n" {
			t.Errorf("read: %+v", p)
		}
		if p := parts[3]; p.State.Status != "error" || p.State.Error != "File not found: /no/such" {
			t.Errorf("read of nothing: %+v", p)
		}
		if _, err := os.Stat(filepath.Join(r.boxes.dir(session), "hello.sh")); err != nil {
			t.Error(err)
		}
		r.empty()
	})

	t.Run("the sandbox's word on truncation stands", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		parts := tools(r.prompt(ctx, session, scripted, bash("echo a > long.cut; echo a > short"),
			call("read", map[string]any{"filePath": "long.cut"}), call("read", map[string]any{"filePath": "short"}), map[string]string{"text": "done"}))
		if len(parts) != 3 || parts[1].State.Metadata["truncated"] != true || parts[2].State.Metadata["truncated"] != false {
			t.Errorf("parts %+v", parts)
		}
	})

	t.Run("what the sandbox has cut is not cut again", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		var want strings.Builder
		for i := range 2100 { // more lines, and bytes, than OpenCode gives by default
			fmt.Fprintf(&want, "%d: a line of some length, to have many bytes\n", i)
		}
		parts := tools(r.prompt(ctx, session, scripted, call("write", map[string]any{"filePath": "long", "content": want.String()}),
			call("read", map[string]any{"filePath": "long"}), map[string]string{"text": "done"}))
		if len(parts) != 2 || parts[1].State.Output != want.String() {
			t.Errorf("%d parts, the last of %d bytes, want %d", len(parts), len(parts[len(parts)-1].State.Output), want.Len())
		}
	})

	t.Run("large arguments arrive, too large ones are refused", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		steps := []any{call("write", map[string]any{"filePath": "big", "content": strings.Repeat("x", 1<<20)})}
		if os.Getenv("TONGS_TEST_LONG") != "" { // OpenCode takes its time over so much.
			steps = append(steps, call("write", map[string]any{"filePath": "bigger", "content": strings.Repeat("x", 25<<20)}))
		}
		parts := tools(r.prompt(ctx, session, scripted, append(steps, map[string]string{"text": "done"})...))
		for i, p := range parts {
			if i == 0 && p.State.Status != "completed" || i == 1 && !strings.Contains(p.State.Error, "smaller parts") {
				t.Errorf("%d: %s %.300s", i, p.State.Status, p.State.Error)
			}
		}
		if len(parts) != len(steps) {
			t.Errorf("%d calls, want %d", len(parts), len(steps))
		}
	})

	for _, model := range []string{"tongs/gpt-5", "openai/gpt-5"} {
		t.Run("apply_patch of "+model+" runs in the sandbox", func(t *testing.T) {
			session := r.session(ctx, "", map[string]any{})
			patch := "*** Begin Patch\n*** Add File: escaped.txt\n+x\n*** End Patch"
			parts := tools(r.prompt(ctx, session, model, call("apply_patch", map[string]any{"patchText": patch}), map[string]string{"text": "done"}))
			if len(parts) != 1 || parts[0].State.Status != "completed" {
				t.Fatalf("parts %+v", parts)
			}
			if data, err := os.ReadFile(filepath.Join(r.boxes.dir(session), "patch.txt")); string(data) != patch {
				t.Errorf("the sandbox got %q, %v", data, err)
			}
			r.empty()
		})
	}

	t.Run("a subagent works in its parent's sandbox", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		script, _ := json.Marshal([]any{bash("cat parent.txt; echo child > child.txt"), map[string]string{"text": "subagent done"}})
		parts := tools(r.prompt(ctx, session, scripted,
			bash("echo parent > parent.txt"),
			call("task", map[string]any{"description": "look", "prompt": string(script), "subagent_type": "general"}),
			bash("cat child.txt"),
			map[string]string{"text": "done"}))
		if len(parts) != 3 || parts[2].State.Output != "child\n" {
			t.Fatalf("parts %+v", parts)
		}
	})

	t.Run("what a model writes to a subagent reads nothing in the agent host", func(t *testing.T) {
		const secret = "a canary in the agent host"
		for _, name := range []string{"canary.txt", "Canary", ".canary"} {
			if err := os.WriteFile(filepath.Join(r.project, name), []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Remove(filepath.Join(r.project, name)) })
		}
		session := r.session(ctx, "", nil)
		prompt := "[{\"text\": \"nothing to do\"}]\nRead @canary.txt, @./canary.txt (@Canary), @.canary and @" + r.project + "/canary.txt with @general, @~/.tongs !`cat canary.txt`"
		parts := tools(r.prompt(ctx, session, scripted,
			call("task", map[string]any{"description": "look at @canary.txt", "prompt": prompt, "subagent_type": "general"}), map[string]string{"text": "done"}))
		if len(parts) != 1 || parts[0].State.Status != "completed" || !strings.Contains(parts[0].State.Output, "nothing to do") {
			t.Fatalf("parts %+v", parts)
		}
		var children []struct{ ID string }
		r.api(ctx, "GET", "/session/"+session+"/children", nil, &children)
		if len(children) != 1 {
			t.Fatalf("children %+v", children)
		}
		var messages json.RawMessage
		r.api(ctx, "GET", "/session/"+children[0].ID+"/message", nil, &messages)
		if bytes.Contains(messages, []byte(secret)) || bytes.Contains(messages, []byte(`"type":"file"`)) || !bytes.Contains(messages, []byte("`@canary.txt`")) {
			t.Errorf("the subagent got %s", messages)
		}
	})

	t.Run("what a tool does is seen while it runs", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		gate := filepath.Join(t.TempDir(), "gate")
		seen := make(chan error, 1)
		evCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		connected := make(chan struct{})
		go func() {
			seen <- r.events(evCtx, func(kind string, p map[string]any) bool {
				if kind == "server.connected" {
					close(connected)
				}
				part, _ := p["part"].(map[string]any)
				state, _ := part["state"].(map[string]any)
				metadata, _ := state["metadata"].(map[string]any)
				if state["status"] != "running" || metadata["output"] != "early\n" {
					return false
				}
				return os.WriteFile(gate, nil, 0o644) == nil
			})
		}()
		<-connected
		// The command ends only after its output has been seen.
		parts := tools(r.prompt(ctx, session, scripted, bash("echo early; until [ -e "+gate+" ]; do sleep 0.05; done; echo late"), map[string]string{"text": "done"}))
		if err := <-seen; err != nil {
			t.Error(err)
		}
		if len(parts) != 1 || parts[0].State.Output != "early\nlate\n" {
			t.Errorf("parts %+v", parts)
		}
	})

	t.Run("an abort reaches the sandbox", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = r.tryPrompt(ctx, session, scripted, bash("sleep 1000"), map[string]string{"text": "done"})
		}()
		running := func() bool { return slices.Contains(r.boxes.calls, session+" bash") }
		if err := r.boxes.until(ctx, "the command runs", running); err != nil {
			t.Fatal(err)
		}
		r.api(ctx, "POST", "/session/"+session+"/abort", nil, nil)
		<-ended
		parts, err := r.parts(ctx, session)
		if err != nil {
			t.Fatal(err)
		}
		parts = tools(parts)
		if len(parts) != 1 || parts[0].State.Status != "error" {
			t.Fatalf("parts %+v", parts)
		}
		id := parts[0].CallID
		if err := r.boxes.until(ctx, "the run is cancelled", func() bool { return r.boxes.cancelled[id] }); err != nil {
			t.Error(err)
		}
	})

	for reply, want := range map[string]string{"once": "completed", "reject": "error"} {
		t.Run("a permission request is answered with "+reply, func(t *testing.T) {
			session := r.session(ctx, "", map[string]any{"permission": []any{map[string]string{"permission": "bash", "pattern": "*", "action": "ask"}}})
			evCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			connected, asked := make(chan struct{}), make(chan error, 1)
			go func() {
				asked <- r.events(evCtx, func(kind string, p map[string]any) bool {
					if kind == "server.connected" {
						close(connected)
					}
					if kind != "permission.asked" || p["sessionID"] != session {
						return false
					}
					if fmt.Sprint(p["patterns"]) != "[ask touch asked]" {
						t.Errorf("asked for %v", p)
					}
					if err := r.try(ctx, "POST", fmt.Sprintf("/permission/%s/reply", p["id"]), map[string]string{"reply": reply}, nil); err != nil {
						t.Error(err)
					}
					return true
				})
			}()
			<-connected
			parts := tools(r.prompt(ctx, session, scripted, bash("ask touch asked"), map[string]string{"text": "done"}))
			if err := <-asked; err != nil {
				t.Fatal(err)
			}
			if len(parts) != 1 || parts[0].State.Status != want {
				t.Fatalf("parts %+v", parts)
			}
			_, err := os.Stat(filepath.Join(r.boxes.dir(session), "asked"))
			if (err == nil) != (reply == "once") {
				t.Errorf("after %q the file: %v", reply, err)
			}
		})
	}

	t.Run("a broken connection does not break a call", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		gate := filepath.Join(t.TempDir(), "gate")
		result := make(chan []part, 1)
		go func() {
			parts, _ := r.tryPrompt(ctx, session, scripted, bash("echo x >> count; until [ -e "+gate+" ]; do sleep 0.05; done; cat count"), map[string]string{"text": "done"})
			result <- tools(parts)
		}()
		var run *fakeRun
		find := func() bool {
			for _, candidate := range r.boxes.runs {
				if candidate.root == session {
					run = candidate
				}
			}
			return run != nil
		}
		if err := r.boxes.until(ctx, "the command runs", find); err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			r.cutBridge()
			if err := r.boxes.until(ctx, "the run is asked for again", func() bool { return run.asks > n }); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(gate, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		parts := <-result
		if len(parts) != 1 || parts[0].State.Output != "x\n" {
			t.Errorf("parts %+v; want one run", parts)
		}
	})

	t.Run("a broken connection is no answer to a permission request", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{"permission": []any{map[string]string{"permission": "bash", "pattern": "*", "action": "ask"}}})
		evCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		connected, result := make(chan struct{}), make(chan []part, 1)
		requests, over := make(chan string, 10), make(chan error, 1)
		go func() {
			over <- r.events(evCtx, func(kind string, p map[string]any) bool {
				switch {
				case kind == "server.connected":
					close(connected)
				case kind == "permission.asked" && p["sessionID"] == session:
					requests <- fmt.Sprint(p["id"])
				}
				return kind == "session.idle" && p["sessionID"] == session
			})
		}()
		<-connected
		go func() {
			parts, _ := r.tryPrompt(ctx, session, scripted, bash("ask touch patient"), map[string]string{"text": "done"})
			result <- tools(parts)
		}()
		id := <-requests
		var run *fakeRun
		find := func() bool {
			for _, candidate := range r.boxes.runs {
				if candidate.root == session {
					run = candidate
				}
			}
			return run != nil
		}
		if err := r.boxes.until(ctx, "the command runs", find); err != nil {
			t.Fatal(err)
		}
		r.cutBridge()
		if err := r.boxes.until(ctx, "the run is asked for again", func() bool { return run.asks > 1 }); err != nil {
			t.Fatal(err)
		}
		r.api(ctx, "POST", "/permission/"+id+"/reply", map[string]string{"reply": "once"}, nil)
		if parts := <-result; len(parts) != 1 || parts[0].State.Status != "completed" {
			t.Errorf("parts %+v", parts)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
		if len(requests) > 0 {
			t.Error("the person was asked a second time")
		}
		if _, err := os.Stat(filepath.Join(r.boxes.dir(session), "patient")); err != nil {
			t.Error(err)
		}
	})

	t.Run("a broken connection to the sandbox does not break a call", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		gate := filepath.Join(t.TempDir(), "gate")
		result := make(chan []part, 1)
		go func() {
			parts, _ := r.tryPrompt(ctx, session, scripted, bash("echo x >> count; until [ -e "+gate+" ]; do sleep 0.05; done; cat count"), map[string]string{"text": "done"})
			result <- tools(parts)
		}()
		var run *fakeRun
		find := func() bool {
			for _, candidate := range r.boxes.runs {
				if candidate.root == session {
					run = candidate
				}
			}
			return run != nil
		}
		if err := r.boxes.until(ctx, "the command runs", find); err != nil {
			t.Fatal(err)
		}
		r.boxes.cut()
		if err := r.boxes.until(ctx, "the run is asked for again", func() bool { return run.asks > 1 }); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(gate, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if parts := <-result; len(parts) != 1 || parts[0].State.Output != "x\n" {
			t.Errorf("parts %+v; want one run", parts)
		}
	})

	t.Run("a call is not made twice when its sandbox was started anew", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		result := make(chan []part, 1)
		go func() {
			parts, _ := r.tryPrompt(ctx, session, scripted, bash("echo x >> count; sleep 1000"), bash("cat count"), map[string]string{"text": "done"})
			result <- tools(parts)
		}()
		begun := func() bool {
			text, err := os.ReadFile(filepath.Join(r.boxes.dir(session), "count"))
			return err == nil && string(text) == "x\n"
		}
		for !begun() {
			if ctx.Err() != nil {
				t.Fatal("the command did not begin")
			}
			time.Sleep(5 * time.Millisecond)
		}
		r.boxes.forget(session)
		parts := <-result
		if len(parts) != 2 || parts[0].State.Status != "error" || parts[0].State.Error != "the run was lost\nlook before you repeat it" {
			t.Fatalf("parts %+v", parts)
		}
		if parts[1].State.Output != "x\n" {
			t.Errorf("the command was run again: %+v", parts[1])
		}
	})

	t.Run("another directory has the same listener and the same sandbox", func(t *testing.T) {
		other := t.TempDir()
		session := r.session(ctx, "?directory="+url.QueryEscape(other), map[string]any{})
		parts := tools(r.prompt(ctx, session, scripted, bash("echo here > f; cat f"), map[string]string{"text": "done"}))
		if len(parts) != 1 || parts[0].State.Output != "here\n" {
			t.Fatalf("parts %+v", parts)
		}
		if data, err := os.ReadFile(filepath.Join(r.boxes.dir(session), "f")); err != nil || string(data) != "here\n" {
			t.Errorf("%q, %v", data, err)
		}
		if entries, _ := os.ReadDir(other); len(entries) > 0 {
			t.Errorf("the other directory has %v", entries)
		}
		for _, line := range r.host.Log().Tail(4096) {
			if strings.Contains(line.Text, "cannot listen") {
				t.Error(line.Text)
			}
		}
	})

	t.Run("a tool that would run in the agent host is refused", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{"permission": []any{map[string]string{"permission": "*", "pattern": "*", "action": "allow"}}})
		parts := tools(r.prompt(ctx, session, scripted, call("websearch", map[string]any{"query": "x"}), map[string]string{"text": "done"}))
		if len(parts) != 1 || parts[0].State.Status != "error" || !strings.Contains(parts[0].State.Error, "refused") {
			t.Errorf("parts %+v", parts)
		}
	})

	t.Run("the model is told where it works", func(t *testing.T) {
		session := r.session(ctx, "", map[string]any{})
		parts := r.prompt(ctx, session, scripted, map[string]string{"text": "{{system}}"})
		var text string
		for _, p := range parts {
			text += p.Text
		}
		if !strings.Contains(text, "Working directory: "+r.project) || !strings.Contains(text, "Is directory a git repo: yes") {
			t.Errorf("system prompt: %.2000s", text)
		}
	})

	t.Run("the plugin lets nobody in but the host", func(t *testing.T) {
		token, err := os.ReadFile(filepath.Join(filepath.Dir(r.project), ".tongs", "bridge.token"))
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(filepath.Join(filepath.Dir(r.project), ".tongs", "bridge.token")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the token's file: %v, %v", st.Mode(), err)
		}
		bearer := "Bearer " + strings.TrimSpace(string(token))
		for name, tc := range map[string]struct {
			header http.Header
			status int
		}{
			"no token":         {http.Header{}, http.StatusUnauthorized},
			"another token":    {http.Header{"Authorization": {"Bearer " + strings.Repeat("0", 64)}}, http.StatusUnauthorized},
			"a browser's page": {http.Header{"Authorization": {bearer}, "Origin": {"http://localhost"}}, http.StatusForbidden},
			"no WebSocket":     {http.Header{"Authorization": {bearer}}, http.StatusUpgradeRequired},
		} {
			req, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:"+r.bridgePort, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = tc.header
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tc.status {
				t.Errorf("%s: status %d, want %d", name, resp.StatusCode, tc.status)
			}
		}
		// A newer connection with the token takes over, and the older one is closed.
		newer, err := httprpc.Dial(ctx, "ws://127.0.0.1:"+r.bridgePort, &httprpc.DialOptions{Header: http.Header{"Authorization": {bearer}}})
		if err != nil {
			t.Fatal(err)
		}
		defer newer.Close(nil)
		hello, err := capnweb.Call[map[string]any](ctx, newer.Main(), "hello")
		if err != nil || hello["pid"] != float64(r.machine.pid()) {
			t.Errorf("hello: %v, %v", hello, err)
		}
		// The bridge was the older one. It comes back, and is then the newer one.
		select {
		case <-newer.Done():
		case <-ctx.Done():
			t.Error("the older connection was not closed")
		}
		session := r.session(ctx, "", map[string]any{})
		if parts := tools(r.prompt(ctx, session, scripted, bash("echo back"), map[string]string{"text": "done"})); len(parts) != 1 || parts[0].State.Output != "back\n" {
			t.Errorf("parts %+v", parts)
		}
	})

	t.Run("nothing is left over", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			if s := r.host.Bridge().Stats(); s.Imports <= 1 && s.Exports <= 1 {
				break
			}
			time.Sleep(20 * time.Millisecond) // Releases arrive when they arrive.
		}
		if s := r.host.Bridge().Stats(); s.Imports > 1 || s.Exports > 1 {
			t.Errorf("references held: %+v", s)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		calls := slices.DeleteFunc(slices.Clone(r.calls), func(e opencode.CallEvent) bool { return e.Method != "tool" })
		if len(calls) == 0 || calls[0].Tool != "write" || calls[0].CallID == "" || calls[0].Root == "" || calls[0].Took <= 0 {
			t.Errorf("calls reported: %+v", r.calls)
		}
	})
}
