package doors_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/shell"
)

// shells serves shells for a world and returns a function that runs one.
func (w *world) shells(t testing.TB) func(session, command string, stdout io.Writer) (int, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.doors.ServeShells(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return func(session, command string, stdout io.Writer) (int, string) {
		env := map[string]string{shell.AddressEnv: l.Addr().String(), shell.SessionEnv: session}
		var errs bytes.Buffer
		code := shell.Main([]string{"-c", command}, func(k string) string { return env[k] }, "/home/user/project", stdout, &errs)
		return code, errs.String()
	}
}

func TestShellRunsInTheSessionsSandbox(t *testing.T) {
	t.Parallel()
	dir := mark(t, "ses_a")
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	w.mu.Lock()
	w.roots["ses_child"] = "ses_a"
	w.mu.Unlock()
	run := w.shells(t)
	for command, want := range map[string]struct {
		code int
		out  string
	}{
		"cat who": {0, "ses_a"}, "exit 7": {7, ""}, "echo out; echo err >&2": {0, "out\nerr\n"}, "kill -9 $$": {137, ""}, "echo $TERM": {0, "dumb\n"},
		"cat": {0, ""}, "no-such-command 2>/dev/null": {127, ""}, "printf 'a\\0b\\377'": {0, "a\x00b\xff"}, "echo 'unbalanced": {2, ""},
	} {
		for _, session := range []string{"ses_a", "ses_child"} {
			var out bytes.Buffer
			code, errs := run(session, command, &out)
			if code != want.code || want.out != "" && out.String() != want.out || errs != "" {
				t.Errorf("%s: %d %q %q", command, code, out.String(), errs)
			}
		}
	}
	for _, session := range []string{"", "ses_unknown", strings.Repeat("x", 100)} {
		var out bytes.Buffer
		if code, errs := run(session, "echo ran", &out); code != shell.Refused || out.Len() > 0 || !strings.Contains(errs, "session") {
			t.Errorf("session %q: %d %q %q", session, code, out.String(), errs)
		}
	}
	// A large output, whole.
	var out bytes.Buffer
	if code, errs := run("ses_a", "head -c 20000000 /dev/zero", &out); code != 0 || out.Len() != 20000000 {
		t.Errorf("%d %s, %d bytes", code, errs, out.Len())
	}
}

// TestShellOfASlashCommand: OpenCode does not say for which session it fills in a template.
func TestShellOfASlashCommand(t *testing.T) {
	t.Parallel()
	dir := mark(t, "ses_a")
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	w.session("ses_b", newBox(t, mark(t, "ses_b")))
	run := w.shells(t)
	one := w.doors.Command("ses_a")
	again := w.doors.Command("ses_a")
	var out bytes.Buffer
	if code, errs := run("", "cat who", &out); code != 0 || out.String() != "ses_a" {
		t.Errorf("%d %q %q", code, out.String(), errs)
	}
	two := w.doors.Command("ses_b")
	if code, errs := run("", "echo ran > ran", io.Discard); code != shell.Refused || !strings.Contains(errs, "two slash commands") {
		t.Errorf("two at a time: %d %q", code, errs)
	}
	two()
	if code, errs := run("", "true", io.Discard); code != 0 {
		t.Errorf("%d %q", code, errs)
	}
	one()
	again()
	if code, errs := run("", "echo ran > ran", io.Discard); code != shell.Refused {
		t.Errorf("none any more: %d %q", code, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("a refused command ran")
	}
}

// TestShellThatGoesTakesItsCommandWithIt: OpenCode kills its shell when a person aborts.
func TestShellThatGoesTakesItsCommandWithIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t, dir)
	w.session("ses_a", newBox(t, dir))
	run := w.shells(t)
	pidFile := filepath.Join(dir, "pid")
	r, wr := io.Pipe()
	var done sync.WaitGroup
	done.Go(func() {
		code, _ := run("ses_a", "echo $$ > "+pidFile+"; echo up; while true; do echo x; sleep 0.01; done", wr)
		if code != shell.Lost {
			t.Errorf("status %d", code)
		}
	})
	b := make([]byte, 3)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	r.Close() // nobody reads it any more
	done.Wait()
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command to end", func() bool {
		_, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)))
		return err != nil
	})
}

func TestShellsThatSayNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.doors.ServeShells(l) }()
	for _, first := range []string{"", "garbage\n", "{\"command\":\"" + strings.Repeat("x", 2<<20) + "\"}\n"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = conn.Write([]byte(first)) // it may be refused while it writes
		if n, _ := io.Copy(io.Discard, conn); n > 0 {
			t.Errorf("%.20q was answered", first)
		}
		conn.Close()
	}
	l.Close()
	<-done
}
