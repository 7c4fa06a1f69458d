package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
	"github.com/tongs-dev/tongs/internal/verify"
	"github.com/tongs-dev/tongs/plugin"
	"github.com/tongs-dev/tongs/sandbox"
)

// weakService starts a service with a protection switched off, and removes it with the test.
func weakService(t *testing.T, weak weakness, check *check) (*service, error) {
	t.Helper()
	home, err := os.MkdirTemp("", "tw") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	cache, err := opencodetest.Home()
	if err != nil {
		t.Fatal(err)
	}
	cfg := &Config{Home: home, Listen: "127.0.0.1:0", Scripted: true, APIListen: new(string)}
	cfg.setDefaults()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	s, err := start(ctx, cfg, slog.New(slog.DiscardHandler), startOptions{obtainHome: cache, weak: weak, check: check})
	t.Cleanup(func() {
		if s != nil {
			end, cancel := context.WithTimeout(context.Background(), stopTimeout)
			defer cancel()
			if err := s.destroy(end); err != nil {
				t.Errorf("the service did not end: %v", err)
			}
		} else {
			end, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var out, errs bytes.Buffer
			if Main(end, []string{"--home", home, "down"}, strings.NewReader(""), &out, &errs) != 0 {
				t.Errorf("down: %s", errs.String())
			}
		}
		if err := idmap.Remove(context.WithoutCancel(t.Context()), home); err != nil {
			t.Error(err)
		}
	})
	return s, err
}

// needService skips where no sandbox or no OpenCode is to be had, and gives the tests a guest.
func needService(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("there is no driver for " + runtime.GOOS)
	}
	if n, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); os.Geteuid() != 0 && (err != nil || strings.TrimSpace(string(n)) == "0") {
		t.Skip("this machine allows no user namespaces to ordinary users")
	}
	opencodetest.Binary(t)
	if os.Getenv(driver.GuestEnv) == "" {
		guest := drivertest.GuestBinary(t)
		t.Setenv(driver.GuestEnv, guest.Path)
	}
}

// drive drives the named doors and returns their rows.
func drive(t *testing.T, s *service, url string, names ...string) map[string]verify.Row {
	t.Helper()
	report, err := s.verifyAll(t.Context(), url, false, func(d verify.Door) bool { return slices.Contains(names, d.Name) })
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]verify.Row)
	for _, row := range report.Rows {
		rows[row.Name] = row
	}
	for _, name := range names {
		if _, ok := rows[name]; !ok {
			t.Fatalf("there is no door %q", name)
		}
	}
	return rows
}

func wantEscape(t *testing.T, rows map[string]verify.Row, names ...string) {
	t.Helper()
	for _, name := range names {
		if row := rows[name]; row.Worst() != verify.Escaped {
			t.Errorf("%s: %+v, want an escape", name, row.Cells)
		}
	}
}

// raw passes requests to OpenCode as they are.
func raw(s *service) http.Handler {
	return &httputil.ReverseProxy{Transport: s.host.Transport(), FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "opencode", "127.0.0.1:4096"
	}}
}

// everyProtection asks for all of TestFrontProtections; the first of each kind are tried always.
const everyProtection = "TONGS_TEST_LONG"

func needLong(t *testing.T) {
	t.Helper()
	if os.Getenv(everyProtection) == "" {
		t.Skip("set " + everyProtection + "=1 for this one: it takes a start of OpenCode, or several sandboxes")
	}
}

// TestFrontProtections switches off one protection of the front at a time, and holds that the check of the doors finds it.
func TestFrontProtections(t *testing.T) {
	needService(t)
	s, err := weakService(t, weakness{unchecked: true}, newCheck())
	if err != nil {
		t.Fatal(err)
	}
	// open lets requests past the front: everything by which it protects such a route is off.
	open := func(method, route string) weakness {
		return weakness{front: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if ok, err := path.Match(route, r.URL.Path); err == nil && ok && r.Method == method {
					raw(s).ServeHTTP(w, r)
					return
				}
				h.ServeHTTP(w, r)
			})
		}}
	}
	header := func(change func(r *http.Request)) weakness {
		return weakness{front: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { change(r); h.ServeHTTP(w, r) })
		}}
	}
	t.Run("nothing is off", func(t *testing.T) {
		url := weakFront(t, s, weakness{})
		for name, row := range drive(t, s, url, "GET /file/content", "@file", "!command", "PATCH /config", "a page of another origin", "GET /config") {
			if worst := row.Worst(); worst != verify.Sandbox && worst != verify.Refused {
				t.Errorf("%s: %+v", name, row.Cells)
			}
		}
	})
	for _, test := range []struct {
		name  string
		weak  weakness
		doors []string
		long  bool
	}{
		{"files of the agent host are listed", open("GET", "/file"), []string{"GET /file"}, true},
		{"files of the agent host are read", open("GET", "/file/content"), []string{"GET /file/content", "GET /file/content of a picture"}, false},
		{"files of the agent host are searched", open("GET", "/find"), []string{"GET /find"}, true},
		{"names of the agent host are searched", open("GET", "/find/file"), []string{"GET /find/file"}, true},
		{"completion of the agent host's files", open("GET", "/api/fs/find"), []string{"GET /api/fs/find"}, true},
		{"the second engine reads files", open("GET", "/api/fs/read/*"), []string{"GET /api/fs/read"}, true},
		{"the second engine has sessions", open("POST", "/api/session"), []string{"POST /api/session"}, false},
		{"the second engine has terminals", open("POST", "/api/pty"), []string{"POST /api/pty"}, true},
		{"a terminal in the agent host", open("POST", "/pty"), []string{"POST /pty with a command"}, false},
		{"configuration is changed", open("PATCH", "/config"), []string{"PATCH /config"}, false},
		{"credentials are stored", open("PUT", "/auth/*"), []string{"PUT /auth/verify"}, true},
		{"an MCP server is started", open("POST", "/mcp"), []string{"POST /mcp"}, true},
		{"another's client is driven", open("POST", "/tui/show-toast"), []string{"POST /tui/show-toast"}, true},
		{"OpenCode is told to dispose", open("POST", "/instance/dispose"), []string{"POST /instance/dispose"}, true},
		{"keys are not redacted", open("GET", "/config"), []string{"GET /config"}, false},
		{"a session may lift denials", open("POST", "/session"), []string{"POST /session with permissions that lift a denial"}, true},
		{"arguments of slash commands are not neutralised", open("POST", "/session/*/command"), []string{"@path in the arguments of a slash command"}, false},
		{"files of a prompt are not read in the sandbox", open("POST", "/session/*/message"), []string{"@file", "@picture"}, false},
		{"file parts are passed on", weakness{gateway: func(config *gateway.Config) {
			config.Attach = func(_ context.Context, _ string, f gateway.File) ([]map[string]any, error) {
				return []map[string]any{{"type": "file", "mime": f.Mime, "filename": f.Filename, "url": "file://" + f.Path}}, nil
			}
		}}, []string{"@file outside of the project", "@directory"}, true},
		{"pages of other origins are let in", header(func(r *http.Request) { r.Header.Del("Origin") }), []string{"a page of another origin", "a page of another port"}, false},
		{"pages that send no Origin are let in", header(func(r *http.Request) { r.Header.Del("Sec-Fetch-Site") }), []string{"a page that sends no Origin"}, true},
		{"any name is known", header(func(r *http.Request) { r.Host = "localhost" }), []string{"a name that somebody's DNS leads here"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long {
				needLong(t)
			}
			wantEscape(t, drive(t, s, weakFront(t, s, test.weak), test.doors...), test.doors...)
		})
	}
}

// weakFront serves a front of a service on an address of its own.
func weakFront(t *testing.T, s *service, weak weakness) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	handler, err := s.handler(server.Listener.Addr().String(), weak)
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler, server.Config.ConnContext = handler, s.doors.ConnContext
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return "http://" + strings.Replace(server.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
}

// rewritten is an agent host in which the plugin, or what OpenCode is started with, is another.
type rewritten struct {
	opencode.Machine
	bundle func([]byte) []byte
	spec   func(*sandbox.ProcessSpec)
}

func (m rewritten) WriteFile(ctx context.Context, name string, data []byte, opts sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	if m.bundle != nil && path.Base(name) == plugin.FileName {
		data = m.bundle(data)
	}
	return m.Machine.WriteFile(ctx, name, data, opts)
}

func (m rewritten) Start(ctx context.Context, spec sandbox.ProcessSpec) (*sandbox.ProcessInfo, error) {
	if m.spec != nil {
		m.spec(&spec)
	}
	return m.Machine.Start(ctx, spec)
}

// replace makes a plugin in which old is new. A plugin that does not hold old fails the test.
func replace(t *testing.T, old, now string) weakness {
	return weakness{unchecked: true, machine: func(m opencode.Machine) opencode.Machine {
		return rewritten{Machine: m, bundle: func(data []byte) []byte {
			if bytes.Count(data, []byte(old)) != 1 {
				t.Errorf("the plugin's bundle does not hold %q once: this test has to be adapted", old)
			}
			return bytes.Replace(data, []byte(old), []byte(now), 1)
		}}
	}}
}

// TestPluginProtections does the same for what protects inside of the agent host.
func TestPluginProtections(t *testing.T) {
	needService(t)
	const execute = "execute:(args2,context3)=>callTool(hub,waitMs,tool.id,args2,context3)"
	for _, test := range []struct {
		name string
		weak weakness
		door string
	}{
		{"a tool runs where OpenCode is", replace(t, execute,
			`execute:async(args2,context3)=>{if(tool.id==="apply_patch"){require("fs").writeFileSync(args2.patchText.split("\n")[1].split("File: ")[1],"new line");return "Success"}return callTool(hub,waitMs,tool.id,args2,context3)}`), "apply_patch"},
		{"the prompts of subagents are not neutralised", replace(t, `if(!(tool!=="task"||`, `if(!(true||`), "@path in the prompt of a subagent"},
		{"the bridge takes everybody for the host", replace(t, "return timingSafeEqual(digest(header??\"\"),digest(`Bearer ${token}`))", "return true"), "forged client on the plugin's port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			needLong(t)
			s, err := weakService(t, test.weak, newCheck())
			if err != nil {
				t.Fatal(err)
			}
			wantEscape(t, drive(t, s, s.url, test.door), test.door)
		})
	}
}

// TestUpStaysShut switches off what the start looks at: the service does not open its port, and says why.
func TestUpStaysShut(t *testing.T) {
	needService(t)
	checked := func(w weakness) weakness { w.unchecked = false; return w }
	for _, test := range []struct {
		name string
		code sandbox.Code
		want string
		weak weakness
		long bool
	}{
		{"OpenCode's shell runs where it is", CodeEscape, "!command", weakness{agentHost: func(spec *driver.Spec) {
			for i, f := range spec.Files {
				if f.Path == agentHostShell {
					spec.Files = slices.Clone(spec.Files)
					spec.Files[i].Data = []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n")
				}
			}
		}}, false},
		{"pages of other origins are let in", CodeEscape, "a page of another origin", weakness{front: func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Origin"); h.ServeHTTP(w, r) })
		}}, true},
		{"a tool is not overridden", opencode.CodeToolNotOurs, "apply_patch", checked(replace(t, "Object.fromEntries(tools_default.map(tool=>[tool.id,{description:", `Object.fromEntries(tools_default.filter(tool=>tool.id!=="apply_patch").map(tool=>[tool.id,{description:`)), false},
		{"a denied tool is allowed", opencode.CodeToolNotOurs, "websearch", weakness{machine: func(m opencode.Machine) opencode.Machine {
			return rewritten{Machine: m, spec: func(spec *sandbox.ProcessSpec) {
				spec.Env["OPENCODE_CONFIG_CONTENT"] = strings.ReplaceAll(spec.Env["OPENCODE_CONFIG_CONTENT"], `"websearch":"deny"`, `"websearch":"allow"`)
			}}
		}}, true},
		{"the plugin cannot be loaded", "", "", checked(replace(t, "function tools(hub,waitMs){", "function tools(hub,waitMs){throw new Error('broken');")), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.long {
				needLong(t)
			}
			s, err := weakService(t, test.weak, nil)
			if err == nil {
				t.Fatalf("it serves at %s", s.url)
			}
			var coded *sandbox.Error
			if !errors.As(err, &coded) || test.code != "" && coded.Code != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want code %s and %q in it", err, test.code, test.want)
			}
		})
	}
}
