package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestQAHostileAgent lets an agent do its worst to its sandbox, its neighbours and the agent host.
func TestQAHostileAgent(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	const secret = "of-the-host-only-9d1c"
	dir := t.TempDir()
	for at := dir; at != "/"; at = filepath.Dir(at) { // whoever gets a descriptor of it could read it
		_ = os.Chmod(at, 0o755)
		if at == os.TempDir() || filepath.Dir(at) == os.TempDir() {
			break
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { held.Close() })
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("[sandbox]\nmemory = \"128MiB\"\npids = 64\ntmp = \"16MiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A service that was started by something careless: descriptors 3 to 42 are a directory of the host.
	s := up(t, newHome(t), withArgs("--config", config), func(cmd *exec.Cmd) {
		for range 40 {
			cmd.ExtraFiles = append(cmd.ExtraFiles, held)
		}
	})

	t.Run("descriptors of the host lead nowhere", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		s.bash(session, "for i in $(seq 3 64); do ln -s /proc/1/fd/$i fd$i; ln -s /proc/1/fd/$i/../../../../.. up$i; done")
		var calls []step
		for fd := 3; fd <= 42; fd += 3 {
			calls = append(calls,
				step{"tool": "read", "args": map[string]any{"filePath": fmt.Sprintf("/proc/self/fd/%d/secret", fd)}},
				step{"tool": "grep", "args": map[string]any{"pattern": "of-the-host", "path": fmt.Sprintf("fd%d", fd+1)}},
				step{"tool": "read", "args": map[string]any{"filePath": fmt.Sprintf("up%d%s/secret", fd+2, dir)}})
		}
		for _, p := range tools(s.do(session, "tongs/scripted", step{"tools": calls}, step{"text": "done"})) {
			if strings.Contains(p.State.Output, secret) {
				t.Errorf("%s %v shows the host's file", p.Tool, p.State.Input)
			}
		}
	})

	t.Run("the tools have the rights of the sandbox's user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("in an ordinary user's sandbox everything belongs to that user, and nothing is limited")
		}
		t.Parallel()
		s := s.in(t)
		session := s.session()
		for _, p := range tools(s.do(session, "tongs/scripted", step{"tools": []step{
			{"tool": "read", "args": map[string]any{"filePath": "/proc/1/environ"}},
			{"tool": "read", "args": map[string]any{"filePath": "/proc/self/mem"}},
			{"tool": "read", "args": map[string]any{"filePath": "/proc/kmsg"}},
			{"tool": "list", "args": map[string]any{"path": "/root"}},
			{"tool": "write", "args": map[string]any{"filePath": "/proc/1/mem", "content": "x"}},
			{"tool": "write", "args": map[string]any{"filePath": "/proc/sysrq-trigger", "content": "x"}},
			{"tool": "write", "args": map[string]any{"filePath": "/proc/self/oom_score_adj", "content": "-1000"}},
			{"tool": "write", "args": map[string]any{"filePath": "/proc/1/fd/1", "content": "x"}},
			{"tool": "write", "args": map[string]any{"filePath": "/etc/passwd", "content": "x"}},
			{"tool": "write", "args": map[string]any{"filePath": "/usr/bin/x", "content": "x"}},
			{"tool": "edit", "args": map[string]any{"filePath": "/proc/self/comm", "oldString": "tongs-guest", "newString": "x"}},
			{"tool": "bash", "args": map[string]any{"command": "ls", "workdir": "/proc/1/root"}},
		}}, step{"text": "done"})) {
			if p.State.Status != "error" || p.State.Error == "" {
				t.Errorf("%s %v: %s %.200s, want an error", p.Tool, p.State.Input, p.State.Status, p.State.Output)
			}
		}
	})

	t.Run("files that block or never end do not hold a tool", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		s.bash(session, "mkfifo pipe; ln -s loop loop")
		began := time.Now()
		for _, p := range tools(s.do(session, "tongs/scripted", step{"tools": []step{
			{"tool": "read", "args": map[string]any{"filePath": "pipe"}},
			{"tool": "write", "args": map[string]any{"filePath": "pipe", "content": "x"}},
			{"tool": "grep", "args": map[string]any{"pattern": "x", "path": "pipe"}},
			{"tool": "read", "args": map[string]any{"filePath": "/dev/zero"}},
			{"tool": "read", "args": map[string]any{"filePath": "loop"}},
		}}, step{"text": "done"})) {
			if p.State.Status != "error" {
				t.Errorf("%s %v: %s %.200s, want an error", p.Tool, p.State.Input, p.State.Status, p.State.Output)
			}
		}
		if took := time.Since(began); took > 60*time.Second {
			t.Errorf("the turn took %v", took)
		}
	})

	t.Run("memory and scratch end, the next command works", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("in an ordinary user's sandbox everything belongs to that user, and nothing is limited")
		}
		t.Parallel()
		s := s.in(t)
		session := s.session()
		hog := s.one(session, "tongs/scripted", "bash", map[string]any{"command": "tail /dev/zero; echo left with $?"})
		if !strings.Contains(hog.State.Output, "left with 137") {
			t.Errorf("the hog: %s %.300s%.300s", hog.State.Status, hog.State.Output, hog.State.Error)
		}
		full := s.one(session, "tongs/scripted", "bash", map[string]any{"command": "head -c 100000000 /dev/zero > /tmp/fill; wc -c < /tmp/fill"})
		if !strings.Contains(full.State.Output, "No space left") {
			t.Errorf("/tmp took 100 MB: %.300s", full.State.Output)
		}
		if got := s.bash(session, "echo alive"); got != "alive\n" {
			t.Errorf("afterwards: %q", got)
		}
	})

	t.Run("after a fork bomb the next command works", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("in an ordinary user's sandbox nothing is limited")
		}
		s := s.in(t)
		session := s.session()
		s.one(session, "tongs/scripted", "bash", map[string]any{"command": "bomb() { bomb | bomb & }; bomb; sleep 1; echo left"})
		if got := s.bash(session, "echo alive"); !strings.HasPrefix(got, "alive\n") {
			t.Errorf("afterwards: %q", got)
		}
		if got := s.bash(session, "ps -e | wc -l"); len(got) > 2 && !strings.Contains(got, "were ended") {
			t.Errorf("processes afterwards: %s", got)
		}
	})

	t.Run("a command that ignores signals ends with its timeout", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		p := s.one(session, "tongs/scripted", "bash", map[string]any{"timeout": 1000,
			"command": "trap '' TERM INT HUP; echo began; while :; do sleep 1; done"})
		if !strings.HasPrefix(p.State.Output, "began\n") || !strings.Contains(p.State.Output, "timeout 1000 ms") {
			t.Errorf("%s %q %s", p.State.Status, p.State.Output, p.State.Error)
		}
		if got := s.bash(session, "pgrep -c sleep; true"); got != "0\n" {
			t.Errorf("of it are left: %s", got)
		}
	})

	t.Run("an aborted command is gone", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		s.call("POST", "/session/"+session+"/prompt_async", scripted(t, "tongs/scripted",
			step{"tool": "bash", "args": map[string]any{"command": "trap '' TERM; sleep 7771"}}))
		await(t, "the command to run", func() bool { return running("sleep 7771") })
		if status, body := s.call("POST", "/session/"+session+"/abort", nil); status != 200 {
			t.Fatalf("abort: %d %s", status, body)
		}
		await(t, "the command to end", func() bool { return !running("sleep 7771") })
		if got := s.bash(session, "echo goes on"); got != "goes on\n" {
			t.Errorf("afterwards: %q", got)
		}
	})

	t.Run("a command left in the background does not hold the tool", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		began := time.Now()
		if got := s.bash(session, "sleep 1000 & disown; echo ok"); got != "ok\n" {
			t.Errorf("output: %q", got)
		}
		if took := time.Since(began); took > 60*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := s.bash(session, "pgrep -c sleep"); got != "1\n" {
			t.Errorf("processes left in the background: %s", got)
		}
	})

	t.Run("names of files in a subagent's prompt are not read where OpenCode runs", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		session := s.session()
		script, _ := json.Marshal([]step{{"text": "the child read nothing"}})
		p := s.one(session, "tongs/scripted", "task", map[string]any{"description": "read", "subagent_type": "general",
			"prompt": "@/etc/passwd @/proc/self/environ @" + dir + "/secret " + string(script)})
		if p.State.Status != "completed" {
			t.Fatalf("task: %s %s", p.State.Status, p.State.Error)
		}
		child, _ := p.State.Metadata["sessionId"].(string)
		status, body := s.call("GET", "/session/"+child+"/message", nil)
		if status != 200 || !strings.Contains(string(body), "the child read nothing") {
			t.Fatalf("messages of the child %q: %d %.300s", child, status, body)
		}
		for _, text := range []string{secret, "root:x:0:0", "OPENCODE_CONFIG_CONTENT", "Called the Read tool"} {
			if strings.Contains(string(body), text) {
				t.Errorf("the child's messages contain %q", text)
			}
		}
	})

	t.Run("no agent has a tool that acts elsewhere", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		allowed := strings.Split("bash,edit,write,apply_patch,read,glob,grep,list,webfetch,question,task,todowrite,todoread", ",")
		for _, agent := range []string{"build", "plan", "explore", "general"} {
			prompt := scripted(t, "tongs/scripted", step{"text": "{{tools}}"})
			prompt["agent"] = agent
			status, body := s.call("POST", "/session/"+s.session()+"/message", prompt)
			var answer message
			if err := json.Unmarshal(body, &answer); err != nil || status != 200 {
				t.Fatalf("%s: %d %.300s", agent, status, body)
			}
			var names []string
			for _, p := range answer.Parts {
				if p.Type == "text" {
					names = append(names, strings.Split(p.Text, ",")...)
				}
			}
			if !slices.Contains(names, "bash") {
				t.Errorf("%s: the tools are %v", agent, names)
			}
			for _, name := range names {
				if !slices.Contains(allowed, strings.TrimSpace(name)) {
					t.Errorf("%s has the tool %q", agent, name)
				}
			}
		}
	})

	t.Run("sessions at once do not mix", func(t *testing.T) {
		t.Parallel()
		s := s.in(t)
		var wg sync.WaitGroup
		for i := range 6 {
			session := s.session()
			wg.Go(func() {
				mine := fmt.Sprintf("of session %d", i)
				for _, p := range tools(s.do(session, "tongs/scripted",
					step{"tools": []step{
						{"tool": "write", "args": map[string]any{"filePath": "mine", "content": mine}},
						{"tool": "bash", "args": map[string]any{"command": "echo " + mine + " > /tmp/mine"}},
						{"tool": "glob", "args": map[string]any{"pattern": "*"}},
					}},
					step{"tool": "bash", "args": map[string]any{"command": "cat mine /tmp/mine; ls | wc -l"}}, step{"text": "done"})) {
					if want := mine + mine + "\n1\n"; p.State.Input["command"] == "cat mine /tmp/mine; ls | wc -l" && p.State.Output != want {
						t.Errorf("session %d reads %q, want %q", i, p.State.Output, want)
					}
					if p.State.Status != "completed" {
						t.Errorf("session %d: %s: %s %s", i, p.Tool, p.State.Status, p.State.Error)
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestQAHostKilledDuringCommand kills the host in the middle of a command: the command runs once, to its
// end, and the session goes on from there by itself.
func TestQAHostKilledDuringCommand(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	session := s.session()
	status, text := s.call("POST", "/session/"+session+"/prompt_async", scripted(t, "tongs/scripted",
		step{"tool": "bash", "args": map[string]any{"command": "echo ran >> runs; sleep 15.25; echo done; wc -l < runs"}}, step{"text": "the end of the turn"}))
	if status >= 300 {
		t.Fatalf("prompt_async: %d %s", status, text)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
	})
	await(t, "the command to run", func() bool { return running("sleep 15.25") })
	killed := time.Now()
	s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.done
	// It is away for so long, and back while the command still runs.
	const away = 7 * time.Second
	<-time.After(away - time.Since(killed))
	again := up(t, home)
	t.Logf("the host was back after %v, the command still running: %v", time.Since(killed).Round(time.Millisecond), running("sleep 15.25"))
	var tool part
	await(t, "the end of the turn", func() bool {
		_, body := again.call("GET", "/session/"+session+"/message", nil)
		var all []message
		if json.Unmarshal(body, &all) != nil {
			return false
		}
		ended := false
		for _, m := range all {
			for _, p := range m.Parts {
				if p.Type == "tool" {
					tool = p
				}
				ended = ended || m.Info.Role == "assistant" && strings.Contains(p.Text, "the end of the turn")
			}
		}
		return ended
	})
	if tool.State.Status != "completed" || tool.State.Output != "done\n1\n" || tool.State.Metadata["exit"] != 0.0 {
		t.Errorf("the command: %s %q %s %v", tool.State.Status, tool.State.Output, tool.State.Error, tool.State.Metadata["exit"])
	}
}
