package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func TestExec(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	for _, c := range []struct {
		name           string
		spec           sandbox.ExecSpec
		code           int
		signal         string
		stdout, stderr string
	}{
		{name: "both streams", spec: bash("echo out; echo err >&2; exit 3"), code: 3, stdout: "out\n", stderr: "err\n"},
		{name: "every byte", spec: bash(`printf 'a\0b\377\n\nno newline'`), stdout: "a\x00b\xff\n\nno newline"},
		{name: "a signal", spec: bash("kill -9 $$"), code: -1, signal: "SIGKILL"},
		{name: "input", spec: sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}, Input: []byte("in\x00put")}, stdout: "in\x00put"},
		{name: "no input", spec: sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}}},
		{name: "merged order", spec: sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Merge: true, Argv: []string{"bash", "-c", "for i in 1 2 3 4; do echo o$i; echo e$i >&2; done"}}},
			stdout: "o1\ne1\no2\ne2\no3\ne3\no4\ne4\n"},
		{name: "environment", spec: sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"bash", "-c", `echo "$BASE,$MORE,${SECRET-none},${TMPDIR-none}"`},
			Env: map[string]string{"MORE": "a=b c"}, Unset: []string{"TMPDIR"}}}, stdout: "base,a=b c,none,none\n"},
		{name: "directory", spec: sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"pwd"}, Dir: "/tmp"}}, stdout: "/tmp\n"},
		{name: "project", spec: bash("pwd"), stdout: b.project + "\n"},
		{name: "ignored signals are at their defaults", spec: bash("grep -i sigign /proc/self/status"), stdout: "SigIgn:\t0000000000000000\n"},
		{name: "own session and group", spec: bash(`read -r a b c d sid pgrp rest < <(cut -d' ' -f1-6 /proc/$$/stat | awk '{print $1,$2,$3,$4,$6,$5}'); [ "$sid" = $$ ] && [ "$pgrp" = $$ ] && echo yes`), stdout: "yes\n"},
		{name: "nothing but the three descriptors", spec: bash("ls /proc/self/fd | tr '\\n' ' '"), stdout: "0 1 2 3 "},
		{name: "unbalanced quote", spec: bash("echo 'never ends"), code: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := b.Exec(ctx, c.spec)
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "unbalanced quote" && len(res.Stderr) > 0 {
				c.stderr = string(res.Stderr)
			}
			if diff := cmp.Diff([]any{c.code, c.signal, c.stdout, c.stderr}, []any{res.Exit.Code, res.Exit.Signal, string(res.Stdout), string(res.Stderr)}); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if res.Started.IsZero() || res.Duration < 0 || res.Duration > time.Minute {
				t.Errorf("started %v, took %v", res.Started, res.Duration)
			}
		})
	}
}

func TestExecRefuses(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if err := os.WriteFile(b.path("plain"), []byte("echo hi"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("noexec"), []byte("\x00\x01 not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := func(argv ...string) sandbox.ProcessSpec { return sandbox.ProcessSpec{Argv: argv} }
	with := func(f func(*sandbox.ProcessSpec)) sandbox.ProcessSpec {
		s := spec("true")
		f(&s)
		return s
	}
	for _, c := range []struct {
		name string
		spec sandbox.ProcessSpec
		code sandbox.Code
	}{
		{"no argv", spec(), sandbox.CodeInvalidCommand},
		{"empty program", spec(""), sandbox.CodeInvalidCommand},
		{"NUL", spec("echo", "a\x00b"), sandbox.CodeInvalidCommand},
		{"missing program", spec("no-such-program-here"), sandbox.CodeCommandNotFound},
		{"missing path", spec("./no-such"), sandbox.CodeCommandNotFound},
		{"a directory", spec("/tmp"), sandbox.CodeCommandPermissionDenied},
		{"not executable", spec("./plain"), sandbox.CodeCommandPermissionDenied},
		{"no program", spec("./noexec"), sandbox.CodeCommandExecutionError},
		{"below a file", spec("./plain/x"), sandbox.CodeCommandNotFound},
		{"missing directory", with(func(s *sandbox.ProcessSpec) { s.Dir = "/no/such" }), sandbox.CodeFileNotFound},
		{"a file as directory", with(func(s *sandbox.ProcessSpec) { s.Dir = "plain" }), sandbox.CodeNotDirectory},
		{"bad variable", with(func(s *sandbox.ProcessSpec) { s.Env = map[string]string{"A=B": "c"} }), sandbox.CodeInvalidCommand},
		{"NUL in a variable", with(func(s *sandbox.ProcessSpec) { s.Env = map[string]string{"A": "c\x00"} }), sandbox.CodeInvalidCommand},
		{"bad id", with(func(s *sandbox.ProcessSpec) { s.ID = "../x" }), sandbox.CodeInvalidCommand},
		{"bad mode", with(func(s *sandbox.ProcessSpec) { s.Mode = "sometimes" }), sandbox.CodeInvalidCommand},
		{"log too small", with(func(s *sandbox.ProcessSpec) { s.LogBytes = 1 }), sandbox.CodeInvalidCommand},
		{"log too large", with(func(s *sandbox.ProcessSpec) { s.LogBytes = 1 << 40 }), sandbox.CodeInvalidCommand},
		{"unknown user", with(func(s *sandbox.ProcessSpec) { s.User = "nobody-we-know" }), sandbox.CodeInvalidCommand},
		{"one long argument", spec("true", strings.Repeat("x", 200<<10)), sandbox.CodeInvalidCommand},
		{"very long arguments", spec("true", strings.Repeat("x", 3<<20)), sandbox.CodeInvalidCommand},
		{"terminal without size", with(func(s *sandbox.ProcessSpec) { s.Terminal = &sandbox.TerminalSize{} }), sandbox.CodeInvalidCommand},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := b.Start(ctx, c.spec)
			wantCode(t, err, c.code)
		})
	}
	if res := b.sh(ctx, "echo fine"); string(res.Stdout) != "fine\n" {
		t.Errorf("afterwards exec gives %q", res.Stdout)
	}
	if all, err := b.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

// The output of a background child is not waited for, and the child doesn't die of
// the pipe that nobody reads any more.
func TestBackgroundChildHoldsNothingUp(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	began := time.Now()
	res := b.sh(ctx, "(while :; do echo noise || exit; sleep 0.01; done; ) & echo $! > pid; echo done")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if !strings.Contains(string(res.Stdout), "done\n") {
		t.Fatalf("output %q", res.Stdout)
	}
	alive := b.sh(ctx, "sleep 0.3; kill -0 $(cat pid) && echo alive; kill -9 $(cat pid)")
	if string(alive.Stdout) != "alive\n" {
		t.Errorf("the background child died: %q %q", alive.Stdout, alive.Stderr)
	}
}

// All that a command wrote before it ended is in its output, however full its pipe.
func TestLastOutputIsNotLost(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	for i := range 30 {
		n := 1000 * (i + 1)
		res := b.sh(ctx, fmt.Sprintf("sleep 60 & head -c %d /dev/zero; echo end", n))
		if len(res.Stdout) != n+4 || !bytes.HasSuffix(res.Stdout, []byte("end\n")) {
			t.Fatalf("round %d: got %d bytes, want %d", i, len(res.Stdout), n+4)
		}
	}
}

func TestTimeoutKillsTheGroup(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	spec := bash(`trap "" TERM; (trap "" TERM; echo $BASHPID; exec sleep 1000) & echo begun; sleep 1000 & wait; wait`)
	spec.Timeout = 2 * time.Second
	began := time.Now()
	res, err := b.Exec(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 4*time.Second || took > 20*time.Second {
		t.Errorf("it took %v, want the timeout and two seconds", took)
	}
	if !res.Exit.TimedOut || res.Exit.Killed || res.Exit.Success() || res.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", res.Exit)
	}
	if !strings.Contains(string(res.Stdout), "begun\n") {
		t.Errorf("what was printed is lost: %q", res.Stdout)
	}
	for _, line := range strings.Fields(string(res.Stdout)) {
		if line != "begun" {
			mustBeGone(t, line)
		}
	}
	if res := b.sh(ctx, "echo next"); string(res.Stdout) != "next\n" {
		t.Errorf("the next command gives %q", res.Stdout)
	}
}

// A child that left the process group, but not the session, is killed too, also
// when the leader has ended by then.
func TestTimeoutReachesJobsOfTheSession(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	spec := bash(`set -m; (trap "" TERM; echo $BASHPID; sleep 1000; sleep 1000) & trap "exit 7" TERM; echo begun; wait`)
	spec.Timeout = 2 * time.Second
	res, err := b.Exec(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Exit.TimedOut || res.Exit.Code != 7 {
		t.Errorf("exit %+v", res.Exit)
	}
	for _, line := range strings.Fields(string(res.Stdout)) {
		if line != "begun" {
			mustBeGone(t, line)
		}
	}
}

// mustBeGone waits for the end of a process by watching it.
func mustBeGone(t *testing.T, pid string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return
		}
		if i := bytes.LastIndexByte(stat, ')'); i > 0 && len(stat) > i+2 && stat[i+2] == 'Z' {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process %s lives on", pid)
			return
		}
		time.Sleep(20 * time.Millisecond) // there is no event for a stranger's end
	}
}

func TestEndingTheContextKillsAndReturnsOutput(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx, cancel := context.WithCancelCause(b.context())
	defer cancel(nil)
	spec := bash("echo before; touch began; exec sleep 1000")
	go func() {
		for {
			if _, err := os.Stat(b.path("began")); err == nil {
				cancel(errors.New("enough"))
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	res, err := b.Exec(ctx, spec)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if res == nil || string(res.Stdout) != "before\n" || !res.Exit.Killed || res.Exit.Signal != "SIGTERM" {
		t.Errorf("result %+v", res)
	}
	if all, err := b.List(b.context()); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

// However early the context ends, nothing is left running.
func TestContextEndsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for i := range 40 {
		ctx, cancel := context.WithTimeout(b.context(), time.Duration(i)*100*time.Microsecond)
		if _, err := b.Exec(ctx, bash("exec sleep 1000")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		cancel()
	}
	ctx := b.context()
	waitFor(ctx, t, "all to end", func() bool {
		in, err := b.Info(ctx)
		return err == nil && in.Processes == 0
	})
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			res, err := b.Exec(ctx, bash(fmt.Sprintf("echo %d; exit %d", i, i)))
			if err != nil {
				t.Errorf("%d: %v", i, err)
			} else if string(res.Stdout) != fmt.Sprintln(i) || res.Exit.Code != i {
				t.Errorf("%d: %q, %+v", i, res.Stdout, res.Exit)
			}
		})
	}
	wg.Wait()
	if in, err := b.Info(ctx); err != nil || in.Processes != 0 {
		t.Errorf("info %+v, %v", in, err)
	}
}

// More output than fits into an answer, or into the log, and more input than fits
// into a question.
func TestLongOutputAndInput(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	res, err := b.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}, Input: in})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(res.Stdout, in) || !res.Exit.Success() || res.Total != int64(len(in)) || res.Truncated {
		t.Errorf("got %d bytes of %d, %+v", len(res.Stdout), len(in), res.Exit)
	}
	spec := bash("head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2; exit 5")
	spec.MaxOutput = 1_000_000
	res, err = b.Exec(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stdout) != 1_000_000 || len(res.Stderr) != 1_000_000 || !res.Truncated || res.Total != 5_000_000 || res.Exit.Code != 5 {
		t.Errorf("%d, %d, %v, %d, %+v", len(res.Stdout), len(res.Stderr), res.Truncated, res.Total, res.Exit)
	}
	if all, err := b.List(ctx); err != nil || len(all) > 1 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

// TestLongMessages sends calls that no program can be started with, some longer than a session takes: each
// is refused alone, and what others wait for on the same session goes on.
func TestLongMessages(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	if _, err := b.Start(ctx, sandbox.ProcessSpec{ID: "other", Argv: []string{"sleep", "60"}}); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := b.Wait(ctx, "other")
		waited <- err
	}()
	for _, size := range []int{20 << 20, 40 << 20, 63 << 20, 80 << 20} {
		_, err := b.Start(ctx, sandbox.ProcessSpec{Argv: []string{"true"}, Env: map[string]string{"A": strings.Repeat("x", size)}})
		if err == nil || sandbox.CodeOf(err) == sandbox.CodeConnectionLost {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := b.Kill(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
}
