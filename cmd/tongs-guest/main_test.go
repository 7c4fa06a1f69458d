package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/internal/shell"
	"github.com/tongs-dev/tongs/sandbox"
)

// maxSize bounds what every sandbox starts with. The first design said 5 MB; watching, searching, trees,
// patches and the netfilter rules have come since. Pages that are not used are not loaded, and all guests
// share those that are.
const maxSize = 6 << 20

// binary builds the program as it is shipped, once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tongs-guest")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "tongs-guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, text)
	}
	return out, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if p, _ := binary(); p != "" {
		os.RemoveAll(filepath.Dir(p))
	}
	os.Exit(code)
}

func build(t *testing.T) string {
	t.Helper()
	p, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSize(t *testing.T) {
	t.Parallel()
	st, err := os.Stat(build(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", st.Size())
	if st.Size() > maxSize {
		t.Errorf("the guest has %d bytes, the most is %d", st.Size(), maxSize)
	}
}

func TestDependencies(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, banned := range []string{"net/http", "crypto/tls", "text/template", "html/template", "os/exec", "C"} {
		if slices.Contains(deps, banned) {
			t.Errorf("the guest links %s", banned)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	bin := build(t)
	sh := filepath.Join(t.TempDir(), "tongs-shell")
	if err := os.Symlink(bin, sh); err != nil {
		t.Fatal(err)
	}
	empty, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	for _, c := range []struct {
		argv []string
		env  string
		code int
		want string
	}{
		{[]string{bin}, "", exitUsage, "a driver starts this program"},
		{[]string{bin, "x"}, "", exitUsage, "no file descriptor"},
		{[]string{bin, "3", "4"}, "", exitUsage, "at most one argument"},
		{[]string{bin, "77"}, "", exitFailed, "boot document"},
		{[]string{bin}, "3", exitFailed, "boot document"},
		{[]string{bin, "version"}, "", 0, "tongs-guest "},
		{[]string{sh, "-c", "echo hi"}, "", shell.Refused, "a shell in the agent host is refused"},
	} {
		cmd := exec.CommandContext(t.Context(), c.argv[0], c.argv[1:]...)
		cmd.ExtraFiles = []*os.File{empty}
		cmd.Env = append(os.Environ(), guest.BootFDEnv+"="+c.env)
		out, err := cmd.CombinedOutput()
		code := 0
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			code = ee.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != c.code || !strings.Contains(string(out), c.want) || bytes.Contains(out, []byte("goroutine ")) {
			t.Errorf("%q: status %d, want %d:\n%s", c.argv[1:], code, c.code, out)
		}
	}
}

// serve runs the program, without isolation, and connects to it.
func serve(t *testing.T, cfg guest.Config, extra ...*os.File) *sandbox.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "tg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	lf, err := ln.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer lf.Close()
	doc, err := json.Marshal(guest.Boot{Guest: cfg})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.Write(doc); err != nil {
		t.Fatal(err)
	}
	w.Close()
	cmd := exec.Command(build(t), "4")
	cmd.ExtraFiles = append([]*os.File{lf, r}, extra...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("%v\n%s", err, &log)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(ctx); err != nil {
			t.Error(err)
			_ = cmd.Process.Kill()
		}
		c.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &log)
		}
	})
	return c
}

func sh(t *testing.T, c *sandbox.Client, script string) string {
	t.Helper()
	res, err := c.Exec(t.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", script}, Merge: true}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(res.Stdout))
}

// A guest that is root runs commands as the user and touches files with the
// user's rights, no more.
func TestRightsOfTheUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	home, err := os.MkdirTemp("", "tgh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.Chown(home, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(home, "secret")
	if err := os.WriteFile(secret, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(home, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	c := serve(t, guest.Config{ListenerFD: 3, Project: home, OutputDir: filepath.Join(home, "out"), User: guest.User{Home: home}})
	ctx := t.Context()
	if got := sh(t, c, "id -u; id -g; id -G; umask; cat secret 2>&1; grep -E 'CapEff|CapPrm|CapInh' /proc/self/status | cut -f2 | sort -u"); got !=
		"1000\n1000\n1000\n0022\ncat: secret: Permission denied\n0000000000000000" {
		t.Errorf("a command sees\n%s", got)
	}
	denied := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err = c.ReadFile(ctx, secret, sandbox.ReadOptions{})
	denied("read", err)
	_, err = c.WriteFile(ctx, secret, []byte("x"), sandbox.WriteOptions{})
	denied("write", err)
	_, err = c.WriteFile(ctx, filepath.Join(closed, "x"), []byte("x"), sandbox.WriteOptions{})
	denied("write below", err)
	_, err = c.ListFiles(ctx, closed, sandbox.ListOptions{})
	denied("list", err)
	denied("chmod", c.Chmod(ctx, secret, 0o666))
	_, err = c.RunTool(ctx, sandbox.ToolCall{Name: "read", Args: map[string]any{"filePath": secret}}, sandbox.ToolHooks{})
	if err == nil {
		t.Error("a tool reads what the user must not")
	}
	for range 20 { // on many threads
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, _, err := c.ReadFile(ctx, secret, sandbox.ReadOptions{})
				denied("read", err)
			})
		}
		wg.Wait()
	}
	if _, err := c.WriteFile(ctx, "mine", []byte("x"), sandbox.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if fi, err := c.Stat(ctx, "mine"); err != nil || fi.UID != 1000 || fi.GID != 1000 {
		t.Errorf("%+v, %v", fi, err)
	}
	_, err = c.Start(ctx, sandbox.ProcessSpec{Argv: []string{"id"}, User: "root"})
	denied("root", err)
	// The terminal is the user's own.
	in, err := c.Start(ctx, sandbox.ProcessSpec{Argv: []string{"sh", "-c", "test -O $(tty) && echo mine"}, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Output(ctx, in.ID, sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, data, _, err := out.Next(ctx); err != nil || !strings.Contains(string(data), "mine") {
		t.Errorf("%q, %v", data, err)
	}
	// Commands of the user can be signalled and killed.
	in, err = c.Start(ctx, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(ctx, in.ID); err != nil {
		t.Fatal(err)
	}
	if end, err := c.Wait(ctx, in.ID); err != nil || end.Exit.Signal != "SIGTERM" {
		t.Errorf("%+v, %v", end, err)
	}
}

var groups atomic.Int32

// pidsGroup makes a control group that may hold so many processes: its directory
// and its tasks file.
func pidsGroup(t *testing.T, most int) (string, *os.File) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making control groups needs root")
	}
	name := "tongs-guest-test-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(int(groups.Add(1)))
	pids := filepath.Join("/sys/fs/cgroup/pids", name)
	if err := os.Mkdir(pids, 0o755); err != nil {
		t.Skipf("there is no cgroup version 1 here: %v", err)
	}
	t.Cleanup(func() {
		// The kernel takes a moment to let go of the last thread.
		for range 100 {
			if err := os.Remove(pids); err == nil || !errors.Is(err, syscall.EBUSY) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%s can't be removed", pids)
	})
	if err := os.WriteFile(filepath.Join(pids, "pids.max"), []byte(strconv.Itoa(most)), 0); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.OpenFile(filepath.Join(pids, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tasks.Close() })
	return pids, tasks
}

// Commands are born in the control groups, and the guest stays outside.
func TestControlGroups(t *testing.T) {
	t.Parallel()
	pids, tasks := pidsGroup(t, 20)
	name := filepath.Base(pids)
	dir := t.TempDir()
	c := serve(t, guest.Config{ListenerFD: 3, Project: dir, User: guest.User{Root: true, Home: dir}, Cgroup: guest.Cgroup{Version: 1, TasksFDs: []int{5}}}, tasks)
	if got := sh(t, c, "grep :pids: /proc/self/cgroup | cut -d: -f3"); got != "/"+name {
		t.Errorf("a command is in %q", got)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", info.PID)); err != nil || strings.Contains(string(got), name) {
		t.Errorf("the guest is in\n%s%v", got, err)
	}
	// The limit holds for commands, and the guest lives on.
	if got := sh(t, c, "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all"); strings.HasSuffix(got, "all") {
		t.Errorf("forty processes under a limit of twenty: %s", got)
	}
	for err = nil; err == nil; { // the shell that failed has left a place
		_, err = c.Start(t.Context(), sandbox.ProcessSpec{Argv: []string{"sleep", "5"}})
	}
	if sandbox.CodeOf(err) != sandbox.CodeTooManyProcesses {
		t.Errorf("start while the group is full: %v", err)
	}
	if _, err := c.WriteFile(t.Context(), "f", []byte("x"), sandbox.WriteOptions{}); err != nil {
		t.Error(err)
	}
}
