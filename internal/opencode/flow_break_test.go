package opencode_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/opencode"
	"github.com/tongs-dev/tongs/plugin"
)

// TestFlowKill holds that a killed OpenCode comes back by itself, and that the
// next call finds the same sandbox with its files.
func TestFlowKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, map[string]string{plugin.EnvWaitMS: "1500"})
	ctx := deadline(t, 3*time.Minute)
	session := r.session(ctx, "", map[string]any{})
	r.prompt(ctx, session, scripted, bash("echo kept > file"), map[string]string{"text": "done"})
	pid := r.machine.pid()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for r.host.Health().Restarts == 0 {
		time.Sleep(time.Millisecond)
	}
	parts := tools(r.prompt(ctx, session, scripted, bash("cat file"), map[string]string{"text": "done"}))
	if len(parts) != 2 || parts[1].State.Output != "kept\n" {
		t.Fatalf("parts %+v", parts)
	}
	if r.machine.pid() == pid {
		t.Error("the process is the same")
	}

	// A host that is gone for longer than a call may wait: the turn fails and says so, before a model
	// that nobody can tell of the sandbox is asked.
	if err := r.host.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	direct := &rig{t: t, host: r.host, machine: r.machine, boxes: r.boxes, project: r.project, base: r.host.URL()}
	if all := tools(direct.prompt(ctx, session, scripted, bash("cat file"), map[string]string{"text": "done"})); len(all) != len(parts) {
		t.Fatalf("without a host a tool ran: %+v", all[len(all)-1])
	}
	var messages []struct {
		Info struct{ Error json.RawMessage }
	}
	direct.api(ctx, "GET", "/session/"+session+"/message", nil, &messages)
	if text := string(messages[len(messages)-1].Info.Error); !strings.Contains(text, "No sandbox host") {
		t.Fatalf("without a host: %s", text)
	}

	// It is taken over, and all is well again.
	server, err := r.host.Start(ctx)
	if err != nil || server.Fresh {
		t.Fatalf("%+v, %v; want the running one", server, err)
	}
	parts = tools(r.prompt(ctx, session, scripted, bash("cat file"), map[string]string{"text": "done"}))
	if last := parts[len(parts)-1]; last.State.Output != "kept\n" {
		t.Errorf("after the host came back: %+v", last)
	}
}

func TestHungServerIsReplaced(t *testing.T) {
	t.Parallel()
	m := newLocalMachine(t)
	h := fakeHost(t, m, "", func(c *opencode.HostConfig) {
		c.ProbeInterval, c.ProbeTimeout, c.StopTimeout = 20*time.Millisecond, 200*time.Millisecond, 300*time.Millisecond
	})
	ctx := deadline(t, 40*time.Second)
	first, err := h.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first.Process.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for h.Health().Restarts == 0 {
		if ctx.Err() != nil {
			t.Fatal("the hung server was not replaced")
		}
		time.Sleep(time.Millisecond)
	}
	second, err := h.Ready(ctx)
	if err != nil || second.Process.PID == first.Process.PID {
		t.Errorf("%+v, %v", second, err)
	}
}
