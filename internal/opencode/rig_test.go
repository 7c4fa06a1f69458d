package opencode_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// rig is the real OpenCode with the plugin, the scripted model and fake sandboxes.
type rig struct {
	t          *testing.T
	host       *opencode.Host
	machine    *localMachine
	boxes      *fakeSandboxes
	project    string
	bridgePort string
	base       string // URL of OpenCode, if it is to be asked past the host

	mu    sync.Mutex
	conns []net.Conn // to the plugin
	calls []opencode.CallEvent
}

const scripted = "tongs/scripted"

// rigOptions are what a rig may have in another way; the zero value is newRig's.
type rigOptions struct {
	env       map[string]string
	model     http.Handler              // default: the scripted model
	content   func(model string) []byte // default: testContent
	fetch     opencode.FetchFunc        // default: none
	sandboxes opencode.Sandboxes        // default: fake ones
}

func newRig(t *testing.T, env map[string]string) *rig {
	t.Helper()
	return newRigWith(t, rigOptions{env: env})
}

func newRigWith(t *testing.T, o rigOptions) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	binary := realBinary(t).Path
	if o.model == nil {
		o.model = scriptmodel.New(scriptmodel.Options{})
	}
	if o.content == nil {
		o.content = testContent
	}
	model := httptest.NewServer(o.model)
	t.Cleanup(model.Close)
	home, project := places(t)
	ports := freePorts(t, 2)
	r := &rig{t: t, machine: newLocalMachine(t), boxes: newFakeSandboxes(t), project: project, bridgePort: fmt.Sprint(ports[1])}
	if o.sandboxes == nil {
		o.sandboxes = r.boxes
	}
	r.host = newHost(t, opencode.HostConfig{
		Machine: func(ctx context.Context) (opencode.Machine, error) {
			m, err := r.machine.connect(ctx)
			if err != nil {
				return nil, err
			}
			return &watchedMachine{m, r, r.bridgePort}, nil
		},
		Content: o.content(model.URL), Sandboxes: o.sandboxes, Fetch: o.fetch, Models: []opencode.Model{{Provider: "tongs", ID: "scripted"}},
		Binary: binary, Home: home, Project: project, Port: ports[0], BridgePort: ports[1], Env: o.env, Logger: testLogger(t),
		OnCall: func(e opencode.CallEvent) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.calls = append(r.calls, e)
		},
	})
	ctx := deadline(t, 2*time.Minute)
	began := time.Now()
	if _, err := r.host.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(began))
	return r
}

// watchedMachine keeps the connections to the plugin so that they can be cut.
type watchedMachine struct {
	opencode.Machine
	rig  *rig
	port string
}

func (m *watchedMachine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := m.Machine.Dial(ctx, network, address)
	if err == nil && strings.HasSuffix(address, ":"+m.port) {
		m.rig.mu.Lock()
		m.rig.conns = append(m.rig.conns, conn)
		m.rig.mu.Unlock()
	}
	return conn, err
}

// cutBridge breaks the connection to the plugin, as a dying host does.
func (r *rig) cutBridge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func testContent(model string) []byte {
	provider := func(npm string, models ...string) map[string]any {
		list := map[string]any{}
		for _, m := range models {
			list[m] = map[string]any{"tool_call": true, "limit": map[string]int{"context": 200000, "output": 8192}}
		}
		return map[string]any{"npm": npm, "options": map[string]any{"baseURL": model + "/v1", "apiKey": "placeholder"}, "models": list}
	}
	content, err := json.Marshal(map[string]any{
		"autoupdate": false, "share": "disabled", "snapshot": false, "lsp": false, "formatter": false, "tool_output": map[string]int{"max_lines": 4000, "max_bytes": 200_000},
		"enabled_providers": []string{"tongs", "openai"}, "model": scripted, "small_model": scripted,
		"permission": map[string]any{"websearch": "deny"},
		"provider": map[string]any{
			"tongs":  provider("@ai-sdk/openai-compatible", "scripted", "gpt-5", "gpt-oss"),
			"openai": provider("@ai-sdk/openai", "gpt-5"),
		},
	})
	if err != nil {
		panic(err)
	}
	return content
}

// api asks OpenCode.
func (r *rig) api(ctx context.Context, method, path string, in, out any) {
	r.t.Helper()
	if err := r.try(ctx, method, path, in, out); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) try(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	base, client := r.base, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if base == "" {
		base, client = r.host.URL(), r.host.Client()
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %.500s", method, path, resp.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (r *rig) session(ctx context.Context, query string, body any) string {
	r.t.Helper()
	var s struct{ ID string }
	r.api(ctx, "POST", "/session"+query, body, &s)
	return s.ID
}

// part is a part of a message, as far as tests look at it.
type part struct {
	Type   string
	Text   string
	Tool   string
	CallID string
	State  struct {
		Status, Output, Error, Title string
		Metadata                     map[string]any
	}
}

// prompt has the model play a script, and returns all parts of the answers.
func (r *rig) prompt(ctx context.Context, session, model string, steps ...any) []part {
	r.t.Helper()
	parts, err := r.tryPrompt(ctx, session, model, steps...)
	if err != nil {
		r.t.Fatal(err)
	}
	return parts
}

func (r *rig) tryPrompt(ctx context.Context, session, model string, steps ...any) ([]part, error) {
	script, err := json.Marshal(steps)
	if err != nil {
		return nil, err
	}
	provider, id, _ := strings.Cut(model, "/")
	err = r.try(ctx, "POST", "/session/"+session+"/message", map[string]any{
		"model": map[string]string{"providerID": provider, "modelID": id},
		"parts": []any{map[string]string{"type": "text", "text": string(script)}},
	}, nil)
	if err != nil {
		return nil, err
	}
	return r.parts(ctx, session)
}

// parts are those of all of the assistant's messages.
func (r *rig) parts(ctx context.Context, session string) ([]part, error) {
	var messages []struct {
		Info  struct{ Role string }
		Parts []part
	}
	if err := r.try(ctx, "GET", "/session/"+session+"/message", nil, &messages); err != nil {
		return nil, err
	}
	var parts []part
	for _, m := range messages {
		if m.Info.Role == "assistant" {
			parts = append(parts, m.Parts...)
		}
	}
	return parts, nil
}

func tools(parts []part) []part {
	return slices.DeleteFunc(parts, func(p part) bool { return p.Type != "tool" })
}

func call(tool string, args map[string]any) map[string]any {
	return map[string]any{"tool": tool, "args": args}
}

func bash(command string) map[string]any { return call("bash", map[string]any{"command": command}) }

// events follows OpenCode's events, calling f for each until it returns true.
func (r *rig) events(ctx context.Context, f func(kind string, properties map[string]any) bool) error {
	base, client := r.base, http.DefaultClient
	if base == "" {
		base, client = r.host.URL(), r.host.Client()
	}
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/event?directory="+url.QueryEscape(r.project), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		data, ok := strings.CutPrefix(scanner.Text(), "data: ")
		if !ok {
			continue
		}
		var event struct {
			Type       string
			Properties map[string]any
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
		if f(event.Type, event.Properties) {
			return nil
		}
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

func (r *rig) empty() {
	r.t.Helper()
	entries, err := os.ReadDir(r.project)
	if err != nil || len(entries) > 0 {
		r.t.Errorf("the agent host's project directory has %v, %v; want it empty", entries, err)
	}
}
