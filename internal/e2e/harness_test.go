package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
)

// bin is the folder with the programs under test, built once by TestMain.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tongs-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/",
		"github.com/tongs-dev/tongs/cmd/tongs", "github.com/tongs-dev/tongs/cmd/tongs-guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// doctor says whether this machine can make sandboxes.
var doctor = sync.OnceValue(func() result {
	home, err := os.MkdirTemp("", "th")
	if err != nil {
		return result{code: 1, stderr: err.Error()}
	}
	defer idmap.Remove(context.Background(), home)
	cmd := exec.Command(filepath.Join(bin, "tongs"), "doctor")
	cmd.Env = environ(home)
	out, _ := cmd.CombinedOutput()
	return result{code: cmd.ProcessState.ExitCode(), stdout: string(out)}
})

// needSandboxes skips a test where sandboxes cannot be made, with doctor's reason.
func needSandboxes(t testing.TB) {
	t.Helper()
	if found := doctor(); found.code != 0 {
		t.Skipf("sandboxes cannot be made here: %s%s", found.stdout, found.stderr)
	}
}

// newHome makes an empty home which has OpenCode already.
func newHome(t testing.TB) string {
	t.Helper()
	home, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tongs(t, home, "down") // whatever a test left running
		if err := idmap.Remove(context.WithoutCancel(t.Context()), home); err != nil {
			t.Errorf("the home cannot be removed: %v", err)
		}
	})
	giveOpenCode(t, home)
	return home
}

// giveOpenCode puts the pinned OpenCode into a home, hard-linked from the tests' cache.
func giveOpenCode(t testing.TB, home string) {
	t.Helper()
	from := filepath.Dir(opencodetest.Binary(t))
	to := filepath.Join(home, "opencode", opencode.Version)
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"opencode", "receipt.json"} {
		if os.Link(filepath.Join(from, name), filepath.Join(to, name)) == nil {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// result is what a finished command left.
type result struct {
	code           int
	stdout, stderr string
}

// tongs runs one command to its end, with a deadline of two minutes.
func tongs(t testing.TB, home string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "tongs"), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, environ(home)
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("tongs %s: no end after two minutes\n%s%s", strings.Join(args, " "), stdout.String(), stderr.String())
	}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// environ is this process's environment without anything that configures tongs or names a key.
func environ(home string, extra ...string) []string {
	var env []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "TONGS_") && !strings.HasSuffix(name, "_API_KEY") {
			env = append(env, pair)
		}
	}
	return append(append(env, "TONGS_HOME="+home), extra...)
}

// service is a running `tongs up`.
type service struct {
	t    testing.TB
	home string
	url  string
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

var readyLine = regexp.MustCompile(`(?m)^ready: (http://\S+)`)

// up starts the service with the scripted model on a free port and waits until it is ready.
func up(t testing.TB, home string, options ...func(*exec.Cmd)) *service {
	t.Helper()
	s := launch(t, home, options...)
	select {
	case <-s.wait(readyLine):
	case <-s.done:
		t.Fatalf("tongs up ended: %v\n%s", s.cmd.ProcessState, s.output())
	case <-time.After(3 * time.Minute):
		t.Fatalf("tongs up is not ready after three minutes\n%s", s.output())
	}
	s.url = readyLine.FindStringSubmatch(s.output())[1]
	return s
}

// launch starts `tongs up` without waiting for it to be ready.
func launch(t testing.TB, home string, options ...func(*exec.Cmd)) *service {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "tongs"), "up", "--scripted", "--listen", "127.0.0.1:0")
	cmd.Env = environ(home)
	for _, option := range options {
		option(cmd)
	}
	s := &service{t: t, home: home, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { s.stop(syscall.SIGTERM) })
	return s
}

// withEnv adds variables to the service's environment; withArgs adds flags.
func withEnv(pairs ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, pairs...) }
}

func withArgs(args ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, args...) }
}

// Write keeps what the service prints.
func (s *service) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *service) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// wait is closed once the output matches.
func (s *service) wait(pattern *regexp.Regexp) <-chan struct{} {
	found := make(chan struct{})
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if pattern.MatchString(s.output()) {
				close(found)
				return
			}
			select {
			case <-s.done:
				return
			default:
			}
		}
	}()
	return found
}

// stop signals the service and waits for its end.
func (s *service) stop(signal syscall.Signal) {
	select {
	case <-s.done:
		return
	default:
	}
	s.cmd.Process.Signal(signal)
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		s.cmd.Process.Kill()
		s.t.Errorf("tongs up did not end a minute after %v\n%s", signal, s.output())
	}
}

// call does one HTTP request against the front; a body that is not nil is sent as JSON.
func (s *service) call(method, path string, body any, header ...string) (int, []byte) {
	s.t.Helper()
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, reader)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			request.Host = header[i+1]
		} else {
			request.Header.Set(header[i], header[i+1])
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", method, path, err, s.output())
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, text
}

// part is the piece of a message that these tests look at.
type part struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Tool  string `json:"tool"`
	State struct {
		Status   string         `json:"status"`
		Input    map[string]any `json:"input"`
		Output   string         `json:"output"`
		Error    string         `json:"error"`
		Title    string         `json:"title"`
		Metadata map[string]any `json:"metadata"`
		Time     struct{ Start, End float64 }
	} `json:"state"`
}

type message struct {
	Info struct {
		ID, Role, SessionID string
		ParentID            string          `json:"parentID"`
		Error               json.RawMessage `json:"error"`
	} `json:"info"`
	Parts []part `json:"parts"`
}

// session makes a session and returns its id.
func (s *service) session(header ...string) string {
	s.t.Helper()
	status, body := s.call("POST", "/session", map[string]any{}, header...)
	var made struct{ ID string }
	if err := json.Unmarshal(body, &made); err != nil || status != 200 || made.ID == "" {
		s.t.Fatalf("POST /session: %d %s", status, body)
	}
	return made.ID
}

// step is one step of a script for the scripted model.
type step map[string]any

// scripted is the body of a prompt that carries its own script.
func scripted(t testing.TB, model string, steps ...step) map[string]any {
	t.Helper()
	script, err := json.Marshal(steps)
	if err != nil {
		t.Fatal(err)
	}
	provider, id, _ := strings.Cut(model, "/")
	return map[string]any{
		"model": map[string]string{"providerID": provider, "modelID": id},
		"parts": []any{map[string]any{"type": "text", "text": "```tongs-script\n" + string(script) + "\n```"}},
	}
}

// do sends a scripted prompt to the session, waits for the end of the turn, and returns the parts of
// all assistant messages of that turn.
func (s *service) do(session, model string, steps ...step) []part {
	s.t.Helper()
	return s.doWith(nil, session, model, steps...)
}

func (s *service) doWith(header []string, session, model string, steps ...step) []part {
	s.t.Helper()
	status, body := s.call("POST", "/session/"+session+"/message", scripted(s.t, model, steps...), header...)
	var last message
	if err := json.Unmarshal(body, &last); err != nil || status != 200 {
		s.t.Fatalf("POST message: %d %s\n%s", status, body, s.output())
	}
	if len(last.Info.Error) > 0 {
		s.t.Fatalf("the turn ended with an error: %s\n%s", last.Info.Error, s.output())
	}
	return s.turn(session, last.Info.ParentID)
}

// turn reads the parts of the assistant messages that answer one user message.
func (s *service) turn(session, user string) []part {
	s.t.Helper()
	status, body := s.call("GET", "/session/"+session+"/message", nil)
	var all []message
	if err := json.Unmarshal(body, &all); err != nil || status != 200 {
		s.t.Fatalf("GET message: %d %s", status, body)
	}
	var parts []part
	for _, m := range all {
		if m.Info.Role == "assistant" && m.Info.ParentID == user {
			parts = append(parts, m.Parts...)
		}
	}
	return parts
}

// tools keeps the tool parts, in order.
func tools(parts []part) []part {
	var kept []part
	for _, p := range parts {
		if p.Type == "tool" {
			kept = append(kept, p)
		}
	}
	return kept
}

// one runs a single tool call and returns its part.
func (s *service) one(session, model, tool string, args map[string]any) part {
	s.t.Helper()
	parts := tools(s.do(session, model, step{"tool": tool, "args": args}, step{"text": "done"}))
	if len(parts) != 1 {
		s.t.Fatalf("%s: %d tool parts, want 1: %+v", tool, len(parts), parts)
	}
	return parts[0]
}

// bash runs a command in the session's sandbox and returns what it printed, which must have ended well.
func (s *service) bash(session, command string) string {
	s.t.Helper()
	p := s.one(session, "tongs/scripted", "bash", map[string]any{"command": command})
	if p.State.Status != "completed" {
		s.t.Fatalf("bash %q: %s: %s\n%s", command, p.State.Status, p.State.Error, s.output())
	}
	return p.State.Output
}
