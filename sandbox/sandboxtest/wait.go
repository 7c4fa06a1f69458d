package sandboxtest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

var waitCases = cases{
	"a line is waited for":               waitedLine,
	"a line of one stream, and a prompt": waitedPrompt,
	"a line that does not come":          missingLine,
	"waiting for a line takes nothing":   waitTakesNothing,
	"what can't be waited for says why":  refusedWaits,
	"a port is waited for":               waitedPort,
	"a port that does not open":          missingPort,
	"an HTTP answer is waited for":       waitedHTTP,
}

func waitedLine(t *test) {
	spec := bash(`echo one; printf 'listening on \xff port 3000\r\n'; read -r line; echo "two $line"; printf 'no end'`)
	spec.ID, spec.Stdin = "talks", true
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	first, err := t.box.WaitLog(t.ctx, "talks", sandbox.LogWait{Pattern: `^listening on (.) (port) (\d+)(never)?$`})
	t.ok(err)
	want := &sandbox.LogMatch{Line: "listening on \uFFFD port 3000", Groups: []string{"listening on \uFFFD port 3000", "\uFFFD", "port", "3000", ""},
		Stream: sandbox.Stdout, Offset: 4, End: 4 + int64(len("listening on \xff port 3000\r\n"))}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// It is there already; further on it isn't.
	again, err := t.box.WaitLog(t.ctx, "talks", sandbox.LogWait{Text: "listening"})
	t.ok(err)
	if again.Offset != first.Offset || again.Groups != nil {
		t.Errorf("again: %+v", again)
	}
	later := make(chan *sandbox.LogMatch, 1)
	failed := make(chan error, 1)
	go func() {
		m, err := t.box.WaitLog(t.ctx, "talks", sandbox.LogWait{Pattern: `^\w+ (\w+)`, Offset: first.End})
		failed <- err
		later <- m
	}()
	w, err := t.box.Stdin(t.ctx, "talks")
	t.ok(err)
	_, err = w.Write([]byte("three\n"))
	t.ok(err)
	t.ok(<-failed)
	if m := <-later; m.Line != "two three" || m.Groups[1] != "three" || m.Offset != first.End {
		t.Errorf("later: %+v", m)
	}
	// The end makes a line of what has none.
	last, err := t.box.WaitLog(t.ctx, "talks", sandbox.LogWait{Pattern: `end$`})
	t.ok(err)
	if last.Line != "no end" {
		t.Errorf("last: %+v", last)
	}
}

func waitedPrompt(t *test) {
	spec := bash(`echo password on stdout; printf pass >&2; echo between; printf 'word: ' >&2; read -r line`)
	spec.ID, spec.Stdin = "asks", true
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	m, err := t.box.WaitLog(t.ctx, "asks", sandbox.LogWait{Text: "password: ", Stream: sandbox.Stderr})
	t.ok(err)
	if m.Line != "password: " || m.Stream != sandbox.Stderr {
		t.Errorf("%+v", m)
	}
	// A very long line, of which the beginning is looked at.
	spec = bash(`printf 'start '; head -c 1000000 /dev/zero | tr '\0' x; echo ' stop'; echo after`)
	spec.ID = "long"
	_, err = t.box.Start(t.ctx, spec)
	t.ok(err)
	m, err = t.box.WaitLog(t.ctx, "long", sandbox.LogWait{Pattern: `^start x+`})
	t.ok(err)
	if len(m.Line) != sandbox.MaxLineBytes || m.End-m.Offset != 1000000+int64(len("start  stop\n")) {
		t.Errorf("%d bytes of a line from %d to %d", len(m.Line), m.Offset, m.End)
	}
	if m, err = t.box.WaitLog(t.ctx, "long", sandbox.LogWait{Text: "after", Offset: m.End}); err != nil || m.Line != "after" {
		t.Errorf("after it: %+v, %v", m, err)
	}
}

func missingLine(t *test) {
	spec := bash("echo something else; sleep 1000")
	spec.ID = "silent"
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	_, err = t.box.WaitLog(t.ctx, "silent", sandbox.LogWait{Text: "ready", Timeout: 50 * time.Millisecond})
	t.wantCode(err, sandbox.CodeReadyTimeout)
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err = t.box.WaitLog(ctx, "silent", sandbox.LogWait{Text: "ready"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the context: %v", err)
	}
	if in, err := t.box.Get(t.ctx, "silent"); err != nil || !in.Running {
		t.Errorf("the wait's end was the process's: %+v, %v", in, err)
	}
	failed := make(chan error, 1)
	go func() { failed <- failure(t.box.WaitLog(t.ctx, "silent", sandbox.LogWait{Pattern: "^ready"})) }()
	t.ok(t.box.Kill(t.ctx, "silent"))
	err = <-failed
	t.wantCode(err, sandbox.CodeExitedBeforeReady)
	if err != nil && !strings.Contains(err.Error(), "SIGTERM") {
		t.Errorf("%q does not say how it ended", err)
	}
}

// waitTakesNothing has somebody wait on a lossless log that somebody else reads.
func waitTakesNothing(t *test) {
	const n = 50_000
	spec := bash("read -r line; " + counted(n) + "; echo ready")
	spec.ID, spec.Stdin, spec.Mode, spec.LogBytes = "both", true, sandbox.Lossless, 16<<10
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	failed := make(chan error, 1)
	go func() { failed <- failure(t.box.WaitLog(t.ctx, "both", sandbox.LogWait{Text: "ready"})) }()
	w, err := t.box.Stdin(t.ctx, "both")
	t.ok(err)
	_, err = w.Write([]byte("\n"))
	t.ok(err)
	out, err := t.box.Output(t.ctx, "both", sandbox.OutputOptions{Follow: true})
	t.ok(err)
	defer out.Close()
	if got, dropped := t.rest(out); got != countedLines(n)+"ready\n" || dropped != 0 {
		t.Errorf("the reader got %d bytes, %d dropped", len(got), dropped)
	}
	// What the reader has taken before the wait saw it is gone for that one.
	if err := <-failed; err != nil {
		t.wantCode(err, sandbox.CodeExitedBeforeReady)
	}
}

func refusedWaits(t *test) {
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "p", Argv: []string{"sleep", "1000"}})
	t.ok(err)
	for _, want := range []sandbox.LogWait{
		{}, {Text: "a", Pattern: "b"}, {Pattern: "("}, {Pattern: "(?=x)"}, {Text: "a\nb"}, {Text: strings.Repeat("x", sandbox.MaxPatternBytes+1)},
		{Text: "a", Offset: -1}, {Text: "a", Stream: 3}, {Text: "a", Timeout: -1 * time.Second}, {Pattern: "((a{1000}){1000}){1000}"},
	} {
		_, err := t.box.WaitLog(t.ctx, "p", want)
		t.wantCode(err, sandbox.CodeInvalidArgument)
	}
	for _, port := range []int{-1, 0, 65536} {
		_, err := t.box.WaitPort(t.ctx, "p", port, sandbox.PortWait{})
		t.wantCode(err, sandbox.CodeInvalidPort)
	}
	for _, want := range []sandbox.PortWait{
		{Path: "x"}, {Path: "/a b"}, {Path: "/\r\nX: y"}, {Path: "/" + strings.Repeat("x", sandbox.MaxPatternBytes)}, {Path: "/", MinStatus: 99}, {Path: "/", MinStatus: 300, MaxStatus: 200}, {Path: "/", MinStatus: 600},
	} {
		_, err := t.box.WaitPort(t.ctx, "p", 3000, want)
		t.wantCode(err, sandbox.CodeInvalidArgument)
	}
	t.answers()
}

// lateServer prints a port that is free, begins to listen there when it gets a
// line, and answers HTTP with the statuses that further lines name.
const lateServer = `
const net = require("net"), http = require("http");
const probe = net.createServer().listen(0, "127.0.0.1", () => {
	const port = probe.address().port;
	probe.close(() => {
		console.log("port " + port);
		let status = 0, server;
		require("readline").createInterface({input: process.stdin}).on("line", line => {
			if (line === "listen") (server = http.createServer((q, a) => {
				if (status === 0) return q.socket.destroy();
				a.writeEarlyHints?.({link: "</x>; rel=preload"});
				a.statusCode = status;
				a.end(q.method + q.url);
				console.log("asked " + q.url + " " + status);
			})).listen(port, "127.0.0.1", () => console.log("listening"));
			else if (line === "exit") process.exit(3);
			else status = Number(line);
		});
	});
});`

// late starts the server and gives its port, and a way to talk to it.
func (t *test) late() (port int, say func(string)) {
	t.Helper()
	t.needs("node")
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "server", Argv: []string{"node", "-e", lateServer}, Stdin: true})
	t.ok(err)
	m, err := t.box.WaitLog(t.ctx, "server", sandbox.LogWait{Pattern: `^port (\d+)$`})
	t.ok(err)
	port, err = strconv.Atoi(m.Groups[1])
	t.ok(err)
	w, err := t.box.Stdin(t.ctx, "server")
	t.ok(err)
	return port, func(line string) {
		t.Helper()
		_, err := w.Write([]byte(line + "\n"))
		t.ok(err)
	}
}

func waitedPort(t *test) {
	port, say := t.late()
	_, err := t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{Timeout: 100 * time.Millisecond})
	t.wantCode(err, sandbox.CodeReadyTimeout)
	failed := make(chan error, 1)
	var ready *sandbox.PortReady
	go func() {
		var err error
		ready, err = t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{})
		failed <- err
	}()
	say("listen")
	t.ok(<-failed)
	if ready.Address != "127.0.0.1:"+strconv.Itoa(port) || ready.Status != 0 {
		t.Errorf("%+v", ready)
	}
	ready, err = t.box.WaitPort(t.ctx, "", port, sandbox.PortWait{}) // of no process
	t.ok(err)
	if ready.Address == "" {
		t.Errorf("%+v", ready)
	}
}

func missingPort(t *test) {
	port, say := t.late()
	failed := make(chan error, 1)
	go func() { failed <- failure(t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{})) }()
	say("exit")
	err := <-failed
	t.wantCode(err, sandbox.CodeExitedBeforeReady)
	if err != nil && !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("%q does not say how it ended", err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := t.box.WaitPort(ctx, "", port, sandbox.PortWait{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the context: %v", err)
	}
}

func waitedHTTP(t *test) {
	port, say := t.late()
	say("listen")
	_, err := t.box.WaitLog(t.ctx, "server", sandbox.LogWait{Text: "listening"})
	t.ok(err)
	// It hangs up on whoever asks.
	_, err = t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{Path: "/", Timeout: 200 * time.Millisecond})
	t.wantCode(err, sandbox.CodeReadyTimeout)
	failed := make(chan error, 1)
	var ready *sandbox.PortReady
	go func() {
		var err error
		ready, err = t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{Path: "/health?x=1"})
		failed <- err
	}()
	say("503")
	_, err = t.box.WaitLog(t.ctx, "server", sandbox.LogWait{Text: "asked /health?x=1 503"})
	t.ok(err)
	say("204")
	t.ok(<-failed)
	if ready.Status != 204 {
		t.Errorf("%+v", ready)
	}
	say("404")
	ready, err = t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{Path: "/", MinStatus: 404})
	t.ok(err)
	if ready.Status != 404 {
		t.Errorf("%+v", ready)
	}
	_, err = t.box.WaitPort(t.ctx, "server", port, sandbox.PortWait{Path: "/", Timeout: 3 * time.Second})
	t.wantCode(err, sandbox.CodeReadyTimeout)
	if err != nil && !strings.Contains(err.Error(), "404") {
		t.Errorf("%q does not say what came", err)
	}
}
