package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/remote"
)

// cliPatience bounds everything that one of these tests waits for.
const cliPatience = 2 * time.Minute

// console is a program on a terminal of its own, as a person has it.
type console struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced when there is more
	seen int           // what expect has gone past
}

// onTerminal starts `tongs args` on a new terminal.
func onTerminal(t testing.TB, home string, args ...string) *console {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	c := &console{t: t, master: master, done: make(chan struct{}), more: make(chan struct{})}
	c.resize(100, 30)
	c.cmd = exec.Command(filepath.Join(bin, "tongs"), args...)
	c.cmd.Env = environ(home, "TERM=xterm")
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			c.mu.Lock()
			c.text.Write(buf[:n])
			close(c.more)
			c.more = make(chan struct{})
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { c.cmd.Wait(); close(c.done) }()
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		<-c.done
		master.Close()
	})
	return c
}

func (c *console) resize(columns, rows uint16) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(c.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) write(keys string) {
	c.t.Helper()
	if _, err := c.master.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits until what is shown behind what was expected before matches.
func (c *console) expect(pattern string) string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(cliPatience)
	for {
		c.mu.Lock()
		rest, more := c.text.Bytes()[c.seen:], c.more
		if at := re.FindSubmatchIndex(rest); at != nil {
			found := string(rest[at[len(at)-2]:at[len(at)-1]])
			c.seen += at[1]
			c.mu.Unlock()
			return found
		}
		c.mu.Unlock()
		select {
		case <-more:
		case <-timeout:
			c.t.Fatalf("%q is not shown:\n%s", pattern, c.text.String())
		}
	}
}

// status waits for the end.
func (c *console) status() int {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(cliPatience):
		c.t.Fatalf("it does not end:\n%s", c.text.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// cooked reports whether a terminal is as people expect it to be.
func (c *console) cooked() bool {
	state, err := unix.IoctlGetTermios(int(c.master.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0 && state.Lflag&unix.ICANON != 0 && state.Lflag&unix.ISIG != 0
}

// TestCommandLine uses a running service from the command line, from a terminal, and over the death of
// the host.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	needSandboxes(t)
	home := newHome(t)
	whole := t // what a part starts anew lives on after it
	s := up(whole, home)
	session := s.session()
	if got := s.bash(session, "echo from the session > made-by-agent && cat made-by-agent"); !strings.Contains(got, "from the session") {
		t.Fatalf("the session's tool says %q", got)
	}
	if made := tongs(t, home, "sandbox", "create", "web"); made.code != 0 {
		t.Fatalf("%+v", made)
	}

	t.Run("session", func(t *testing.T) {
		for _, ref := range []string{session, session[:len(session)-4]} {
			if got := tongs(t, home, "sandbox", "cat", ref+":made-by-agent"); got.stdout != "from the session\n" {
				t.Errorf("%s: %+v", ref, got)
			}
		}
		if got := tongs(t, home, "sandbox", "list"); !regexp.MustCompile(`(?m)^- +[a-z2-7]{16} +`+session+` +running `).MatchString(got.stdout) || strings.Contains(got.stdout, "agent-host") {
			t.Errorf("%+v", got)
		}
		if got := tongs(t, home, "sandbox", "exec", "agent-host", "true"); got.code != 125 {
			t.Errorf("OpenCode's own sandbox can be reached: %+v", got)
		}
	})

	t.Run("shell", func(t *testing.T) {
		c := onTerminal(t, home, "sandbox", "shell", "web")
		c.expect(`\$ `)
		if c.cooked() {
			t.Error("the terminal is not in raw mode")
		}
		c.write("stty size; tty\r")
		c.expect(`30 100\r\n/dev/pts/`)
		c.resize(132, 43)
		c.write("for i in $(seq 300); do stty size | grep -q '43 132' && break; sleep 0.1; done; stty size\r")
		c.expect(`43 132\r\n`)
		c.write("sh -c 'echo beg''un; exec sleep 1000'\r")
		c.expect(`begun\r\n`)
		c.write("\x03") // goes to the sleep, and not to us
		c.expect(`\^C`)
		c.write("marker=kept; echo $((6*7))\r")
		c.expect(`42\r\n`)
		c.write("\x1dd")
		id := c.expect(`left (shell-\S+) running; come back with: tongs sandbox shell web --attach shell-`)
		if code := c.status(); code != 0 || !c.cooked() {
			t.Errorf("left with status %d, the terminal as it was: %v", code, c.cooked())
		}
		if got := tongs(t, home, "sandbox", "ps", "-q", "web"); !strings.Contains(got.stdout, id) {
			t.Errorf("ps: %+v", got)
		}

		// Two come back to it; both see what one of them types.
		first, second := onTerminal(t, home, "sandbox", "shell", "web", "--attach", id), onTerminal(t, home, "sandbox", "shell", "web", "--attach", id)
		first.expect(`42\r\n`) // what was shown before
		second.expect(`42\r\n`)
		first.write("echo it is $marker\r")
		first.expect(`it is kept\r\n`)
		second.expect(`it is kept\r\n`)
		second.write("exit 5\r")
		if a, b := first.status(), second.status(); a != 5 || b != 5 || !first.cooked() || !second.cooked() {
			t.Errorf("statuses %d and %d", a, b)
		}
	})

	t.Run("signals", func(t *testing.T) {
		cmd := exec.Command(filepath.Join(bin, "tongs"), "sandbox", "exec", "web", "--", "sh", "-c",
			`trap 'echo interrupted' INT; trap 'echo ended; exit 9' TERM; echo ready; while :; do sleep 0.05; done`)
		cmd.Env = environ(home)
		out := &service{t: t, cmd: cmd, done: make(chan struct{})}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { cmd.Wait(); close(out.done) }()
		for _, step := range []struct {
			shown  string
			signal syscall.Signal
		}{{"ready", syscall.SIGINT}, {"interrupted", syscall.SIGTERM}, {"ended", 0}} {
			select {
			case <-out.wait(regexp.MustCompile(step.shown)):
			case <-time.After(cliPatience):
				t.Fatalf("no %q: %s", step.shown, out.output())
			}
			if step.signal != 0 {
				cmd.Process.Signal(step.signal)
			}
		}
		<-out.done
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("status %d: %s", code, out.output())
		}
	})

	t.Run("host killed", func(t *testing.T) {
		cmd := exec.Command(filepath.Join(bin, "tongs"), "sandbox", "exec", "web", "--", "sh", "-c",
			`for i in $(seq 1000); do echo line $i; done; echo before; until [ -e go-on ]; do sleep 0.1; done; for i in $(seq 1000); do echo more $i; done; exit 42`)
		cmd.Env = environ(home)
		out, complaints := &service{t: t, cmd: cmd, done: make(chan struct{})}, &service{t: t, done: make(chan struct{})}
		cmd.Stdout, cmd.Stderr = out, complaints
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { cmd.Wait(); close(out.done) }()
		select {
		case <-out.wait(regexp.MustCompile("before")):
		case <-time.After(cliPatience):
			t.Fatal(out.output())
		}
		s.stop(syscall.SIGKILL)
		select {
		case <-complaints.wait(regexp.MustCompile("the connection broke; waiting")):
		case <-time.After(cliPatience):
			t.Fatalf("it does not say that the connection broke: %s", complaints.output())
		}
		got := tongs(t, home, "sandbox", "list")
		// Its port may be somebody else's by now.
		taken := strings.Contains(got.stderr, "is not a Tongs endpoint")
		if got.code != 1 || !taken && (!strings.Contains(got.stderr, "tongs is not running") || !strings.Contains(got.stderr, "tongs up")) {
			t.Errorf("while nothing runs: %+v", got)
		}
		s = up(whole, home)
		if got := tongs(t, home, "sandbox", "exec", "web", "touch", "go-on"); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		select {
		case <-out.done:
		case <-time.After(cliPatience):
			t.Fatalf("it does not end: %s", complaints.output())
		}
		var want strings.Builder
		for _, word := range []string{"line", "more"} {
			for i := range 1000 {
				fmt.Fprintf(&want, "%s %d\n", word, i+1)
			}
			if word == "line" {
				want.WriteString("before\n")
			}
		}
		if code := cmd.ProcessState.ExitCode(); code != 42 || out.output() != want.String() {
			t.Errorf("status %d, %d bytes of output where %d were written\n%s", code, len(out.output()), want.Len(), complaints.output())
		}
	})

	t.Run("program", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), cliPatience)
		defer cancel()
		token, err := os.ReadFile(filepath.Join(home, "api-token"))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(home, "api-token")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the token's file: %v %v", info, err)
		}
		at := regexp.MustCompile(`sandboxes: (http://\S+)/rpc .*token in (\S+)\)`).FindStringSubmatch(s.output())
		if at == nil || at[2] != filepath.Join(home, "api-token") {
			t.Fatalf("up does not say where the endpoint is:\n%s", s.output())
		}
		box, err := remote.Dial(ctx, at[1], remote.DialOptions{Token: strings.TrimSpace(string(token)), Sandbox: session})
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		res, err := box.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat", "made-by-agent"}}})
		if err != nil || string(res.Stdout) != "from the session\n" {
			t.Errorf("%+v %v", res, err)
		}
		if _, err := remote.Dial(ctx, at[1], remote.DialOptions{Token: "no", Sandbox: session}); sandbox.CodeOf(err) != remote.CodeUnauthorized {
			t.Errorf("without the token: %v", err)
		}
	})

	t.Run("removed", func(t *testing.T) {
		if got := tongs(t, home, "sandbox", "rm", "web", session); got.code != 0 || got.stdout != "web\n"+session+"\n" {
			t.Errorf("%+v", got)
		}
		// The model is not even asked: what it is told of the project would come from the sandbox.
		status, body := s.in(t).call("POST", "/session/"+session+"/message", scripted(t, "tongs/scripted",
			step{"tool": "bash", "args": map[string]any{"command": "echo again"}}, step{"text": "done"}))
		if status != 200 || !strings.Contains(string(body), "the session's sandbox was destroyed") {
			t.Errorf("a turn of a session whose sandbox was removed: %d %s", status, body)
		}
	})
	s.stop(syscall.SIGTERM)
	if _, err := os.Stat(filepath.Join(home, "api-url")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an ended service still says where it is: %v", err)
	}
}
