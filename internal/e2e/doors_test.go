package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// The canary is what a file says in the agent host whose namesake in the sandbox says something else.
const doorCanary = "canary of the agent host"

// onePixel is a picture, in base64.
const onePixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// agentHostRoot is the agent host's root directory, seen from outside.
func agentHostRoot(t *testing.T, home string) string {
	t.Helper()
	for _, file := range sandboxes(t, home) {
		var record struct {
			Spec struct{ Labels map[string]string }
		}
		text, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(text, &record) != nil || record.Spec.Labels["tongs.name"] != "agent-host" {
			continue
		}
		var guest struct{ PID int }
		if text, err = os.ReadFile(filepath.Join(filepath.Dir(file), "guest.json")); err != nil || json.Unmarshal(text, &guest) != nil {
			t.Fatalf("the agent host's guest: %v", err)
		}
		return filepath.Join("/proc", strconv.Itoa(guest.PID), "root")
	}
	t.Fatal("there is no agent host")
	return ""
}

// plant puts a file into the agent host's project.
func plant(t *testing.T, home, name, content string) {
	t.Helper()
	file := filepath.Join(agentHostRoot(t, home), "home/user/project", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Skip("the agent host cannot be looked into:", err)
	}
	if err := os.WriteFile(file, []byte(content), 0o666); err != nil {
		t.Skip("the agent host cannot be looked into:", err)
	}
}

// TestDoors drives every door that is answered from the sandbox, with a file of the same name and
// other content where OpenCode runs.
func TestDoors(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	config := filepath.Join(t.TempDir(), "opencode.json")
	if err := os.WriteFile(config, []byte(`{"command":{"where":{"template":"The file says !`+"`cat same.txt`"+` and $ARGUMENTS"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := up(t, home, withArgs("--opencode-config", config))
	id := s.session()
	s.bash(id, `mkdir -p src && printf 'from the sandbox\n' > same.txt && printf 'package x // from the sandbox\n' > src/same.go && printf '\211PNG\r\n\032\n' > p.png && seq 1 50 > lines`)
	for _, name := range []string{"same.txt", "src/same.go", "only-host.txt", "p.png", "lines"} {
		plant(t, home, name, doorCanary+"\n")
	}

	get := func(t *testing.T, path string, header ...string) string {
		t.Helper()
		status, body := s.call("GET", path, nil, header...)
		if status != 200 {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
		if bytes.Contains(body, []byte("canary")) || bytes.Contains(body, []byte("only-host")) && !strings.HasPrefix(path, "/session") {
			t.Errorf("GET %s escaped: %s", path, body)
		}
		return string(body)
	}
	t.Run("routes", func(t *testing.T) {
		for path, want := range map[string]string{
			"/file?path=": `"path":"same.txt"`, "/file?path=src": `"path":"src/same.go"`, "/file/content?path=same.txt": `"content":"from the sandbox"`,
			"/file/status": "[]", "/find?pattern=from+the+sandbox": `"text":"same.txt"`, "/find?pattern=canary": "[]", "/find/file?query=same": `"same.txt"`,
			"/find/file?query=onlyhost": "[]", "/find/symbol?query=x": "[]", "/api/fs/find?query=same.go": `"path":"src/same.go"`, "/vcs": `"branch":"main"`,
			"/vcs/status": `"file":"src/same.go"`, "/vcs/diff?mode=git": `from the sandbox`, "/vcs/diff/raw": "+from the sandbox", "/pty": "[]", "/pty/shells": "/bin/bash",
			"/path": `"directory":"/home/user/project"`,
		} {
			if got := get(t, path); !strings.Contains(got, want) {
				t.Errorf("GET %s: %.500s", path, got)
			}
		}
	})
	t.Run("another client sees an empty project", func(t *testing.T) {
		for path, want := range map[string]string{"/file?path=": "[]", "/find?pattern=a": "[]", "/vcs": "{}", "/vcs/status": "[]", "/find/file?query=same": "[]", "/file/content?path=same.txt": `{"type":"text","content":""}`} {
			if got := get(t, path, "User-Agent", "somebody else"); got != want && path != "/find/file?query=same" {
				// A connection of the pool that has worked with the session is the same program.
				if got != get(t, path, "X-Tongs-Session", id) {
					t.Errorf("GET %s: %s", path, got)
				}
			}
		}
	})
	t.Run("command of a person", func(t *testing.T) {
		status, body := s.call("POST", "/session/"+id+"/shell", map[string]any{"agent": "build", "command": "cat same.txt; id -un; pwd; echo $0; exit 3"})
		var m message
		if err := json.Unmarshal(body, &m); err != nil || status != 200 || len(m.Parts) == 0 {
			t.Fatalf("%d %s", status, body)
		}
		out := m.Parts[0].State.Output
		if !strings.Contains(out, "from the sandbox\nuser\n/home/user/project\n") || strings.Contains(out, "canary") {
			t.Errorf("the command printed %q", out)
		}
	})
	t.Run("abort", func(t *testing.T) {
		ended := make(chan []byte, 1)
		go func() {
			_, body := s.call("POST", "/session/"+id+"/shell", map[string]any{"agent": "build", "command": "sleep 613"})
			ended <- body
		}()
		await(t, "the command to run", func() bool { return running("sleep 613") })
		if status, body := s.call("POST", "/session/"+id+"/abort", map[string]any{}); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		await(t, "the command to end", func() bool { return !running("sleep 613") })
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("the request does not end")
		}
	})
	t.Run("slash command", func(t *testing.T) {
		plain := "[{\"text\":\"fine\"}]"
		status, body := s.call("POST", "/session/"+id+"/command", map[string]any{"command": "where", "arguments": "nothing @same.txt !`cat same.txt` " + plain})
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		history := get(t, "/session/"+id+"/message")
		if !strings.Contains(history, "The file says from the sandbox") || !strings.Contains(history, "@ same.txt") {
			t.Errorf("the template became something else: %.3000s", history)
		}
	})
	t.Run("files of a prompt", func(t *testing.T) {
		other := s.session()
		s.bash(other, `mkdir -p src && printf 'in the other\n' > same.txt && seq 101 150 > lines && base64 -d > p.png <<< '`+onePixel+`'`)
		file := func(mime, path string) map[string]any {
			return map[string]any{"type": "file", "mime": mime, "filename": filepath.Base(path), "url": "file:///home/user/project/" + path}
		}
		prompt := scripted(t, "tongs/scripted", step{"text": "seen"})
		prompt["parts"] = append(prompt["parts"].([]any), file("text/plain", "same.txt"), file("text/plain", "lines?start=3&end=4"), file("application/x-directory", "src"),
			file("image/png", "p.png"), file("text/plain", "only-host.txt"))
		status, body := s.call("POST", "/session/"+other+"/message", prompt)
		if status != 200 || !bytes.Contains(body, []byte("seen")) {
			t.Fatalf("%d %s", status, body)
		}
		history := get(t, "/session/"+other+"/message")
		for _, want := range []string{"1: in the other", "3: 103\\n4: 104", "data:image/png;base64," + onePixel, "<type>directory</type>"} {
			if !strings.Contains(history, want) {
				t.Errorf("no %q in %.4000s", want, history)
			}
		}
		if strings.Contains(history, "5: 105") {
			t.Error("more lines than were named")
		}
		// The next turn works.
		s.do(other, "tongs/scripted", step{"text": "still fine"})
		for _, url := range []string{"http://127.0.0.1:4100/x", "file://elsewhere/x", "data:application/zip;base64,UEsDBAD/"} {
			if status, body := s.call("POST", "/session/"+other+"/message", map[string]any{"parts": []any{map[string]any{"type": "file", "mime": "text/plain", "url": url}}}); status != 400 {
				t.Errorf("%s: %d %s", url, status, body)
			}
		}
	})
	t.Run("terminal", func(t *testing.T) {
		if status, body := s.call("POST", "/pty", map[string]any{}, "X-Tongs-Session", "ses_unknown"); status != 404 {
			t.Errorf("a terminal of an unknown session: %d %s", status, body)
		}
		status, body := s.call("POST", "/pty", map[string]any{"title": "mine"}, "X-Tongs-Session", id)
		var made struct{ ID, Title, Status string }
		if err := json.Unmarshal(body, &made); err != nil || status != 200 || made.Status != "running" || made.Title != "mine" {
			t.Fatalf("%d %s", status, body)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		conn, _, err := websocket.Dial(ctx, strings.Replace(s.url, "http", "ws", 1)+"/pty/"+made.ID+"/connect", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {s.url}}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		if err := conn.Write(ctx, websocket.MessageText, []byte("cat same.txt; id -un; exit\n")); err != nil {
			t.Fatal(err)
		}
		var seen strings.Builder
		for {
			kind, data, err := conn.Read(ctx)
			if err != nil {
				if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Errorf("the terminal ended with %v", err)
				}
				break
			}
			if kind == websocket.MessageText {
				seen.Write(data)
			}
		}
		if out := seen.String(); !strings.Contains(out, "from the sandbox\r\nuser\r\n") || strings.Contains(out, "canary") {
			t.Errorf("the terminal showed %q", out)
		}
	})
}
