package sandboxtest

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

func testTerminals(t *testing.T, h Harness) {
	cases{
		"a command has a terminal of its size":     terminalOfSize,
		"what it showed is replayed from a cursor": replayed,
		"several view it, one of them types":       viewers,
		"input is taken over, and taken back":      takeover,
		"typing into what does not read":           deafTerminal,
		"its end is told":                          terminalEnd,
		"a deadline ends it":                       terminalDeadline,
		"a shell prompts, and interrupts":          interactive,
		"what has no terminal has no size":         noTerminal,
	}.run(t, h)
}

// terminal starts a command on a terminal that shows bytes as they are typed.
func (t *test) terminal(id, script string) *sandbox.Terminal {
	t.Helper()
	spec := bash("stty raw -echo; echo ready; " + script)
	spec.ID, spec.Terminal = id, &sandbox.TerminalSize{Columns: 80, Rows: 24}
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	v := t.view(t.box, id, 0)
	t.shows(v, "ready\n")
	return v
}

func (t *test) view(box *sandbox.Client, id string, offset int64) *sandbox.Terminal {
	t.Helper()
	v, err := box.OpenTerminal(t.ctx, id, offset)
	t.ok(err)
	t.Cleanup(func() { v.Close() })
	return v
}

// shows reads exactly what is expected.
func (t *test) shows(v io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if n, err := io.ReadFull(v, b); err != nil || string(b) != want {
		t.Fatalf("it shows %q (%v), want %q", b[:n], err, want)
	}
}

// until reads until a text has come, and gives all that came.
func (t *test) until(v io.Reader, text string) string {
	t.Helper()
	var seen strings.Builder
	r := bufio.NewReaderSize(v, 16)
	for b := make([]byte, 1); !strings.Contains(seen.String(), text); {
		if _, err := r.Read(b); err != nil {
			t.Fatalf("it showed %q and ended: %v", seen.String(), err)
		}
		seen.Write(b)
	}
	return seen.String()
}

func terminalOfSize(t *test) {
	spec := bash(`trap 'stty size' WINCH; tty >&2; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal $TERM; stty size; while :; do sleep 0.05; done`)
	spec.ID, spec.Terminal = "t", &sandbox.TerminalSize{Columns: 101, Rows: 33}
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	v := t.view(t.box, "t", 0)
	if got := t.until(v, "33 101\r\n"); !strings.HasPrefix(got, "/dev/pts/") || !strings.Contains(got, "\r\nterminal xterm-256color\r\n") {
		t.Errorf("it shows %q", got)
	}
	t.ok(v.Resize(sandbox.TerminalSize{Columns: 65535, Rows: 1}))
	t.until(v, "1 65535\r\n")
	in, err := t.box.Get(t.ctx, "t")
	t.ok(err)
	if in.Terminal == nil || in.Terminal.Columns != 65535 || in.Terminal.Rows != 1 || in.Viewers != 1 {
		t.Errorf("%+v, size %+v", in, in.Terminal)
	}
	for _, size := range []sandbox.TerminalSize{{}, {Columns: 1}, {Columns: 1, Rows: 65536}, {Columns: -1, Rows: 1}} {
		t.wantCode(v.Resize(size), sandbox.CodeInvalidArgument)
	}
}

func replayed(t *test) {
	v := t.terminal("t", `printf 'first '; cat`)
	t.shows(v, "first ")
	cursor := v.Offset()
	_, err := v.Write([]byte("second "))
	t.ok(err)
	t.shows(v, "second ")
	t.ok(v.Close())
	// The cursor of one connection is good on another.
	other := t.again()
	t.shows(t.view(other, "t", cursor), "second ")
	t.shows(t.view(other, "t", 0), "ready\nfirst second ")
	in, err := other.Get(t.ctx, "t")
	t.ok(err)
	fresh := t.view(other, "t", in.LogEnd)
	_, err = fresh.Write([]byte("third"))
	t.ok(err)
	t.shows(fresh, "third")
	if fresh.Offset() != in.LogEnd+5 || fresh.Missed() != 0 {
		t.Errorf("the cursor is %d, %d bytes are missing", fresh.Offset(), fresh.Missed())
	}
}

func viewers(t *test) {
	all := []*sandbox.Terminal{t.terminal("t", "cat")}
	other := t.again()
	for range 3 {
		v := t.view(other, "t", 0)
		t.shows(v, "ready\n")
		all = append(all, v)
	}
	in, err := t.box.Get(t.ctx, "t")
	t.ok(err)
	if in.Viewers != len(all) {
		t.Errorf("%d viewers, want %d", in.Viewers, len(all))
	}
	_, err = all[2].Write([]byte("for all"))
	t.ok(err)
	for _, v := range all {
		t.shows(v, "for all")
	}
	// One that leaves takes nobody along; one that doesn't read holds nobody up.
	t.ok(all[1].Close())
	deaf := all[3]
	text := strings.Repeat("0123456789abcdef", 256)
	for range 40 {
		_, err = all[0].Write([]byte(text))
		t.ok(err)
		t.shows(all[0], text)
		t.shows(all[2], text)
	}
	t.shows(deaf, text)
	for in.Viewers != 3 { // the guest has seen the one leave
		in, err = t.box.Get(t.ctx, "t")
		t.ok(err)
	}
}

func takeover(t *test) {
	first := t.terminal("t", "cat")
	second := t.view(t.again(), "t", first.Offset())
	_, err := first.Write([]byte("one"))
	t.ok(err)
	t.shows(first, "one")
	t.shows(second, "one")
	_, err = second.Write([]byte("two"))
	t.ok(err)
	t.shows(second, "two")
	// The former is told, once, and may take it back; then it's the other's turn.
	t.told(first)
	_, err = first.Write([]byte("three"))
	t.ok(err)
	t.shows(first, "twothree")
	t.told(second)
	// The writers of pipes are told too.
	_, err = t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "pipe", Argv: []string{"cat"}, Stdin: true})
	t.ok(err)
	a, err := t.box.Stdin(t.ctx, "pipe")
	t.ok(err)
	b, err := t.box.Stdin(t.ctx, "pipe")
	t.ok(err)
	_, err = b.Write([]byte("b"))
	t.ok(err)
	_, err = t.box.WaitLog(t.ctx, "pipe", sandbox.LogWait{Text: "b"})
	t.ok(err)
	t.wantCode(a.Close(), sandbox.CodeStdinTaken) // it does not end the input
	_, err = b.Write([]byte("c\n"))
	t.ok(err)
	t.ok(b.Close())
	if m, err := t.box.WaitLog(t.ctx, "pipe", sandbox.LogWait{Pattern: "^bc$"}); err != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

// told writes, what is lost, until the writer is told that another has the input.
func (t *test) told(w io.Writer) {
	t.Helper()
	var err error
	for err == nil {
		_, err = w.Write([]byte("lost"))
	}
	t.wantCode(err, sandbox.CodeStdinTaken)
}

// deafTerminal has writers who wait for a command that doesn't read; each is freed
// by the next, and the last by its own end.
func deafTerminal(t *test) {
	spec := bash("echo ready; read -r line < wait; cat")
	spec.ID, spec.Stdin = "deaf", true
	t.out("mkfifo wait")
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	flood := func(v io.Writer) <-chan error {
		done := make(chan error, 1)
		_, err := v.Write([]byte("x")) // it has the input now
		t.ok(err)
		go func() {
			var err error
			for err == nil {
				_, err = v.Write(make([]byte, 256<<10))
			}
			done <- err
		}()
		return done
	}
	first, second := t.view(t.box, "deaf", 0), t.view(t.again(), "deaf", 0)
	stuck := flood(first)
	// Not yet stuck, perhaps: then it is told all the same.
	alsoStuck := flood(second)
	t.wantCode(<-stuck, sandbox.CodeStdinTaken)
	t.ok(second.Close())
	if err := <-alsoStuck; err == nil {
		t.Error("a closed terminal can be written to")
	}
	t.ok(t.box.Kill(t.ctx, "deaf"))
	t.answers()
}

func terminalEnd(t *test) {
	v := t.terminal("t", `read -r line; echo "got $line"; exit 9`)
	if exit, ended := v.Exit(); ended {
		t.Errorf("it has ended already: %+v", exit)
	}
	_, err := v.Write([]byte("it\n"))
	t.ok(err)
	all, err := io.ReadAll(v)
	t.ok(err)
	exit, ended := v.Exit()
	if string(all) != "got it\n" || !ended || exit.Code != 9 {
		t.Errorf("it showed %q, %+v, %v", all, exit, ended)
	}
	// Its end can be seen later too, and nothing is there to type into.
	late := t.view(t.again(), "t", 0)
	all, err = io.ReadAll(late)
	t.ok(err)
	if exit, _ := late.Exit(); string(all) != "ready\ngot it\n" || exit.Code != 9 {
		t.Errorf("later: %q, %+v", all, exit)
	}
	_, err = late.Write([]byte("x"))
	t.wantCode(err, sandbox.CodeStdinClosed)
	t.wantCode(late.Resize(sandbox.TerminalSize{Columns: 80, Rows: 24}), sandbox.CodeProcessExited)
}

func terminalDeadline(t *test) {
	spec := sandbox.ProcessSpec{ID: "t", Argv: []string{"bash", "--norc", "-i"}, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}, Timeout: 500 * time.Millisecond}
	_, err := t.box.Start(t.ctx, spec) // an interactive shell ignores SIGTERM
	t.ok(err)
	in, err := t.box.Wait(t.ctx, "t")
	t.ok(err)
	if !in.Exit.TimedOut || in.Exit.Success() {
		t.Errorf("%+v", in.Exit)
	}
}

func interactive(t *test) {
	spec := sandbox.ProcessSpec{ID: "t", Argv: []string{"bash", "--norc", "-i"}, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24},
		Env: map[string]string{"PS1": "prompt> ", "HISTFILE": ""}}
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	v := t.view(t.box, "t", 0)
	t.until(v, "prompt> ")
	_, err = v.Write([]byte("bash -c 'echo in front; sleep 1000'\n"))
	t.ok(err)
	t.until(v, "in front\r\n")
	// Ctrl-C reaches what is in the foreground, and not the shell.
	_, err = v.Write([]byte{3})
	t.ok(err)
	t.until(v, "prompt> ")
	_, err = v.Write([]byte("exit 4\n"))
	t.ok(err)
	if _, err := io.Copy(io.Discard, v); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if exit, ended := v.Exit(); !ended || exit.Code != 4 {
		t.Errorf("%+v, %v", exit, ended)
	}
}

func noTerminal(t *test) {
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "p", Argv: []string{"sleep", "1000"}})
	t.ok(err)
	v := t.view(t.box, "p", 0)
	t.wantCode(v.Resize(sandbox.TerminalSize{Columns: 80, Rows: 24}), sandbox.CodeNotSupported)
	_, err = v.Write([]byte("x"))
	t.wantCode(err, sandbox.CodeStdinClosed)
	_, err = t.box.OpenTerminal(t.ctx, "other", 0)
	t.wantCode(err, sandbox.CodeProcessNotFound)
	_, err = t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"true"}, Terminal: &sandbox.TerminalSize{Columns: 80, Rows: 24}}})
	t.wantCode(err, sandbox.CodeInvalidArgument)
}
