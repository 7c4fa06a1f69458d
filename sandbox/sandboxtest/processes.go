package sandboxtest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func testProcesses(t *testing.T, h Harness) {
	for _, part := range []cases{processCases, outputCases, waitCases} {
		part.run(t, h)
	}
}

var processCases = cases{
	"argv is not a shell's":                         plainArgv,
	"environment and directory":                     environment,
	"the user is not root unless asked":             users,
	"standard input is open only when asked":        standardInput,
	"a process is listed, labelled and forgotten":   bookkeeping,
	"a signal reaches the group":                    groupSignal,
	"kill is SIGTERM, then SIGKILL":                 stubborn,
	"a deadline ends the group and keeps output":    deadline,
	"ending the context ends the group":             abort,
	"a background child holds nothing up":           background,
	"a process outlives its client":                 outlives,
	"an exit code is the real one":                  exitCodes,
	"what can't be started says why":                refusedStarts,
	"commands of one sandbox run beside each other": beside,
}

func plainArgv(t *test) {
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{
		Argv: []string{"printf", "%s|", "a b", "$HOME", "*", "'", "", "-n", "line\nline"}}})
	t.ok(err)
	if want := "a b|$HOME|*|'||-n|line\nline|"; string(res.Stdout) != want {
		t.Errorf("printf wrote %q, want %q", res.Stdout, want)
	}
}

func environment(t *test) {
	spec := bash(`printf '%s\n' "$PWD" "${MORE-none}" "${TMPDIR-none}" "${HOME:+home}"`)
	info, err := t.box.Info(t.ctx)
	t.ok(err)
	for _, c := range []struct {
		dir, want string
	}{{"", info.Project}, {"/", "/"}, {info.Home, info.Home}} {
		spec.Dir, spec.Env, spec.Unset = c.dir, map[string]string{"MORE": "a=b 'c'\n$d"}, []string{"TMPDIR"}
		res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
		t.ok(err)
		if diff := cmp.Diff(c.want+"\na=b 'c'\n$d\nnone\nhome\n", string(res.Stdout)); diff != "" {
			t.Errorf("in %q, -want +got:\n%s", c.dir, diff)
		}
	}
}

func users(t *test) {
	root := bash("id -u")
	root.User = "root"
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: root})
	if t.h.Root {
		t.ok(err)
		if string(res.Stdout) != "0\n" {
			t.Errorf("root is %q", res.Stdout)
		}
		return
	}
	t.wantCode(err, sandbox.CodePermissionDenied)
	if id := t.out("id -u"); id == "0\n" {
		t.Error("commands run as root")
	}
}

func standardInput(t *test) {
	if got := t.out("cat; echo end"); got != "end\n" {
		t.Errorf("without input: %q", got)
	}
	input := make([]byte, 1<<20)
	for i := range input {
		input[i] = byte(i * 7)
	}
	for _, n := range []int{0, 1, 4096, sandbox.InlineBytes, sandbox.InlineBytes + 1, len(input)} {
		res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}, Input: input[:n]})
		t.ok(err)
		if string(res.Stdout) != string(input[:n]) {
			t.Errorf("cat of %d bytes gave %d, or other ones", n, len(res.Stdout))
		}
	}
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "reader", Argv: []string{"cat"}, Stdin: true})
	t.ok(err)
	w, err := t.box.Stdin(t.ctx, "reader")
	t.ok(err)
	for _, part := range []string{"one\n", "two\n"} {
		_, err := w.Write([]byte(part))
		t.ok(err)
		// It is passed on at once, and not with the end.
		_, err = t.box.WaitLog(t.ctx, "reader", sandbox.LogWait{Text: strings.TrimSpace(part)})
		t.ok(err)
	}
	t.ok(w.Close())
	in, err := t.box.Wait(t.ctx, "reader")
	t.ok(err)
	if !in.Exit.Success() {
		t.Errorf("after the end of its input: %+v", in.Exit)
	}
	_, err = t.box.Stdin(t.ctx, "reader")
	t.wantCode(err, sandbox.CodeStdinClosed)
}

func bookkeeping(t *test) {
	before := time.Now().Add(-time.Hour) // another machine's clock may differ a little
	in, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "a.b:c_d-1", Argv: []string{"sleep", "1000"}, Labels: map[string]string{"of": "me"}})
	t.ok(err)
	if !in.Running || in.Exit != nil || in.PID <= 0 || in.Started.Before(before) || in.Mode != sandbox.Follow || in.Labels["of"] != "me" {
		t.Errorf("started: %+v", in)
	}
	_, err = t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "a.b:c_d-1", Argv: []string{"true"}})
	t.wantCode(err, sandbox.CodeProcessExists)
	got, err := t.box.Get(t.ctx, in.ID)
	t.ok(err)
	if diff := cmp.Diff(in, got); diff != "" {
		t.Errorf("-started +got:\n%s", diff)
	}
	all, err := t.box.List(t.ctx)
	t.ok(err)
	if len(all) != 1 || all[0].ID != in.ID {
		t.Errorf("list: %+v", all)
	}
	t.ok(t.box.Kill(t.ctx, in.ID))
	ended, err := t.box.Wait(t.ctx, in.ID)
	t.ok(err)
	if ended.Running || ended.Exit == nil || ended.Exit.Signal != "SIGTERM" || !ended.Exit.Killed || ended.Ended.Before(ended.Started) {
		t.Errorf("killed: %+v %+v", ended, ended.Exit)
	}
	t.ok(t.box.Kill(t.ctx, in.ID)) // again is no error
	t.wantCode(t.box.Signal(t.ctx, in.ID, "TERM"), sandbox.CodeProcessExited)
	t.ok(t.box.Remove(t.ctx, in.ID))
	for _, err := range []error{
		t.box.Remove(t.ctx, in.ID), t.box.Kill(t.ctx, in.ID), t.box.Signal(t.ctx, in.ID, "INT"),
		failure(t.box.Get(t.ctx, in.ID)), failure(t.box.Wait(t.ctx, in.ID)), failure(t.box.Stdin(t.ctx, in.ID)),
		failure(t.box.Output(t.ctx, in.ID, sandbox.OutputOptions{})),
		failure(t.box.WaitLog(t.ctx, in.ID, sandbox.LogWait{Text: "x"})), failure(t.box.WaitPort(t.ctx, in.ID, 1, sandbox.PortWait{})),
	} {
		t.wantCode(err, sandbox.CodeProcessNotFound)
	}
}

func failure[T any](_ T, err error) error { return err }

func groupSignal(t *test) {
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "group", Argv: []string{"bash", "-c",
		`(trap 'echo child; exit 0' USR1; echo ready; while :; do sleep 0.05; done) & trap 'wait; echo parent; exit 7' USR1; echo set; while :; do sleep 0.05; done`}})
	t.ok(err)
	for _, line := range []string{"ready", "set"} {
		_, err = t.box.WaitLog(t.ctx, "group", sandbox.LogWait{Text: line})
		t.ok(err)
	}
	t.wantCode(t.box.Signal(t.ctx, "group", "SIGNOTHING"), sandbox.CodeInvalidArgument)
	t.ok(t.box.Signal(t.ctx, "group", "usr1"))
	in, err := t.box.Wait(t.ctx, "group")
	t.ok(err)
	if in.Exit.Code != 7 || in.Exit.Killed {
		t.Errorf("exit %+v", in.Exit)
	}
	for _, line := range []string{"child", "parent"} {
		if _, err := t.box.WaitLog(t.ctx, "group", sandbox.LogWait{Text: line}); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// stubborn ignores SIGTERM, and so does its child.
func stubborn(t *test) {
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "stubborn", Argv: []string{"bash", "-c", `trap '' TERM; sleep 1000 & echo $!; wait; wait`}})
	t.ok(err)
	m, err := t.box.WaitLog(t.ctx, "stubborn", sandbox.LogWait{Pattern: `^\d+$`})
	t.ok(err)
	t.ok(t.box.Kill(t.ctx, "stubborn"))
	in, err := t.box.Wait(t.ctx, "stubborn")
	t.ok(err)
	if in.Exit.Signal != "SIGKILL" || in.Exit.Code != -1 || in.Exit.ShellCode() != 137 || !in.Exit.Killed {
		t.Errorf("exit %+v", in.Exit)
	}
	t.gone(m.Line)
}

// gone waits until a process of the sandbox, by its number there, runs no more.
func (t *test) gone(pid string) {
	t.Helper()
	t.out(`while [ -e /proc/` + pid + `/stat ]; do read -r _ _ s _ < /proc/` + pid + `/stat || break; [ "$s" = Z ] && break; sleep 0.02; done`)
}

func deadline(t *test) {
	for _, terminal := range []*sandbox.TerminalSize{nil, {Columns: 80, Rows: 24}} {
		spec := bash(`sleep 1000 & echo "child $!"; wait`)
		spec.Timeout, spec.Terminal = 300*time.Millisecond, terminal
		in, err := t.box.Start(t.ctx, spec)
		t.ok(err)
		m, err := t.box.WaitLog(t.ctx, in.ID, sandbox.LogWait{Pattern: `child (\d+)`})
		t.ok(err)
		if in, err = t.box.Wait(t.ctx, in.ID); err != nil || !in.Exit.TimedOut || in.Exit.Success() || in.Exit.Killed {
			t.Fatalf("terminal %v: %+v, %v", terminal, in, err)
		}
		t.gone(m.Groups[1])
	}
	spec := bash("echo before; echo error >&2; sleep 1000; echo after")
	spec.Timeout = 300 * time.Millisecond
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if !res.Exit.TimedOut || string(res.Stdout) != "before\n" || string(res.Stderr) != "error\n" {
		t.Errorf("exec past its deadline: %+v %q %q", res.Exit, res.Stdout, res.Stderr)
	}
	t.answers()
}

func abort(t *test) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	done := make(chan *sandbox.ExecResult, 1)
	var execErr error
	go func() {
		spec := bash(`sleep 1000 & echo "child $!"; wait`)
		spec.ID = "aborted"
		res, err := t.box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: spec})
		execErr = err
		done <- res
	}()
	var m *sandbox.LogMatch
	for m == nil { // until it has been started
		var err error
		if m, err = t.box.WaitLog(t.ctx, "aborted", sandbox.LogWait{Pattern: `child (\d+)`}); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			t.Fatal(err)
		}
	}
	cancel()
	res := <-done
	if !errors.Is(execErr, context.Canceled) || res == nil || !strings.HasPrefix(string(res.Stdout), "child ") {
		t.Errorf("%+v, %v", res, execErr)
	}
	t.gone(m.Groups[1])
	t.answers()
}

// background leaves a child behind that has the command's pipes open.
func background(t *test) {
	res := t.sh("sleep 1000 & echo $!; echo error >&2")
	if !res.Exit.Success() || !strings.HasSuffix(string(res.Stdout), "\n") || string(res.Stderr) != "error\n" {
		t.Errorf("%+v %q %q", res.Exit, res.Stdout, res.Stderr)
	}
	pid := strings.TrimSpace(string(res.Stdout))
	t.out("kill -0 " + pid) // it goes on
	in, err := t.box.Start(t.ctx, bash("sleep 1000 & exit 4"))
	t.ok(err)
	if in, err = t.box.Wait(t.ctx, in.ID); err != nil || in.Exit.Code != 4 {
		t.Errorf("%+v, %v", in, err)
	}
	out, err := t.box.Output(t.ctx, in.ID, sandbox.OutputOptions{Follow: true})
	t.ok(err)
	defer out.Close()
	all, _ := t.rest(out)
	if all != "" {
		t.Errorf("its output is %q", all)
	}
}

func outlives(t *test) {
	other := t.again()
	_, err := other.Start(t.ctx, sandbox.ProcessSpec{ID: "long", Argv: []string{"bash", "-c", "echo began; read -r line; echo got $line; exit 6"}, Stdin: true})
	t.ok(err)
	t.ok(other.Close())
	<-other.Done()
	_, err = other.Get(t.ctx, "long")
	t.wantCode(err, sandbox.CodeConnectionLost)
	w, err := t.box.Stdin(t.ctx, "long")
	t.ok(err)
	_, err = w.Write([]byte("it\n"))
	t.ok(err)
	in, err := t.box.Wait(t.ctx, "long")
	t.ok(err)
	out, err := t.box.Output(t.ctx, "long", sandbox.OutputOptions{})
	t.ok(err)
	defer out.Close()
	if all, dropped := t.rest(out); in.Exit.Code != 6 || all != "began\ngot it\n" || dropped != 0 {
		t.Errorf("%+v %q", in.Exit, all)
	}
}

func exitCodes(t *test) {
	for _, code := range []int{0, 1, 2, 126, 127, 128, 130, 255} {
		if res := t.sh("exit " + strconv.Itoa(code)); res.Exit != (sandbox.Exit{Code: code}) || res.Exit.ShellCode() != code {
			t.Errorf("exit %d gave %+v", code, res.Exit)
		}
	}
	for signal, number := range map[string]int{"SIGKILL": 9, "SIGSEGV": 11, "SIGTERM": 15, "SIGUSR1": 10} {
		if res := t.sh("kill -" + strconv.Itoa(number) + " $$"); res.Exit != (sandbox.Exit{Code: -1, Signal: signal}) || res.Exit.ShellCode() != 128+number {
			t.Errorf("%s gave %+v", signal, res.Exit)
		}
	}
}

func refusedStarts(t *test) {
	t.out("printf 'echo hi' > plain; printf '\\0\\1 no program' > noexec; chmod +x noexec")
	spec := func(argv ...string) sandbox.ProcessSpec { return sandbox.ProcessSpec{Argv: argv} }
	in := func(dir string) sandbox.ProcessSpec { return sandbox.ProcessSpec{Argv: []string{"true"}, Dir: dir} }
	for name, c := range map[string]struct {
		spec sandbox.ProcessSpec
		code sandbox.Code
	}{
		"no argv":               {spec(), sandbox.CodeInvalidCommand},
		"an empty program":      {spec(""), sandbox.CodeInvalidCommand},
		"a NUL byte":            {spec("echo", "a\x00b"), sandbox.CodeInvalidCommand},
		"a missing program":     {spec("no-such-program-here"), sandbox.CodeCommandNotFound},
		"a missing path":        {spec("./no/such"), sandbox.CodeCommandNotFound},
		"a directory":           {spec("/tmp"), sandbox.CodeCommandPermissionDenied},
		"what may not be run":   {spec("./plain"), sandbox.CodeCommandPermissionDenied},
		"what is no program":    {spec("./noexec"), sandbox.CodeCommandExecutionError},
		"too long an argument":  {spec("true", strings.Repeat("x", 3<<20)), sandbox.CodeInvalidCommand},
		"a missing directory":   {in("/no/such"), sandbox.CodeFileNotFound},
		"a file as directory":   {in("plain"), sandbox.CodeNotDirectory},
		"a NUL in a directory":  {in("a\x00b"), sandbox.CodeInvalidPath},
		"too long a directory":  {in(strings.Repeat("d/", 4096)), sandbox.CodeNameTooLong},
		"an id with a slash":    {sandbox.ProcessSpec{ID: "../x", Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
		"a variable with =":     {sandbox.ProcessSpec{Env: map[string]string{"A=B": "c"}, Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
		"an unknown user":       {sandbox.ProcessSpec{User: "nobody-we-know", Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
		"an unknown mode":       {sandbox.ProcessSpec{Mode: "sometimes", Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
		"a log without bounds":  {sandbox.ProcessSpec{LogBytes: 1 << 40, Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
		"a terminal of no size": {sandbox.ProcessSpec{Terminal: &sandbox.TerminalSize{}, Argv: []string{"true"}}, sandbox.CodeInvalidCommand},
	} {
		_, err := t.box.Start(t.ctx, c.spec)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Message == "" {
			t.Errorf("%s: %v (code %s), want %s", name, err, sandbox.CodeOf(err), c.code)
		}
	}
	if all, err := t.box.List(t.ctx); err != nil || len(all) != 0 {
		t.Errorf("left over: %+v, %v", all, err)
	}
	t.answers()
}

// beside has each of two commands wait for the other.
func beside(t *test) {
	t.out("mkfifo there back")
	done := make(chan string, 2)
	for _, script := range []string{"echo ping > there; read -r x < back; echo $x", "read -r x < there; echo pong > back; echo $x"} {
		go func() {
			res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: bash(script)})
			if err != nil {
				done <- err.Error()
				return
			}
			done <- string(res.Stdout)
		}()
	}
	if got := <-done + <-done; got != "ping\npong\n" && got != "pong\nping\n" {
		t.Errorf("they printed %q", got)
	}
}
