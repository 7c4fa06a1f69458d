package opencode_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/internal/opencode"
)

// BenchmarkStart is the time from Start to ready: OpenCode, its plugin, the
// bridge and the check of its tools. BenchmarkStartBare is what OpenCode alone
// takes to its first answer about a project. Both without isolation.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		home, project := b.TempDir(), b.TempDir()
		ports := benchPorts(b)
		m := &localMachine{processes: map[string]*localProcess{}, breaks: make(chan struct{})}
		h, err := opencode.NewHost(opencode.HostConfig{
			Machine: m.connect, Content: testContent("http://127.0.0.1:1"), Sandboxes: noSandboxes{},
			Binary: realBinary(b).Path, Home: home, Project: project, Port: ports[0], BridgePort: ports[1],
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := h.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := h.Stop(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkStartBare(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		home, project := b.TempDir(), b.TempDir()
		port := fmt.Sprint(benchPorts(b)[0])
		binary := realBinary(b).Path
		cmd := exec.Command(binary, "serve", "--hostname", "127.0.0.1", "--port", port)
		cmd.Dir = project
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_CONFIG_CONTENT=" + string(testContent("http://127.0.0.1:1"))}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		var text strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(text.String(), "listening on") {
			n, err := out.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				b.Fatal(err, text.String())
			}
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(httptest.NewRequest("GET", "http://127.0.0.1:"+port+"/config", nil))
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		b.StopTimer()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.StartTimer()
	}
}

// BenchmarkRelayedCall is one call of the plugin to a sandbox through the
// bridge, both ends in this process, over loopback and an in-memory pipe.
func BenchmarkRelayedCall(b *testing.B) {
	sessions := make(chan *capnweb.Session, 1)
	server := httptest.NewServer(&httprpc.Handler{
		Main:      func(*http.Request) (any, error) { return "plugin", nil },
		OnSession: func(_ *http.Request, s *capnweb.Session) { sessions <- s },
	})
	defer server.Close()
	here, there := capnweb.Pipe()
	target := capnweb.NewTarget(capnweb.Methods{"tool": func(call toolCall) map[string]any {
		return map[string]any{"title": call.Name, "output": "ok", "metadata": map[string]any{}}
	}}, capnweb.Concurrent())
	near, far := capnweb.NewSession(here, nil), capnweb.NewSession(there, target)
	defer near.Close(errors.New("over"))
	defer far.Close(errors.New("over"))
	bridge := opencode.NewBridge(opencode.BridgeConfig{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		},
		Root:      func(_ context.Context, id string) (string, error) { return id, nil },
		Sandboxes: oneStub{near},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); bridge.Run(ctx) }()
	defer func() { cancel(); <-done }()
	main := (<-sessions).Main()
	waitCtx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if err := bridge.Wait(waitCtx); err != nil {
		b.Fatal(err)
	}
	ask := capnweb.Func(func(map[string]any) {})
	for b.Loop() {
		box := main.Call("sandbox", "ses_1")
		if _, err := capnweb.Call[map[string]any](ctx, box, "tool", map[string]any{
			"name": "read", "args": map[string]any{"filePath": filepath.Join("/home/user/project", "a.txt")}, "callID": "call_1", "sessionID": "ses_1", "ask": ask,
		}); err != nil {
			b.Fatal(err)
		}
		box.Close()
	}
}

type oneStub struct{ session *capnweb.Session }

func (o oneStub) Agent(context.Context, string) (*capnweb.Stub, error) { return o.session.Main(), nil }

func benchPorts(b *testing.B) []int {
	b.Helper()
	var ports []int
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
