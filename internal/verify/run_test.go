package verify_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/verify"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is one that only has files.
type place struct {
	mu    sync.Mutex
	files map[string]string
}

func (p *place) WriteFile(_ context.Context, path string, data []byte, _ sandbox.WriteOptions) (*sandbox.FileInfo, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		p.files = make(map[string]string)
	}
	p.files[path] = string(data)
	return &sandbox.FileInfo{Path: path}, nil
}

func (p *place) RemoveFile(_ context.Context, path string, _ bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.files, func(name, _ string) bool { return name == path || strings.HasPrefix(name, path+"/") })
	return nil
}

func (p *place) Exec(_ context.Context, spec sandbox.ExecSpec) (*sandbox.ExecResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	result := &sandbox.ExecResult{}
	if _, ok := p.files[spec.Argv[len(spec.Argv)-1]]; !ok {
		result.Exit.Code = 1
	}
	return result, nil
}

func (p *place) read(path string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files[path]
}

func (p *place) left() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.files))
}

func (p *place) Mkdir(context.Context, string, bool) error              { return nil }
func (p *place) Symlink(context.Context, string, string) error          { return nil }
func (p *place) Unlisten(context.Context, string) error                 { return nil }
func (p *place) Dial(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
func (p *place) Listen(context.Context, string, string) (net.Listener, error) {
	return nil, net.ErrClosed
}

const project = "/home/user/project"

// TestRunSaysWhereADoorLeads gives each door of a service one answer, and holds what is said of it.
func TestRunSaysWhereADoorLeads(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer func(w http.ResponseWriter, box, agent *place)
		want   verify.Result
	}{
		{"the sandbox's file", func(w http.ResponseWriter, box, _ *place) { fmt.Fprint(w, box.read(project+"/where.txt")) }, verify.Sandbox},
		{"the agent host's file", func(w http.ResponseWriter, _, agent *place) { fmt.Fprint(w, agent.read(project+"/where.txt")) }, verify.Escaped},
		{"both, and an error's status", func(w http.ResponseWriter, box, agent *place) {
			w.WriteHeader(403)
			fmt.Fprint(w, box.read(project+"/where.txt"), agent.read(project+"/where.txt"))
		}, verify.Escaped},
		{"a refusal", func(w http.ResponseWriter, _, _ *place) {
			w.WriteHeader(403)
			fmt.Fprint(w, `{"name":"ForbiddenError","data":{"message":"no"}}`)
		}, verify.Refused},
		{"nothing", func(w http.ResponseWriter, _, _ *place) { fmt.Fprint(w, "[]") }, verify.Refused},
		{"something else", func(w http.ResponseWriter, _, _ *place) { fmt.Fprint(w, `{"content":"x"}`) }, verify.Broken},
		{"a failure without a reason", func(w http.ResponseWriter, _, _ *place) { w.WriteHeader(500) }, verify.Broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			box, agent := &place{}, &place{}
			var mu sync.Mutex
			deleted := 0
			mux := http.NewServeMux()
			mux.HandleFunc("POST /session", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":"ses_1"}`) })
			mux.HandleFunc("DELETE /session/ses_1", func(http.ResponseWriter, *http.Request) { mu.Lock(); deleted++; mu.Unlock() })
			mux.HandleFunc("GET /event", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() })
			mux.HandleFunc("GET /file/content", func(w http.ResponseWriter, _ *http.Request) { test.answer(w, box, agent) })
			server := httptest.NewServer(mux)
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			report, err := verify.Run(ctx, verify.Target{
				URL: server.URL, Client: &http.Client{Transport: transport}, Project: project, Quick: true,
				AgentHost: func(context.Context) (verify.Place, error) { return agent, nil },
				Sandbox:   func(context.Context, string) (verify.Place, error) { return box, nil },
				Only:      func(d verify.Door) bool { return d.Name == "GET /file/content" },
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Rows) != 1 || report.Rows[0].Worst() != test.want {
				t.Errorf("%+v, want %s", report.Rows, test.want)
			}
			if found := report.Find(test.want); len(found) != 1 {
				t.Errorf("found %q", found)
			}
			if left := agent.left(); len(left) > 0 || deleted != 1 {
				t.Errorf("left in the agent host: %v; sessions deleted: %d", left, deleted)
			}
		})
	}
}

// TestRunThatEndsEarly holds that nothing stays behind when the caller gives up.
func TestRunThatEndsEarly(t *testing.T) {
	t.Parallel()
	agent := &place{}
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel() }))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	_, err := verify.Run(ctx, verify.Target{
		URL: server.URL, Client: &http.Client{Transport: transport}, Project: project, Quick: true,
		AgentHost: func(context.Context) (verify.Place, error) {
			return agent, nil
		},
		Sandbox: func(context.Context, string) (verify.Place, error) { return &place{}, nil },
	})
	if err == nil {
		t.Error("no error")
	}
	if left := agent.left(); len(left) > 0 {
		t.Errorf("left in the agent host: %v", left)
	}
}
