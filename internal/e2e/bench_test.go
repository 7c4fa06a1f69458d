package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
)

// bareOpenCode starts the same OpenCode as a person would without Tongs: `opencode serve` on this
// machine, its own tools, the same scripted model. It returns its address, the time from the start
// to the first answer of a route that needs the project (as a client's first request does), and what
// ends it.
func bareOpenCode(b *testing.B, binary string) (url string, ready time.Duration, stop func()) {
	b.Helper()
	model := httptest.NewServer(scriptmodel.New(scriptmodel.Options{}))
	b.Cleanup(model.Close)
	home, project := b.TempDir(), b.TempDir()
	// A project as the sandboxes have one: OpenCode asks git about it when it opens it.
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=OpenCode Agent", "-c", "user.email=agent@opencode.ai", "commit", "-q", "--allow-empty", "-m", "Begin"}} {
		git := exec.Command("git", args...)
		git.Dir = project
		must(b, git.Run())
	}
	config := filepath.Join(home, ".config", "opencode")
	// Without these two OpenCode spends its first minute on an npm install.
	must(b, os.MkdirAll(filepath.Join(config, "node_modules"), 0o755))
	must(b, os.WriteFile(filepath.Join(config, "package-lock.json"),
		[]byte(`{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`), 0o644))
	content, _ := json.Marshal(map[string]any{
		"autoupdate": false, "share": "disabled", "snapshot": false, "lsp": false, "formatter": false, "permission": "allow",
		"enabled_providers": []string{"tongs"}, "model": "tongs/scripted", "small_model": "tongs/scripted",
		"provider": map[string]any{"tongs": map[string]any{
			"npm": "@ai-sdk/openai-compatible", "name": "Scripted",
			"options": map[string]any{"baseURL": model.URL + "/v1", "apiKey": "none"},
			"models":  map[string]any{"scripted": map[string]any{"name": "Scripted", "tool_call": true, "limit": map[string]any{"context": 200000, "output": 8192}}},
		}},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	listener.Close()

	cmd := exec.Command(binary, "serve", "--hostname", "127.0.0.1", "--port", port)
	cmd.Dir = project
	cmd.Env = append(environ(home), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "OPENCODE_CONFIG_CONTENT="+string(content),
		"OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_SHARE=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1")
	stdout, err := cmd.StdoutPipe()
	must(b, err)
	began := time.Now()
	must(b, cmd.Start())
	stop = sync.OnceFunc(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	b.Cleanup(stop)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening on") {
	}
	go func() {
		for lines.Scan() { // nothing may fill the pipe
		}
	}()
	url = "http://127.0.0.1:" + port
	client := &http.Client{Timeout: time.Minute}
	response, err := client.Get(url + "/config")
	must(b, err)
	response.Body.Close()
	return url, time.Since(began), stop
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkReady compares a cold `tongs up` (a home with nothing but the OpenCode binary) until it is
// ready with a bare `opencode serve` until its first answer, in turn.
func BenchmarkReady(b *testing.B) {
	needSandboxes(b)
	binary := opencodetest.Binary(b)
	var bare, ours []time.Duration
	for b.Loop() {
		_, took, stop := bareOpenCode(b, binary)
		stop()
		bare = append(bare, took)
		home := newHome(b)
		began := time.Now()
		s := up(b, home)
		ours = append(ours, time.Since(began))
		s.stop(syscall.SIGINT)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(bare)), "bare-ms")
	b.ReportMetric(ms(median(ours)), "tongs-ms")
	b.ReportMetric(ms(median(ours)-median(bare)), "difference-ms")
}

// BenchmarkTool compares a tool call's time from start to end, as OpenCode records it, with the same
// call of a bare OpenCode's own tools, and with the same work done directly on this machine.
func BenchmarkTool(b *testing.B) {
	needSandboxes(b)
	const rounds = 30
	bareURL, _, _ := bareOpenCode(b, opencodetest.Binary(b))
	bare := &service{t: b, url: bareURL}
	ours := up(b, newHome(b))
	scratch := filepath.Join(b.TempDir(), "file")
	body := strings.Repeat("a line of text\n", 100)
	must(b, os.WriteFile(scratch, []byte(body), 0o644))

	for _, tool := range []struct {
		name   string
		args   func(round int) map[string]any
		direct func() error
	}{
		{"write", fixed(map[string]any{"filePath": "bench.txt", "content": body}), func() error { return os.WriteFile(scratch, []byte(body), 0o644) }},
		{"read", fixed(map[string]any{"filePath": "bench.txt"}), func() error { _, err := os.ReadFile(scratch); return err }},
		{"edit", func(round int) map[string]any {
			return map[string]any{"filePath": "bench.txt", "oldString": fmt.Sprintf("round %d.", round), "newString": fmt.Sprintf("round %d.", round+1)}
		}, func() error {
			data, err := os.ReadFile(scratch)
			if err != nil {
				return err
			}
			return os.WriteFile(scratch, bytes.Replace(data, []byte("text"), []byte("word"), 1), 0o644)
		}},
		{"bash", fixed(map[string]any{"command": "true", "description": "nothing"}), func() error { return exec.Command("bash", "-c", "true").Run() }},
	} {
		b.Run(tool.name, func(b *testing.B) {
			var took, plain, direct []time.Duration
			for b.Loop() {
				one, two := bare.session(), ours.session()
				must(b, bare.prepare(one))
				must(b, ours.prepare(two))
				for i := range rounds + 1 {
					x, y := tools(bare.do(one, "tongs/scripted", step{"tool": tool.name, "args": tool.args(i)}, step{"text": "ok"})),
						tools(ours.do(two, "tongs/scripted", step{"tool": tool.name, "args": tool.args(i)}, step{"text": "ok"}))
					if len(x) != 1 || len(y) != 1 || x[0].State.Status != "completed" || y[0].State.Status != "completed" {
						b.Fatalf("bare %+v\ntongs %+v", x, y)
					}
					began := time.Now()
					must(b, tool.direct())
					if i == 0 {
						continue // the first one warms things up
					}
					direct = append(direct, time.Since(began))
					plain = append(plain, duration(x[0]))
					took = append(took, duration(y[0]))
				}
			}
			b.ReportMetric(0, "ns/op")
			for _, row := range []struct {
				name  string
				times []time.Duration
			}{{"tongs", took}, {"builtin", plain}, {"direct", direct}} {
				slices.Sort(row.times)
				b.ReportMetric(ms(row.times[len(row.times)/2]), row.name+"-p50-ms")
				b.ReportMetric(ms(row.times[len(row.times)*95/100]), row.name+"-p95-ms")
			}
		})
	}
}

// fixed are arguments that are the same in each round.
func fixed(args map[string]any) func(int) map[string]any {
	return func(int) map[string]any { return args }
}

// prepare writes the file that the calls are about, in a session of its own.
func (s *service) prepare(session string) error {
	p := s.one(session, "tongs/scripted", "write", map[string]any{"filePath": "bench.txt", "content": strings.Repeat("a line of text\n", 100) + "round 0.\n"})
	if p.State.Status != "completed" {
		return errors.New(p.State.Error)
	}
	return nil
}

func duration(p part) time.Duration {
	return time.Duration((p.State.Time.End - p.State.Time.Start) * float64(time.Millisecond))
}

func median(times []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
