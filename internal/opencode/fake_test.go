package opencode_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/capnweb/httprpc"
	"github.com/tongs-dev/tongs/plugin"
)

// fakeMode names the environment variable that turns the test binary into
// something that behaves as `opencode serve` with the plugin does, with the
// faults that its value lists.
const fakeMode = "TONGS_TEST_FAKE_OPENCODE"

func fakeOpenCode(mode string) {
	has := func(fault string) bool { return strings.Contains(mode, fault) }
	if has("dies") {
		fmt.Fprintln(os.Stderr, "level=ERROR message=\"no such luck\"")
		os.Exit(3)
	}
	if has("deaf") {
		signal.Ignore(syscall.SIGTERM)
	}
	port := os.Args[5] // serve --hostname 127.0.0.1 --port N
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if has("mute") {
		time.Sleep(time.Hour)
	}
	file := filepath.Join(os.Getenv("OPENCODE_CONFIG_DIR"), "plugins", plugin.FileName)
	plugins := []string{"file://" + file}
	if has("stranger") {
		plugins = append(plugins, "file:///tmp/evil.js")
	}
	if has("noplugin") {
		plugins = []string{}
	}
	tools, _ := plugin.Tools()
	reply := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /global/health", func(w http.ResponseWriter, r *http.Request) { reply(w, map[string]any{"healthy": true}) })
	mux.HandleFunc("GET /config", func(w http.ResponseWriter, r *http.Request) {
		if !has("noplugin") && !has("nobridge") {
			fakePlugin()
		}
		reply(w, map[string]any{"plugin": plugins})
	})
	mux.HandleFunc("GET /agent", func(w http.ResponseWriter, r *http.Request) {
		rules := []map[string]string{{"permission": "*", "pattern": "*", "action": "allow"}, {"permission": "websearch", "pattern": "*", "action": "deny"}}
		if has("fetches") {
			rules = rules[:1]
		}
		reply(w, []any{map[string]any{"name": "build", "permission": rules}})
	})
	mux.HandleFunc("GET /experimental/tool", func(w http.ResponseWriter, r *http.Request) {
		gpt5 := strings.Contains(r.URL.Query().Get("model"), "gpt-5")
		list := []map[string]any{}
		for _, id := range []string{"invalid", "bash", "read", "websearch", "task"} {
			list = append(list, map[string]any{"id": id, "description": "built in", "parameters": map[string]any{}})
		}
		for _, t := range tools {
			if t.ID == "apply_patch" && !gpt5 || (t.ID == "edit" || t.ID == "write") && gpt5 {
				continue
			}
			if t.ID == "apply_patch" && has("escapes") {
				list = append(list, map[string]any{"id": t.ID, "description": "built in", "parameters": map[string]any{}})
				continue
			}
			list = append(list, map[string]any{"id": t.ID, "description": t.Description, "parameters": t.Parameters})
		}
		reply(w, list)
	})
	mux.HandleFunc("GET /session/{id}", func(w http.ResponseWriter, r *http.Request) {
		// ses_a3 is a child of ses_a2, which is one of ses_a1, and so on down to ses_a0.
		id := r.PathValue("id")
		var n int
		if c, err := fmt.Sscanf(id, "ses_a%d", &n); c != 1 || err != nil {
			http.Error(w, "{}", http.StatusNotFound)
			return
		}
		session := map[string]any{"id": id}
		if n > 0 {
			session["parentID"] = fmt.Sprintf("ses_a%d", n-1)
		}
		if id == "ses_a777" {
			session["parentID"] = id
		}
		reply(w, session)
	})
	mux.HandleFunc("GET /echo", func(w http.ResponseWriter, r *http.Request) { reply(w, os.Getpid()) })
	mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) { os.Exit(7) })
	fmt.Println("opencode server listening on http://127.0.0.1:" + port)
	_ = http.Serve(listener, mux)
}

var fakePluginListens bool

// fakePlugin is a plugin that only says hello.
func fakePlugin() {
	if fakePluginListens {
		return
	}
	fakePluginListens = true
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv(plugin.EnvPort))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rpc := &httprpc.Handler{Main: func(*http.Request) (any, error) {
		return capnweb.NewTarget(capnweb.Methods{"hello": func() map[string]any { return map[string]any{"pid": os.Getpid()} }}), nil
	}}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := os.ReadFile(os.Getenv(plugin.EnvTokenFile))
		if err != nil || r.Header.Get("Authorization") != "Bearer "+strings.TrimSpace(string(token)) {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		rpc.ServeHTTP(w, r)
	}))
}
