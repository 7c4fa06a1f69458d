package guest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

func bashCall(id, script string) sandbox.ToolCall {
	return sandbox.ToolCall{Name: "bash", CallID: id, SessionID: "ses_1", MessageID: "msg_1",
		Args: map[string]any{"command": script, "description": "a test"}}
}

func TestTool(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	var mu sync.Mutex
	var asked []string
	var told []map[string]any
	hooks := sandbox.ToolHooks{
		Ask: func(_ context.Context, q sandbox.AskRequest) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, q.Permission)
			return nil
		},
		Progress: func(_ string, metadata map[string]any) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, metadata)
		},
	}
	res, err := b.RunTool(ctx, bashCall("c1", "echo hello; sleep 0.3; exit 4"), hooks)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(res.Output, "hello") || res.Metadata["exit"] != 4.0 {
		t.Errorf("%+v", res)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 || asked[0] != "bash" {
		t.Errorf("asked %q", asked)
	}
	if len(told) == 0 {
		t.Error("no progress was told")
	}
}

func TestToolRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	no := sandbox.ToolHooks{Ask: func(context.Context, sandbox.AskRequest) error { return errors.New("not today") }}
	_, err := b.RunTool(ctx, bashCall("c1", "touch done"), no)
	wantCode(t, err, sandbox.CodeRejected)
	if err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(b.path("done")); err == nil {
		t.Error("it was run")
	}
	_, err = b.RunTool(ctx, sandbox.ToolCall{Name: "no such tool"}, sandbox.ToolHooks{})
	if sandbox.CodeOf(err) != sandbox.CodeToolNotFound {
		t.Errorf("error %v", err)
	}
	_, err = b.RunTool(ctx, sandbox.ToolCall{}, sandbox.ToolHooks{})
	wantCode(t, err, sandbox.CodeInvalidArgument)
}

// The line breaks while a tool runs. The run goes on, is attached to again by its
// call id, its command has run once, and its result is the one.
func TestToolOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	call := bashCall("c1", "echo run >> runs; echo begun > begun; while [ ! -e go ]; do sleep 0.02; done; cat runs")

	first := b.connect()
	broke := make(chan error, 1)
	go func() {
		_, err := first.RunTool(ctx, call, sandbox.ToolHooks{})
		broke <- err
	}()
	waitFor(ctx, t, "beginning", func() bool { _, err := os.Stat(b.path("begun")); return err == nil })
	first.Close()
	wantCode(t, <-broke, sandbox.CodeConnectionLost)

	results := make(chan *sandbox.ToolResult, 3)
	for range 2 { // two attach while it runs
		go func() {
			c := b.connect()
			defer c.Close()
			res, err := c.RunTool(ctx, call, sandbox.ToolHooks{})
			if err != nil {
				t.Error(err)
			}
			results <- res
		}()
	}
	// The same id for something else is refused while it runs.
	_, err := b.RunTool(ctx, bashCall("c1", "echo other"), sandbox.ToolHooks{})
	wantCode(t, err, sandbox.CodeCallConflict)
	if err := os.WriteFile(b.path("go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if res := <-results; res == nil || strings.TrimSpace(res.Output) != "run" {
			t.Errorf("%+v", res)
		}
	}
	// And one after it has ended.
	res, err := b.RunTool(ctx, call, sandbox.ToolHooks{})
	if err != nil || strings.TrimSpace(res.Output) != "run" {
		t.Errorf("%+v, %v", res, err)
	}
	// Another message, or another session, is another call.
	call.MessageID = "msg_2"
	if res, err := b.RunTool(ctx, call, sandbox.ToolHooks{}); err != nil || strings.TrimSpace(res.Output) != "run\nrun" {
		t.Errorf("%+v, %v", res, err)
	}
}

// A question that was not answered when the line broke is put again to the next.
func TestQuestionIsAskedAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	call := bashCall("c1", "echo allowed")
	first := b.connect()
	asked := make(chan struct{})
	broke := make(chan error, 1)
	go func() {
		_, err := first.RunTool(ctx, call, sandbox.ToolHooks{Ask: func(ctx context.Context, _ sandbox.AskRequest) error {
			close(asked)
			<-ctx.Done()
			return ctx.Err()
		}})
		broke <- err
	}()
	<-asked
	first.Close()
	wantCode(t, <-broke, sandbox.CodeConnectionLost)
	// One who relays the question, and lost the way to who is asked.
	second := b.connect()
	lost := make(chan struct{})
	go second.RunTool(ctx, call, sandbox.ToolHooks{Ask: func(context.Context, sandbox.AskRequest) error {
		defer close(lost)
		return sandbox.Errf(sandbox.CodeConnectionLost, "ask", "the other end is away", "")
	}})
	<-lost
	second.Close()
	again := 0
	res, err := b.RunTool(ctx, call, sandbox.ToolHooks{Ask: func(context.Context, sandbox.AskRequest) error { again++; return nil }})
	if err != nil || again != 1 || !strings.Contains(res.Output, "allowed") {
		t.Errorf("%+v, %v, asked %d times", res, err, again)
	}
}

// Nobody comes back to answer: the run ends, refused.
func TestQuestionOfAnOrphan(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.OrphanSeconds = 1 })
	ctx := b.context()
	call := bashCall("c1", "touch done")
	first := b.connect()
	asked := make(chan struct{})
	go first.RunTool(ctx, call, sandbox.ToolHooks{Ask: func(ctx context.Context, _ sandbox.AskRequest) error {
		close(asked)
		<-ctx.Done()
		return ctx.Err()
	}})
	<-asked
	first.Close()
	var err error
	waitFor(ctx, t, "end of the run", func() bool {
		// Attaching answers the question, so it must not be done too early.
		time.Sleep(1500 * time.Millisecond)
		_, err = b.RunTool(ctx, call, sandbox.ToolHooks{Ask: func(context.Context, sandbox.AskRequest) error { return errors.New("too early") }})
		return err != nil
	})
	wantCode(t, err, sandbox.CodeRejected)
	if strings.Contains(err.Error(), "too early") {
		t.Errorf("error %v", err)
	}
}

func TestCancelTool(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	done := make(chan error, 1)
	go func() {
		_, err := b.RunTool(ctx, bashCall("c1", `(trap "" TERM; echo $BASHPID > pid; sleep 1000; sleep 1000) & echo begun > begun; wait`), sandbox.ToolHooks{})
		done <- err
	}()
	waitFor(ctx, t, "beginning", func() bool {
		_, e1 := os.Stat(b.path("begun"))
		data, e2 := os.ReadFile(b.path("pid"))
		return e1 == nil && e2 == nil && len(data) > 0
	})
	if ok, err := b.CancelTool(ctx, "another"); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if ok, err := b.CancelTool(ctx, "c1"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	err := <-done
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != sandbox.CodeAborted || e.Message != "Tool execution aborted" {
		t.Errorf("error %v", err)
	}
	pid, err := os.ReadFile(b.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, strings.TrimSpace(string(pid)))
	if ok, err := b.CancelTool(ctx, "c1"); ok || err != nil {
		t.Errorf("after the end: %v, %v", ok, err)
	}
}

// What is handed to OpenCode is its tools, and nothing more.
func TestAgent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	agent := b.Agent()
	defer agent.Close()
	type object = map[string]any

	if err := os.WriteFile(b.path("random.js"), []byte("console.log(7)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"shutdown", "start", "exec", "readFile", "writeFile", "dial", "listen", "removeFile", "info", "agent"} {
		if _, err := capnweb.Call[any](ctx, agent, method); err == nil {
			t.Errorf("%s can be called", method)
		}
	}
	out, err := capnweb.Call[object](ctx, agent, "tool", object{"name": "read", "args": object{"filePath": b.path("random.js")}, "callID": "c", "sessionID": "s"})
	if err != nil || !strings.Contains(out["output"].(string), "console.log(7)") {
		t.Errorf("%v, %v", out, err)
	}
}

// A guest that was started anew does not know how far a run came that is asked
// for again: it repeats what only looks, and nothing else.
func TestRunOfAnEarlierGuest(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if err := os.WriteFile(b.path("file"), []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string]map[string]any{
		"bash":        {"command": "echo run >> runs", "description": "a test"},
		"write":       {"filePath": b.path("file"), "content": "new"},
		"edit":        {"filePath": b.path("file"), "oldString": "old", "newString": "new"},
		"apply_patch": {"patchText": "*** Begin Patch\n*** Delete File: file\n*** End Patch"},
	} {
		call := sandbox.ToolCall{Name: name, Args: args, CallID: "lost " + name, SessionID: "ses_1", MessageID: "msg_1", Again: true}
		_, err := b.RunTool(ctx, call, sandbox.ToolHooks{})
		wantCode(t, err, sandbox.CodeRunLost)
		if err == nil || !strings.Contains(err.Error(), "look before you repeat it") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if data, err := os.ReadFile(b.path("file")); string(data) != "old\n" {
		t.Errorf("the file is %q, %v", data, err)
	}
	if _, err := os.Stat(b.path("runs")); err == nil {
		t.Error("the command was run")
	}
	for name, args := range map[string]map[string]any{
		"read": {"filePath": b.path("file")}, "glob": {"pattern": "*"}, "grep": {"pattern": "old"}, "list": {},
	} {
		call := sandbox.ToolCall{Name: name, Args: args, CallID: "seen " + name, SessionID: "ses_1", MessageID: "msg_1", Again: true}
		if res, err := b.RunTool(ctx, call, sandbox.ToolHooks{}); err != nil || !strings.Contains(res.Output, "file") && !strings.Contains(res.Output, "old") {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	// One that this guest knows is attached to, as ever.
	call := bashCall("known", "echo run >> runs; cat runs")
	for _, again := range []bool{false, true} {
		call.Again = again
		if res, err := b.RunTool(ctx, call, sandbox.ToolHooks{}); err != nil || res.Output != "run\n" {
			t.Errorf("again %t: %+v, %v", again, res, err)
		}
	}
}

// The instructions of a directory go along with the first file that a session
// reads there.
func TestInstructionsGoAlongOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if err := os.Mkdir(b.path("part"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"part/AGENTS.md": "Use tabs here.\n", "part/a.txt": "a\n", "part/b.txt": "b\n"} {
		if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, step := range []struct {
		session, file string
		told          bool
	}{{"ses_1", "part/a.txt", true}, {"ses_1", "part/b.txt", false}, {"ses_2", "part/b.txt", true}} {
		res, err := b.RunTool(ctx, sandbox.ToolCall{Name: "read", CallID: string(rune('a' + i)), SessionID: step.session, Args: map[string]any{"filePath": step.file}}, sandbox.ToolHooks{})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(res.Output, "Use tabs here.") != step.told {
			t.Errorf("%+v: %s", step, res.Output)
		}
	}
}
