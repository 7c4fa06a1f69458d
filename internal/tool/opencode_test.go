package tool_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// builtin runs tools of a stock OpenCode: its server, driven by a model that
// calls the one tool it is told to, with every permission on "ask" and granted.
type builtin struct {
	t       *testing.T
	base    string
	project string

	mu   sync.Mutex
	call map[string]any // what the model shall call next
	asks []ask
}

type ask struct {
	Permission string         `json:"permission"`
	Patterns   []string       `json:"patterns"`
	Always     []string       `json:"always"`
	Metadata   map[string]any `json:"metadata"`
}

// outcome is what a tool gave, ours or theirs.
type outcome struct {
	Title       string
	Output      string
	Metadata    map[string]any
	Attachments []map[string]any
	Error       string
	Asks        []ask
}

const lock = `{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`

func startBuiltin(t *testing.T, binary, rg string) *builtin {
	t.Helper()
	home := t.TempDir()
	b := &builtin{t: t, project: filepath.Join(home, "project")}
	for _, dir := range []string{b.project, filepath.Join(home, "bin"), filepath.Join(home, ".config/opencode/node_modules")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must(t, os.WriteFile(filepath.Join(home, ".config/opencode/package-lock.json"), []byte(lock), 0o644))
	must(t, os.Symlink(rg, filepath.Join(home, "bin", "rg")))
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "init"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = b.project
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	model := &http.Server{Handler: http.HandlerFunc(b.model), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() { defer close(served); _ = model.Serve(l) }()
	t.Cleanup(func() { _ = model.Close(); <-served })
	config := map[string]any{
		"autoupdate": false, "share": "disabled", "snapshot": false, "lsp": false, "formatter": false,
		"enabled_providers": []string{"mock"}, "model": "mock/mock-1", "small_model": "mock/mock-1",
		"permission": "ask",
		"provider": map[string]any{"mock": map[string]any{
			"npm": "@ai-sdk/openai-compatible", "name": "Mock",
			"options": map[string]any{"baseURL": "http://" + l.Addr().String() + "/v1", "apiKey": "mock"},
			"models":  map[string]any{"mock-1": modelOf(), "gpt-5": modelOf()},
		}},
	}
	text, err := json.Marshal(config)
	must(t, err)
	free, err := net.Listen("tcp", "127.0.0.1:0") // with port 0 it takes 4096
	must(t, err)
	_, port, _ := net.SplitHostPort(free.Addr().String())
	must(t, free.Close())
	cmd := exec.Command(binary, "serve", "--hostname", "127.0.0.1", "--port", port)
	cmd.Dir = b.project
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + filepath.Join(home, "bin") + ":/usr/local/bin:/usr/bin:/bin", "SHELL=/bin/bash",
		"OPENCODE_CONFIG_CONTENT=" + string(text), "OPENCODE_DISABLE_PROJECT_CONFIG=1", "OPENCODE_DISABLE_MODELS_FETCH=1",
		"OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_SHARE=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1",
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	ready := make(chan string, 1)
	go func() {
		for lines.Scan() {
			if _, url, ok := strings.Cut(lines.Text(), "listening on "); ok {
				ready <- strings.TrimSpace(url)
			}
		}
	}()
	select {
	case b.base = <-ready:
	case <-time.After(60 * time.Second):
		t.Fatal("opencode serve did not start in 60 s")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.grant(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return b
}

func modelOf() map[string]any {
	return map[string]any{"name": "M", "tool_call": true, "attachment": true, "limit": map[string]any{"context": 200000, "output": 8192}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// model answers /v1/chat/completions: with the call there is to make, once, and
// with a word otherwise.
func (b *builtin) model(w http.ResponseWriter, req *http.Request) {
	var in struct {
		Tools []any `json:"tools"`
	}
	body, _ := io.ReadAll(req.Body)
	_ = json.Unmarshal(body, &in)
	b.mu.Lock()
	call := b.call
	if len(in.Tools) > 0 {
		b.call = nil
	}
	b.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	delta, reason := map[string]any{"role": "assistant", "content": "ok"}, "stop"
	if len(in.Tools) > 0 && call != nil {
		delta, reason = map[string]any{"role": "assistant", "tool_calls": []any{map[string]any{
			"index": 0, "id": fmt.Sprintf("call_%d", time.Now().UnixNano()), "type": "function", "function": call,
		}}}, "tool_calls"
	}
	for _, choice := range []map[string]any{
		{"index": 0, "delta": delta}, {"index": 0, "delta": map[string]any{}, "finish_reason": reason},
	} {
		text, _ := json.Marshal(map[string]any{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []any{choice}})
		fmt.Fprintf(w, "data: %s\n\n", text)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// grant follows the events and grants every permission asked for.
func (b *builtin) grant(ctx context.Context) {
	req, _ := http.NewRequestWithContext(ctx, "GET", b.base+"/event", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var event struct {
			Type       string `json:"type"`
			Properties struct {
				ID string `json:"id"`
				ask
			} `json:"properties"`
		}
		if json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &event) != nil || event.Type != "permission.asked" {
			continue
		}
		b.mu.Lock()
		b.asks = append(b.asks, event.Properties.ask)
		b.mu.Unlock()
		reply, err := http.Post(b.base+"/permission/"+event.Properties.ID+"/reply", "application/json", strings.NewReader(`{"reply":"once"}`))
		if err == nil {
			reply.Body.Close()
		}
	}
}

func (b *builtin) post(path string, body, into any) {
	b.t.Helper()
	text, err := json.Marshal(body)
	must(b.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", b.base+path, bytes.NewReader(text))
	must(b.t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	must(b.t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	must(b.t, err)
	if res.StatusCode != 200 {
		b.t.Fatalf("POST %s: %s\n%.500s", path, res.Status, answer)
	}
	must(b.t, json.Unmarshal(answer, into))
}

// run lets the built-in tool do one call.
func (b *builtin) run(tool string, args map[string]any) outcome {
	b.t.Helper()
	arguments, err := json.Marshal(args)
	must(b.t, err)
	b.mu.Lock()
	b.call = map[string]any{"name": tool, "arguments": string(arguments)}
	b.asks = nil
	b.mu.Unlock()
	var session struct {
		ID string `json:"id"`
	}
	b.post("/session", map[string]any{"title": "t"}, &session)
	model := "mock-1"
	if tool == "apply_patch" {
		model = "gpt-5"
	}
	var last json.RawMessage
	b.post("/session/"+session.ID+"/message", map[string]any{
		"model": map[string]any{"providerID": "mock", "modelID": model},
		"parts": []any{map[string]any{"type": "text", "text": "go"}},
	}, &last)
	res, err := http.Get(b.base + "/session/" + session.ID + "/message")
	must(b.t, err)
	defer res.Body.Close()
	var messages []struct {
		Parts []struct {
			Type  string
			State struct {
				Status, Title, Output, Error string
				Metadata                     map[string]any
				Attachments                  []map[string]any
			}
		}
	}
	must(b.t, json.NewDecoder(res.Body).Decode(&messages))
	for _, m := range messages {
		for _, p := range m.Parts {
			if p.Type == "tool" {
				b.mu.Lock()
				defer b.mu.Unlock()
				s := p.State
				return outcome{s.Title, s.Output, s.Metadata, s.Attachments, s.Error, b.asks}
			}
		}
	}
	b.t.Fatalf("no tool part in %+v\n%s", messages, last)
	return outcome{}
}
