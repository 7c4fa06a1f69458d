package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
)

// previewServer answers HTTP with the host it was asked by, and sends back what a
// WebSocket says; it speaks as little of that protocol as the test needs.
const previewServer = `
const http = require("http"), crypto = require("crypto");
const s = http.createServer((q, r) => r.end("preview of " + q.headers.host));
s.on("upgrade", (q, c) => {
	const key = crypto.createHash("sha1").update(q.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
	c.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + key + "\r\n\r\n");
	c.on("error", () => {});
	c.on("data", b => {
		if ((b[0] & 15) == 8) return c.end();
		const n = b[1] & 127, mask = b.subarray(2, 6), text = b.subarray(6, 6 + n).map((x, i) => x ^ mask[i % 4]);
		c.write(Buffer.concat([Buffer.from([129, n]), text]));
	});
});
s.listen(3000, "127.0.0.1", () => console.log("listening"));
`

// A server that a command has started in a session's sandbox is reached by a URL of
// its own, by HTTP and by WebSocket, and its pages are foreign to the front.
func TestPreview(t *testing.T) {
	needSandboxes(t)
	t.Parallel()
	home := newHome(t)
	s := up(t, home)
	session := s.session()
	name := strings.ReplaceAll(strings.ToLower(session), "_", "-")
	front := strings.TrimPrefix(s.url, "http://")
	_, port, err := net.SplitHostPort(front)
	if err != nil {
		t.Fatal(err)
	}
	host := "3000-" + name + ".localhost:" + port

	// Names under localhost lead here, as they do in browsers.
	var d net.Dialer
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, "127.0.0.1:"+port)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	get := func(host string) (int, string) {
		t.Helper()
		resp, err := client.Get("http://" + host + "/page")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}

	s.bash(session, "true")
	if status, body := get(host); status != 502 || !strings.Contains(body, "SERVICE_NOT_RESPONDING") {
		t.Errorf("before the server: %d %s", status, body)
	}
	if status, body := get("3000-nobody.localhost:" + port); status != 404 || !strings.Contains(body, "SANDBOX_NOT_FOUND") {
		t.Errorf("no sandbox: %d %s", status, body)
	}
	if status, body := get("4096-agent-host.localhost:" + port); status != 404 || strings.Contains(body, "opencode") {
		t.Errorf("the agent host has a preview: %d %s", status, body)
	}
	// The agent host's id is as much of a secret as its name: none.
	for _, id := range sandboxIDs(t, home) {
		if status, body := get("4096-" + id + ".localhost:" + port); status == 200 {
			t.Errorf("OpenCode is reached past the front: %d %.200s", status, body)
		}
	}

	s.bash(session, "node -e 'require(\"fs\").writeFileSync(\"s.js\", process.argv[1])' "+shellQuote(previewServer)+
		"; setsid node s.js > log 2>&1 < /dev/null & for i in $(seq 600); do grep -q listening log && exit 0; sleep 0.1; done; cat log; exit 1")
	if status, body := get(host); status != 200 || body != "preview of "+host {
		t.Errorf("%d %s", status, body)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dialled := &http.Client{Transport: client.Transport}
	c, _, err := websocket.Dial(ctx, "ws://"+host+"/socket", &websocket.DialOptions{HTTPClient: dialled})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.output())
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte("through and back")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != "through and back" {
		t.Errorf("the WebSocket says %q, %v", got, err)
	}

	if status, body := s.call("POST", "/session", map[string]any{}, "Origin", "http://"+host); status != 403 {
		t.Errorf("a preview's page reaches the front: %d %s", status, body)
	}

	// A program exposes the port, and takes that back.
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	endpoint, err := httprpc.Dial(ctx, strings.Replace(read("api-url"), "http://", "ws://", 1)+"/rpc",
		&httprpc.DialOptions{Header: http.Header{"Authorization": {"Bearer " + read("api-token")}}})
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.Close(nil)
	main := endpoint.Main()
	defer main.Close()
	box := main.Call("get", session)
	defer box.Close()
	made, err := capnweb.Call[struct {
		URL  string `json:"url"`
		Port int    `json:"port"`
	}](ctx, box, "exposePort", 3000, map[string]any{"hostname": "ignored", "name": "web"})
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimPrefix(made.URL, "http://")
	if status, body := get(at); status != 200 || body != "preview of "+at {
		t.Errorf("%s: %d %s", made.URL, status, body)
	}
	if _, err := capnweb.Call[capnweb.Value](ctx, box, "unexposePort", 3000); err != nil {
		t.Error(err)
	}
	if status, body := get(at); status != 404 {
		t.Errorf("after that: %d %s", status, body)
	}
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sandboxIDs lists the directories of sandboxes.
func sandboxIDs(t *testing.T, home string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(home, "sandboxes"))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	if len(ids) < 2 {
		t.Fatalf("there are the sandboxes %v, want that of OpenCode and that of the session", ids)
	}
	return ids
}
