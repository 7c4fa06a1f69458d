package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// project is what the sandbox of a session has in its project: the files' contents by name.
func (s *service) project(session string) map[string]string {
	s.t.Helper()
	files := map[string]string{}
	var list func(dir string)
	list = func(dir string) {
		status, body := s.call("GET", "/file?path="+url.QueryEscape(dir), nil, "X-Tongs-Session", session)
		var entries []struct{ Path, Type string }
		if err := json.Unmarshal(body, &entries); err != nil || status != 200 {
			s.t.Fatalf("list %q: %d %s", dir, status, body)
		}
		for _, entry := range entries {
			if entry.Path == ".git/" {
				continue
			}
			if entry.Type == "directory" {
				list(entry.Path)
				continue
			}
			status, body := s.call("GET", "/file/content?path="+url.QueryEscape(entry.Path), nil, "X-Tongs-Session", session)
			var file struct{ Content string }
			if err := json.Unmarshal(body, &file); err != nil || status != 200 {
				s.t.Fatalf("read %q: %d %s", entry.Path, status, body)
			}
			files[entry.Path] = file.Content
		}
	}
	list("")
	return files
}

// has compares the sandbox's project.
func (s *service) has(session, what string, want ...string) {
	s.t.Helper()
	var got []string
	for name, content := range s.project(session) {
		got = append(got, name+"="+strings.TrimSpace(content))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s: the sandbox has %q, want %q", what, got, want)
	}
}

// history is a session's messages.
func (s *service) history(session string) []message {
	s.t.Helper()
	status, body := s.call("GET", "/session/"+session+"/message", nil)
	var all []message
	if err := json.Unmarshal(body, &all); err != nil || status != 200 {
		s.t.Fatalf("GET message: %d %s", status, body)
	}
	return all
}

// users are the ids of a session's user messages.
func (s *service) users(session string) []string {
	s.t.Helper()
	var ids []string
	for _, m := range s.history(session) {
		if m.Info.Role == "user" {
			ids = append(ids, m.Info.ID)
		}
	}
	return ids
}

// reverted is what a session says of its undo.
type reverted struct {
	ID      string
	Revert  *struct{ MessageID, Snapshot, Diff string }
	Summary *struct{ Additions, Deletions, Files int }
}

func (s *service) post(path string, body any) reverted {
	s.t.Helper()
	status, text := s.call("POST", path, body)
	var r reverted
	if err := json.Unmarshal(text, &r); err != nil || status != 200 {
		s.t.Fatalf("POST %s: %d %s\n%s", path, status, text, s.output())
	}
	return r
}

func bashStep(command string) step {
	return step{"tool": "bash", "args": map[string]any{"command": command}}
}

func writeStep(name, content string) step {
	return step{"tool": "write", "args": map[string]any{"filePath": "/home/user/project/" + name, "content": content}}
}

// TestUndo undoes, does again, compares and forks what a session did to the files of its sandbox.
func TestUndo(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	s := up(t, newHome(t))
	const model = "tongs/scripted"
	id := s.session()
	s.do(id, model, writeStep("a", "1\n"), bashStep("mkdir d && echo x > d/b"), step{"text": "done"})
	s.do(id, model, bashStep("echo 2 > a; rm -r d; echo by bash > c"), writeStep("e", "e\n"), step{"text": "done"})
	s.do(id, model, step{"text": "words alone"})
	users := s.users(id)
	if len(users) != 3 {
		t.Fatalf("%d user messages", len(users))
	}
	first, second := []string{"a=1", "d/b=x"}, []string{"a=2", "c=by bash", "e=e"}
	path := "/session/" + id

	t.Run("diff of a turn", func(t *testing.T) {
		s := s.in(t)
		_, body := s.call("GET", path+"/diff?messageID="+users[1], nil)
		var files []struct {
			File, Patch, Status  string
			Additions, Deletions int
		}
		if err := json.Unmarshal(body, &files); err != nil {
			t.Fatal(err, string(body))
		}
		var got []string
		for _, f := range files {
			got = append(got, fmt.Sprintf("%s %s +%d -%d", f.File, f.Status, f.Additions, f.Deletions))
		}
		if want := []string{"a modified +1 -1", "c added +1 -0", "d/b deleted +0 -1", "e added +1 -0"}; !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if len(files) > 0 && !strings.Contains(files[0].Patch, "@@ -1 +1 @@\n-1\n+2\n") {
			t.Errorf("%q", files[0].Patch)
		}
		if _, body := s.call("GET", path+"/diff?messageID="+users[2], nil); string(body) != "[]" {
			t.Errorf("a turn without files: %s", body)
		}
		if _, body := s.call("GET", path+"/diff", nil); string(body) != "[]" {
			t.Errorf("without a message: %s", body)
		}
	})
	t.Run("undo and redo", func(t *testing.T) {
		s := s.in(t)
		if r := s.post(path+"/revert", map[string]any{"messageID": users[2]}); r.Revert == nil {
			t.Error("words are not marked")
		}
		s.has(id, "words undone", second...)
		r := s.post(path+"/revert", map[string]any{"messageID": users[1]})
		if r.Revert == nil || r.Revert.MessageID != users[1] || r.Revert.Snapshot == "" || !strings.Contains(r.Revert.Diff, "+++ b/d/b") || r.Summary.Files != 4 {
			t.Errorf("%+v", r)
		}
		s.has(id, "one turn undone", first...)
		s.post(path+"/revert", map[string]any{"messageID": users[0]})
		s.has(id, "both undone")
		_, body := s.call("GET", path, nil)
		if r = (reverted{}); json.Unmarshal(body, &r) != nil || r.Revert == nil || !strings.Contains(r.Revert.Diff, "deleted file") {
			t.Errorf("the session says %s", body)
		}
		s.post(path+"/revert", map[string]any{"messageID": users[1]})
		s.has(id, "one done again", first...)
		if r := s.post(path+"/unrevert", nil); r.Revert != nil {
			t.Errorf("%+v", r)
		}
		s.has(id, "all done again", second...)
		s.post(path+"/unrevert", nil)
		s.has(id, "nothing left to do again", second...)
	})
	t.Run("fork", func(t *testing.T) {
		s := s.in(t)
		whole := s.post(path+"/fork", map[string]any{})
		s.has(whole.ID, "a fork of it all", second...)
		part := s.post(path+"/fork", map[string]any{"messageID": users[1]})
		s.has(part.ID, "a fork before the second turn", first...)
		if got := len(s.users(part.ID)); got != 1 {
			t.Errorf("%d user messages were copied", got)
		}
		s.do(whole.ID, model, writeStep("own", "of the fork\n"), step{"text": "done"})
		s.has(whole.ID, "a fork's own future", append(slices.Clone(second), "own=of the fork")...)
		s.has(id, "the source of a fork", second...)
		s.has(part.ID, "another fork", first...)
		// What the fork has copied can be undone in it.
		s.post("/session/"+whole.ID+"/revert", map[string]any{"messageID": s.users(whole.ID)[1]})
		s.has(whole.ID, "undone in the fork", first...)
		s.has(id, "the source of an undone fork", second...)
	})
	t.Run("a part", func(t *testing.T) {
		s := s.in(t)
		var parts []struct {
			Info  struct{ ID, ParentID string }
			Parts []struct{ ID, Type, Tool string }
		}
		_, body := s.call("GET", path+"/message", nil)
		if err := json.Unmarshal(body, &parts); err != nil {
			t.Fatal(err)
		}
		for _, m := range parts {
			for _, p := range m.Parts {
				if m.Info.ParentID == users[1] && p.Tool == "write" {
					s.post(path+"/revert", map[string]any{"messageID": m.Info.ID, "partID": p.ID})
				}
			}
		}
		s.has(id, "one step of a turn undone", "a=2", "c=by bash")
		s.post(path+"/unrevert", nil)
		s.has(id, "that step done again", second...)
	})
	t.Run("subagents", func(t *testing.T) {
		s := s.in(t)
		id := s.session()
		script, _ := json.Marshal([]step{bashStep("echo child > child"), {"text": "done"}})
		s.do(id, model, step{"tool": "task", "args": map[string]any{"description": "x", "subagent_type": "general", "prompt": string(script)}}, step{"text": "done"})
		s.has(id, "after a subagent", "child=child")
		s.post("/session/"+id+"/revert", map[string]any{"messageID": s.users(id)[0]})
		s.has(id, "a subagent's work undone")
		s.post("/session/"+id+"/unrevert", nil)
		s.has(id, "a subagent's work done again", "child=child")
	})
	t.Run("a prompt keeps what was undone", func(t *testing.T) {
		s := s.in(t)
		id := s.session()
		s.do(id, model, writeStep("a", "1\n"), step{"text": "done"})
		s.do(id, model, writeStep("a", "2\n"), step{"text": "done"})
		s.post("/session/"+id+"/revert", map[string]any{"messageID": s.users(id)[1]})
		s.do(id, model, writeStep("b", "new\n"), step{"text": "done"})
		s.has(id, "a new prompt", "a=1", "b=new")
		s.post("/session/"+id+"/unrevert", nil)
		s.has(id, "nothing to do again", "a=1", "b=new")
		if got := len(s.users(id)); got != 2 {
			t.Errorf("%d user messages", got)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		s := s.in(t)
		id := s.session()
		s.do(id, model, writeStep("a", "1\n"), step{"text": "done"})
		user := s.users(id)[0]
		refuse := func(path string, body any, want int, text string) {
			t.Helper()
			if status, got := s.call("POST", path, body); status != want || !strings.Contains(string(got), text) {
				t.Errorf("POST %s: %d %s", path, status, got)
			}
		}
		refuse("/session/"+id+"/revert", map[string]any{}, 400, "messageID")
		refuse("/session/"+id+"/revert", map[string]any{"messageID": 5}, 400, "BAD_BODY")
		refuse("/session/ses_nothing/revert", map[string]any{"messageID": user}, 404, "")
		refuse("/session/..x/unrevert", map[string]any{}, 404, "")

		// While something is under way nothing is undone.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.call("POST", "/session/"+id+"/message", scripted(t, model, bashStep("echo 2 > a; sleep 617"), step{"text": "done"}))
		}()
		await(t, "the command to run", func() bool { return running("sleep 617") })
		refuse("/session/"+id+"/revert", map[string]any{"messageID": user}, 409, "busy")
		s.has(id, "while busy", "a=2")
		s.call("POST", "/session/"+id+"/abort", map[string]any{})
		<-ended
		await(t, "the session to be idle", func() bool {
			_, body := s.call("GET", "/session/status", nil)
			return !strings.Contains(string(body), id)
		})
		s.post("/session/"+id+"/revert", map[string]any{"messageID": s.users(id)[1]})
		s.has(id, "an aborted command undone", "a=1")

		// Without its own copies of the files, undo says so and touches nothing.
		other := s.session()
		s.do(other, model, writeStep("a", "1\n"), bashStep("rm -rf ~/.local/share/tongs"), step{"text": "done"})
		s.has(other, "before", "a=1")
		refuse("/session/"+other+"/revert", map[string]any{"messageID": s.users(other)[0]}, 409, "not known")
		s.has(other, "after", "a=1")
	})
}

// TestUndoInTheTerminalClient types /undo and /redo into the stock client.
func TestUndoInTheTerminalClient(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	id := s.session()
	s.do(id, "tongs/scripted", writeStep("a", "1\n"), bashStep("echo x > by-bash"), step{"text": "turn one is over"})
	s.do(id, "tongs/scripted", writeStep("a", "2\n"), step{"text": "turn two is over"})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
	})
	binary := filepath.Join(home, "opencode", "1.18.33", "opencode")
	term := openTerminal(t, append(environ(home), "HOME="+t.TempDir(), "OPENCODE_DISABLE_AUTOUPDATE=1"), binary, "attach", s.url, "--session", id)
	term.await("turn two is over")
	say := func(command string) {
		t.Helper()
		// The screen may name the command already. Typed, it stands in the prompt and in the list above it.
		before := strings.Count(term.screen(), command)
		term.typeText(command)
		await(t, command+" in the list of commands", func() bool { return strings.Count(term.screen(), command) >= before+2 })
		term.typeText("", "Enter")
	}
	say("/undo")
	term.await("1 message reverted", "a +1 -1")
	s.has(id, "/undo", "a=1", "by-bash=x")
	term.typeText("", "C-c") // clears the prompt that was taken back
	say("/undo")
	term.await("2 message reverted")
	s.has(id, "/undo twice")
	term.typeText("", "C-c")
	say("/redo")
	await(t, "the first turn to be back", func() bool { return len(s.project(id)) == 2 })
	term.await("1 message reverted") // the client knows it, too
	s.has(id, "/redo", "a=1", "by-bash=x")
	say("/redo")
	await(t, "the second turn to be back", func() bool { return s.project(id)["a"] == "2" })
	term.await("turn two is over")
}
