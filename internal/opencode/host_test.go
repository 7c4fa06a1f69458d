package opencode_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/sandbox"
)

// noSandboxes has none.
type noSandboxes struct{}

func (noSandboxes) Agent(context.Context, string) (*capnweb.Stub, error) {
	return nil, errors.New("there is no sandbox")
}

// testLogger writes to the test's log.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// fakeHost is a Host of the fake OpenCode, stopped at the end of the test.
func fakeHost(t *testing.T, m *localMachine, mode string, change func(*opencode.HostConfig)) *opencode.Host {
	t.Helper()
	home, project := places(t)
	ports := freePorts(t, 2)
	cfg := opencode.HostConfig{
		Machine: m.connect, Content: []byte(`{}`), Sandboxes: noSandboxes{},
		Binary: os.Args[0], Home: home, Project: project, Port: ports[0], BridgePort: ports[1],
		Env:          map[string]string{fakeMode: mode},
		StartTimeout: 20 * time.Second, RestartDelay: 10 * time.Millisecond, Logger: testLogger(t),
	}
	if change != nil {
		change(&cfg)
	}
	return newHost(t, cfg)
}

func newHost(t *testing.T, cfg opencode.HostConfig) *opencode.Host {
	t.Helper()
	h, err := opencode.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := h.Stop(ctx); err != nil && sandbox.CodeOf(err) != opencode.CodeStartup && sandbox.CodeOf(err) != opencode.CodeToolNotOurs {
			t.Errorf("stop: %v", err)
		}
	})
	return h
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func get(t *testing.T, ctx context.Context, h *opencode.Host, path string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.Client().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestStartIsSingleFlight(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	var starts atomic.Int32
	var inStart atomic.Bool
	h := fakeHost(t, m, "", func(c *opencode.HostConfig) {
		c.OnStart = func(ctx context.Context, s *opencode.Server) error {
			starts.Add(1)
			inStart.Store(true)
			defer inStart.Store(false)
			if s.Process.PID == 0 || !s.Fresh || s.Process.Log() == nil {
				t.Errorf("OnStart got %+v", s)
			}
			return nil
		}
	})
	ctx := deadline(t, 30*time.Second)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			s, err := h.Start(ctx)
			if err != nil {
				t.Error(err)
			} else if inStart.Load() {
				t.Error("a caller was let through before OnStart had ended")
			} else if s.Process.PID != m.pid() {
				t.Errorf("process %d, want %d", s.Process.PID, m.pid())
			}
		})
	}
	callers.Wait()
	if n := len(m.started()); n != 1 || starts.Load() != 1 {
		t.Errorf("%d processes and %d OnStart, want one each", n, starts.Load())
	}
	if health := h.Health(); health.State != opencode.StateReady || !health.Bridge || health.PID != m.pid() || health.Error != "" {
		t.Errorf("health %+v", health)
	}
	if _, err := get(t, ctx, h, "/echo"); err != nil {
		t.Error(err)
	}
}

func TestRequestsWaitForReadiness(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "", nil)
	ctx := deadline(t, 30*time.Second)
	if _, err := get(t, ctx, h, "/echo"); sandbox.CodeOf(errors.Unwrap(err)) != opencode.CodeNotRunning {
		t.Errorf("a request to a stopped OpenCode: %v, want %s", err, opencode.CodeNotRunning)
	}
	go h.Start(ctx)
	for h.Health().State == opencode.StateStopped {
		time.Sleep(time.Millisecond) // until the goroutine has begun
	}
	if body, err := get(t, ctx, h, "/echo"); err != nil || body == "" {
		t.Errorf("a request during the start: %q, %v", body, err)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]struct {
		code sandbox.Code
		text string
	}{
		"dies":     {opencode.CodeStartup, "no such luck"},
		"mute":     {opencode.CodeStartup, "longer than"},
		"nobridge": {opencode.CodeStartup, "plugin cannot be reached"},
		"noplugin": {opencode.CodeToolNotOurs, "has not loaded the plugin"},
		"escapes":  {opencode.CodeToolNotOurs, "apply_patch"},
		"fetches":  {opencode.CodeToolNotOurs, "websearch"},
		"stranger": {opencode.CodeToolNotOurs, "evil.js"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			m := newLocalMachine(t)
			h := fakeHost(t, m, mode, func(c *opencode.HostConfig) {
				if want.code == opencode.CodeStartup && mode != "dies" {
					c.StartTimeout = 3 * time.Second // It never gets ready.
				}
				c.OnStart = func(context.Context, *opencode.Server) error {
					t.Error("OnStart was called")
					return nil
				}
			})
			_, err := h.Start(deadline(t, 30*time.Second))
			if sandbox.CodeOf(err) != want.code || !strings.Contains(err.Error(), want.text) {
				t.Errorf("error %v, want code %s and %q", err, want.code, want.text)
			}
			if health := h.Health(); health.State != opencode.StateFailed || health.Error == "" {
				t.Errorf("health %+v", health)
			}
			if pid := m.pid(); syscall.Kill(pid, 0) == nil {
				t.Errorf("process %d still runs", pid)
			}
			if n := len(m.started()); n != 1 {
				t.Errorf("%d processes were started, want 1", n)
			}
		})
	}
}

func TestStartNeedsTheShell(t *testing.T) {
	t.Parallel()
	for shell, ok := range map[string]bool{"/bin/false": true, "/no/such/shell": false, "/etc/passwd": false} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			h := fakeHost(t, newLocalMachine(t), "", func(c *opencode.HostConfig) { c.Content = []byte(`{"shell":"` + shell + `"}`) })
			_, err := h.Start(deadline(t, 30*time.Second))
			if ok != (err == nil) || !ok && (sandbox.CodeOf(err) != opencode.CodeStartup || !strings.Contains(err.Error(), shell)) {
				t.Errorf("with shell %s: %v", shell, err)
			}
		})
	}
}

func TestOnStartFails(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	var calls atomic.Int32
	h := fakeHost(t, m, "", func(c *opencode.HostConfig) {
		c.OnStart = func(context.Context, *opencode.Server) error {
			if calls.Add(1) == 1 {
				return errors.New("not today")
			}
			return nil
		}
	})
	ctx := deadline(t, 30*time.Second)
	if _, err := h.Start(ctx); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Fatalf("error %v, want the one of OnStart", err)
	}
	if _, err := h.Start(ctx); err != nil {
		t.Fatalf("second start: %v", err)
	}
	if n := len(m.started()); n != 2 || calls.Load() != 2 {
		t.Errorf("%d processes, %d OnStart, want 2 each", n, calls.Load())
	}
}

func TestCrashIsRepaired(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	var starts atomic.Int32
	h := fakeHost(t, m, "", func(c *opencode.HostConfig) {
		c.OnStart = func(context.Context, *opencode.Server) error { starts.Add(1); return nil }
	})
	ctx := deadline(t, 40*time.Second)
	first, err := h.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, ctx, h, "/crash"); err == nil {
		t.Error("the request that crashed OpenCode was answered")
	}
	exit, err := first.Process.Wait(ctx)
	if err != nil || exit.Code != 7 {
		t.Errorf("exit %+v, %v; want code 7", exit, err)
	}
	for h.Health().Restarts == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := get(t, ctx, h, "/echo"); err != nil {
		t.Errorf("a request after the crash: %v", err)
	}
	second, err := h.Ready(ctx)
	if err != nil || second.Process.PID == first.Process.PID || !second.Fresh {
		t.Errorf("after the crash %+v, %v", second, err)
	}
	if starts.Load() != 2 {
		t.Errorf("OnStart was called %d times, want once for each real start", starts.Load())
	}
}

func TestReplacedAgentHost(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "", nil)
	ctx := deadline(t, 40*time.Second)
	first, err := h.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.replace()
	for h.Health().Restarts == 0 {
		if ctx.Err() != nil {
			t.Fatal("nobody noticed that the agent host is a new one")
		}
		time.Sleep(time.Millisecond)
	}
	second, err := h.Ready(ctx)
	if err != nil || second.Process.PID == first.Process.PID {
		t.Errorf("%+v, %v", second, err)
	}
	if _, err := get(t, ctx, h, "/echo"); err != nil {
		t.Error(err)
	}
}

func TestConfigTooLong(t *testing.T) {
	t.Parallel()
	_, err := opencode.NewHost(opencode.HostConfig{Machine: newLocalMachine(t).connect, Sandboxes: noSandboxes{}, Content: make([]byte, 200<<10)})
	if sandbox.CodeOf(err) != sandbox.CodeInvalidArgument || !strings.Contains(err.Error(), "204800") {
		t.Errorf("%v", err)
	}
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	home, project := places(t)
	ports := freePorts(t, 2)
	var starts atomic.Int32
	config := func(content string) opencode.HostConfig {
		return opencode.HostConfig{
			Machine: m.connect, Content: []byte(content), Sandboxes: noSandboxes{},
			Binary: os.Args[0], Home: home, Project: project, Port: ports[0], BridgePort: ports[1],
			Env: map[string]string{fakeMode: ""}, Logger: testLogger(t),
			OnStart: func(context.Context, *opencode.Server) error { starts.Add(1); return nil },
		}
	}
	ctx := deadline(t, 60*time.Second)
	a := newHost(t, config(`{"a":1}`))
	first, err := a.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Detach(ctx); err != nil {
		t.Fatal(err)
	}

	b := newHost(t, config(`{"a":1}`))
	second, err := b.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if second.Fresh || second.Process.PID != first.Process.PID || starts.Load() != 1 {
		t.Errorf("same configuration: fresh %v, process %d after %d, OnStart %d times", second.Fresh, second.Process.PID, first.Process.PID, starts.Load())
	}
	if body, err := get(t, ctx, b, "/echo"); err != nil || body == "" {
		t.Errorf("the server that was taken over: %q, %v", body, err)
	}
	if err := b.Detach(ctx); err != nil {
		t.Fatal(err)
	}

	c := newHost(t, config(`{"a":2}`))
	third, err := c.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !third.Fresh || third.Process.PID == first.Process.PID || starts.Load() != 2 {
		t.Errorf("other configuration: fresh %v, process %d after %d, OnStart %d times", third.Fresh, third.Process.PID, first.Process.PID, starts.Load())
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "deaf", func(c *opencode.HostConfig) { c.StopTimeout = 200 * time.Millisecond })
	ctx := deadline(t, 30*time.Second)
	if _, err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(m.pid(), 0) == nil {
		t.Error("the process still runs")
	}
	if _, err := h.Ready(ctx); !errors.Is(err, err) || err == nil {
		t.Error("ready after Stop")
	}
	if h.Health().State != opencode.StateStopped || h.Process() != nil {
		t.Errorf("health %+v", h.Health())
	}
}

func TestBrokenConnectionIsNoCrash(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "", nil)
	ctx := deadline(t, 40*time.Second)
	first, err := h.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.cut()
	answer := make(chan error, 1)
	go func() {
		_, err := get(t, ctx, h, "/echo")
		answer <- err
	}()
	select {
	case err := <-answer: // A kept connection may outlive the cut: it is one of its own.
		if err != nil {
			t.Errorf("a request without a connection: %v, want it to wait", err)
		}
		m.heal()
	case <-time.After(100 * time.Millisecond):
		m.heal()
		if err := <-answer; err != nil {
			t.Errorf("a request that waited for the connection: %v", err)
		}
	}
	second, err := h.Ready(ctx)
	if err != nil || second.Process.PID != first.Process.PID || h.Health().Restarts != 0 {
		t.Errorf("server %+v, %v, %d restarts; want the same", second, err, h.Health().Restarts)
	}
}

func TestRootSession(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "", nil)
	ctx := deadline(t, 30*time.Second)
	if _, err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"ses_a0": "ses_a0", "ses_a1": "ses_a0", "ses_a5": "ses_a0", "ses_a31": "ses_a0"} {
		for range 2 {
			if root, err := h.RootSession(ctx, id); root != want || err != nil {
				t.Errorf("root of %s is %q, %v; want %s", id, root, err, want)
			}
		}
	}
	for id, want := range map[string]sandbox.Code{
		"ses_zzz": opencode.CodeSessionNotFound, "": opencode.CodeSessionNotFound, "ses_a1/../../config": opencode.CodeSessionNotFound,
		"ses_" + strings.Repeat("a", 1000): opencode.CodeSessionNotFound,
		"ses_a777":                         opencode.CodeOpenCodeAPI, "ses_a200": opencode.CodeOpenCodeAPI,
	} {
		if root, err := h.RootSession(ctx, id); sandbox.CodeOf(err) != want {
			t.Errorf("root of %.40q is %q, %v; want code %s", id, root, err, want)
		}
	}
}
