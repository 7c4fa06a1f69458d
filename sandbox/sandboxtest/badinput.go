package sandboxtest

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// testBadInput: each of these ends in a typed error or a stated bound, and the
// sandbox answers the next call at once. What concerns files is in
// testBadInputFiles; unbalanced quotes, in and out of sessions, are among the
// defects.
func testBadInput(t *testing.T, h Harness) {
	cases{
		"UnbalancedQuotes":     quotesWithoutSession,
		"MissingBinary":        missingBinary,
		"IgnoresSIGTERM":       ignoresTerm,
		"StopsReading":         stopsReading,
		"Disappears":           disappears,
		"ThousandParallel":     thousandParallel,
		"ForkBomb":             forkBomb,
		"EndlessOutput":        endlessOutput,
		"EndlessLine":          endlessLine,
		"ClosesItsDescriptors": closesDescriptors,
		"TooManyViewers":       manyViewers,
		"Odd":                  oddRequests,
	}.run(t, h)
}

func quotesWithoutSession(t *test) {
	for _, script := range []string{"echo 'abc", `echo "abc`, "echo `abc", "if then", "cat <<"} {
		if res := t.sh(script); res.Exit.Success() || len(res.Stderr) == 0 {
			t.Errorf("%q: %+v %q", script, res.Exit, res.Stderr)
		}
		t.answers()
	}
}

func missingBinary(t *test) {
	for _, name := range []string{"no-such-program-here", "./no/such", strings.Repeat("x", 5000), "\xff\xfe", "/", "."} {
		_, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{name}}})
		if code := sandbox.CodeOf(err); code != sandbox.CodeCommandNotFound && code != sandbox.CodeCommandPermissionDenied && code != sandbox.CodeCommandExecutionError {
			t.Errorf("%.40q: %v", name, err)
		}
	}
	if res := t.sh("no-such-program-here"); res.Exit.Code != 127 {
		t.Errorf("by a shell: %+v", res.Exit)
	}
	t.answers()
}

func ignoresTerm(t *test) {
	spec := bash(`trap '' TERM INT HUP; echo begun; while :; do sleep 0.05; done`)
	spec.Timeout = 200 * time.Millisecond
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if !res.Exit.TimedOut || res.Exit.Signal != "SIGKILL" || string(res.Stdout) != "begun\n" {
		t.Errorf("%+v %q", res.Exit, res.Stdout)
	}
	t.answers()
}

// stopsReading has readers of both modes who read nothing of a command that writes
// without end.
func stopsReading(t *test) {
	for _, mode := range []sandbox.Mode{sandbox.Lossless, sandbox.Follow} {
		spec := sandbox.ProcessSpec{Argv: []string{"sh", "-c", "exec yes"}, Mode: mode, LogBytes: 64 << 10}
		in, err := t.box.Start(t.ctx, spec)
		t.ok(err)
		out, err := t.box.Output(t.ctx, in.ID, sandbox.OutputOptions{Follow: true})
		t.ok(err)
		// Until as much is on its way as there is room for, and the log is full.
		for in.LogEnd < 256<<10 {
			in, err = t.box.Get(t.ctx, in.ID)
			t.ok(err)
			if mode == sandbox.Lossless && in.LogEnd-in.LogStart >= 48<<10 {
				break
			}
		}
		if in.LogEnd-in.LogStart > 64<<10+256<<10 {
			t.Errorf("%s: the log holds %d bytes", mode, in.LogEnd-in.LogStart)
		}
		t.answers()
		t.ok(t.box.Kill(t.ctx, in.ID))
		if in, err = t.box.Wait(t.ctx, in.ID); err != nil || in.Exit.Signal != "SIGTERM" {
			t.Errorf("%s: %+v, %v", mode, in, err)
		}
		t.ok(out.Close())
	}
}

// disappears has a client go away in the middle of everything.
func disappears(t *test) {
	other := t.again()
	in, err := other.Start(t.ctx, bash("while :; do echo y; done"))
	t.ok(err)
	out, err := other.Output(t.ctx, in.ID, sandbox.OutputOptions{Follow: true})
	t.ok(err)
	_, _, _, err = out.Next(t.ctx)
	t.ok(err)
	stuck, err := other.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}, Stdin: true})
	t.ok(err)
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	w, err := other.Stdin(ctx, stuck.ID)
	t.ok(err)
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		written <- err
	}()
	failed := make(chan error, 3)
	go func() { failed <- failure(other.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: bash("sleep 1000")})) }()
	go func() { failed <- failure(other.WaitLog(t.ctx, stuck.ID, sandbox.LogWait{Text: "never"})) }()
	go func() { failed <- failure(other.Wait(t.ctx, stuck.ID)) }()
	for all := 0; all < 3; { // until the exec has begun
		list, err := t.box.List(t.ctx)
		t.ok(err)
		all = len(list)
	}
	t.ok(other.Close())
	t.ok(out.Close())
	cancel()
	if err := <-written; err == nil {
		t.Error("a closed writer goes on")
	}
	t.ok(t.box.Kill(t.ctx, stuck.ID)) // the wait for its log is the wait's own
	for range 3 {
		if err := <-failed; err != nil && sandbox.CodeOf(err) == "" && !errors.Is(err, net.ErrClosed) {
			t.Errorf("a call ended with %v", err)
		}
	}
	list, err := t.box.List(t.ctx)
	t.ok(err)
	for _, p := range list {
		t.ok(t.box.Remove(t.ctx, p.ID))
	}
	t.answers()
}

// thousandParallel may find the sandbox's bound, and nothing else.
func thousandParallel(t *test) {
	const n = 1000
	done := make(chan error, n)
	for range n {
		go func() {
			res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"echo", "one of many"}}})
			if err == nil && (!res.Exit.Success() || string(res.Stdout) != "one of many\n") {
				err = errors.New(string(res.Stdout) + " and " + res.Exit.Signal)
			}
			done <- err
		}()
	}
	ran := 0
	for range n {
		switch err := <-done; sandbox.CodeOf(err) {
		case "":
			t.ok(err)
			ran++
		case sandbox.CodeTooManyProcesses, sandbox.CodeTooManyConnections:
		default:
			t.Error(err)
		}
	}
	if ran < n/4 {
		t.Errorf("%d of %d ran", ran, n)
	}
	t.answers()
}

func forkBomb(t *test) {
	t.need(t.h.Pids, "Pids")
	in, err := t.box.Start(t.ctx, bash("bomb() { bomb | bomb & }; bomb; sleep 1000"))
	t.ok(err)
	t.answers()
	t.ok(t.box.Remove(t.ctx, in.ID))
	t.answers()
}

func endlessOutput(t *test) {
	spec := sandbox.ProcessSpec{Argv: []string{"yes"}, Timeout: time.Second}
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec, MaxOutput: 1000})
	t.ok(err)
	if len(res.Stdout) != 1000 || !res.Truncated || res.Total < 1000 || !res.Exit.TimedOut {
		t.Errorf("%d bytes kept of %d, %+v", len(res.Stdout), res.Total, res.Exit)
	}
	t.answers()
}

// endlessLine is waited for by somebody.
func endlessLine(t *test) {
	in, err := t.box.Start(t.ctx, bash("while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"))
	t.ok(err)
	for _, want := range []sandbox.LogWait{{Text: "never", Timeout: 300 * time.Millisecond}, {Pattern: "(x*)*y", Timeout: 300 * time.Millisecond}} {
		t.wantCode(failure(t.box.WaitLog(t.ctx, in.ID, want)), sandbox.CodeReadyTimeout)
	}
	t.ok(t.box.Kill(t.ctx, in.ID))
	t.answers()
}

func closesDescriptors(t *test) {
	spec := bash("echo first; exec 0<&- 1>&- 2>&-; while [ ! -e done ]; do sleep 0.02; done; exit 5")
	spec.ID, spec.Stdin = "quiet", true
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	_, err = t.box.WaitLog(t.ctx, "quiet", sandbox.LogWait{Text: "first"})
	t.ok(err)
	if in, err := t.box.Get(t.ctx, "quiet"); err != nil || !in.Running {
		t.Errorf("closed streams are no end: %+v, %v", in, err)
	}
	t.out("touch done")
	if in, err := t.box.Wait(t.ctx, "quiet"); err != nil || in.Exit.Code != 5 {
		t.Errorf("%+v, %v", in, err)
	}
	t.answers()
}

func manyViewers(t *test) {
	in, err := t.box.Start(t.ctx, bash("while :; do echo y; done"))
	t.ok(err)
	var all []sandbox.Output
	for range 200 {
		out, err := t.box.Output(t.ctx, in.ID, sandbox.OutputOptions{Follow: true})
		if err != nil { // over some endpoints there is a bound
			t.wantCode(err, sandbox.CodeTooManyConnections)
			break
		}
		all = append(all, out)
	}
	t.answers()
	for _, out := range all {
		t.ok(out.Close())
	}
	t.ok(t.box.Remove(t.ctx, in.ID))
	t.answers()
}

func oddRequests(t *test) {
	long := strings.Repeat("x", 1<<20)
	for name, err := range map[string]error{
		"a long id":            failure(t.box.Get(t.ctx, long)),
		"a long signal":        t.box.Signal(t.ctx, "p", long),
		"an empty id":          failure(t.box.Get(t.ctx, "")),
		"a negative offset":    failure(t.box.Output(t.ctx, "p", sandbox.OutputOptions{Offset: -1 << 40})),
		"a long variable":      failure(t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"true"}, Env: map[string]string{"A": long}})),
		"many labels":          failure(t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"true"}, Labels: manyLabels(100)})),
		"a log of no size":     failure(t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"true"}, LogBytes: -1})),
		"a terminal too large": failure(t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"true"}, Terminal: &sandbox.TerminalSize{Columns: 1 << 20, Rows: 1}})),
	} {
		if code := sandbox.CodeOf(err); code == "" || code == sandbox.CodeInternal || code == sandbox.CodeConnectionLost {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	t.answers()
}

func manyLabels(n int) map[string]string {
	labels := map[string]string{}
	for i := range n {
		labels[strings.Repeat("l", i+1)] = ""
	}
	return labels
}
