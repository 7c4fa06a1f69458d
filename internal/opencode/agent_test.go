package opencode_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/sandbox"
)

// fakeSandboxes gives each root session a directory, and carries a few tools out
// there in the simplest way that keeps the contract of runs: one call id is one
// run, whatever happens to connections.
type fakeSandboxes struct {
	base string

	mu    sync.Mutex
	runs  map[string]*fakeRun
	calls []string // "root tool" in order of their begin
	// cancelled holds the ids of calls that were cancelled.
	cancelled map[string]bool
	changed   chan struct{}
	// sessions are the connections to the sandboxes.
	sessions []*capnweb.Session
}

type fakeRun struct {
	root     string
	asks     int // how often the run was asked for
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{}
	result   map[string]any
	err      error
	mu       sync.Mutex
	ask      *capnweb.Stub
	progress *capnweb.Stub
}

func newFakeSandboxes(t *testing.T) *fakeSandboxes {
	f := &fakeSandboxes{base: t.TempDir(), runs: map[string]*fakeRun{}, cancelled: map[string]bool{}, changed: make(chan struct{})}
	t.Cleanup(func() {
		f.mu.Lock()
		runs := f.runs
		f.mu.Unlock()
		for _, r := range runs {
			r.cancel(errors.New("the test is over"))
			<-r.done
		}
		f.cut()
	})
	return f
}

func (f *fakeSandboxes) dir(root string) string { return filepath.Join(f.base, root) }

// note changes the state under the lock and wakes those who wait for it.
func (f *fakeSandboxes) note(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

// until waits until the state is as wanted.
func (f *fakeSandboxes) until(ctx context.Context, what string, ok func() bool) error {
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
	}
}

// attach sets whom the run talks to. The ones before are given up.
func (r *fakeRun) attach(ask, progress *capnweb.Stub) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask.Close()
	r.progress.Close()
	r.ask, r.progress = ask, progress
}

type toolCall struct {
	Name      string         `json:"name"`
	Args      map[string]any `json:"args"`
	CallID    string         `json:"callID"`
	SessionID string         `json:"sessionID"`
	MessageID string         `json:"messageID"`
	Agent     string         `json:"agent"`
	Again     bool           `json:"again"`
	Ask       *capnweb.Stub  `json:"ask"`
	Progress  *capnweb.Stub  `json:"progress"`
}

func (f *fakeSandboxes) Agent(_ context.Context, root string) (*capnweb.Stub, error) {
	if err := os.MkdirAll(f.dir(root), 0o755); err != nil {
		return nil, err
	}
	target := capnweb.NewTarget(capnweb.Methods{
		"tool":   func(ctx context.Context, call toolCall) (map[string]any, error) { return f.tool(ctx, root, call) },
		"cancel": f.cancel,
		"exec": func(command string, opts struct {
			Timeout *float64 `json:"timeout"`
		}) map[string]any {
			cmd := exec.Command("bash", "-c", command)
			cmd.Dir = f.dir(root)
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			began := time.Now()
			_ = cmd.Run()
			return map[string]any{"success": cmd.ProcessState.Success(), "exitCode": cmd.ProcessState.ExitCode(), "stdout": stdout.String(), "stderr": stderr.String(),
				"command": command, "duration": time.Since(began).Milliseconds(), "timestamp": began.Format(time.RFC3339)}
		},
		"readFile": func(path string) (map[string]any, error) {
			data, err := os.ReadFile(f.path(root, path))
			return map[string]any{"success": true, "path": path, "content": string(data), "encoding": "utf-8"}, err
		},
		"writeFile": func(path, content string) (map[string]any, error) {
			return map[string]any{"success": true, "path": path}, os.WriteFile(f.path(root, path), []byte(content), 0o644)
		},
	}, capnweb.Concurrent())
	// As in earnest, the stub belongs to a connection, and breaks with it.
	here, there := capnweb.Pipe()
	near, far := capnweb.NewSession(here, nil), capnweb.NewSession(there, target)
	f.note(func() { f.sessions = append(f.sessions, near, far) })
	return near.Main(), nil
}

// cut breaks the connections to all sandboxes.
func (f *fakeSandboxes) cut() {
	f.mu.Lock()
	sessions := f.sessions
	f.sessions = nil
	f.mu.Unlock()
	for _, s := range sessions {
		s.Close(errors.New("the connection was cut"))
	}
}

// forget makes the sandboxes forget the runs of a session, as ones that were
// started anew, and breaks the connections to them.
func (f *fakeSandboxes) forget(root string) {
	var lost []*fakeRun
	f.note(func() {
		for id, run := range f.runs {
			if run.root == root {
				lost = append(lost, run)
				delete(f.runs, id)
			}
		}
	})
	f.cut()
	for _, run := range lost {
		run.cancel(errors.New("the sandbox died"))
		<-run.done
	}
}

// path puts a path of the project into the session's directory.
func (f *fakeSandboxes) path(root, path string) string {
	return filepath.Join(f.dir(root), filepath.Base(path))
}

func (f *fakeSandboxes) tool(ctx context.Context, root string, call toolCall) (map[string]any, error) {
	var run *fakeRun
	lost := false
	f.note(func() {
		run = f.runs[call.CallID]
		fresh := run == nil
		if lost = fresh && call.Again; lost {
			return
		}
		if fresh {
			run = &fakeRun{root: root, done: make(chan struct{})}
			run.ctx, run.cancel = context.WithCancelCause(context.Background())
			f.runs[call.CallID] = run
			f.calls = append(f.calls, root+" "+call.Name)
		}
		run.asks++
		select {
		case <-run.done: // Nobody will talk to the caller any more.
		default:
			run.attach(call.Ask.Dup(), call.Progress.Dup())
		}
		if fresh {
			go func() {
				result, err := f.carryOut(run, call)
				f.note(func() {
					run.result, run.err = result, err
					run.attach(nil, nil)
					close(run.done)
				})
			}()
		}
	})
	if lost {
		return nil, sandbox.Errf(sandbox.CodeRunLost, "tool", "the run was lost", "look before you repeat it")
	}
	select {
	case <-run.done:
		return run.result, run.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeSandboxes) cancel(callID string) bool {
	var run *fakeRun
	f.note(func() {
		f.cancelled[callID] = true
		run = f.runs[callID]
	})
	if run == nil {
		return false
	}
	run.cancel(sandbox.Errf(sandbox.CodeAborted, "tool", "Tool execution aborted", ""))
	return true
}

func (f *fakeSandboxes) carryOut(run *fakeRun, call toolCall) (map[string]any, error) {
	text := func(name string) string { s, _ := call.Args[name].(string); return s }
	switch call.Name {
	case "bash":
		command := text("command")
		if strings.HasPrefix(command, "ask ") {
			run.mu.Lock()
			ask := run.ask.Dup()
			run.mu.Unlock()
			defer ask.Close()
			_, err := capnweb.Call[any](run.ctx, ask, "", map[string]any{"permission": "bash", "patterns": []string{command}, "always": []string{"ask *"}, "metadata": map[string]any{"command": command}})
			if err != nil {
				return nil, err
			}
			command = strings.TrimPrefix(command, "ask ")
		}
		cmd := exec.CommandContext(run.ctx, "bash", "-c", command)
		cmd.Dir = f.dir(run.root)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second
		out := &progressWriter{run: run}
		cmd.Stdout, cmd.Stderr = out, out
		_ = cmd.Run()
		if run.ctx.Err() != nil {
			return nil, context.Cause(run.ctx)
		}
		return map[string]any{"title": command, "output": out.text.String(), "metadata": map[string]any{"output": out.text.String(), "exit": cmd.ProcessState.ExitCode()}}, nil
	case "write":
		err := os.WriteFile(f.path(run.root, text("filePath")), []byte(text("content")), 0o644)
		return map[string]any{"title": filepath.Base(text("filePath")), "output": "Wrote file successfully.", "metadata": map[string]any{"filepath": text("filePath")}}, err
	case "read":
		data, err := os.ReadFile(f.path(run.root, text("filePath")))
		if err != nil {
			return nil, sandbox.Errf(sandbox.CodeFileNotFound, "read", "File not found: "+text("filePath"), "")
		}
		return map[string]any{"title": filepath.Base(text("filePath")), "output": string(data), "metadata": map[string]any{"truncated": strings.HasSuffix(text("filePath"), ".cut")}}, nil
	case "apply_patch":
		err := os.WriteFile(f.path(run.root, "patch.txt"), []byte(text("patchText")), 0o644)
		return map[string]any{"title": "patched", "output": "Success. Updated the following files:\nA patch.txt", "metadata": map[string]any{}}, err
	}
	return nil, fmt.Errorf("no tool %s here", call.Name)
}

// progressWriter tells each write of a command to whoever has asked last.
type progressWriter struct {
	run  *fakeRun
	text strings.Builder
}

func (w *progressWriter) Write(p []byte) (int, error) {
	w.text.Write(p)
	w.run.mu.Lock()
	progress := w.run.progress
	w.run.mu.Unlock()
	ctx, cancel := context.WithTimeout(w.run.ctx, 5*time.Second)
	defer cancel()
	_, _ = capnweb.Call[any](ctx, progress, "", map[string]any{"metadata": map[string]any{"output": w.text.String()}})
	return len(p), nil
}
