package drivertest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

func testLife(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("one"))
	st := b.status(t, "one")
	if !st.Running || st.PID <= 0 || time.Since(st.Created) > patience {
		t.Errorf("status after Create: %+v", st)
	}
	c := b.connect(t, "one")
	if got := output(t, c, "echo $((6*7)) > answer; cat answer; touch /tmp/gone"); got != "42" {
		t.Errorf("got %q", got)
	}
	if err := b.Start(t.Context(), "one"); err != nil {
		t.Errorf("Start of a running sandbox: %v", err)
	}
	if again := b.status(t, "one"); again.PID != st.PID {
		t.Errorf("Start of a running sandbox made another guest: %d, then %d", st.PID, again.PID)
	}

	if err := b.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if st := b.status(t, "one"); st.Running || st.PID != 0 {
		t.Errorf("status after Stop: %+v", st)
	}
	_, err := b.Dial(t.Context(), "one")
	wantCode(t, err, driver.CodeNotRunning)
	if err := b.Stop(t.Context(), "one"); err != nil {
		t.Errorf("Stop of a stopped sandbox: %v", err)
	}

	if err := b.Start(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	c = b.connect(t, "one")
	if got := output(t, c, "cat answer; ls /tmp"); got != "42\nopencode" {
		t.Errorf("after a restart: %q", got)
	}

	if err := b.Destroy(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	all, err := b.List(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("List after Destroy: %v, %v", all, err)
	}
	for name, err := range map[string]error{
		"Start": b.Start(t.Context(), "one"), "Stop": b.Stop(t.Context(), "one"), "Destroy": b.Destroy(t.Context(), "one"),
	} {
		t.Run(name+" of nothing", func(t *testing.T) { wantCode(t, err, sandbox.CodeSandboxNotFound) })
	}
	_, err = b.Dial(t.Context(), "one")
	wantCode(t, err, sandbox.CodeSandboxNotFound)
}

func testRefusals(t *testing.T, s Suite) {
	b := newBed(t, s)
	for name, change := range map[string]func(*driver.Spec){
		"no id":              func(s *driver.Spec) { s.ID = "" },
		"id with a slash":    func(s *driver.Spec) { s.ID = "../x" },
		"id with a dot":      func(s *driver.Spec) { s.ID = ".x" },
		"hostname":           func(s *driver.Spec) { s.Hostname = "a b" },
		"no image":           func(s *driver.Spec) { s.Image.Lower = nil },
		"relative bind":      func(s *driver.Spec) { s.Binds = []driver.Bind{{Source: "x", Target: "/x"}} },
		"bind of everything": func(s *driver.Spec) { s.Binds = []driver.Bind{{Source: "/", Target: "/host"}} },
		"unclean target":     func(s *driver.Spec) { s.Binds = []driver.Bind{{Source: "/usr", Target: "/a/../.."}} },
		"file in /tmp":       func(s *driver.Spec) { s.Files = []driver.File{{Path: "/tmp/x"}} },
		"foreign user id":    func(s *driver.Spec) { s.Files = []driver.File{{Path: "/x", UID: 1 << 20}} },
		"environment":        func(s *driver.Spec) { s.Env = []string{"x"} },
		"tiny memory":        func(s *driver.Spec) { s.Limits.MemoryBytes = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			spec := b.spec("refused")
			change(&spec)
			wantCode(t, b.Create(t.Context(), spec), sandbox.CodeInvalidArgument)
		})
	}
	t.Run("bind of nothing", func(t *testing.T) {
		spec := b.spec("refused")
		spec.Binds = []driver.Bind{{Source: "/nonexistent/place", Target: "/x"}}
		if err := b.Create(t.Context(), spec); err == nil {
			t.Error("no error")
		}
	})
	all, err := b.List(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("refused creations left %v, %v", all, err)
	}
}

func testSameID(t *testing.T, s Suite) {
	b := newBed(t, s)
	const tries = 8
	var wg sync.WaitGroup
	errs := make([]error, tries)
	for i := range tries {
		wg.Go(func() { errs[i] = b.Create(t.Context(), b.spec("same")) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
			continue
		}
		wantCode(t, err, sandbox.CodeAlreadyExists)
	}
	if made != 1 {
		t.Errorf("%d of %d creations of one id succeeded", made, tries)
	}
	output(t, b.connect(t, "same"), "true")
}

func testCancelledCreate(t *testing.T, s Suite) {
	b := newBed(t, s)
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*700*time.Microsecond)
		err := b.Create(ctx, b.spec("late"))
		cancel()
		if err == nil {
			if err := b.Destroy(t.Context(), "late"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, l := range b.leaks(t) {
			t.Errorf("round %d, left after %v: %s", i, err, l)
		}
	}
}

// start starts this test binary as a process that makes sandboxes.
func (b *bed) start(t *testing.T, env ...string) (*exec.Cmd, io.Closer, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	env = append(env, b.s.HostEnv...)
	cmd.Env = append(os.Environ(), append(env, hostEnv+"="+b.home, guestEnv+"="+GuestBinary(t).Path)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stdin, stdout
}

// host starts one that has begun when this returns.
func (b *bed) host(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd, _, stdout := b.start(t, env...)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the host said %q, %v", line, err)
	}
	return cmd
}

func testHostKilled(t *testing.T, s Suite) {
	b := newBed(t, s)
	host := b.host(t)
	c := b.connect(t, "orphan")
	output(t, c, "echo before > file; nohup sleep 1000 >/dev/null 2>&1 & echo $! > pid")
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := host.Wait(); err == nil {
		t.Fatal("the host ended by itself")
	}
	st := b.status(t, "orphan")
	if !st.Running || st.Labels["of"] != "a dead host" {
		t.Fatalf("after its host was killed: %+v", st)
	}
	if done, err := b.Recover(t.Context()); err != nil || len(done) != 0 {
		t.Errorf("Recover touched a sound sandbox: %v, %v", done, err)
	}
	if got := output(t, b.connect(t, "orphan"), "cat file; kill -0 $(cat pid) && echo alive"); got != "before\nalive" {
		t.Errorf("got %q", got)
	}
	if err := b.Stop(t.Context(), "orphan"); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), "orphan"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b.connect(t, "orphan"), "cat file; pgrep -x sleep || echo gone"); got != "before\ngone" {
		t.Errorf("got %q", got)
	}
}

// leaks asks until nothing is left or patience has run out: a guest whose host died before it was let go
// needs a moment to see that, and a process that is just being started elsewhere has copies of all
// descriptors of this one.
func (b *bed) leaks(t testing.TB) []string {
	t.Helper()
	for end := time.Now().Add(leakPatience); ; {
		left, err := b.s.Leaks(b.home)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		runtime.Gosched()
	}
}

func testGuestKilled(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	output(t, c, "echo kept > file")
	p, err := os.FindProcess(b.status(t, "one").PID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the connection to a killed guest stays open")
	}
	if err := b.Start(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, b.connect(t, "one"), "cat file"); got != "kept" {
		t.Errorf("got %q", got)
	}
}

func testParallel(t *testing.T, s Suite) {
	const n = 50
	b := newBed(t, s)
	began := time.Now()
	g, ctx := errgroup.WithContext(t.Context())
	for i := range n {
		g.Go(func() error { return b.Create(ctx, b.spec(fmt.Sprintf("p%d", i))) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sandboxes made in %s", n, time.Since(began).Round(time.Millisecond))
	all, err := b.List(t.Context())
	if err != nil || len(all) != n {
		t.Fatalf("List gives %d, %v", len(all), err)
	}
	pids := make(map[int]string)
	for _, st := range all {
		if other, taken := pids[st.PID]; taken || !st.Running {
			t.Errorf("%+v, and %s", st, other)
		}
		pids[st.PID] = st.ID
		if got := output(t, b.connect(t, st.ID), "ls; echo "+st.ID+" > me; cat me"); got != st.ID {
			t.Errorf("%s: %q", st.ID, got)
		}
	}
	g, ctx = errgroup.WithContext(t.Context())
	for _, st := range all {
		g.Go(func() error { return b.Destroy(ctx, st.ID) })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
