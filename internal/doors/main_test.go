package doors_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/doors"
	"github.com/tongs-dev/tongs/internal/gateway"
	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/internal/opencode/opencodetest"
	"github.com/tongs-dev/tongs/sandbox"
)

// The test binary plays the guest when this variable is set: a guest owns all children
// of its process.
const playGuest = "TONGS_TEST_PLAY_GUEST"

// The test binary plays a program of a person's when this variable names the front.
const playProgram = "TONGS_TEST_PLAY_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(playGuest) != "" {
		b, err := guest.ReadBoot(os.NewFile(4, "boot"))
		if err == nil {
			b.Guest.Exclusive, b.Guest.Version = true, "test"
			err = guest.Run(context.Background(), b.Guest, slog.New(slog.DiscardHandler))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if url := os.Getenv(playProgram); url != "" {
		beProgram(url)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// dialers are the ways to the guests, by the clients that newBox has returned.
var dialers sync.Map

// again makes another connection to a box.
func again(t testing.TB, box *sandbox.Client) *sandbox.Client {
	t.Helper()
	dial, _ := dialers.Load(box)
	c, err := sandbox.Connect(t.Context(), dial.(func(context.Context) (net.Conn, error)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newBox starts a guest, without isolation, whose project is the directory.
func newBox(t testing.TB, project string, path ...string) *sandbox.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{"home", "out"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	lf, err := ln.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	defer lf.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path = append(path, os.Getenv("PATH"))
	doc, err := json.Marshal(guest.Boot{Guest: guest.Config{
		ListenerFD: 3, Project: project, OutputDir: filepath.Join(dir, "out"),
		User: guest.User{Root: os.Geteuid() == 0, Home: filepath.Join(dir, "home")}, Env: []string{"PATH=" + path[0], "MARK=" + filepath.Base(dir)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(doc); err != nil {
		t.Fatal(err)
	}
	w.Close()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), playGuest+"=1")
	cmd.ExtraFiles = []*os.File{lf, r}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	box, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	})
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	dialers.Store(box, dial)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if box.Err() != nil { // a test has broken it
			if again, err := sandbox.Connect(ctx, dial); err == nil {
				box = again
			}
		}
		_ = box.Shutdown(ctx)
		_ = box.Close()
		select {
		case <-exited:
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			<-exited
		}
	})
	return box
}

// world is a front with doors over sandboxes by session. There is no OpenCode behind it.
type world struct {
	t     testing.TB
	doors *doors.Doors
	url   string
	up    *upstream

	mu    sync.Mutex
	boxes map[string]*sandbox.Client // by root session
	roots map[string]string          // by session
}

// upstream says {} to everything, and keeps what it was asked; /event stays open.
type upstream struct {
	mu     sync.Mutex
	bodies []string
}

func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: -1, Request: r}
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		u.mu.Lock()
		u.bodies = append(u.bodies, string(b))
		u.mu.Unlock()
	}
	if strings.HasSuffix(r.URL.Path, "event") {
		pr, pw := io.Pipe()
		context.AfterFunc(r.Context(), func() { pw.CloseWithError(r.Context().Err()) })
		go pw.Write([]byte("data: {\"type\":\"server.connected\"}\n\n"))
		resp.Header.Set("Content-Type", "text/event-stream")
		resp.Body = pr
	}
	return resp, nil
}

func (u *upstream) last() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.bodies) == 0 {
		return ""
	}
	return u.bodies[len(u.bodies)-1]
}

func newWorld(t testing.TB, project string, change ...func(*gateway.Config, *doors.Config)) *world {
	t.Helper()
	w := &world{t: t, up: &upstream{}, boxes: map[string]*sandbox.Client{}, roots: map[string]string{}}
	dc := doors.Config{
		Root: func(_ context.Context, id string) (string, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if root, ok := w.roots[id]; ok {
				return root, nil
			}
			return "", sandbox.Errf("SESSION_NOT_FOUND", "find", "there is no session "+id, "")
		},
		Sandbox: func(_ context.Context, root string) (*sandbox.Client, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.boxes[root], nil
		},
		Directory: project,
	}
	gc := gateway.Config{Upstream: w.up, Listen: "127.0.0.1:0", Directory: project}
	for _, f := range change {
		f(&gc, &dc)
	}
	w.doors = doors.New(dc)
	t.Cleanup(w.doors.Close)
	gc.Answers, gc.Clients, gc.Attach, gc.Command, gc.Ticket = w.doors.Answers(), w.doors, w.doors.Attach, w.doors.Command, w.doors.Ticket
	gc.Events = w.doors.Events
	h, err := gateway.New(gc)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ConnContext = w.doors.ConnContext
	srv.Start()
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

// session adds a root session with a sandbox.
func (w *world) session(id string, box *sandbox.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.boxes[id], w.roots[id] = box, id
}

// person is one program of a person's: it has connections of its own.
type person struct {
	t      testing.TB
	url    string
	client *http.Client
	header http.Header
}

func (w *world) person(header ...string) *person {
	w.t.Helper()
	tr := &http.Transport{}
	w.t.Cleanup(tr.CloseIdleConnections)
	p := &person{t: w.t, url: w.url, client: &http.Client{Transport: tr, Timeout: time.Minute}, header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		p.header.Set(header[i], header[i+1])
	}
	return p
}

func (p *person) do(method, path, body string, header ...string) (int, string, http.Header) {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = p.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// get asks as JSON and decodes.
func (p *person) get(path string, v any) {
	p.t.Helper()
	status, body, _ := p.do("GET", path, "")
	if err := json.Unmarshal([]byte(body), v); err != nil || status != 200 {
		p.t.Fatalf("GET %s: %d %.300s", path, status, body)
	}
}

// startOpenCode starts the pinned OpenCode, stock, in a project, and returns its URL.
func startOpenCode(t *testing.T, project string) string {
	t.Helper()
	binary, home := opencodetest.Binary(t), t.TempDir()
	config := filepath.Join(home, ".config", "opencode")
	if err := os.MkdirAll(filepath.Join(config, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	lock := `{"name":"x","lockfileVersion":3,"packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}`
	if err := os.WriteFile(filepath.Join(config, "package-lock.json"), []byte(lock), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "serve", "--hostname", "127.0.0.1", "--port", "0")
	cmd.Dir = project
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TERM=dumb", "OPENCODE_DISABLE_PROJECT_CONFIG=1", "OPENCODE_DISABLE_MODELS_FETCH=1",
		"OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_SHARE=1", "OPENCODE_DISABLE_LSP_DOWNLOAD=1",
		`OPENCODE_CONFIG_CONTENT={"autoupdate":false,"share":"disabled","snapshot":false,"lsp":false,"formatter":false,"shell":"/bin/bash"}`,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if _, url, ok := strings.Cut(sc.Text(), "listening on "); ok {
				addr <- url
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-drained
		_ = cmd.Wait()
	})
	select {
	case url := <-addr:
		return url
	case <-drained:
		t.Fatalf("OpenCode ended: %s", errs.String())
	case <-time.After(2 * time.Minute):
		t.Fatal("OpenCode did not say that it listens")
	}
	return ""
}
