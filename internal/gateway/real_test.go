package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// canary is the key that OpenCode holds in these tests and nobody may see.
const canary = "sk-canary-51c0ffee"

// real is a stock OpenCode behind a gateway, with a scripted model.
type real struct {
	t      *testing.T
	binary string
	home   string
	url    string // the gateway
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startReal(t *testing.T) *real {
	t.Helper()
	r := &real{t: t, binary: opencodetest.Binary(t), home: t.TempDir(), log: &syncBuffer{}}
	model := httptest.NewServer(scriptmodel.New(scriptmodel.Options{}))
	t.Cleanup(model.Close)
	project := filepath.Join(r.home, "project")
	config := filepath.Join(r.home, ".config", "opencode")
	for _, dir := range []string{project, filepath.Join(config, "node_modules")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// With this, OpenCode finds nothing to install for plugins.
	lock := `{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`
	if err := os.WriteFile(filepath.Join(config, "package-lock.json"), []byte(lock), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := fmt.Sprintf(`{"autoupdate":false,"share":"disabled","snapshot":false,"lsp":false,"formatter":false,"enabled_providers":["tongs"],
		"model":"tongs/scripted","small_model":"tongs/scripted","permission":{"*":"allow","webfetch":"deny"},
		"provider":{"tongs":{"npm":"@ai-sdk/openai-compatible","name":"Tongs","options":{"baseURL":"%s/v1","apiKey":%q,"headers":{"X-Secret":%q}},
		"models":{"scripted":{"name":"Scripted","tool_call":true,"attachment":true,"limit":{"context":200000,"output":8192}}}}}}`, model.URL, canary, canary)
	cmd := exec.CommandContext(t.Context(), r.binary, "serve", "--hostname", "127.0.0.1", "--port", "0")
	cmd.Dir, cmd.Env = project, r.env("OPENCODE_CONFIG_CONTENT="+cfg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if _, url, ok := strings.Cut(sc.Text(), "listening on http://"); ok {
				addr <- url
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-drained
		_ = cmd.Wait()
	})
	var host string
	select {
	case host = <-addr:
	case <-time.After(time.Minute):
		t.Fatal("OpenCode did not say that it listens")
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", host)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	h, err := gateway.New(gateway.Config{Upstream: tr, UpstreamHost: host, Listen: "127.0.0.1:0", Directory: project,
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(h)
	t.Cleanup(front.Close)
	r.url = front.URL
	return r
}

func (r *real) env(more ...string) []string {
	return append([]string{
		"HOME=" + r.home, "PATH=" + os.Getenv("PATH"), "TERM=dumb", "OPENCODE_DISABLE_PROJECT_CONFIG=1", "OPENCODE_DISABLE_MODELS_FETCH=1",
		"OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_SHARE=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1",
	}, more...)
}

func (r *real) do(method, path, body string) (int, string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Opencode-Directory", "%2F")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// run runs a client's command line.
func (r *real) run(args ...string) (stdout, stderr string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.binary, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.home, r.env(), &out, &errs
	err := cmd.Run()
	if err != nil {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String()
}

func TestWithRealOpenCode(t *testing.T) {
	t.Parallel()
	r := startReal(t)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)

	t.Run("operations", func(t *testing.T) {
		status, body := r.do("GET", "/doc", "")
		var doc struct {
			Paths map[string]map[string]any
		}
		if err := json.Unmarshal([]byte(body), &doc); status != 200 || err != nil {
			t.Fatal(status, err)
		}
		known := operations(t)
		for path, methods := range doc.Paths {
			for method := range methods {
				if op := strings.ToUpper(method) + " " + path; !slices.Contains(known, op) {
					t.Errorf("testdata does not have %s", op)
				}
			}
		}
	})
	t.Run("keys", func(t *testing.T) {
		for _, row := range gateway.Table() {
			if row.Method != "GET" || row.Action != "pass" || strings.Contains(row.Pattern, "event") || strings.Contains(row.Pattern, "...") {
				continue
			}
			path := strings.NewReplacer("{providerID}", "tongs", "{projectID}", "global", "{sessionID}", "ses_none", "{messageID}", "msg_none", "{integrationID}", "tongs").Replace(row.Pattern)
			if path == "/experimental/tool" {
				path += "?provider=tongs&model=scripted"
			}
			status, body := r.do("GET", path, "")
			if strings.Contains(body, canary) {
				t.Errorf("GET %s shows a key", path)
			}
			if status >= 400 && !strings.Contains(path, "none") && !strings.HasPrefix(path, "/api/") {
				t.Errorf("GET %s: %d %.200s", path, status, body)
			}
		}
		if _, body := r.do("GET", "/config", ""); !strings.Contains(body, `"apiKey":"redacted"`) {
			t.Errorf("no key was redacted in %.300s", body)
		}
	})
	t.Run("directory", func(t *testing.T) {
		for _, path := range []string{"/path", "/path?directory=/etc", "/api/location?location[directory]=/etc"} {
			var at struct{ Directory string }
			if _, body := r.do("GET", path, ""); json.Unmarshal([]byte(body), &at) != nil || at.Directory != filepath.Join(r.home, "project") {
				t.Errorf("%s: %s", path, body)
			}
		}
	})
	t.Run("run", func(t *testing.T) {
		for i := range 4 {
			out, errs := r.run("run", "--attach", r.url, "--model", "tongs/scripted", fmt.Sprintf(`[{"tool":"bash","args":{"command":"echo n%d"}},{"text":"it said {{last}}"}]`, i))
			if want := fmt.Sprintf("it said n%d", i); !strings.Contains(out, want) {
				t.Errorf("run %d printed %q (%s), not %q\n%s", i, out, errs, want, r.log)
			}
		}
	})
	t.Run("refused prompt", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(r.home, "project", "secret.txt"), []byte("canary-file"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, body := r.do("POST", "/session", "{}")
		var s struct{ ID string }
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		file := `{"parts":[{"type":"text","text":"x"},{"type":"file","mime":"text/plain","filename":"secret.txt","url":"file://` + r.home + `/project/secret.txt"}]}`
		if status, body := r.do("POST", "/session/"+s.ID+"/message", file); status != 400 || !strings.Contains(body, "FILE_REFUSED") {
			t.Errorf("%d %s", status, body)
		}
		args := "see @secret.txt and !`touch " + r.home + "/escaped`"
		b, _ := json.Marshal(map[string]string{"command": "init", "arguments": args})
		if status, body := r.do("POST", "/session/"+s.ID+"/command", string(b)); status != 200 {
			t.Errorf("command: %d %.300s", status, body)
		}
		_, history := r.do("GET", "/session/"+s.ID+"/message", "")
		if strings.Contains(history, "canary-file") || !strings.Contains(history, "@ secret.txt") {
			t.Errorf("the command's text is %.2000s", history)
		}
		if _, err := os.Stat(filepath.Join(r.home, "escaped")); err == nil {
			t.Error("the arguments of a command ran in a shell")
		}
		text := `{"parts":[{"type":"text","text":"[{\"text\":\"still fine\"}]"}]}`
		if status, body := r.do("POST", "/session/"+s.ID+"/message", text); status != 200 || !strings.Contains(body, "still fine") {
			t.Errorf("the next turn: %d %.300s", status, body)
		}
		if status, body := r.do("POST", "/session", `{"permission":[{"permission":"webfetch","pattern":"*","action":"allow"}]}`); status != 400 {
			t.Errorf("webfetch was granted: %d %s", status, body)
		}
	})
}
