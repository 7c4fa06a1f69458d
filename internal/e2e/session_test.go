package e2e

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// TestService holds what can be shown on one running service: starting one costs seconds.
func TestService(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	const key = "sk-canary-5f0c9e1b7a"
	s := up(t, newHome(t), withEnv("ANTHROPIC_API_KEY="+key, "GROQ_API_KEY="+key), withArgs("--opencode-config", families(t, key)))

	t.Run("a tool call runs in the sandbox and nowhere else", func(t *testing.T) {
		s := s.in(t)
		session := s.session()
		marker := filepath.Join("/home/user/project", "marker-"+session)
		s.bash(session, "echo in the sandbox > "+marker+"; id -u; hostname")
		if got := s.bash(session, "cat "+marker); strings.TrimSpace(got) != "in the sandbox" {
			t.Errorf("the file reads %q", got)
		}
		if _, err := os.Stat(marker); err == nil {
			t.Errorf("%s is on the host", marker)
		}
	})

	t.Run("sessions do not see each other's files", func(t *testing.T) {
		s := s.in(t)
		one, two := s.session(), s.session()
		s.bash(one, "echo secret > /home/user/project/mine; echo secret > /tmp/mine")
		got := s.bash(two, "cat /home/user/project/mine /tmp/mine 2>&1; true")
		if strings.Contains(got, "secret") {
			t.Errorf("the second session read the first one's files: %s", got)
		}
	})

	t.Run("a subagent works in its parent's sandbox", func(t *testing.T) {
		s := s.in(t)
		session := s.session()
		s.bash(session, "echo from the parent > /home/user/project/shared")
		script, _ := json.Marshal([]step{
			{"tool": "bash", "args": map[string]any{"command": "cat shared; echo from the child >> shared"}},
			{"text": "the child is done"},
		})
		p := s.one(session, "tongs/scripted", "task", map[string]any{
			"description": "read a file", "subagent_type": "general", "prompt": string(script)})
		if p.State.Status != "completed" {
			t.Fatalf("task: %s %s", p.State.Status, p.State.Error)
		}
		if got := s.bash(session, "cat shared"); got != "from the parent\nfrom the child\n" {
			t.Errorf("the parent reads %q", got)
		}
	})

	t.Run("another directory changes nothing", func(t *testing.T) {
		s := s.in(t)
		other := t.TempDir()
		session := s.session("x-opencode-directory", other)
		parts := tools(s.doWith([]string{"x-opencode-directory", other}, session, "tongs/scripted",
			step{"tool": "bash", "args": map[string]any{"command": "pwd; echo x > proof; cat proof"}}, step{"text": "done"}))
		if len(parts) != 1 || parts[0].State.Output != "/home/user/project\nx\n" {
			t.Fatalf("parts: %+v", parts)
		}
		if left, _ := os.ReadDir(other); len(left) != 0 {
			t.Errorf("the host's directory now has %v", left)
		}
	})

	for _, model := range []string{"chat/gpt-5-scripted", "openai/gpt-5"} {
		t.Run("apply_patch of "+model+" writes in the sandbox", func(t *testing.T) {
			s := s.in(t)
			session := s.session()
			p := s.one(session, model, "apply_patch", map[string]any{
				"patchText": "*** Begin Patch\n*** Add File: patched.txt\n+by a patch\n*** End Patch"})
			if p.State.Status != "completed" {
				t.Fatalf("apply_patch: %s %s", p.State.Status, p.State.Error)
			}
			if got := s.bash(session, "cat /home/user/project/patched.txt"); got != "by a patch\n" {
				t.Errorf("the sandbox has %q", got)
			}
			if _, err := os.Stat("/home/user/project/patched.txt"); err == nil {
				t.Error("the host has the file")
			}
		})
	}

	t.Run("a foreign Host or Origin is refused", func(t *testing.T) {
		s := s.in(t)
		for _, header := range [][]string{
			{"Host", "evil.example"}, {"Origin", "http://evil.example"}, {"Origin", "http://localhost:9"}, {"Origin", "null"},
		} {
			if status, body := s.call("POST", "/session", map[string]any{}, header...); status != 403 {
				t.Errorf("%v: %d %s", header, status, body)
			}
		}
	})

	t.Run("no key is to be had", func(t *testing.T) {
		s := s.in(t)
		for _, path := range []string{"/config", "/config/providers", "/provider", "/api/provider", "/global/config", "/api/model"} {
			status, body := s.call("GET", path, nil)
			if bytes.Contains(body, []byte(key)) {
				t.Errorf("GET %s (%d) shows the key", path, status)
			}
		}
		found := 0
		for _, pid := range children(t, s.home) {
			for _, file := range []string{"environ", "cmdline"} {
				text, err := os.ReadFile(filepath.Join("/proc", pid, file))
				if err != nil {
					continue
				}
				found++
				if bytes.Contains(text, []byte(key)) {
					t.Errorf("/proc/%s/%s has the key", pid, file)
				}
			}
		}
		if found < 4 { // the agent host's first process and OpenCode, at the least
			t.Errorf("only %d files of processes were looked at", found)
		}
	})

	t.Run("a deleted session's sandbox is removed", func(t *testing.T) {
		s := s.in(t)
		session := s.session()
		s.bash(session, "echo here > file")
		before := sandboxes(t, s.home)
		// A command that runs meanwhile ends with the session and is not run again elsewhere.
		s.call("POST", "/session/"+session+"/prompt_async", scripted(t, "tongs/scripted", step{"tool": "bash", "args": map[string]any{"command": "sleep 557"}}))
		await(t, "the command to run", func() bool { return running("sleep 557") })
		if status, body := s.call("DELETE", "/session/"+session, nil); status != 200 {
			t.Fatalf("DELETE: %d %s", status, body)
		}
		await(t, "its sandbox to be removed", func() bool { return len(sandboxes(t, s.home)) < len(before) })
		s.bash(s.session(), "true") // by now a repeated call would have made another one
		if running("sleep 557") {
			t.Error("the command runs again")
		}
	})

	t.Run("side doors are shut", func(t *testing.T) {
		s := s.in(t)
		for _, door := range []struct{ method, path string }{
			{"POST", "/api/session"}, {"POST", "/api/pty"}, {"GET", "/api/fs/list"}, {"POST", "/instance/dispose"}, {"POST", "/experimental/worktree"},
			{"PATCH", "/config"}, {"PUT", "/auth/openai"}, {"POST", "/mcp"}, {"POST", "/nothing/like/this"},
		} {
			status, body := s.call(door.method, door.path, map[string]any{"command": "id", "agent": "build"})
			if status != 403 || !json.Valid(body) {
				t.Errorf("%s %s: %d %.200s, want 403 and a reason", door.method, door.path, status, body)
			}
		}
	})

	t.Run("the stock client prints the answer", func(t *testing.T) {
		s := s.in(t)
		out, err := s.client("run", "--attach", s.url, "--model", "tongs/scripted",
			"Write a Node.js script random.js that prints a random number between 0 and 100, run it, tell me the number and show me the file.")
		if err != nil {
			t.Fatalf("opencode run: %v\n%s", err, out)
		}
		if !strings.Contains(out, "random.js") || !strings.Contains(out, "Math.random") {
			t.Errorf("opencode run printed:\n%s", out)
		}
	})
}

// families writes an opencode.json with two providers of GPT-5 models that are scripted models of this
// test: "chat" speaks chat completions, "openai" speaks responses. Both have a key.
func families(t *testing.T, key string) string {
	t.Helper()
	model := httptest.NewServer(scriptmodel.New(scriptmodel.Options{}))
	t.Cleanup(model.Close)
	options := map[string]any{"baseURL": model.URL + "/v1", "apiKey": key}
	text, err := json.Marshal(map[string]any{"provider": map[string]any{
		"openai": map[string]any{"options": options},
		"chat": map[string]any{"npm": "@ai-sdk/openai-compatible", "name": "Chat", "options": options, "models": map[string]any{
			"gpt-5-scripted": map[string]any{"name": "GPT-5, scripted", "tool_call": true, "limit": map[string]any{"context": 200000, "output": 8192}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "opencode.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// in binds the service to a subtest.
func (s *service) in(t *testing.T) *service {
	return &service{t: t, home: s.home, url: s.url, cmd: s.cmd, done: s.done}
}

// client runs the stock OpenCode as a client, in a home of its own.
func (s *service) client(args ...string) (string, error) {
	s.t.Helper()
	binary := filepath.Join(s.home, "opencode", "1.18.33", "opencode")
	cmd := exec.Command(binary, args...)
	cmd.Env = append(environ(s.home), "HOME="+s.t.TempDir(), "OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_MODELS_FETCH=1")
	cmd.Dir = s.t.TempDir()
	cmd.WaitDelay = time.Second
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// await waits for something that makes no event here: a process of a sandbox, a directory.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// running reports whether a process has this command line.
func running(command string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.TrimRight(strings.ReplaceAll(string(text), "\x00", " "), " ") == command {
			return true
		}
	}
	return false
}

// sandboxes lists the sandboxes of a home.
func sandboxes(t *testing.T, home string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(home, "sandboxes", "*", "sandbox.json"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// children lists the OpenCode processes of a home's agent host, each followed by its first process,
// which the driver's record names.
func children(t *testing.T, home string) []string {
	t.Helper()
	records, err := filepath.Glob(filepath.Join(home, "sandboxes", "*", "guest.json"))
	if err != nil {
		t.Fatal(err)
	}
	guests := make(map[string]bool)
	for _, file := range records {
		var record struct{ PID int }
		if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &record) == nil {
			guests[strconv.Itoa(record.PID)] = true
		}
	}
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, link := range exes {
		pid := filepath.Base(filepath.Dir(link))
		if exe, err := os.Readlink(link); err == nil && strings.HasSuffix(exe, "/opencode") && guests[parent(pid)] {
			pids = append(pids, pid, parent(pid))
		}
	}
	return pids
}

func parent(pid string) string {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return "0"
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return fields[1]
}

// TestSurvivesKills ends each part with SIGKILL and goes on working in the same sandbox.
func TestSurvivesKills(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	session := s.session()
	s.bash(session, "echo kept > /home/user/project/kept")

	t.Run("OpenCode", func(t *testing.T) {
		s := s.in(t)
		before := children(t, home)
		if len(before) == 0 {
			t.Fatal("OpenCode is not running")
		}
		for i := 0; i < len(before); i += 2 {
			kill(t, before[i])
		}
		if got := s.bash(session, "cat /home/user/project/kept"); got != "kept\n" {
			t.Errorf("after the kill: %q", got)
		}
	})

	t.Run("tongs up", func(t *testing.T) {
		s.in(t).bash(session, "setsid sleep 1000 >/dev/null 2>&1 & echo $! > pid")
		s.cmd.Process.Signal(syscall.SIGKILL)
		<-s.done
		again := up(t, home)
		if got := again.bash(session, "cat /home/user/project/kept; kill -0 $(cat pid) && echo still running"); got != "kept\nstill running\n" {
			t.Errorf("after the kill: %q", got)
		}
		again.stop(syscall.SIGINT)
		third := up(t, home) // Ctrl-C ended the processes and kept the files
		if got := third.bash(session, "cat /home/user/project/kept; kill -0 $(cat pid) 2>/dev/null || echo ended"); got != "kept\nended\n" {
			t.Errorf("after Ctrl-C: %q", got)
		}
	})
}

// kill ends a process and waits until it has ended.
func kill(t *testing.T, pid string) {
	t.Helper()
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(number, 0)
	if err != nil {
		t.Fatalf("process %s: %v", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatalf("kill %s: %v", pid, err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 20_000)
		if n == 1 {
			return
		}
		if err != unix.EINTR {
			t.Fatalf("process %s has not ended: %v", pid, err)
		}
	}
}
