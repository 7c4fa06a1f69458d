package sandboxtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/shell"
)

func testShell(t *testing.T, h Harness) {
	cases{
		"directory and variables persist":          shellState,
		"a command that ends its shell":            shellEnds,
		"what a command leaves untouched":          shellKeepsOut,
		"commands run beside each other":           shellBeside,
		"sessions are created, found, deleted":     shellLife,
		"variables are set from outside":           shellVariables,
		"a directory that has gone":                shellDirectory,
		"streams, terminals, background":           shellStreams,
		"another client goes on with a session":    shellAgain,
		"what a lost caller's command has changed": shellAdopts,
	}.run(t, h)
}

func (t *test) session(spec shell.Spec) *shell.Session {
	t.Helper()
	if spec.Name == "" {
		spec.Name = "s"
	}
	s, err := shell.Create(t.ctx, t.box, spec)
	t.ok(err)
	return s
}

// run runs a script in a session, and wants its status and its output.
func (t *test) run(s *shell.Session, script string, code int, want string) *shell.Result {
	t.Helper()
	res, err := s.Exec(t.ctx, shell.Command{Script: script})
	if err != nil {
		t.Fatalf("%q: %v", script, err)
	}
	if res.Exit.ShellCode() != code || string(res.Stdout) != want {
		t.Errorf("%q: %+v, printed %q and %q; want %d and %q", script, res.Exit, res.Stdout, res.Stderr, code, want)
	}
	return res
}

func shellState(t *test) {
	s := t.session(shell.Spec{Dir: "/", Env: map[string]string{"GIVEN": "given"}, Unset: []string{"LANG"}})
	t.run(s, `pwd; echo "$GIVEN ${LANG-none}"; mkdir -p /tmp/shell-a`, 0, "/\ngiven none\n")
	t.run(s, `cd /tmp; export A='one
 "two" $three' B= C=c; D=own; unset GIVEN; cd /usr`, 0, "")
	t.run(s, `pwd; echo "$A|$B|${C-none}|${D-none}|${GIVEN-none}|${0##*/}|$#"; cd -; cd lib`, 1, "/usr\none\n \"two\" $three||c|none|none|bash|0\n/tmp\n")
	t.run(s, `pwd; ln -sfn /usr/lib "$HOME/link"; cd "$HOME/link"; export C=d; unset -v B`, 0, "/tmp\n")
	t.run(s, `echo "${PWD#"$HOME"}"; cd ..; echo "${PWD#"$HOME"}"; printf '%s\n' "$C${B-none}"`, 0, "/link\n\ndnone\n")
	// Nothing of ours is to be seen, and the output is the command's alone.
	t.run(s, `env | grep -c -e TONGS -e BASH_ENV; declare -p | grep -c '^declare [^ ]* __tongs'; set -x; :`, 0, "0\n0\n")
	if res := t.run(s, `set -x; export A=1`, 0, ""); string(res.Stderr) != "+ export A=1\n+ A=1\n" || !res.Kept {
		t.Errorf("stderr %q, kept %v", res.Stderr, res.Kept)
	}
	st, err := s.State(t.ctx)
	t.ok(err)
	if st.Set["A"] != "1" || st.Set["C"] != "d" {
		t.Errorf("state %+v", st)
	}
}

func shellEnds(t *test) {
	s := t.session(shell.Spec{})
	n := 0
	for _, c := range []struct {
		script string
		code   int
		keeps  bool
	}{
		{"export N=%; exit 3", 3, true},
		{"set -e; export N=%; false; export N=x", 1, true},
		{"export N=%; (exit 5)", 5, true},
		{"export N=%; kill -TERM $$; sleep 1000", 143, true},
		{"export N=%\nif then", 2, true},
		{"export N=%; set -u; : $none", 127, true},
		{"export N=%; PATH=; IFS=o; builtin() { echo bad; }; printf() { echo bad; }; unset -f builtin; set -f -o noclobber -o posix; shopt -s failglob 2>/dev/null; umask 777", 0, true},
		{"export N=%; exec 0<&- 1>&- 2>&-", 0, true},
		{"export N=x; ulimit -f 0; true", 0, false},
		{"echo 'never closed; export N=x", 2, true},
		{"export N=x; kill -KILL $$", 137, false},
		{"export N=x; exec true", 0, false},
		{"export N=x; trap : EXIT", 0, false},
	} {
		n++
		number := strings.Repeat("i", n)
		res, err := s.Exec(t.ctx, shell.Command{Script: strings.ReplaceAll(c.script, "%", number)})
		t.ok(err)
		if res.Exit.ShellCode() != c.code && !(c.script[len(c.script)-4:] == "none" && res.Exit.ShellCode() == 1) {
			t.Errorf("%q: %+v, want %d\n%s", c.script, res.Exit, c.code, res.Stderr)
		}
		if c.keeps != res.Kept {
			t.Errorf("%q: kept %v", c.script, res.Kept)
		}
		if c.keeps && strings.Contains(c.script, "%") {
			t.run(s, "builtin echo $N", 0, number+"\n")
		} else {
			t.run(s, "test \"$N\" != x && /bin/echo goes on", 0, "goes on\n")
		}
		if strings.Contains(c.script, "PATH=") {
			t.ok(s.SetEnv(t.ctx, nil, "PATH"))
			t.ok(s.SetEnv(t.ctx, map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin"}))
		}
	}
	// One that never ends by itself: its deadline ends it, and not the session.
	res, err := s.Exec(t.ctx, shell.Command{Script: "export N=late; echo before; sleep 1000", Timeout: 300 * time.Millisecond})
	t.ok(err)
	if !res.Exit.TimedOut || string(res.Stdout) != "before\n" {
		t.Errorf("%+v %q", res.Exit, res.Stdout)
	}
	t.run(s, "echo $N", 0, "late\n")
	ctx, cancel := context.WithTimeout(t.ctx, 300*time.Millisecond)
	defer cancel()
	if res, err := s.Exec(ctx, shell.Command{Script: "trap '' TERM; echo stays; while :; do sleep 0.05; done"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", res, err)
	}
	t.run(s, "echo $N", 0, "late\n")
}

// shellKeepsOut gives one command more than the session has.
func shellKeepsOut(t *test) {
	s := t.session(shell.Spec{Dir: "/usr"})
	res, err := s.Exec(t.ctx, shell.Command{Script: `pwd; echo $ONCE; export KEEP=1`, Dir: "lib", Env: map[string]string{"ONCE": "once"}})
	t.ok(err)
	if string(res.Stdout) != "/usr/lib\nonce\n" {
		t.Errorf("%q", res.Stdout)
	}
	t.run(s, `pwd; echo ${ONCE-none} $KEEP`, 0, "/usr\nnone 1\n")
	for name, c := range map[string]shell.Command{
		"a bad variable":      {Script: "true", Env: map[string]string{"A=B": ""}},
		"a NUL in a value":    {Script: "true", Env: map[string]string{"A": "\x00"}},
		"a NUL in the script": {Script: "echo \x00"},
		"a missing directory": {Script: "true", Dir: "no/such"},
		"too long a script":   {Script: strings.Repeat(": ", 100<<10)},
	} {
		if res, err := s.Exec(t.ctx, c); err == nil || sandbox.CodeOf(err) == "" || res != nil {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	res, err = s.Exec(t.ctx, shell.Command{Script: ""})
	t.ok(err)
	if !res.Exit.Success() {
		t.Errorf("an empty script: %+v", res.Exit)
	}
}

// shellBeside has each of two commands of one session wait for the other.
func shellBeside(t *test) {
	s := t.session(shell.Spec{})
	t.run(s, "export BOTH=before; mkfifo there back", 0, "")
	done := make(chan error, 2)
	for _, script := range []string{"echo ping > there; read -r x < back; export FIRST=$x", "read -r x < there; export SECOND=$x; echo pong > back; cd /tmp"} {
		go func() {
			res, err := s.Exec(t.ctx, shell.Command{Script: script})
			if err == nil && !res.Exit.Success() {
				err = errors.New(string(res.Stderr))
			}
			done <- err
		}()
	}
	t.ok(<-done)
	t.ok(<-done)
	// What both have changed is there, and neither has undone what the other did.
	t.run(s, `echo "$BOTH $FIRST $SECOND"; pwd`, 0, "before pong ping\n/tmp\n")
	const n = 20
	for i := range n {
		go func() { done <- failure(s.Exec(t.ctx, shell.Command{Script: "export V" + string(rune('a'+i)) + "=1"})) }()
	}
	for range n {
		t.ok(<-done)
	}
	st, err := s.State(t.ctx)
	t.ok(err)
	if len(st.Set) != n+4 { // BOTH, FIRST, SECOND, OLDPWD
		t.Errorf("%d variables: %v", len(st.Set), st.Set)
	}
}

func shellLife(t *test) {
	names, err := shell.List(t.ctx, t.box)
	t.ok(err)
	if len(names) != 0 {
		t.Errorf("sessions %q", names)
	}
	for _, name := range []string{"", ".", "..", ".x", "a/b", "a b", "a\x00", strings.Repeat("x", 65), "é"} {
		t.wantCode(failure(shell.Create(t.ctx, t.box, shell.Spec{Name: name})), sandbox.CodeInvalidArgument)
		t.wantCode(failure(shell.Open(t.ctx, t.box, name)), sandbox.CodeInvalidArgument)
	}
	t.wantCode(failure(shell.Open(t.ctx, t.box, "one")), sandbox.CodeSessionNotFound)
	t.wantCode(failure(shell.Create(t.ctx, t.box, shell.Spec{Name: "one", Dir: "/no/such"})), sandbox.CodeFileNotFound)
	t.wantCode(failure(shell.Create(t.ctx, t.box, shell.Spec{Name: "one", Dir: "/etc/passwd"})), sandbox.CodeNotDirectory)
	t.wantCode(failure(shell.Create(t.ctx, t.box, shell.Spec{Name: "one", Env: map[string]string{"": "x"}})), sandbox.CodeInvalidArgument)
	one, two := t.session(shell.Spec{Name: "one"}), t.session(shell.Spec{Name: "two"})
	t.wantCode(failure(shell.Create(t.ctx, t.box, shell.Spec{Name: "one"})), sandbox.CodeSessionExists)
	t.run(one, "export WHO=one; cd /tmp", 0, "")
	t.run(two, `echo "${WHO-nobody}"`, 0, "nobody\n")
	names, err = shell.List(t.ctx, t.box)
	t.ok(err)
	if diff := cmp.Diff([]string{"one", "two"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	p, err := one.Start(t.ctx, shell.Command{Script: "sleep 1000"})
	t.ok(err)
	q, err := two.Start(t.ctx, shell.Command{Script: "sleep 1000"})
	t.ok(err)
	t.ok(one.Delete(t.ctx))
	t.ok(one.Delete(t.ctx))
	if p, err = t.box.Wait(t.ctx, p.ID); err != nil || !p.Exit.Killed {
		t.Errorf("its process: %+v, %v", p, err)
	}
	if q, err = t.box.Get(t.ctx, q.ID); err != nil || !q.Running {
		t.Errorf("the other's process: %+v, %v", q, err)
	}
	for _, err := range []error{failure(one.Exec(t.ctx, shell.Command{Script: "true"})), failure(one.State(t.ctx)), one.SetEnv(t.ctx, nil), one.SetDir(t.ctx, "/")} {
		t.wantCode(err, sandbox.CodeSessionDestroyed)
	}
	t.wantCode(failure(shell.Open(t.ctx, t.box, "one")), sandbox.CodeSessionNotFound)
	t.run(t.session(shell.Spec{Name: "one"}), `echo "${WHO-nobody}"`, 0, "nobody\n")
}

func shellVariables(t *test) {
	s := t.session(shell.Spec{})
	t.ok(s.SetEnv(t.ctx, map[string]string{"A": "a 'b' \"c\"\n$d", "B": "b", "odd.name": "x"}))
	t.run(s, `echo "$A"; env | grep odd; export B=c`, 0, "a 'b' \"c\"\n$d\nodd.name=x\n")
	t.ok(s.SetEnv(t.ctx, map[string]string{"C": "c"}, "A", "HOME"))
	t.run(s, `echo "${A-none} $B $C ${HOME-none}"`, 0, "none c c none\n")
	t.ok(s.SetEnv(t.ctx, map[string]string{"HOME": "/tmp"}))
	t.run(s, `echo ~`, 0, "/tmp\n")
	for _, env := range []map[string]string{{"": "x"}, {"A=B": "x"}, {"A": "\x00"}, {"A\x00": ""}} {
		t.wantCode(s.SetEnv(t.ctx, env), sandbox.CodeInvalidArgument)
	}
	t.wantCode(s.SetEnv(t.ctx, nil, "A=B"), sandbox.CodeInvalidArgument)
}

func shellDirectory(t *test) {
	s := t.session(shell.Spec{})
	t.run(s, `mkdir -p a/'b c'/d; cd a; cd 'b c/d'; rm -rf ../../../a; export STILL=here`, 0, "")
	_, err := s.Exec(t.ctx, shell.Command{Script: "true"})
	t.wantCode(err, sandbox.CodeFileNotFound)
	t.wantCode(s.SetDir(t.ctx, "x"), sandbox.CodeFileNotFound)
	t.wantCode(s.SetDir(t.ctx, "/etc/passwd"), sandbox.CodeNotDirectory)
	t.wantCode(s.SetDir(t.ctx, ""), sandbox.CodeInvalidPath)
	t.ok(s.SetDir(t.ctx, "/usr"))
	t.ok(s.SetDir(t.ctx, "lib"))
	t.run(s, `pwd; echo $STILL`, 0, "/usr/lib\nhere\n")
}

func shellStreams(t *test) {
	s := t.session(shell.Spec{Dir: "/tmp"})
	var stdout, stderr strings.Builder
	exit, kept, err := s.Run(t.ctx, shell.Command{Script: "tr a-z A-Z; pwd >&2; export A=1; exit 4"}, strings.NewReader("hello"), &stdout, &stderr)
	t.ok(err)
	if exit.Code != 4 || !kept || stdout.String() != "HELLO" || stderr.String() != "/tmp\n" {
		t.Errorf("%+v %v %q %q", exit, kept, stdout.String(), stderr.String())
	}
	p, err := s.Start(t.ctx, shell.Command{ID: "terminal", Script: `export A=2; cd /; stty -echo -onlcr; read -r x; echo "$A $x"`, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}})
	t.ok(err)
	v := t.view(t.box, p.ID, 0)
	_, err = v.Write([]byte("typed\n"))
	t.ok(err)
	t.until(v, "2 typed\n")
	if _, err = t.box.Wait(t.ctx, p.ID); err != nil {
		t.Error(err)
	}
	t.run(s, "pwd; echo $A", 0, "/tmp\n1\n") // what was started leaves the session alone
	res, err := s.Exec(t.ctx, shell.Command{Script: "cat; echo error >&2", Input: []byte("in\x00put"), Merge: true})
	t.ok(err)
	if string(res.Stdout) != "in\x00puterror\n" || len(res.Stderr) != 0 {
		t.Errorf("%q %q", res.Stdout, res.Stderr)
	}
}

func shellAgain(t *test) {
	s := t.session(shell.Spec{})
	t.run(s, "cd /usr; export A=1", 0, "")
	same, err := shell.Open(t.ctx, t.again(), "s")
	t.ok(err)
	t.run(same, "pwd; echo $A; cd lib; export B=2", 0, "/usr\n1\n")
	t.run(s, "pwd; echo $A $B", 0, "/usr/lib\n1 2\n")
}

// shellAdopts has a client go away while its command runs.
func shellAdopts(t *test) {
	t.session(shell.Spec{})
	other := t.again()
	s, err := shell.Open(t.ctx, other, "s")
	t.ok(err)
	done := make(chan error, 1)
	go func() {
		done <- failure(s.Exec(t.ctx, shell.Command{ID: "long", Script: "echo ready; mkfifo go; read -r x < go; cd /tmp; export LATE=1; exit 6", Mode: sandbox.Follow}))
	}()
	for {
		_, err := t.box.WaitLog(t.ctx, "long", sandbox.LogWait{Text: "ready"})
		if err == nil {
			break
		}
		if sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			t.Fatal(err)
		}
	}
	t.ok(other.Close())
	t.wantCode(<-done, sandbox.CodeConnectionLost)
	t.out("until [ -p go ]; do sleep 0.01; done; echo > go")
	in, err := t.box.Wait(t.ctx, "long")
	t.ok(err)
	if in.Exit.Code != 6 {
		t.Errorf("%+v", in.Exit)
	}
	s, err = shell.Open(t.ctx, t.box, "s")
	t.ok(err)
	t.run(s, "pwd; echo $LATE", 0, "/tmp\n1\n")
}
