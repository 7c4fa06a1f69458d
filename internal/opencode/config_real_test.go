package opencode_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tongs-dev/tongs/internal/modelproxy"
	"github.com/tongs-dev/tongs/internal/opencode"
)

// serveOpenCode starts the real OpenCode, without any sandbox, in an empty
// home with a configuration of ours, and returns its URL.
func serveOpenCode(t *testing.T, binary string, c *opencode.Configured) string {
	t.Helper()
	home := t.TempDir()
	return serve(t, binary, home, []string{"HOME=" + home, "PATH=/usr/bin:/bin", "OPENCODE_CONFIG_CONTENT=" + string(c.Content)})
}

// serve starts the real OpenCode in a directory, and with just that environment, and returns its URL.
func serve(t *testing.T, binary, dir string, env []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.Command(binary, "serve", "--hostname", "127.0.0.1", "--port", port, "--print-logs")
	cmd.Dir = dir
	cmd.Env = append([]string{"OPENCODE_DISABLE_PROJECT_CONFIG=1", "OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_AUTOUPDATE=1",
		"OPENCODE_DISABLE_SHARE=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	pr, pw := io.Pipe()
	cmd.Stdout, cmd.Stderr = pw, pw
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, ended := make(chan struct{}), make(chan struct{})
	var log bytes.Buffer // read after ended only
	go func() {
		defer close(ended)
		var once sync.Once
		for lines := bufio.NewReader(pr); ; {
			line, err := lines.ReadString('\n')
			log.WriteString(line)
			if strings.Contains(line, "server listening on") {
				once.Do(func() { close(listening) })
			}
			if err != nil {
				return
			}
		}
	}()
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		pw.Close()
		close(exited)
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-exited
		<-ended
		if t.Failed() {
			t.Logf("OpenCode's log:\n%.3000s", log.String())
		}
	})
	select {
	case <-listening:
	case <-exited:
		t.Fatal("OpenCode ended")
	case <-time.After(60 * time.Second):
		t.Fatal("OpenCode does not listen")
	}
	return "http://127.0.0.1:" + port
}

// ask makes a request with a deadline and returns the body.
func ask(t *testing.T, method, url, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s: %d %s %v", method, url, resp.StatusCode, b, err)
	}
	return string(b)
}

// upstreams stand in for every provider: they note what reaches which host and
// refuse it in a way that no SDK tries again.
type upstreams struct {
	mu  sync.Mutex
	got map[string]http.Header // by host and path

	redirect bool // answer with a redirect
}

func (u *upstreams) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got[r.URL.Host+r.URL.Path] = r.Header.Clone()
	if u.redirect {
		return &http.Response{StatusCode: 307, Header: http.Header{"Location": {"https://elsewhere.example/"}}, Request: r, Body: http.NoBody}, nil
	}
	return &http.Response{StatusCode: 400, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"error":{"message":"refused by the test, you sent ` + r.Header.Get("Authorization") + `"}}`))}, nil
}

// The real OpenCode takes the configuration, offers just the providers that are
// configured, shows no key anywhere, and reaches each provider by its own SDK
// through the proxy, which puts the key where that provider expects it.
func TestConfigureRealOpenCode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	binary := realBinary(t)
	up := &upstreams{got: map[string]http.Header{}}
	var proxy http.Handler
	var logs bytes.Buffer
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { proxy.ServeHTTP(w, r) }))
	t.Cleanup(front.Close)

	env := []string{}
	for _, known := range modelproxy.KnownProviders() {
		env = append(env, known.Env[0]+"="+canaryKey+"-"+known.ID)
	}
	o := configFile(t, `{
		// the operator's
		"username": "{env:NOTE}",
		"mcp": {"x": {"type": "local", "command": ["touch", "/tmp/evil"]}},
		"provider": {
			"mine": {"options": {"baseURL": "http://mine.example/v1", "apiKey": "`+canaryKey+`-mine", "headers": {"X-Team": "`+canaryKey+`-team"}},
				"models": {"m1": {"name": "M1", "headers": {"X-Model": "`+canaryKey+`-model"}}}}
		}}`, append(env, `NOTE=a "quote" {env:HOME}`)...)
	o.ModelProxy = front.URL
	c, err := opencode.Configure(o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := modelproxy.New(modelproxy.Config{Providers: c.Providers, Transport: up, Logger: textLogger(&logs)})
	if err != nil {
		t.Fatal(err)
	}
	proxy = p
	base := serveOpenCode(t, binary.Path, c)

	config := ask(t, "GET", base+"/config", "")
	var read struct {
		Username  string         `json:"username"`
		MCP       map[string]any `json:"mcp"`
		Shell     string         `json:"shell"`
		Autoupate bool           `json:"autoupdate"`
	}
	if err := json.Unmarshal([]byte(config), &read); err != nil {
		t.Fatal(err)
	}
	if read.Username != `a "quote" {env:HOME}` || len(read.MCP) != 0 || read.Shell != opencode.DefaultShell || read.Autoupate {
		t.Errorf("OpenCode read %+v", read)
	}
	var listed struct {
		Providers []struct {
			ID     string
			Models map[string]any
		}
	}
	providers := ask(t, "GET", base+"/config/providers", "")
	if err := json.Unmarshal([]byte(providers), &listed); err != nil {
		t.Fatal(err)
	}
	models := map[string]map[string]any{}
	for _, p := range listed.Providers {
		models[p.ID] = p.Models
	}
	wantIDs := map[string]bool{"mine": true}
	for _, known := range modelproxy.KnownProviders() {
		wantIDs[known.ID] = true
	}
	gotIDs := map[string]bool{}
	for id := range models {
		gotIDs[id] = true
	}
	if diff := cmp.Diff(wantIDs, gotIDs); diff != "" {
		t.Fatalf("providers (-want +got):\n%s", diff)
	}
	all := config + providers
	for _, path := range []string{"/provider", "/api/provider", "/api/model", "/global/config", "/agent"} {
		all += ask(t, "GET", base+path, "")
	}
	if strings.Contains(all, canaryKey) {
		t.Error("OpenCode shows a key")
	}
	var agents []struct {
		Name       string
		Permission []struct{ Permission, Pattern, Action string }
	}
	if err := json.Unmarshal([]byte(ask(t, "GET", base+"/agent", "")), &agents); err != nil || len(agents) < 5 {
		t.Fatalf("agents %v, %v", agents, err)
	}
	for _, a := range agents {
		last := map[string]string{}
		for _, r := range a.Permission {
			if r.Pattern == "*" {
				last[r.Permission] = r.Action
				if r.Permission == "*" {
					for k := range last {
						last[k] = r.Action
					}
				}
			}
		}
		for _, tool := range []string{"websearch", "skill", "lsp"} {
			if last[tool] != "deny" {
				t.Errorf("agent %s: %s is %q", a.Name, tool, last[tool])
			}
		}
	}

	// One prompt to a model of each protocol of each provider.
	const bearer, anthropic, google = "Authorization", "X-Api-Key", "X-Goog-Api-Key"
	pick := func(id string, like ...string) string {
		ids := slices.Sorted(maps.Keys(models[id]))
		if len(ids) == 0 {
			t.Fatalf("%s has no models", id)
		}
		for _, l := range like {
			for _, m := range ids {
				if strings.Contains(m, l) {
					return m
				}
			}
		}
		return ids[0]
	}
	cases := []struct{ provider, model, path, header string }{
		{"openai", pick("openai", "gpt-5"), "api.openai.com/v1/responses", bearer},
		{"anthropic", pick("anthropic", "sonnet"), "api.anthropic.com/v1/messages", anthropic},
		{"google", pick("google", "flash"), "generativelanguage.googleapis.com/v1beta/models/", google},
		{"openrouter", pick("openrouter", "claude"), "openrouter.ai/api/v1/chat/completions", bearer},
		{"groq", pick("groq", "llama"), "api.groq.com/openai/v1/chat/completions", bearer},
		{"mistral", pick("mistral", "large"), "api.mistral.ai/v1/chat/completions", bearer},
		{"deepseek", pick("deepseek", "chat"), "api.deepseek.com/chat/completions", bearer},
		{"xai", pick("xai", "grok-4"), "api.x.ai/v1/", bearer},
		{"opencode", pick("opencode", "claude"), "opencode.ai/zen/v1/messages", anthropic},
		{"opencode", pick("opencode", "gpt-5"), "opencode.ai/zen/v1/responses", bearer},
		{"opencode", pick("opencode", "gemini"), "opencode.ai/zen/v1/models/", google},
		{"opencode", pick("opencode", "kimi", "glm"), "opencode.ai/zen/v1/chat/completions", bearer},
		{"mine", "m1", "mine.example/v1/chat/completions", bearer},
	}
	prompt := func(provider, model string) string {
		var session struct{ ID string }
		if err := json.Unmarshal([]byte(ask(t, "POST", base+"/session", `{"title":"t"}`)), &session); err != nil {
			t.Fatal(err)
		}
		return ask(t, "POST", base+"/session/"+url.PathEscape(session.ID)+"/message",
			fmt.Sprintf(`{"model":{"providerID":%q,"modelID":%q},"parts":[{"type":"text","text":"hello"}]}`, provider, model))
	}
	for _, tc := range cases {
		up.mu.Lock()
		clear(up.got)
		up.mu.Unlock()
		answer := prompt(tc.provider, tc.model)
		if strings.Contains(answer, canaryKey) {
			t.Errorf("%s: the key is in the conversation: %s", tc.provider, answer)
		}
		if !strings.Contains(answer, "refused by the test") && tc.header == bearer {
			t.Errorf("%s: the provider's error is not shown: %s", tc.provider, answer)
		}
		up.mu.Lock()
		found := false
		for path, h := range up.got {
			if !strings.HasPrefix(path, tc.path) {
				continue
			}
			found = true
			want, got := canaryKey+"-"+tc.provider, strings.TrimPrefix(h.Get(tc.header), "Bearer ")
			if got != want {
				t.Errorf("%s/%s: %s is %q, want the key of the provider", tc.provider, tc.model, tc.header, got)
			}
			if strings.Contains(fmt.Sprint(h), modelproxy.Placeholder) {
				t.Errorf("%s: the placeholder went out: %v", tc.provider, h)
			}
			if tc.provider == "mine" && (h.Get("X-Team") != canaryKey+"-team" || h.Get("X-Model") != canaryKey+"-model") {
				t.Errorf("the configured headers are missing: %v", h)
			}
		}
		if !found {
			t.Errorf("%s/%s: nothing reached %s: %v", tc.provider, tc.model, tc.path, up.got)
		}
		up.mu.Unlock()
	}

	// An error of the proxy's own is shown by the SDK of each provider.
	up.mu.Lock()
	up.redirect = true
	up.mu.Unlock()
	for _, tc := range cases {
		if answer := prompt(tc.provider, tc.model); !strings.Contains(answer, "elsewhere.example") {
			t.Errorf("%s/%s: the proxy's error is not shown: %.1000s", tc.provider, tc.model, answer)
		}
	}
	if strings.Contains(logs.String(), canaryKey) {
		t.Error("a key was logged")
	}
}

// Without a key OpenCode offers the free models of opencode only.
func TestConfigureRealKeyless(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	binary := realBinary(t)
	c, err := configure(t, "")
	if err != nil {
		t.Fatal(err)
	}
	base := serveOpenCode(t, binary.Path, c)
	var listed struct {
		Providers []struct {
			ID     string
			Models map[string]struct{ Cost struct{ Input float64 } }
		}
	}
	if err := json.Unmarshal([]byte(ask(t, "GET", base+"/config/providers", "")), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed.Providers) != 1 || listed.Providers[0].ID != "opencode" || len(listed.Providers[0].Models) == 0 {
		t.Fatalf("providers %+v", listed.Providers)
	}
	for m, v := range listed.Providers[0].Models {
		if v.Cost.Input != 0 {
			t.Errorf("%s costs %v", m, v.Cost.Input)
		}
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
