package guest_test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/capnweb"
	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// say sends bytes on a connection of its own and gives all that is answered.
func say(t *testing.T, b *box, what string) string {
	t.Helper()
	c, err := net.Dial("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.UnixConn).CloseWrite()
	got, _ := io.ReadAll(c)
	return string(got)
}

func TestGreetings(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	token := hex.EncodeToString(make([]byte, sandbox.TokenBytes))
	for what, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n": "ERR VALIDATION_FAILED ",
		"TONGS 2 RPC\n":                     "ERR PROTOCOL_MISMATCH ",
		"TONGS 0 RPC\n":                     "ERR VALIDATION_FAILED ",
		"TONGS 01 RPC\n":                    "ERR VALIDATION_FAILED ",
		"TONGS 1 RPC \n":                    "ERR VALIDATION_FAILED ",
		"TONGS 1 RAW\n":                     "ERR VALIDATION_FAILED ",
		"TONGS 1 RAW x\n":                   "ERR INVALID_TOKEN ",
		"TONGS 1 RAW " + token + "\n":       "ERR INVALID_TOKEN ",
		"\n":                                "ERR VALIDATION_FAILED ",
		"TONGS 1 RPC":                       "",
		"":                                  "",
		strings.Repeat("x", 5000):           "",
	} {
		if got := say(t, b, what); !strings.HasPrefix(got, want) || want == "" && got != "" || want != "" && !strings.HasSuffix(got, "\n") {
			t.Errorf("%.40q is answered with %q", what, got)
		}
	}
	if got := say(t, b, "TONGS 1 RPC\nthis is not cap'n web\n"); !strings.HasPrefix(got, "OK 1 "+b.Incarnation()+"\n") {
		t.Errorf("answered %q", got)
	}
	if _, err := b.Info(b.context()); err != nil {
		t.Error(err)
	}
}

// A token is good for one connection.
func TestTokensAreUsedOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	b.sh(ctx, "head -c 1000000 /dev/zero > f")
	var used string
	c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
		conn, err := b.dial(ctx)
		return &spyConn{UnixConn: conn.(*net.UnixConn), line: &used}, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if data, _, err := c.ReadFile(ctx, "f", sandbox.ReadOptions{}); err != nil || len(data) != 1000000 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if !strings.HasPrefix(used, "TONGS 1 RAW ") {
		t.Fatalf("greeting %q", used)
	}
	if got := say(t, b, used); !strings.HasPrefix(got, "ERR INVALID_TOKEN ") {
		t.Errorf("answered %q", got)
	}
}

type spyConn struct {
	*net.UnixConn
	line *string
	seen bool
}

func (c *spyConn) Write(b []byte) (int, error) {
	if !c.seen {
		c.seen, *c.line = true, string(b)
	}
	return c.UnixConn.Write(b)
}

func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.Connections = 4 })
	ctx := b.context()
	var more []*sandbox.Client
	for range 3 {
		more = append(more, b.connect())
	}
	_, err := sandbox.Connect(ctx, b.dial)
	wantCode(t, err, sandbox.CodeTooManyConnections)
	for _, c := range more {
		c.Close()
	}
	waitFor(ctx, t, "room", func() bool {
		c, err := sandbox.Connect(ctx, b.dial)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Sessions have a limit of their own, beside which raw connections go on.
func TestTooManySessions(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.Sessions = 2 })
	ctx := b.context()
	second := b.connect()
	_, err := sandbox.Connect(ctx, b.dial)
	wantCode(t, err, sandbox.CodeTooManyConnections)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	// As many as the old limit on all, each with six descriptors in the guest.
	const many = 600
	for i := range many {
		c, err := second.Dial(ctx, "tcp", ln.Addr().String())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
	}
	second.Close()
	waitFor(ctx, t, "room", func() bool {
		c, err := sandbox.Connect(ctx, b.dial)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// With few descriptors there are fewer connections, and those there are work.
func TestFewDescriptors(t *testing.T) {
	t.Setenv(fewDescriptors, "300")
	b := newBox(t)
	ctx := b.context()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n := 0
	for ; n < 300; n++ {
		c, err := b.Dial(ctx, "tcp", ln.Addr().String())
		if err != nil {
			wantCode(t, err, sandbox.CodeTooManyConnections)
			break
		}
		defer c.Close()
	}
	if n != 24 { // and the session
		t.Errorf("%d connections were made", n)
	}
	if got := string(b.sh(ctx, "ulimit -n; ls -d .").Stdout); !strings.HasSuffix(got, "\n.\n") {
		t.Errorf("a command wrote %q", got)
	}
	if !strings.Contains(b.stderr.String(), "the limit on descriptors is low") {
		t.Errorf("the log says nothing of it: %s", b.stderr)
	}
}

// Somebody who connects and says nothing, or reads nothing, is dropped, and
// disturbs nobody meanwhile.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.SlowClientSeconds = 1 })
	ctx := b.context()
	silent, err := net.Dial("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	// This one calls and never reads an answer.
	deaf, err := b.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	_ = deaf.(*net.UnixConn).SetReadBuffer(4096)
	b.sh(ctx, "head -c 200000 /dev/zero > f")
	if _, err := io.WriteString(deaf, "TONGS 1 RPC\n"); err != nil {
		t.Fatal(err)
	}
	dropped := false
	for i := 0; !dropped && ctx.Err() == nil; i++ {
		line := `["push",["pipeline",0,["readFile"],["f"]]]` + "\n" + `["pull",` + itoa(i+1) + `]` + "\n"
		_ = deaf.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		// A timeout says that the guest has stopped reading too.
		_, err := io.WriteString(deaf, line)
		dropped = err != nil && !isTimeout(err)
		if i%50 == 0 {
			b.sh(ctx, "true")
		}
	}
	if !dropped {
		t.Error("a client that reads nothing was kept")
	}
	_ = silent.SetReadDeadline(time.Now().Add(60 * time.Second))
	if n, err := silent.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("a client that says nothing was kept: %d, %v", n, err)
	}
	b.sh(ctx, "true")
}

// A client that is silent for longer than a slow one is waited for is no slow client.
func TestSilenceIsNotSlow(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.SlowClientSeconds = 1 })
	ctx := b.context()
	client := b.connect()
	for range 2 {
		// Answers of all sizes, some written at once, some with waiting.
		for _, size := range []int{10, 5_000, 100_000, 200_000} {
			res, err := client.Exec(ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"head", "-c", itoa(size), "/dev/zero"}}})
			if err != nil || len(res.Stdout) != size {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
		select { // the pause is what is tested
		case <-time.After(1500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if err := client.Err(); err != nil {
		t.Error(err)
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

func itoa(n int) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	answer := func(line string) func(context.Context) (net.Conn, error) {
		return func(context.Context) (net.Conn, error) {
			a, b := net.Pipe()
			go func() {
				_, _ = sandbox.ReadGreetingLine(b)
				_, _ = io.WriteString(b, line)
				b.Close()
			}()
			return a, nil
		}
	}
	for line, code := range map[string]sandbox.Code{
		"OK 2 abc\n":                        sandbox.CodeProtocolMismatch,
		"OK x abc\n":                        sandbox.CodeProtocolMismatch,
		"HTTP/1.1 400 Bad Request\r\n":      sandbox.CodeProtocolMismatch,
		"ERR SHUTTING_DOWN going\n":         sandbox.CodeShuttingDown,
		"ERR NOT_A_CODE what is this\n":     sandbox.CodeInternal,
		"":                                  sandbox.CodeConnectionLost,
		strings.Repeat("OK", 1000):          sandbox.CodeInvalidArgument,
		"ERR PROTOCOL_MISMATCH other one\n": sandbox.CodeProtocolMismatch,
	} {
		_, err := sandbox.Connect(ctx, answer(line))
		wantCode(t, err, code)
	}
	_, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", "/no/such/socket")
	})
	wantCode(t, err, sandbox.CodeConnectionLost)
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	mute, other := net.Pipe()
	defer other.Close()
	go func() { _, _ = io.Copy(io.Discard, other) }()
	if _, err := sandbox.Connect(short, func(context.Context) (net.Conn, error) { return mute, nil }); err != context.DeadlineExceeded {
		t.Errorf("error %v", err)
	}
}

// The guest ends when it is asked to, with everything in it, and tells those who
// wait.
func TestShutdown(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"bash", "-c", `trap "" TERM; echo $$ > pid; while :; do sleep 0.1; done`}})
	waitFor(ctx, t, "the command", func() bool {
		data, _, err := b.ReadFile(ctx, "pid", sandbox.ReadOptions{})
		return err == nil && len(data) > 0
	})
	daemon := b.sh(ctx, "setsid sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!")
	tool := make(chan error, 1)
	go func() {
		_, err := b.RunTool(ctx, bashCall("c", "touch tool; sleep 1000"), sandbox.ToolHooks{})
		tool <- err
	}()
	waitFor(ctx, t, "the tool", func() bool { _, err := b.Stat(ctx, "tool"); return err == nil })
	pid, _, err := b.ReadFile(ctx, "pid", sandbox.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	second := b.connect()
	defer second.Close()
	if err := second.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-tool; sandbox.CodeOf(err) != sandbox.CodeShuttingDown && sandbox.CodeOf(err) != sandbox.CodeConnectionLost {
		t.Errorf("the tool's caller got %v", err)
	}
	b.mustExit(ctx)
	mustBeGone(t, strings.TrimSpace(string(pid)))
	mustBeGone(t, strings.TrimSpace(string(daemon.Stdout)))
	_, err = b.Exec(ctx, bash("true"))
	wantCode(t, err, sandbox.CodeConnectionLost)
	wantCode(t, b.Err(), sandbox.CodeConnectionLost)
}

func TestEndsBySignal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}})
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil { // means nothing
		t.Fatal(err)
	}
	b.sh(ctx, "true")
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.mustExit(ctx)
	<-b.Done()
}

func TestLease(t *testing.T) {
	t.Parallel()
	b := launch(t, func(c *guest.Config) { c.LeaseSeconds = 1 })
	ctx := b.context()
	c := b.connect()
	if _, err := c.Exec(ctx, bash("sleep 1.5")); err != nil { // longer than the lease
		t.Fatal(err)
	}
	c.Close()
	b.mustExit(ctx)
}

// A session that breaks the rules ends alone.
func TestBrokenSession(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	conn, err := b.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "TONGS 1 RPC\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.ReadGreetingLine(conn); err != nil {
		t.Fatal(err)
	}
	s := capnweb.NewSession(capnweb.NewStreamTransport(conn, 0), nil)
	defer s.Close(nil)
	main := s.Main()
	defer main.Close()
	if _, err := capnweb.Call[any](ctx, main, "exec", "not a request"); err == nil {
		t.Error("nonsense is accepted")
	}
	if _, err := capnweb.Call[any](ctx, main, "nothing of the kind"); err == nil {
		t.Error("an unknown method is accepted")
	}
	if _, err := capnweb.Call[sandbox.GuestInfo](ctx, main, "info"); err != nil {
		t.Error(err)
	}
	b.sh(ctx, "true")
}
