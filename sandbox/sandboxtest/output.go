package sandboxtest

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tongs-dev/tongs/sandbox"
)

var outputCases = cases{
	"every byte comes through":               everyByte,
	"streams apart, or together in order":    streams,
	"output beyond its bound is counted":     outputBound,
	"a following log forgets its oldest":     followBound,
	"a lossless log waits and loses nothing": lossless,
	"a reader that leaves ends nothing":      readerLeaves,
	"a log is read again from any offset":    readAgain,
	"run passes streams through":             runStreams,
}

// rest reads a log to its end.
func (t *test) rest(out sandbox.Output) (all string, dropped int64) {
	t.Helper()
	var b strings.Builder
	for {
		_, data, d, err := out.Next(t.ctx)
		b.Write(data)
		dropped += d
		if errors.Is(err, io.EOF) {
			return b.String(), dropped
		}
		t.ok(err)
	}
}

func everyByte(t *test) {
	script := `for i in {0..255}; do printf "\\x$(printf %x "$i")"; done; printf 'no end'`
	var want strings.Builder
	for i := range 256 {
		want.WriteByte(byte(i))
	}
	want.WriteString("no end")
	if got := t.out(script); got != want.String() {
		t.Errorf("%q", got)
	}
	// The same by way of the log, in pieces.
	_, err := t.box.Start(t.ctx, sandbox.ProcessSpec{ID: "bytes", Argv: []string{"bash", "-c", script}})
	t.ok(err)
	out, err := t.box.Output(t.ctx, "bytes", sandbox.OutputOptions{Follow: true})
	t.ok(err)
	defer out.Close()
	if got, dropped := t.rest(out); got != want.String() || dropped != 0 {
		t.Errorf("log: %q, %d dropped", got, dropped)
	}
	for _, odd := range []string{"", "\n", "\n\n", "x", "\xff\xfe\x00", "a\r\nb\r"} {
		res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"cat"}}, Input: []byte(odd)})
		t.ok(err)
		if string(res.Stdout) != odd {
			t.Errorf("%q came back as %q", odd, res.Stdout)
		}
	}
}

func streams(t *test) {
	spec := bash("for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done")
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if string(res.Stdout) != "out 1\nout 2\nout 3\nout 4\nout 5\n" || string(res.Stderr) != "err 1\nerr 2\nerr 3\nerr 4\nerr 5\n" {
		t.Errorf("apart: %q %q", res.Stdout, res.Stderr)
	}
	spec.Merge = true
	res, err = t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if want := "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\nout 5\nerr 5\n"; string(res.Stdout) != want || len(res.Stderr) != 0 {
		t.Errorf("together: %q %q", res.Stdout, res.Stderr)
	}
}

// counted prints n lines of nine bytes each.
func counted(n int) string { return fmt.Sprintf("seq -f %%08.0f %d", n) }

func countedLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%08d\n", i+1)
	}
	return b.String()
}

func outputBound(t *test) {
	const n = 200_000
	for _, bound := range []int64{1, 1000, sandbox.InlineBytes, 1 << 20, 9 * n, 0} {
		res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: bash(counted(n)), MaxOutput: bound})
		t.ok(err)
		kept := int64(9 * n)
		if bound > 0 {
			kept = min(kept, bound)
		}
		if !res.Exit.Success() || res.Total != 9*n || res.Truncated != (kept < 9*n) || int64(len(res.Stdout)) != kept || string(res.Stdout) != countedLines(n)[:kept] {
			t.Errorf("bound %d: %+v, total %d, %d kept, truncated %v", bound, res.Exit, res.Total, len(res.Stdout), res.Truncated)
		}
	}
}

func followBound(t *test) {
	const n = 100_000
	spec := bash(counted(n))
	spec.ID, spec.LogBytes = "noisy", 64<<10
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	in, err := t.box.Wait(t.ctx, "noisy") // nobody reads, and it ends
	t.ok(err)
	if !in.Exit.Success() {
		t.Errorf("exit %+v", in.Exit)
	}
	out, err := t.box.Output(t.ctx, "noisy", sandbox.OutputOptions{Follow: true})
	t.ok(err)
	defer out.Close()
	got, dropped := t.rest(out)
	// The command has ended, and what it left in its pipe may still come in while the log is read.
	if dropped == 0 || dropped+int64(len(got)) != 9*n || got != countedLines(n)[dropped:] || out.Info().LogStart < dropped {
		t.Errorf("%d bytes came, %d dropped of %d, the log begins at %d", len(got), dropped, 9*n, out.Info().LogStart)
	}
}

func lossless(t *test) {
	const n = 300_000
	spec := bash(counted(n) + "; echo end >&2")
	spec.ID, spec.Mode, spec.LogBytes = "whole", sandbox.Lossless, 16<<10
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	var got, last string
	offset := int64(0)
	// Readers break off in the middle again and again.
	for limit := 1000; ; limit *= 3 {
		out, err := t.box.Output(t.ctx, "whole", sandbox.OutputOptions{Offset: offset, Follow: true})
		t.ok(err)
		seen := 0
		for seen < limit {
			stream, data, dropped, nerr := out.Next(t.ctx)
			if dropped > 0 {
				t.Fatalf("%d bytes dropped at %d", dropped, offset)
			}
			if stream == sandbox.Stderr {
				last += string(data)
			} else {
				got += string(data)
			}
			seen += len(data)
			if err = nerr; err != nil {
				break
			}
		}
		offset = out.Offset()
		info := out.Info()
		t.ok(out.Close())
		if errors.Is(err, io.EOF) {
			if !info.Exit.Success() {
				t.Errorf("exit %+v", info.Exit)
			}
			break
		}
		t.ok(err)
	}
	if got != countedLines(n) || last != "end\n" {
		t.Errorf("%d bytes of %d, then %q", len(got), 9*n, last)
	}
}

func readerLeaves(t *test) {
	for _, mode := range []sandbox.Mode{sandbox.Follow, sandbox.Lossless} {
		spec := bash("echo first; read -r line; " + counted(1000) + "; exit 5")
		spec.Mode, spec.Stdin = mode, true
		in, err := t.box.Start(t.ctx, spec)
		t.ok(err)
		out, err := t.box.Output(t.ctx, in.ID, sandbox.OutputOptions{Follow: true})
		t.ok(err)
		_, data, _, err := out.Next(t.ctx)
		t.ok(err)
		t.ok(out.Close())
		w, err := t.box.Stdin(t.ctx, in.ID)
		t.ok(err)
		_, err = w.Write([]byte("go\n"))
		t.ok(err)
		if in, err = t.box.Wait(t.ctx, in.ID); err != nil || in.Exit.Code != 5 {
			t.Errorf("%s: %+v, %v, having read %q", mode, in, err, data)
		}
	}
}

func readAgain(t *test) {
	const n = 2000
	spec := bash(counted(n))
	spec.ID = "again"
	_, err := t.box.Start(t.ctx, spec)
	t.ok(err)
	_, err = t.box.Wait(t.ctx, "again")
	t.ok(err)
	for _, offset := range []int64{0, 1, 4095, 4096, 9*n - 1, 9 * n, 9*n + 100} {
		for _, follow := range []bool{false, true} {
			out, err := t.box.Output(t.ctx, "again", sandbox.OutputOptions{Offset: offset, Follow: follow})
			t.ok(err)
			got, dropped := t.rest(out)
			if want := countedLines(n)[min(offset, 9*n):]; got != want || dropped != 0 {
				t.Errorf("from %d: %d bytes, %d dropped, want %d", offset, len(got), dropped, len(want))
			}
			t.ok(out.Close())
		}
	}
	_, err = t.box.Output(t.ctx, "again", sandbox.OutputOptions{Offset: -1})
	t.wantCode(err, sandbox.CodeInvalidArgument)
}

func runStreams(t *test) {
	var stdout, stderr strings.Builder
	exit, err := t.box.Run(t.ctx, bash("tr a-z A-Z; echo done >&2; exit 3"), strings.NewReader("hello\x00\n"), &stdout, &stderr)
	t.ok(err)
	if exit.Code != 3 || stdout.String() != "HELLO\x00\n" || stderr.String() != "done\n" {
		t.Errorf("%+v %q %q", exit, stdout.String(), stderr.String())
	}
	for all := []sandbox.ProcessInfo{{}}; len(all) > 0; { // it is forgotten
		all, err = t.box.List(t.ctx)
		t.ok(err)
	}
	// A writer that fails ends the command.
	refused := errors.New("full")
	_, err = t.box.Run(t.ctx, bash("while :; do echo y; done"), nil, writerFunc(func(b []byte) (int, error) { return 0, refused }), nil)
	if !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
	t.answers()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
