package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// crowdLimit is how many processes a crowded sandbox may have.
const crowdLimit = 80

// newCrowded makes a guest whose commands may be few, and names the directory of
// their control group.
func newCrowded(t *testing.T) (*sandbox.Client, string) {
	t.Helper()
	group, tasks := pidsGroup(t, crowdLimit)
	events, err := os.Open(filepath.Join(group, "pids.events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	dir := t.TempDir()
	return serve(t, guest.Config{
		ListenerFD: 3, Project: dir, OutputDir: filepath.Join(dir, "out"), User: guest.User{Root: true, Home: dir},
		Cgroup: guest.Cgroup{Version: 1, TasksFDs: []int{5}, Tasks: crowdLimit, PidsFD: 6},
	}, tasks, events), group
}

func bashCall(id, script string) sandbox.ToolCall {
	return sandbox.ToolCall{Name: "bash", CallID: id, SessionID: "ses_1", MessageID: "msg_1",
		Args: map[string]any{"command": script, "description": "a test"}}
}

// population counts the processes in a group, but not the guest that forks there.
func population(t *testing.T, group string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(group, "pids.current"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n - 1
}

// dwindle waits until a group has so many processes.
func dwindle(t *testing.T, group string, want int) {
	t.Helper()
	late := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		n := population(t, group)
		if n == want {
			return
		}
		if time.Now().After(late) {
			t.Errorf("%d processes are left, want %d", n, want)
			return
		}
	}
}

// After a fork bomb the next command runs, the bomb is dead, and what runs goes on.
func TestForkBomb(t *testing.T) {
	for name, script := range map[string]string{
		// Its processes stay in one group, and go on forking.
		"group": `bomb(){ bomb|bomb& }; bomb; sleep 1; echo after`,
		// Each is in a session of its own.
		"sessions": `printf 'setsid sh ./bomb &\nsetsid sh ./bomb &\nsetsid sh ./bomb\n' > bomb; sh ./bomb; sleep 1; echo after`,
		// None ends or forks any more.
		"sleepers": `exec sh -c 'while :; do sleep 1000 & done'`,
		// They don't end when asked to.
		"stubborn": `trap '' HUP INT TERM; f(){ f & f & while :; do sleep 1; done; }; f & sleep 1; echo after`,
	} {
		t.Run(name, func(t *testing.T) {
			b, group := newCrowded(t)
			ctx := t.Context()
			service, err := b.Start(ctx, sandbox.ProcessSpec{ID: "service", Mode: sandbox.Follow, Argv: []string{"sh", "-c", "sleep 1000 & wait"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.RunTool(ctx, bashCall("c1", script), sandbox.ToolHooks{}); err != nil {
				t.Logf("the bomb's own run: %v", err)
			}
			began := time.Now()
			res, err := b.RunTool(ctx, bashCall("c2", "echo ne''xt"), sandbox.ToolHooks{})
			if err != nil {
				t.Fatalf("after the bomb, after %v: %v", time.Since(began), err)
			}
			t.Logf("the next command took %v:\n%s", time.Since(began), res.Output)
			told := strings.Contains(res.Output, "limit on processes was reached")
			// Sessions that can't fork end by themselves: their number goes up
			// and down, and there may be room when the next command begins. So there may
			// while a shell of the group waits before it tries to fork again.
			if !strings.Contains(res.Output, "next") || !told && name != "sessions" && name != "group" {
				t.Errorf("the next command wrote %q", res.Output)
			}
			dwindle(t, group, 2)
			if in, err := b.Get(ctx, service.ID); err != nil || !in.Running {
				t.Errorf("what ran all the time: %+v, %v", in, err)
			}
			res, err = b.RunTool(ctx, bashCall("c3", "echo la''st"), sandbox.ToolHooks{})
			if err != nil || !strings.HasPrefix(res.Output, "last\n") || told && strings.TrimSpace(res.Output) != "last" {
				t.Errorf("the one after: %+v, %v", res, err)
			} else if name == "group" && !told && !strings.Contains(res.Output, "limit on processes was reached") {
				t.Errorf("a bomb was ended and nobody told: %q", res.Output)
			}
		})
	}
}

// A bomb dies soon after the end of the run that left it, also when nothing follows.
func TestForkBombWithoutNextCommand(t *testing.T) {
	b, group := newCrowded(t)
	ctx := t.Context()
	if _, err := b.RunTool(ctx, bashCall("c1", `bomb(){ bomb|bomb& }; bomb; sleep 1; echo after`), sandbox.ToolHooks{}); err != nil {
		t.Logf("the bomb's own run: %v", err)
	}
	dwindle(t, group, 0)
}

// A bomb whose run is still going on makes room for a command beside it, and the
// run is not ended.
func TestForkBombBeside(t *testing.T) {
	b, group := newCrowded(t)
	ctx := t.Context()
	first, err := b.Start(ctx, sandbox.ProcessSpec{Argv: []string{"bash", "-c", `bomb(){ bomb|bomb& }; bomb; sleep 1000`}})
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(20 * time.Second); population(t, group) < crowdLimit-5; {
		if time.Now().After(late) {
			t.Fatalf("the bomb has %d processes only", population(t, group))
		}
	}
	res, err := b.RunTool(ctx, bashCall("c2", "echo ne''xt"), sandbox.ToolHooks{})
	if err != nil || !strings.Contains(res.Output, "next") {
		t.Errorf("beside the bomb: %+v, %v", res, err)
	}
	if in, err := b.Get(ctx, first.ID); err != nil || !in.Running {
		t.Errorf("the run: %+v, %v", in, err)
	}
}

// What a running command has begun is its own. Another one that finds no place is
// told who has them.
func TestCrowdThatRuns(t *testing.T) {
	b, group := newCrowded(t)
	ctx := t.Context()
	first, err := b.Start(ctx, sandbox.ProcessSpec{ID: "many", Argv: []string{"sh", "-c", "for i in $(seq " + strconv.Itoa(crowdLimit-2) + "); do sleep 1000 & done; wait"}})
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(20 * time.Second); population(t, group) < crowdLimit-1; {
		if time.Now().After(late) {
			t.Fatalf("there are %d processes only", population(t, group))
		}
	}
	_, err = b.RunTool(ctx, bashCall("c2", "echo next"), sandbox.ToolHooks{})
	if sandbox.CodeOf(err) != sandbox.CodeTooManyProcesses || !strings.Contains(err.Error(), "process many") {
		t.Errorf("the error doesn't say who has the places: %v", err)
	}
	if n := population(t, group); n != crowdLimit-1 {
		t.Errorf("%d processes are left", n)
	}
	if in, err := b.Get(ctx, first.ID); err != nil || !in.Running {
		t.Errorf("the run: %+v, %v", in, err)
	}
}
