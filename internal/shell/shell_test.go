package shell_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/shell"
	"github.com/tongs-dev/tongs/sandbox"
)

// host accepts one shell, keeps its request and answers it.
func host(t *testing.T, answer func(net.Conn, shell.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		req, err := shell.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			t.Error(err)
			return
		}
		answer(conn, req)
	}()
	return l.Addr().String()
}

func run(t *testing.T, address string, env map[string]string, args ...string) (int, string, string) {
	t.Helper()
	if env == nil {
		env = map[string]string{}
	}
	env[shell.AddressEnv] = address
	var out, errs bytes.Buffer
	code := shell.Main(args, func(k string) string { return env[k] }, "/home/user/project", &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommandIsPassedOnAndItsEndComesBack(t *testing.T) {
	t.Parallel()
	got := make(chan shell.Request, 1)
	address := host(t, func(c net.Conn, req shell.Request) {
		got <- req
		w := sandbox.NewFrameWriter(c)
		_ = w.Write(sandbox.FrameStdout, []byte("one\n"))
		_ = w.Write(sandbox.FrameStderr, []byte("two\n"))
		_ = w.WriteJSON(sandbox.FrameEnd, shell.Result{Code: 7})
	})
	code, out, errs := run(t, address, map[string]string{shell.SessionEnv: "ses_1", "TERM": "dumb"}, "-c", "echo 'a b' \"$x\"")
	if code != 7 || out != "one\n" || errs != "two\n" {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	want := shell.Request{Session: "ses_1", Command: "echo 'a b' \"$x\"", Dir: "/home/user/project", Term: "dumb"}
	if d := cmp.Diff(want, <-got); d != "" {
		t.Error(d)
	}
}

func TestNothingRunsWithoutAHost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if code, out, errs := run(t, address, nil, "-c", "echo hi"); code != shell.Refused || out != "" || !strings.Contains(errs, "refused") {
		t.Errorf("without a host: %d %q %q", code, out, errs)
	}
	for _, args := range [][]string{nil, {"-c"}, {"-i"}, {"script.sh"}, {"-x", "-c", "true"}, {"-l"}} {
		if code, out, errs := run(t, address, nil, args...); code != shell.Refused || out != "" || errs == "" {
			t.Errorf("%q: %d %q %q", args, code, out, errs)
		}
	}
}

func TestRefusalAndBreak(t *testing.T) {
	t.Parallel()
	address := host(t, func(c net.Conn, _ shell.Request) {
		_ = sandbox.NewFrameWriter(c).WriteError(sandbox.Errf("NO_SESSION", "run", "there is no session", "open one"))
	})
	if code, out, errs := run(t, address, nil, "-c", "true"); code != shell.Refused || out != "" || errs != "tongs: there is no session: open one\n" {
		t.Errorf("refused: %d %q %q", code, out, errs)
	}
	address = host(t, func(c net.Conn, _ shell.Request) {
		_ = sandbox.NewFrameWriter(c).Write(sandbox.FrameStdout, []byte("half"))
	})
	if code, out, errs := run(t, address, nil, "-c", "true"); code != shell.Lost || out != "half" || !strings.Contains(errs, "broke") {
		t.Errorf("broken: %d %q %q", code, out, errs)
	}
	address = host(t, func(c net.Conn, _ shell.Request) {
		_ = sandbox.NewFrameWriter(c).WriteJSON(sandbox.FrameEnd, shell.Result{Code: 4096})
	})
	if code, _, _ := run(t, address, nil, "-c", "true"); code != shell.Lost {
		t.Errorf("an impossible status became %d", code)
	}
}

func FuzzReadRequest(f *testing.F) {
	good, _ := json.Marshal(shell.Request{Session: "ses_1", Command: "true"})
	f.Add(append(good, '\n'))
	f.Add([]byte("{}\n"))
	f.Add([]byte("{\"command\":\"a\\u0000b\"}\n"))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := shell.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && (strings.ContainsRune(req.Command, 0) || len(req.Session) > 128) {
			t.Errorf("%q was taken", b)
		}
	})
}
