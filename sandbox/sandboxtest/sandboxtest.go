package sandboxtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// Harness says how to get at sandboxes, and what they allow. A case that needs
// what is not there is skipped with the name of the field.
type Harness struct {
	// Open gives a client of a sandbox that nobody else uses. Both end with t.
	Open func(t *testing.T) *sandbox.Client

	// Again gives one more connection to the sandbox that Open gave c for; it
	// ends with t, or sooner when the case closes it.
	Again func(t *testing.T, c *sandbox.Client) *sandbox.Client

	// Root: the sandbox allows the user root.
	Root bool

	// Pids: the number of the sandbox's processes is limited, so that a fork
	// bomb is a thing of the sandbox only.
	Pids bool

	// Tools: OpenCode's tools can be run.
	Tools bool

	// OwnKernel: the sandbox's kernel isn't Linux but gVisor. It finds no holes in files, and doesn't tell
	// which process listens on a port.
	OwnKernel bool

	// Isolated: the sandbox has file systems and a network of its own.
	Isolated bool
}

// patience bounds each case.
const patience = 90 * time.Second

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, subject := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Processes", testProcesses},
		{"Terminals", testTerminals},
		{"Shell", testShell},
		{"Files", testFiles},
		{"Search", testSearch},
		{"Watch", testWatch},
		{"Archive", testArchive},
		{"Ports", testPorts},
		{"Git", testGit},
		{"Code", testCode},
		{"BadInput", testBadInput},
		{"BadInputFiles", testBadInputFiles},
		{"Defects", testDefects},
	} {
		t.Run(subject.name, func(t *testing.T) {
			t.Parallel()
			subject.run(t, h)
		})
	}
}

// test is what a case works with.
type test struct {
	*testing.T
	h   Harness
	box *sandbox.Client // a sandbox of its own
	ctx context.Context // ends with the case's deadline
}

// cases runs named cases beside each other, each with a sandbox of its own.
type cases map[string]func(t *test)

func (all cases) run(t *testing.T, h Harness) {
	for name, run := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			run(&test{T: t, h: h, box: h.Open(t), ctx: ctx})
		})
	}
}

// need skips the case when the harness lacks something.
func (t *test) need(has bool, field string) {
	t.Helper()
	if !has {
		t.Skipf("the harness does not say %s", field)
	}
}

// again is one more connection to the sandbox.
func (t *test) again() *sandbox.Client {
	t.Helper()
	t.need(t.h.Again != nil, "Again")
	return t.h.Again(t.T, t.box)
}

// ok fails the case at an error.
func (t *test) ok(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode wants a typed error, with an operation and a message.
func (t *test) wantCode(err error, want sandbox.Code) {
	t.Helper()
	var e *sandbox.Error
	if !errors.As(err, &e) || e.Code != want {
		t.Errorf("got error %v (code %q), want one with code %s", err, sandbox.CodeOf(err), want)
		return
	}
	if e.Op == "" || e.Message == "" {
		t.Errorf("error %#v has no operation or message", e)
	}
}

// bash is a command line for the sandbox's shell.
func bash(script string) sandbox.ProcessSpec {
	return sandbox.ProcessSpec{Argv: []string{"bash", "-c", script}}
}

// sh runs a script to its end, whatever its status.
func (t *test) sh(script string) *sandbox.ExecResult {
	t.Helper()
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: bash(script)})
	if err != nil {
		t.Fatalf("%.200s: %v", script, err)
	}
	return res
}

// out runs a script that must succeed, and gives what it printed on stdout.
func (t *test) out(script string) string {
	t.Helper()
	res := t.sh(script)
	if !res.Exit.Success() {
		t.Fatalf("%.200s: %+v\n%.2000s%.2000s", script, res.Exit, res.Stdout, res.Stderr)
	}
	return string(res.Stdout)
}

// answers wants the sandbox to run the next command as if nothing had been.
func (t *test) answers() {
	t.Helper()
	if got := t.out("echo well"); got != "well\n" {
		t.Errorf("the next command printed %q", got)
	}
}
