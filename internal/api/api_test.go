package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// TestSandbox does with a sandbox what one does, through the endpoint.
func TestSandbox(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	info := create(t, h, remote.CreateOptions{Name: "web", Labels: map[string]string{"for": "test"}, Env: map[string]string{"GREETING": "hello"}})
	if info.Name != "web" || info.State != "running" || info.Image != "host" || info.Labels["for"] != "test" {
		t.Errorf("created: %+v", info)
	}
	box, err := remote.Dial(ctx, e.url, remote.DialOptions{Token: e.token, Sandbox: "we"})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	res, err := box.Exec(ctx, command("sh", "-c", `echo "$GREETING"; hostname >&2; exit 3`))
	if err != nil || string(res.Stdout) != "hello\n" || string(res.Stderr) != "web\n" || res.Exit.Code != 3 {
		t.Errorf("exec: %+v, %v", res, err)
	}

	// Bulk bytes in both directions.
	data := make([]byte, 5<<20)
	rand.Read(data)
	if _, err := box.WriteFrom(ctx, "big", bytes.NewReader(data), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := box.OpenFile(ctx, "big", sandbox.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if r.Close(); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a file of %d bytes came back with %d: %v", len(data), len(got), err)
	}
	res, err = box.Exec(ctx, command("cat", "big"))
	if err != nil || !bytes.Equal(res.Stdout, data) {
		t.Errorf("output: %d bytes, %v", len(res.Stdout), err)
	}
	res, err = box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}, Input: data})
	if err != nil || !bytes.Equal(res.Stdout, data) {
		t.Errorf("input and output: %d bytes, %v", len(res.Stdout), err)
	}

	// A source that breaks changes nothing.
	broken := io.MultiReader(bytes.NewReader(data), failing{})
	if _, err := box.WriteFrom(ctx, "big", broken, sandbox.WriteOptions{}); !errors.Is(err, errBroken) {
		t.Errorf("a broken source: %v", err)
	}
	if fi, err := box.Stat(ctx, "big"); err != nil || fi.Size != int64(len(data)) {
		t.Errorf("after it: %+v %v", fi, err)
	}

	if _, err := h.Destroy(ctx, "web"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-box.Done():
	case <-ctx.Done():
		t.Error("the client does not learn that its sandbox is gone")
	}
	if sandbox.CodeOf(box.Err()) != sandbox.CodeConnectionLost {
		t.Errorf("it says %v", box.Err())
	}
	if _, err := h.Inspect(ctx, "web"); sandbox.CodeOf(err) != sandbox.CodeSandboxNotFound {
		t.Errorf("inspect what is gone: %v", err)
	}
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }

// TestHostOnlyCalls holds that a client of the endpoint cannot do what is the host's.
func TestHostOnlyCalls(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	create(t, h, remote.CreateOptions{Name: "a"})
	box, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if err := box.Shutdown(ctx); sandbox.CodeOf(err) != sandbox.CodePermissionDenied {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := box.Listen(ctx, "x", "127.0.0.1:1234"); sandbox.CodeOf(err) != sandbox.CodePermissionDenied {
		t.Errorf("listen: %v", err)
	}
	agent := box.Agent()
	defer agent.Close()
	if err := agent.Call("exec", "true").Await(ctx, nil); err == nil {
		t.Error("the agent's object was given out")
	}
	if _, err := box.Info(ctx); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestList pages through more sandboxes than one page holds, some of which go meanwhile.
func TestList(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	var made []string
	for _, name := range []string{"e", "d", "c", "b", "a"} {
		made = append(made, create(t, h, remote.CreateOptions{Name: name, Labels: map[string]string{"odd": string('0' + name[0]%2)}}).ID)
	}
	page, err := h.List(ctx, remote.ListOptions{Limit: 2})
	if err != nil || len(page.Sandboxes) != 2 || page.Sandboxes[1].ID != made[1] || page.Next == "" {
		t.Fatalf("first page: %+v %v", page, err)
	}
	if _, err := h.Destroy(ctx, made[1]); err != nil { // the one that the cursor names
		t.Fatal(err)
	}
	var rest []string
	for info, err := range h.All(ctx, remote.ListOptions{Limit: 2, Cursor: page.Next}) {
		if err != nil {
			t.Fatal(err)
		}
		rest = append(rest, info.Name)
	}
	if len(rest) != 3 || rest[0] != "c" || rest[2] != "a" {
		t.Errorf("the rest: %v", rest)
	}
	odd := 0
	for info, err := range h.All(ctx, remote.ListOptions{Labels: map[string]string{"odd": "1"}}) {
		if err != nil || info.Labels["odd"] != "1" {
			t.Errorf("%+v %v", info, err)
		}
		odd++
	}
	if odd != 3 {
		t.Errorf("%d have the label", odd)
	}
	for name, opts := range map[string]remote.ListOptions{"limit": {Limit: 1001}, "negative": {Limit: -1}, "cursor": {Cursor: "x"}} {
		if _, err := h.List(ctx, opts); sandbox.CodeOf(err) != sandbox.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.Create(ctx, remote.CreateOptions{Name: "a"}); sandbox.CodeOf(err) != sandbox.CodeAlreadyExists {
		t.Errorf("a taken name: %v", err)
	}
	if info, err := h.Create(ctx, remote.CreateOptions{Name: "a", Reuse: true}); err != nil || info.ID != made[4] {
		t.Errorf("reuse: %+v %v", info, err)
	}
	if _, err := h.Create(ctx, remote.CreateOptions{Image: "debian"}); sandbox.CodeOf(err) != sandbox.CodeNotSupported {
		t.Errorf("another image: %v", err)
	}
}

// TestStopped holds that looking at a sandbox does not start it, and using it does.
func TestStopped(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	info := create(t, h, remote.CreateOptions{Name: "a"})
	box, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if _, err := box.WriteFile(ctx, "kept", []byte("x"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := e.driver.Stop(ctx, info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Info(ctx); sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Errorf("a client of the life before: %v", err)
	}
	stub := h.Object("a")
	defer stub.Close()
	for range 2 {
		if info, err := h.Inspect(ctx, "a"); err != nil || info.State != "stopped" || info.Guest != nil {
			t.Errorf("inspect: %+v %v", info, err)
		}
	}
	again, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if data, _, err := again.ReadFile(ctx, "kept", sandbox.ReadOptions{}); err != nil || string(data) != "x" {
		t.Errorf("files: %q %v", data, err)
	}
	if info, err := h.Inspect(ctx, "a"); err != nil || info.State != "running" || info.Guest == nil || info.Guest.Incarnation != again.Incarnation() {
		t.Errorf("inspect: %+v %v", info, err)
	}
}

// TestConnectionCut holds that a client whose connection is cut learns of it, and that nothing of its
// streams stays behind.
func TestConnectionCut(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	create(t, h, remote.CreateOptions{Name: "a"})
	box, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	p, err := box.Start(ctx, sandbox.ProcessSpec{Argv: []string{"sh", "-c", "echo begun; read line; echo got $line"}, Stdin: true, Mode: sandbox.Lossless})
	if err != nil {
		t.Fatal(err)
	}
	out, err := box.Output(ctx, p.ID, sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, data, _, err := out.Next(ctx); err != nil || string(data) != "begun\n" {
		t.Fatalf("%q %v", data, err)
	}
	offset := out.Offset()
	e.server.Close()
	if _, _, _, err := out.Next(ctx); sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Errorf("the reader: %v", err)
	}
	if err := box.Signal(ctx, p.ID, "INT"); sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Errorf("a call: %v", err)
	}
	// What ran goes on: seen here without the endpoint.
	entry, err := e.fleet.Lookup("a")
	if err != nil {
		t.Fatal(err)
	}
	direct, err := e.fleet.Open(ctx, entry)
	if err != nil {
		t.Fatal(err)
	}
	w, err := direct.Stdin(ctx, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "more\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := direct.Output(ctx, p.ID, sandbox.OutputOptions{Offset: offset, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	if _, data, _, err := rest.Next(ctx); err != nil || string(data) != "got more\n" {
		t.Errorf("%q %v", data, err)
	}
}

// TestSlowReader holds that a client that does not read costs the host a bounded amount of memory, and
// that the command waits for it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	create(t, h, remote.CreateOptions{Name: "a"})
	box, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	const size = 256 << 20
	p, err := box.Start(ctx, sandbox.ProcessSpec{Argv: []string{"head", "-c", "268435456", "/dev/zero"}, Mode: sandbox.Lossless})
	if err != nil {
		t.Fatal(err)
	}
	out, err := box.Output(ctx, p.ID, sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	// Other calls go through meanwhile.
	for range 20 {
		if info, err := box.Get(ctx, p.ID); err != nil || !info.Running {
			t.Fatalf("%+v %v", info, err)
		}
	}
	total := int64(0)
	for {
		_, data, dropped, err := out.Next(ctx)
		total += int64(len(data))
		if dropped > 0 {
			t.Errorf("%d bytes were dropped", dropped)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if total > 32<<20 { // enough to show that it flows
			out.Close()
			if err := box.Kill(ctx, p.ID); err != nil {
				t.Error(err)
			}
			break
		}
	}
	if total > size {
		t.Errorf("%d bytes came", total)
	}
}

// TestGivenUp holds that a call whose caller gave up is no longer in its way.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	e := begin(t)
	ctx := deadline(t)
	h := e.connect(t, e.token)
	create(t, h, remote.CreateOptions{Name: "a"})
	box, err := h.Sandbox(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithCancel(ctx)
	go func() {
		for {
			if all, err := box.List(ctx); err != nil || len(all) > 0 {
				cancel()
				return
			}
		}
	}()
	if _, err := box.Exec(short, command("sleep", "1000")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if res, err := box.Exec(ctx, command("echo", "next")); err != nil || string(res.Stdout) != "next\n" {
		t.Errorf("%+v %v", res, err)
	}
}
