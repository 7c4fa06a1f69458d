package sandboxtest

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

func testPorts(t *testing.T, h Harness) {
	cases{
		"a server is listed with its process":    listedPort,
		"opening and closing are told":           watchedPorts,
		"what is dialled carries any protocol":   dialledPort,
		"a half-closed connection still answers": halfClosed,
		"what can't be dialled says why":         refusedDials,
		"a watch outlives a given-up wait":       givenUpWatch,
	}.run(t, h)
}

// echoServer is a program that listens where its arguments say, prints the port,
// and sends back what it gets; at the end of that it ends too.
const echoServer = `
const [host, port] = process.argv.slice(1);
require("net").createServer({allowHalfOpen: true}, c => c.on("error", () => {}).pipe(c))
	.listen({host, port: Number(port)}, function () { console.log(this.address().port); });
`

// needs skips the case when a program isn't in the sandbox.
func (t *test) needs(program string) {
	t.Helper()
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{program, "--version"}}})
	if sandbox.CodeOf(err) == sandbox.CodeCommandNotFound || err == nil && !res.Exit.Success() {
		t.Skipf("the sandbox has no %s", program)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts an echo server and returns its process's id and port.
func (t *test) serve(host string) (string, int) {
	t.Helper()
	t.needs("node")
	return t.listener("node", "-e", echoServer, host, "0")
}

// listener starts a program that prints the port it listens on.
func (t *test) listener(argv ...string) (string, int) {
	t.Helper()
	p, err := t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: argv})
	if err != nil {
		t.Fatal(err)
	}
	out, err := t.box.Output(t.ctx, p.ID, sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var said []byte
	for {
		_, data, _, err := out.Next(t.ctx)
		said = append(said, data...)
		if i := bytes.IndexByte(said, '\n'); i >= 0 {
			if port, perr := strconv.Atoi(string(said[:i])); perr == nil {
				return p.ID, port
			}
			t.Fatalf("the server printed %q", said)
		}
		if err != nil {
			t.Fatalf("the server ended: %v, having printed %q", err, said)
		}
	}
}

func listedPort(t *test) {
	id, port := t.serve("127.0.0.1")
	ports, err := t.box.ListPorts(t.ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := t.box.Get(t.ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	last := sandbox.PortInfo{}
	for _, got := range ports {
		if got.Port < last.Port {
			t.Errorf("port %d comes after %d", got.Port, last.Port)
		}
		last = got
		if got.Port != port {
			continue
		}
		found++
		want := sandbox.PortInfo{Port: port, Address: "127.0.0.1", PID: p.PID, Process: id}
		if t.h.OwnKernel {
			want.PID, want.Process = 0, ""
		}
		if got != want {
			t.Errorf("listed as %+v, want %+v", got, want)
		}
	}
	if found != 1 {
		t.Errorf("port %d is listed %d times in %+v", port, found, ports)
	}
}

// event waits for an event about the port; another sandbox's are passed over where
// the harness has no network of its own.
func (t *test) event(w sandbox.PortWatch, kind sandbox.PortEventKind, port int) sandbox.PortEvent {
	t.Helper()
	for {
		e, err := w.Next(t.ctx)
		if err != nil {
			t.Fatalf("waiting for %s of port %d: %v", kind, port, err)
		}
		if e.Port == port && e.Kind == kind {
			return e
		}
		if e.Port == port {
			t.Fatalf("event %+v, want %s", e, kind)
		}
	}
}

// owner is the process that the sandbox says listens, where it is id.
func (t *test) owner(id string) string {
	if t.h.OwnKernel {
		return ""
	}
	return id
}

func watchedPorts(t *test) {
	early, earlyPort := t.serve("127.0.0.1")
	w, err := t.box.WatchPorts(t.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e := t.event(w, sandbox.PortOpened, earlyPort); e.Process != t.owner(early) {
		t.Errorf("the port that was there is %+v", e)
	}
	t.event(w, sandbox.PortsReady, 0)
	late, latePort := t.serve("0.0.0.0")
	if e := t.event(w, sandbox.PortOpened, latePort); e.Process != t.owner(late) || e.Address != "0.0.0.0" {
		t.Errorf("the new port is %+v", e)
	}
	if err := t.box.Kill(t.ctx, early); err != nil {
		t.Fatal(err)
	}
	t.event(w, sandbox.PortClosed, earlyPort)
	if err := t.box.Kill(t.ctx, late); err != nil {
		t.Fatal(err)
	}
	t.event(w, sandbox.PortClosed, latePort)
}

func givenUpWatch(t *test) {
	w, err := t.box.WatchPorts(t.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	t.event(w, sandbox.PortsReady, 0)
	gone, cancel := context.WithCancel(t.ctx)
	cancel()
	for {
		_, err := w.Next(gone)
		if err == context.Canceled {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, port := t.serve("127.0.0.1")
	t.event(w, sandbox.PortOpened, port)
}

func dialledPort(t *test) {
	_, port := t.serve("127.0.0.1")
	c, err := t.box.DialPort(t.ctx, port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	data := bytes.Repeat([]byte{0, 255, '\n', 'x'}, 1<<18)
	go func() { _, _ = c.Write(data) }()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the bytes came back otherwise, %v", err)
	}
}

func halfClosed(t *test) {
	_, port := t.serve("127.0.0.1")
	c, err := t.box.Dial(t.ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Skip("connections of this transport have no half to close")
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "the end"); err != nil {
		t.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "the end" {
		t.Errorf("%q, %v", got, err)
	}
}

func refusedDials(t *test) {
	for _, bad := range []struct {
		network, address string
		code             sandbox.Code
	}{
		{"tcp", "127.0.0.1:1", sandbox.CodeServiceNotResponding},
		{"tcp", "0", sandbox.CodeInvalidPort},
		{"tcp", "70000", sandbox.CodeInvalidPort},
		{"tcp", "ssh", sandbox.CodeInvalidPort},
		{"tcp", "192.0.2.1:80", sandbox.CodeInvalidArgument},
		{"tcp", "example.com:80", sandbox.CodeInvalidArgument},
		{"udp", "53", sandbox.CodeNotSupported},
		{"unix", "no-such-socket", sandbox.CodeFileNotFound},
	} {
		_, err := t.box.Dial(t.ctx, bad.network, bad.address)
		if sandbox.CodeOf(err) != bad.code {
			t.Errorf("%s %s: %v, want %s", bad.network, bad.address, err, bad.code)
		}
		if err != nil && strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%s %s: the error says nothing", bad.network, bad.address)
		}
	}
}
