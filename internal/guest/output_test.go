package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/guest"
	"github.com/tongs-dev/tongs/sandbox"
)

// read takes at least n bytes of a log, or all of it when n is negative.
func read(ctx context.Context, t *testing.T, o sandbox.Output, n int) (data []byte, dropped int64) {
	t.Helper()
	for n < 0 || len(data) < n {
		_, b, d, err := o.Next(ctx)
		dropped += d
		data = append(data, b...)
		if errors.Is(err, io.EOF) {
			if n >= 0 {
				t.Errorf("the log ends after %d bytes", len(data))
			}
			return data, dropped
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(data), err)
		}
	}
	return data, dropped
}

// numbers is what `seq n` prints.
func numbers(n int) []byte {
	var b bytes.Buffer
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.Bytes()
}

func start(ctx context.Context, t *testing.T, b *box, spec sandbox.ProcessSpec) *sandbox.ProcessInfo {
	t.Helper()
	in, err := b.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func output(ctx context.Context, t *testing.T, c *sandbox.Client, id string, opts sandbox.OutputOptions) sandbox.Output {
	t.Helper()
	o, err := c.Output(ctx, id, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// A lossless command waits for its reader, and goes on from the cursor with the
// next one: no byte is missing or doubled, though the client was killed in the
// middle of a stream.
func TestLosslessOverBrokenConnections(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	const n = 400_000
	start(ctx, t, b, sandbox.ProcessSpec{ID: "seq", Argv: []string{"seq", fmt.Sprint(n)}, Mode: sandbox.Lossless, LogBytes: 64 << 10})
	want := numbers(n)
	var got []byte
	for round := 0; len(got) < len(want); round++ {
		// Each round is a client of its own, cut off after some bytes.
		var conns []net.Conn
		c, err := sandbox.Connect(ctx, func(ctx context.Context) (net.Conn, error) {
			conn, err := b.dial(ctx)
			if err == nil {
				conns = append(conns, conn)
			}
			return conn, err
		})
		if err != nil {
			t.Fatal(err)
		}
		o, err := c.Output(ctx, "seq", sandbox.OutputOptions{Offset: int64(len(got)), Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		for stop := len(got) + 300_000; len(got) < stop; {
			_, data, dropped, err := o.Next(ctx)
			got = append(got, data...)
			if dropped != 0 {
				t.Fatalf("%d bytes were dropped", dropped)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if int64(len(got)) != o.Offset() {
			t.Fatalf("offset %d after %d bytes", o.Offset(), len(got))
		}
		for _, conn := range conns {
			conn.Close()
		}
		<-c.Done()
		wantCode(t, c.Err(), sandbox.CodeConnectionLost)
		c.Close()
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the bytes differ: %d, want %d", len(got), len(want))
	}
	in, err := b.Wait(ctx, "seq")
	if err != nil || !in.Exit.Success() {
		t.Errorf("%+v, %v", in, err)
	}
}

// A log that is full of marks has few bytes. Its reader confirms them all the same, and the command
// goes on.
func TestLosslessOfAlternatingStreams(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	const n = 2000
	script := fmt.Sprintf("for ((i = 0; i < %d; i++)); do printf o; printf e >&2; done", n)
	start(ctx, t, b, sandbox.ProcessSpec{ID: "both", Argv: []string{"bash", "-c", script}, Mode: sandbox.Lossless, LogBytes: 8 << 10})
	o, err := b.Output(ctx, "both", sandbox.OutputOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	count := map[sandbox.Stream]int{}
	for {
		stream, data, dropped, err := o.Next(ctx)
		count[stream] += len(data)
		if dropped != 0 {
			t.Fatalf("%d bytes were dropped", dropped)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if count[sandbox.Stdout] != n || count[sandbox.Stderr] != n {
		t.Errorf("%d and %d bytes, want %d of each", count[sandbox.Stdout], count[sandbox.Stderr], n)
	}
}

// The command really waits: while nobody reads, it writes no more than its log
// and its pipe hold.
func TestLosslessWaitsForItsReader(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	spec := sandbox.ProcessSpec{Mode: sandbox.Lossless, LogBytes: 8 << 10, Argv: []string{"bash", "-c", "head -c 300000 /dev/zero; touch finished"}}
	in := start(ctx, t, b, spec)
	waitFor(ctx, t, "a full log", func() bool {
		now, err := b.Get(ctx, in.ID)
		return err == nil && now.LogEnd-now.LogStart >= 8<<10-64
	})
	b.sh(ctx, "sleep 0.2") // time in which it could go wrong
	if _, err := os.Stat(b.path("finished")); err == nil {
		t.Error("the command did not wait")
	}
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	if data, dropped := read(ctx, t, o, -1); len(data) != 300000 || dropped != 0 {
		t.Errorf("%d bytes, %d dropped", len(data), dropped)
	}
	if _, err := os.Stat(b.path("finished")); err != nil {
		t.Error(err)
	}
	if o.Info() == nil || o.Info().Exit == nil || o.Info().Running {
		t.Errorf("info %+v", o.Info())
	}
}

// A command whose reader never comes back goes on after a while.
func TestLosslessOrphanGoesOn(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.OrphanSeconds = 1 })
	ctx := b.context()
	in := start(ctx, t, b, sandbox.ProcessSpec{Mode: sandbox.Lossless, LogBytes: 8 << 10, Argv: []string{"bash", "-c", "head -c 300000 /dev/zero; echo last"}})
	end, err := b.Wait(ctx, in.ID)
	if err != nil || !end.Exit.Success() {
		t.Fatalf("%+v, %v", end, err)
	}
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	data, dropped := read(ctx, t, o, -1)
	if int64(len(data))+dropped != 300005 || dropped == 0 || !bytes.HasSuffix(data, []byte("last\n")) {
		t.Errorf("%d bytes, %d dropped", len(data), dropped)
	}
}

// A following log never makes the command wait, is bounded, and says what a late
// reader missed.
func TestFollow(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	in := start(ctx, t, b, sandbox.ProcessSpec{LogBytes: 64 << 10, Argv: []string{"seq", "1000000"}})
	if in.Mode != sandbox.Follow {
		t.Errorf("mode %q", in.Mode)
	}
	end, err := b.Wait(ctx, in.ID)
	if err != nil || !end.Exit.Success() {
		t.Fatalf("%+v, %v", end, err)
	}
	want := numbers(1_000_000)
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	data, dropped := read(ctx, t, o, -1)
	if int64(len(data))+dropped != int64(len(want)) || len(data) > 96<<10 || len(data) < 32<<10 {
		t.Errorf("%d bytes and %d dropped, of %d", len(data), dropped, len(want))
	}
	if !bytes.HasSuffix(want, data) {
		t.Error("what is left is not the end")
	}
}

// Without Follow reading ends at what there is.
func TestOutputWithoutFollowing(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	in := start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"bash", "-c", "echo one; exec sleep 1000"}})
	waitFor(ctx, t, "output", func() bool {
		now, err := b.Get(ctx, in.ID)
		return err == nil && now.LogEnd > 0
	})
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{})
	if data, _ := read(ctx, t, o, -1); string(data) != "one\n" {
		t.Errorf("output %q", data)
	}
	if o.Info() == nil || !o.Info().Running {
		t.Errorf("info %+v", o.Info())
	}
	o = output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Offset: 1, Follow: true})
	if data, _ := read(ctx, t, o, 3); string(data) != "ne\n" {
		t.Errorf("output %q", data)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, _, _, err := o.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	_, err := b.Output(ctx, in.ID, sandbox.OutputOptions{Offset: -1})
	wantCode(t, err, sandbox.CodeInvalidArgument)
	_, err = b.Output(ctx, "nobody", sandbox.OutputOptions{})
	wantCode(t, err, sandbox.CodeProcessNotFound)
}

// A client that stops reading a stream holds up neither the guest nor, in Follow
// mode, its command.
func TestReaderThatStops(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	in := start(ctx, t, b, sandbox.ProcessSpec{LogBytes: 64 << 10, Argv: []string{"bash", "-c", "read; seq 3000000; echo end"}, Stdin: true})
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	w, err := b.Stdin(ctx, in.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	read(ctx, t, o, 1)
	if end, err := b.Wait(ctx, in.ID); err != nil || !end.Exit.Success() {
		t.Fatalf("%+v, %v", end, err)
	}
	data, dropped := read(ctx, t, o, -1)
	if dropped == 0 || !bytes.HasSuffix(data, []byte("end\n")) {
		t.Errorf("%d bytes, %d dropped", len(data), dropped)
	}
}

func TestStdin(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	in := start(ctx, t, b, sandbox.ProcessSpec{ID: "cat", Argv: []string{"cat"}, Stdin: true})
	first, err := b.Stdin(ctx, in.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Write([]byte("one ")); err != nil {
		t.Fatal(err)
	}
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	if data, _ := read(ctx, t, o, 4); string(data) != "one " {
		t.Errorf("output %q", data)
	}
	// A second writer takes over, and the first is told.
	second, err := b.Stdin(ctx, in.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Write([]byte("two")); err != nil {
		t.Fatal(err)
	}
	if data, _ := read(ctx, t, o, 3); string(data) != "two" {
		t.Errorf("output %q", data)
	}
	waitFor(ctx, t, "the first writer to fail", func() bool {
		_, err := first.Write([]byte("x"))
		return err != nil
	})
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if data, _ := read(ctx, t, o, -1); len(data) != 0 {
		t.Errorf("output %q", data)
	}
	_, err = b.Stdin(ctx, in.ID)
	if err == nil {
		t.Error("the input of an ended process could be opened")
	}
	none := start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}})
	_, err = b.Stdin(ctx, none.ID)
	wantCode(t, err, sandbox.CodeStdinClosed)

	// A command that doesn't read: writing more than its pipe holds ends
	// with the command.
	deaf := start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}, Stdin: true})
	w, err := b.Stdin(ctx, deaf.ID)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { _ = b.Kill(ctx, deaf.ID) })
	for err == nil {
		_, err = w.Write(make([]byte, 1<<20))
	}
	w.Close()
	wantCode(t, err, sandbox.CodeStdinClosed)
}

func TestSignals(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	spec := sandbox.ProcessSpec{ID: "trap", Labels: map[string]string{"a": "b"},
		Argv: []string{"bash", "-c", `trap 'echo usr1' USR1; trap 'echo int; exit 9' INT; echo ready; while :; do sleep 0.05; done`}}
	start(ctx, t, b, spec)
	_, err := b.Start(ctx, spec)
	wantCode(t, err, sandbox.CodeProcessExists)
	o := output(ctx, t, b.Client, "trap", sandbox.OutputOptions{Follow: true})
	read(ctx, t, o, len("ready\n"))
	if err := b.Signal(ctx, "trap", "USR1"); err != nil {
		t.Fatal(err)
	}
	// The group is signalled: bash says of what its sleep has died, too.
	for seen := ""; !strings.Contains(seen, "usr1\n"); {
		data, _ := read(ctx, t, o, 1)
		seen += string(data)
	}
	wantCode(t, b.Signal(ctx, "trap", "SIGNONSENSE"), sandbox.CodeInvalidArgument)
	wantCode(t, b.Signal(ctx, "other", "TERM"), sandbox.CodeProcessNotFound)
	if err := b.Signal(ctx, "trap", "2"); err != nil {
		t.Fatal(err)
	}
	in, err := b.Wait(ctx, "trap")
	if err != nil || in.Exit.Code != 9 || in.Running || in.Ended.IsZero() || in.Labels["a"] != "b" {
		t.Errorf("%+v, %v", in, err)
	}
	wantCode(t, b.Signal(ctx, "trap", "TERM"), sandbox.CodeProcessExited)
	if err := b.Kill(ctx, "trap"); err != nil {
		t.Errorf("kill of an ended process: %v", err)
	}
	if err := b.Remove(ctx, "trap"); err != nil {
		t.Error(err)
	}
	_, err = b.Get(ctx, "trap")
	wantCode(t, err, sandbox.CodeProcessNotFound)

	// A stopped command hears its kill.
	start(ctx, t, b, sandbox.ProcessSpec{ID: "stopped", Argv: []string{"sleep", "1000"}})
	if err := b.Signal(ctx, "stopped", "STOP"); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(ctx, "stopped"); err != nil {
		t.Fatal(err)
	}
	if in, err := b.Wait(ctx, "stopped"); err != nil || in.Exit.Signal != "SIGTERM" || !in.Exit.Killed {
		t.Errorf("%+v, %v", in, err)
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	size := &sandbox.TerminalSize{Columns: 91, Rows: 33}
	in := start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"bash", "-c", `stty size; tty; test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; stty size; echo "got $line"`}, Terminal: size})
	o := output(ctx, t, b.Client, in.ID, sandbox.OutputOptions{Follow: true})
	var seen strings.Builder
	until := func(what string) {
		t.Helper()
		for !strings.Contains(seen.String(), what) {
			_, data, _, err := o.Next(ctx)
			seen.Write(data)
			if err != nil {
				t.Fatalf("no %q in %q: %v", what, seen.String(), err)
			}
		}
	}
	until("33 91")
	until("/dev/pts/")
	until("terminal")
	if err := b.Resize(ctx, in.ID, sandbox.TerminalSize{Columns: 50, Rows: 20}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.Resize(ctx, in.ID, sandbox.TerminalSize{}), sandbox.CodeInvalidArgument)
	w, err := b.Stdin(ctx, in.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	until("20 50")
	until("got hello")
	if end, err := b.Wait(ctx, in.ID); err != nil || !end.Exit.Success() {
		t.Errorf("%+v, %v", end, err)
	}
	plain := start(ctx, t, b, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}})
	wantCode(t, b.Resize(ctx, plain.ID, sandbox.TerminalSize{Columns: 1, Rows: 1}), sandbox.CodeNotSupported)
}

func TestRun(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ctx := b.context()
	var out, errOut bytes.Buffer
	exit, err := b.Run(ctx, sandbox.ProcessSpec{Argv: []string{"bash", "-c", "tr a-z A-Z; echo err >&2; exit 4"}}, strings.NewReader("input"), &out, &errOut)
	if err != nil || exit.Code != 4 || out.String() != "INPUT" || errOut.String() != "err\n" {
		t.Errorf("%+v, %v, %q, %q", exit, err, out.String(), errOut.String())
	}
	broken := errors.New("disk full here")
	_, err = b.Run(ctx, sandbox.ProcessSpec{Argv: []string{"yes"}}, nil, writerFunc(func([]byte) (int, error) { return 0, broken }), nil)
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if _, err := b.Run(short, sandbox.ProcessSpec{Argv: []string{"sleep", "1000"}}, nil, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	waitFor(ctx, t, "all to end", func() bool {
		in, err := b.Info(ctx)
		return err == nil && in.Processes == 0
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// waitFor asks again and again, for what has no event of its own.
func waitFor(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("there was no %s", what)
		}
	}
}

// Ended processes are forgotten by number.
func TestFinishedProcessesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(c *guest.Config) { c.Limits.FinishedProcesses = 5 })
	ctx := b.context()
	for i := range 12 {
		in := start(ctx, t, b, sandbox.ProcessSpec{ID: fmt.Sprint("n", i), Argv: []string{"true"}})
		if _, err := b.Wait(ctx, in.ID); err != nil && sandbox.CodeOf(err) != sandbox.CodeProcessNotFound {
			t.Fatal(err)
		}
	}
	waitFor(ctx, t, "forgetting", func() bool {
		all, err := b.List(ctx)
		return err == nil && len(all) == 5
	})
	if _, err := b.Get(ctx, "n11"); err != nil {
		t.Error(err)
	}
}
