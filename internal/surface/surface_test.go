package surface_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/surface"
	"github.com/tongs-dev/tongs/sandbox"
)

// peerOf gives a surface to a peer of its own, which sees it as a program elsewhere does.
func peerOf(t *testing.T, b *box, opts surface.Options) (*capnweb.Session, *capnweb.Stub) {
	t.Helper()
	here, there := capnweb.Pipe()
	host := capnweb.NewSession(here, capnweb.NewTarget(capnweb.Methods{
		"get": func() *capnweb.Target { return surface.New(b.Client, opts) },
	}))
	program := capnweb.NewSession(there, nil)
	t.Cleanup(func() {
		program.Close(nil)
		<-host.Done()
	})
	box, err := capnweb.Call[*capnweb.Stub](deadline(t), program.Main(), "get")
	if err != nil {
		t.Fatal(err)
	}
	return program, box
}

// viewers waits until a process has so many readers.
func viewers(ctx context.Context, t *testing.T, b *box, id string, want int) {
	t.Helper()
	for {
		in, err := b.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if in.Viewers == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s has %d viewers, want %d", id, in.Viewers, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestWaitsEndWithTheirCaller holds that what waits for a sandbox, for somebody who has gone, ends: goleak would
// find it. The object itself may be let go of while a handle that came from it is used.
func TestWaitsEndWithTheirCaller(t *testing.T) {
	t.Parallel()
	b := open(t)
	ctx := deadline(t)
	program, box := peerOf(t, b, surface.Options{})
	type process struct {
		ID          string        `json:"id"`
		WaitForLog  *capnweb.Stub `json:"waitForLog"`
		WaitForExit *capnweb.Stub `json:"waitForExit"`
		Kill        *capnweb.Stub `json:"kill"`
	}
	p, err := capnweb.Call[process](ctx, box, "startProcess", "echo up; sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	box.Close()
	if line, err := capnweb.Call[map[string]any](ctx, p.WaitForLog, "", "up"); err != nil || line["line"] != "up" {
		t.Errorf("after the object was let go of: %v, %v", line, err)
	}
	never := p.WaitForLog.Call("", "never")
	exit := p.WaitForExit.Call("")
	program.Close(errors.New("the program left"))
	if err := never.Await(ctx, nil); !errors.Is(err, capnweb.ErrDisconnected) {
		t.Errorf("the wait: %v", err)
	}
	exit.Close()
	if in, err := b.Get(ctx, p.ID); err != nil || !in.Running {
		t.Errorf("the process: %+v, %v", in, err)
	}
}

// TestCommandsOutliveTheirCaller holds that no command is ended by a program that went away.
func TestCommandsOutliveTheirCaller(t *testing.T) {
	t.Parallel()
	b := open(t)
	ctx := deadline(t)
	program, box := peerOf(t, b, surface.Options{})
	for _, id := range []string{"plain", "told"} {
		opts := map[string]any{"processId": id}
		if id == "told" {
			opts["onOutput"] = capnweb.Func(func(string, string) {})
		}
		p := box.Call("exec", "mkfifo "+id+".gate && read x < "+id+".gate; yes | head -c 2000000; echo > "+id+".done", opts)
		defer p.Close()
	}
	for _, id := range []string{"plain", "told"} {
		for {
			if ok, err := b.Exists(ctx, id+".gate"); err != nil {
				t.Fatal(err)
			} else if ok {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	program.Close(errors.New("the program left"))
	for _, id := range []string{"plain", "told"} {
		if _, err := b.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", "echo > " + id + ".gate"}}}); err != nil {
			t.Fatal(err)
		}
		if in, err := b.Wait(ctx, id); err != nil || in.Exit == nil || !in.Exit.Success() {
			t.Errorf("%s: %+v, %v", id, in, err)
		}
		if ok, err := b.Exists(ctx, id+".done"); !ok {
			t.Errorf("%s did not come to its end: %v", id, err)
		}
	}
}

// TestStreamsThatAreLeft holds that a log that nobody reads any more is not read.
func TestStreamsThatAreLeft(t *testing.T) {
	t.Parallel()
	b := open(t)
	ctx := deadline(t)
	program, box := peerOf(t, b, surface.Options{})
	if _, err := b.Start(ctx, sandbox.ProcessSpec{ID: "p", Argv: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{"streamProcessLogs"} {
		s, err := capnweb.Call[*capnweb.ReadableStream](ctx, box, method, "p")
		if err != nil {
			t.Fatal(err)
		}
		viewers(ctx, t, b, "p", 1)
		s.Close()
		viewers(ctx, t, b, "p", 0)
	}
	s, err := capnweb.Call[*capnweb.ReadableStream](ctx, box.Get("processes"), "logs", "p")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	viewers(ctx, t, b, "p", 1)
	program.Close(nil)
	viewers(ctx, t, b, "p", 0)
}

// TestState holds what surfaces of one sandbox share, and for how long.
func TestState(t *testing.T) {
	t.Parallel()
	b := open(t)
	ctx := deadline(t)
	var states surface.States
	_, one := peerOf(t, b, surface.Options{State: states.Of("x", "1")})
	_, two := peerOf(t, b, surface.Options{State: states.Of("x", "1")})
	_, anew := peerOf(t, b, surface.Options{State: states.Of("x", "2")})
	if _, err := capnweb.Call[any](ctx, one, "setEnvVars", map[string]any{"SHARED": "yes"}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		box  *capnweb.Stub
		want string
	}{"another of the same life": {two, "yes\n"}, "of another life": {anew, "\n"}} {
		out, err := capnweb.Call[map[string]any](ctx, c.box, "exec", "echo $SHARED")
		if err != nil || out["stdout"] != c.want {
			t.Errorf("%s: %v, %v, want %q", name, out["stdout"], err, c.want)
		}
	}
	if _, err := capnweb.Call[any](ctx, one, "destroy"); err == nil {
		t.Error("a surface without Destroy destroyed its sandbox")
	}
	var wire *capnweb.Error
	if _, err := capnweb.Call[any](ctx, one, "exposePort", 80, map[string]any{}); !errors.As(err, &wire) || wire.Code() != string(sandbox.CodeNotSupported) {
		t.Errorf("a surface without Previews: %v", err)
	}
}
