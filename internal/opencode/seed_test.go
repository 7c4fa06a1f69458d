package opencode_test

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/scriptmodel"
	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

// TestSeedPlugin holds that a plugin of another making, which knows nothing but
// sandbox(sessionID) and exec, readFile and writeFile on it, works against the
// bridge. (A Host does not let it through: its tools are not ours.)
func TestSeedPlugin(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the real OpenCode is not run in short mode")
	}
	binary := realBinary(t).Path
	model := httptest.NewServer(scriptmodel.New(scriptmodel.Options{}))
	t.Cleanup(model.Close)
	home, project := places(t)
	ports := freePorts(t, 2)
	ctx := deadline(t, 2*time.Minute)

	bundle, err := os.ReadFile("../../plugin/testdata/seed/seed.js")
	if err != nil {
		t.Fatal(err)
	}
	lock := []byte(`{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`)
	for name, data := range map[string][]byte{
		"cfg/plugins/seed.js": bundle, "cfg/package-lock.json": lock, "cfg/node_modules/.keep": nil,
		".config/opencode/package-lock.json": lock, ".config/opencode/node_modules/.keep": nil,
	} {
		file := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := newLocalMachine(t)
	machine, _ := m.connect(ctx)
	_, err = machine.Start(ctx, sandbox.ProcessSpec{
		ID: "opencode", Argv: []string{binary, "serve", "--hostname", "127.0.0.1", "--port", fmt.Sprint(ports[0])}, Dir: project,
		Env: map[string]string{
			"HOME": home, "OPENCODE_CONFIG_DIR": filepath.Join(home, "cfg"), "OPENCODE_CONFIG_CONTENT": string(testContent(model.URL)),
			"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1", plugin.EnvPort: fmt.Sprint(ports[1]),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := machine.Output(ctx, "opencode", sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for listening := false; !listening; {
		_, data, _, err := out.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		listening = strings.Contains(string(data), "listening on")
	}

	boxes := newFakeSandboxes(t)
	bridge := opencode.NewBridge(opencode.BridgeConfig{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return machine.Dial(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", ports[1]))
		},
		Root:      func(_ context.Context, id string) (string, error) { return id, nil },
		Sandboxes: boxes, Logger: testLogger(t),
	})
	runCtx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); bridge.Run(runCtx) }()
	t.Cleanup(func() { cancel(); <-done })

	r := &rig{t: t, project: project, base: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	r.api(ctx, "GET", "/config", nil, nil) // loads the plugin
	if err := bridge.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	session := r.session(ctx, "", map[string]any{})
	parts := tools(r.prompt(ctx, session, scripted,
		call("write", map[string]any{"filePath": "/home/user/project/a.txt", "content": "from the seed"}),
		bash("cat a.txt; echo oops >&2; exit 4"),
		call("read", map[string]any{"filePath": "/home/user/project/a.txt"}),
		map[string]string{"text": "done"}))
	if len(parts) != 3 {
		t.Fatalf("parts %+v", parts)
	}
	for i, want := range []string{"wrote /home/user/project/a.txt", "from the seedoops\n\nexit code 4", "from the seed"} {
		if parts[i].State.Output != want {
			t.Errorf("%s: %+v, want %q", parts[i].Tool, parts[i].State, want)
		}
	}
	if data, err := os.ReadFile(filepath.Join(boxes.dir(session), "a.txt")); string(data) != "from the seed" {
		t.Errorf("in the sandbox: %q, %v", data, err)
	}
	if parts := tools(r.prompt(ctx, session, scripted, call("read", map[string]any{"filePath": "/nothing"}), map[string]string{"text": "done"})); parts[len(parts)-1].State.Status != "error" {
		t.Errorf("read of nothing: %+v", parts)
	}
	r.empty()
}
