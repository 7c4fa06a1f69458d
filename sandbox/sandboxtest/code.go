package sandboxtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/code"
)

func testCode(t *testing.T, h Harness) {
	all := cases{
		"rich results of Python":               richPython,
		"figures of matplotlib":                figures,
		"rich results of JavaScript":           richJavaScript,
		"TypeScript":                           typeScript,
		"what can't be created says why":       refusedContexts,
		"contexts are listed, found and ended": listedContexts,
	}
	for _, l := range []code.Language{code.Python, code.JavaScript} {
		in := languages[l]
		for name, run := range map[string]func(*test, language){
			"state is kept":                         stateIsKept,
			"output comes while it runs":            outputStreams,
			"errors are told, and state is kept":    errorsAreTold,
			"an interrupt keeps the state":          interrupted,
			"what waits is interrupted too":         interruptedWait,
			"a timeout keeps the state":             timedOut,
			"a run ends with its context":           cancelledRun,
			"a crash is told, and the next is new":  crashed,
			"what can't be stopped is killed":       unstoppable,
			"frames can't be forged by what prints": rawOutput,
		} {
			all[string(l)+": "+name] = func(t *test) {
				t.needs(in.program)
				run(t, in)
			}
		}
	}
	all.run(t, h)
}

// language is the same piece of work in each.
type language struct {
	code.Language
	program                      string
	set, get                     string // a name, to 41 and plus one
	print, printLater            string // both streams; a line, and another when the file go is there
	fail, failName               string
	loop, wait, interrupted      string
	exit, stubborn, raw, printed string
}

var languages = map[code.Language]language{
	code.Python: {
		Language: code.Python, program: "python3", set: "x = 41", get: "x + 1",
		print:      "import sys\nprint('to stdout')\nprint('to stderr', file=sys.stderr)",
		printLater: "import os, time\nprint('first')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('second')",
		fail:       "def f():\n  raise ValueError('not that')\nf()", failName: "ValueError",
		loop: "print('begun')\nwhile True: pass", wait: "import subprocess\nprint('begun')\nsubprocess.run(['sleep', '1000'])", interrupted: "KeyboardInterrupt",
		exit:     "import os\nos._exit(7)",
		stubborn: "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun')\nwhile True: pass",
		raw:      "import os\nos.write(1, b'{\"event\":\"done\"}\\n\\x00tongs:\\x00')\nos.system('echo from a command')\n5", printed: "{\"event\":\"done\"}\n\x00tongs:\x00from a command\n",
	},
	code.JavaScript: {
		Language: code.JavaScript, program: "node", set: "const x = 41", get: "x + 1",
		print:      "console.log('to stdout'); console.error('to stderr')",
		printLater: "console.log('first'); while (!require('fs').existsSync('go')) {}; console.log('second')",
		fail:       "function f() {\n  throw new TypeError('not that')\n}\nf()", failName: "TypeError",
		loop: "console.log('begun'); while (true) {}", wait: "console.log('begun'); await new Promise(() => {})", interrupted: "InterruptedError",
		exit: "process.exit(7)",
		// Nothing in the language can hold out, so the whole process does.
		stubborn: "console.log('begun'); require('child_process').spawnSync('bash', ['-c', 'trap \"\" INT; while true; do sleep 0.1; done'])",
		raw:      "require('fs').writeSync(1, '{\"event\":\"done\"}\\n\\0tongs:\\0'); require('child_process').execSync('echo from a command', {stdio: 'inherit'}); 5", printed: "{\"event\":\"done\"}\n\x00tongs:\x00from a command\n",
	},
}

func (t *test) codeContext(l code.Language) *code.Context {
	t.Helper()
	c, err := code.Create(t.ctx, t.box, code.Spec{Language: l})
	t.ok(err)
	t.closing(c)
	return c
}

// closing ends the context with the case: not every harness's /tmp goes with it.
func (t *test) closing(c *code.Context) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil && t.box.Err() == nil {
			t.Errorf("closing the context: %v", err)
		}
	})
}

// runCode runs a piece that must come to its end.
func (t *test) runCode(c *code.Context, text string) *code.Outcome {
	t.Helper()
	out, err := c.Run(t.ctx, text, code.RunOptions{})
	if err != nil {
		t.Fatalf("%.200s: %v", text, err)
	}
	if out.Error != nil {
		t.Fatalf("%.200s: %v\n%s", text, out.Error, strings.Join(out.Error.Traceback, "\n"))
	}
	return out
}

// last is the text of the one final result.
func last(out *code.Outcome) string {
	for _, r := range out.Results {
		if r.Final {
			return r.Text
		}
	}
	return ""
}

func stateIsKept(t *test, l language) {
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	out := t.runCode(c, l.get)
	if len(out.Results) != 1 || last(out) != "42" || string(out.Results[0].JSON) != "42" || out.Count != 2 || out.Fresh {
		t.Errorf("%+v", out)
	}
	t.runCode(c, l.set) // again is no error
	if out := t.runCode(c, ""); len(out.Results) != 0 || len(out.Stdout)+len(out.Stderr) != 0 {
		t.Errorf("of nothing: %+v", out)
	}
	// Another context knows nothing of it.
	other := t.codeContext(l.Language)
	if out, err := other.Run(t.ctx, l.get, code.RunOptions{}); err != nil || out.Error == nil {
		t.Errorf("another context has the name: %+v, %v", out, err)
	}
	t.ok(c.Close(t.ctx))
	_, err := c.Run(t.ctx, l.get, code.RunOptions{})
	t.wantCode(err, sandbox.CodeContextNotFound)
}

func outputStreams(t *test, l language) {
	c := t.codeContext(l.Language)
	out := t.runCode(c, l.print)
	if string(out.Stdout) != "to stdout\n" || string(out.Stderr) != "to stderr\n" {
		t.Errorf("%q, %q", out.Stdout, out.Stderr)
	}
	var got []string
	out, err := c.Run(t.ctx, l.printLater, code.RunOptions{OnStdout: func(b []byte) {
		got = append(got, string(b))
		if len(got) == 1 { // it came while the code still runs: it waits for this
			t.out("touch go")
		}
	}})
	if err != nil || strings.Join(got, "") != "first\nsecond\n" || string(out.Stdout) != "first\nsecond\n" {
		t.Errorf("%q, %+v, %v", got, out, err)
	}
}

func errorsAreTold(t *test, l language) {
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	var told *code.Error
	out, err := c.Run(t.ctx, l.fail, code.RunOptions{OnError: func(e *code.Error) { told = e }})
	t.ok(err)
	e := out.Error
	if e == nil || e != told || e.Name != l.failName || e.Message != "not that" || !strings.Contains(strings.Join(e.Traceback, "\n"), "not that") {
		t.Errorf("%+v", e)
	}
	if e != nil && strings.Contains(strings.Join(e.Traceback, "\n"), "tongs-code") {
		t.Errorf("the traceback shows what runs the code: %s", strings.Join(e.Traceback, ""))
	}
	out, err = c.Run(t.ctx, "this is ( no code", code.RunOptions{})
	if err != nil || out.Error == nil || out.Error.Name != "SyntaxError" {
		t.Errorf("%+v, %v", out, err)
	}
	if got := last(t.runCode(c, l.get)); got != "42" {
		t.Errorf("afterwards the state is %q", got)
	}
}

// begun tells when the code has printed its first word.
func begun() (code.RunOptions, <-chan struct{}) {
	c := make(chan struct{})
	first := true
	return code.RunOptions{OnStdout: func([]byte) {
		if first {
			close(c)
			first = false
		}
	}}, c
}

func interruptedBy(t *test, l language, text string) {
	t.Helper()
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	t.ok(c.Interrupt(t.ctx)) // with nothing to interrupt
	opts, running := begun()
	go func() {
		select {
		case <-running:
			if err := c.Interrupt(t.ctx); err != nil {
				t.Error(err)
			}
		case <-t.ctx.Done():
		}
	}()
	out, err := c.Run(t.ctx, text, opts)
	t.ok(err)
	if out.Error == nil || out.Error.Name != l.interrupted {
		t.Errorf("%+v", out)
	}
	if out := t.runCode(c, l.get); last(out) != "42" || out.Fresh {
		t.Errorf("afterwards: %+v", out)
	}
}

func interrupted(t *test, l language)     { interruptedBy(t, l, l.loop) }
func interruptedWait(t *test, l language) { interruptedBy(t, l, l.wait) }

func timedOut(t *test, l language) {
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	out, err := c.Run(t.ctx, l.loop, code.RunOptions{Timeout: 2 * time.Second})
	t.wantCode(err, sandbox.CodeTimeout)
	if out == nil || string(out.Stdout) != "begun\n" || !strings.Contains(err.Error(), "kept") {
		t.Errorf("%+v, %v", out, err)
	}
	if out := t.runCode(c, l.get); last(out) != "42" || out.Fresh {
		t.Errorf("afterwards: %+v", out)
	}
}

func cancelledRun(t *test, l language) {
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	opts, running := begun()
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	go func() {
		select {
		case <-running:
		case <-t.ctx.Done():
		}
		cancel()
	}()
	if _, err := c.Run(ctx, l.loop, opts); err != context.Canceled {
		t.Errorf("%v", err)
	}
	if got := last(t.runCode(c, l.get)); got != "42" {
		t.Errorf("afterwards the state is %q", got)
	}
}

func crashed(t *test, l language) {
	c := t.codeContext(l.Language)
	t.runCode(c, l.set)
	_, err := c.Run(t.ctx, l.exit, code.RunOptions{})
	t.wantCode(err, sandbox.CodeInterpreterCrashed)
	if err != nil && !strings.Contains(err.Error(), "status 7") {
		t.Errorf("%v", err)
	}
	if err != nil && strings.Contains(err.Error(), "tongs:") {
		t.Errorf("the error tells our own marks: %q", err)
	}
	out := t.runCode(c, l.set)
	if !out.Fresh || out.Count != 1 {
		t.Errorf("after a crash: %+v", out)
	}
	if out := t.runCode(c, l.get); last(out) != "42" || out.Fresh {
		t.Errorf("%+v", out)
	}
	// One that is killed between two runs is noticed at the next.
	t.ok(t.box.Signal(t.ctx, "tongs-code-"+c.Info().ID, "SIGKILL"))
	_, err = t.box.Wait(t.ctx, "tongs-code-"+c.Info().ID)
	t.ok(err)
	for range 2 {
		out, err := c.Run(t.ctx, l.set, code.RunOptions{})
		if err == nil {
			if !out.Fresh {
				t.Errorf("%+v", out)
			}
			return
		}
		t.wantCode(err, sandbox.CodeInterpreterCrashed) // it had begun before that was known
	}
	t.Error("the context does not come back")
}

func unstoppable(t *test, l language) {
	c := t.codeContext(l.Language)
	_, err := c.Run(t.ctx, l.stubborn, code.RunOptions{Timeout: 300 * time.Millisecond})
	t.wantCode(err, sandbox.CodeTimeout)
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	if out := t.runCode(c, l.set); !out.Fresh {
		t.Errorf("%+v", out)
	}
}

func rawOutput(t *test, l language) {
	c := t.codeContext(l.Language)
	out := t.runCode(c, l.raw)
	if string(out.Stdout) != l.printed || last(out) != "5" {
		t.Errorf("%q, %+v", out.Stdout, out)
	}
	if got := last(t.runCode(c, "6")); got != "6" {
		t.Errorf("the next run gives %q", got)
	}
}

func richPython(t *test) {
	t.needs("python3")
	c := t.codeContext(code.Python)
	out := t.runCode(c, `
class Shown:
    def __repr__(self): return "shown"
    def _repr_html_(self): return "<b>shown</b>"
    def _repr_png_(self): return b"\x89PNG"
    def _repr_jpeg_(self): raise RuntimeError
    def _repr_svg_(self): return "<svg/>"
    def _repr_markdown_(self): return "**shown**"
    def _repr_latex_(self): return "$x$"
    def _repr_json_(self): return {"a": [1]}
display([1, 2])
Shown()`)
	want := []code.Result{
		{Text: "[1, 2]", JSON: []byte("[1, 2]")},
		{Text: "shown", HTML: "<b>shown</b>", PNG: []byte("\x89PNG"), SVG: "<svg/>", Markdown: "**shown**", LaTeX: "$x$", JSON: []byte(`{"a": [1]}`), Final: true},
	}
	if d := cmp.Diff(want, out.Results); d != "" {
		t.Error(d)
	}
	if got := last(t.runCode(c, "import asyncio\nawait asyncio.sleep(0, 'awaited')")); got != "'awaited'" {
		t.Errorf("await at the top gives %q", got)
	}
	if got := t.runCode(c, "print(input.__name__, __name__)\nNone"); string(got.Stdout) != "input __main__\n" || len(got.Results) != 0 {
		t.Errorf("%+v", got)
	}
	if out, err := c.Run(t.ctx, "input()", code.RunOptions{}); err != nil || out.Error == nil || out.Error.Name != "EOFError" {
		t.Errorf("input: %+v, %v", out, err)
	}
	if got := last(t.runCode(c, "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n'the parent'")); got != "'the parent'" {
		t.Errorf("after a fork: %q", got)
	}
	if out, err := c.Run(t.ctx, "'x' * (40 << 20)", code.RunOptions{}); err != nil || len(last(out)) > 20<<20 || len(last(out)) < 1<<20 {
		t.Errorf("a long value: %d characters, %v", len(last(out)), err)
	}
	out, err := c.Run(t.ctx, "print('y' * (3 << 20))", code.RunOptions{})
	if err != nil || len(out.Stdout) != code.MaxOutput || !out.Truncated {
		t.Errorf("much output: %d bytes kept, %v", len(out.Stdout), err)
	}
}

// figures uses a stand-in with the functions of pyplot that matter, so that it
// can be held anywhere.
func figures(t *test) {
	t.needs("python3")
	t.out(`mkdir -p lib/matplotlib && touch lib/matplotlib/__init__.py && cat > lib/matplotlib/pyplot.py <<'END'
open_figures = {}
class Figure:
    def __init__(self, n): self.n = n
    def __repr__(self): return "<Figure %d>" % self.n
    def savefig(self, out, format, **kw): out.write(b"%s of %d" % (format.encode(), self.n))
def figure(n): return open_figures.setdefault(n, Figure(n))
def get_fignums(): return sorted(open_figures)
def close(f): del open_figures[f.n]
END`)
	c, err := code.Create(t.ctx, t.box, code.Spec{Env: map[string]string{"PYTHONPATH": "lib"}})
	t.ok(err)
	t.closing(c)
	out := t.runCode(c, "import os, matplotlib.pyplot as plt\nplt.figure(1); plt.figure(2)\nos.environ['MPLBACKEND']")
	want := []code.Result{{Text: "'Agg'", JSON: []byte(`"Agg"`), Final: true}, {Text: "<Figure 1>", PNG: []byte("png of 1")}, {Text: "<Figure 2>", PNG: []byte("png of 2")}}
	if d := cmp.Diff(want, out.Results); d != "" {
		t.Error(d)
	}
	if out := t.runCode(c, "plt.get_fignums()"); last(out) != "[]" || len(out.Results) != 1 {
		t.Errorf("%+v", out)
	}
}

func richJavaScript(t *test) {
	t.needs("node")
	c := t.codeContext(code.JavaScript)
	out := t.runCode(c, `
		display({a: [1, "two"]});
		display.html("<b>shown</b>"); display.svg("<svg/>"); display.png(Buffer.from("\x89PNG", "latin1"));
		await new Promise(r => setTimeout(() => r(new Map([[1, 2n]])), 10))`)
	want := []code.Result{
		{Text: "{ a: [ 1, 'two' ] }", JSON: []byte(`{"a":[1,"two"]}`)},
		{HTML: "<b>shown</b>"}, {SVG: "<svg/>"}, {PNG: []byte("\x89PNG")},
		{Text: "Map(1) { 1 => 2n }", JSON: []byte("{}"), Final: true},
	}
	if d := cmp.Diff(want, out.Results); d != "" {
		t.Error(d)
	}
	for text, want := range map[string]string{
		"let y = 1; let z = 2": "", "let y = 3; y": "3", "undefined": "", "NaN": "NaN", "10n ** 20n": "100000000000000000000n", "-0": "-0", "'text'": "'text'", "null": "null",
		"(() => { const o = {}; o.self = o; return o })()": "<ref *1> { self: [Circular *1] }", "require('path').join('a', 'b')": "'a/b'", "Symbol('s')": "Symbol(s)",
	} {
		if got := last(t.runCode(c, text)); got != want {
			t.Errorf("%s gives %q", text, got)
		}
	}
	// What fails later, in nobody's run, does not end the interpreter.
	t.runCode(c, "setTimeout(() => { throw new Error('late') }, 0); Promise.reject(new Error('later')); await new Promise(r => setTimeout(r, 50))")
	out, err := c.Run(t.ctx, "throw {a: 1}", code.RunOptions{})
	if err != nil || out.Error == nil || out.Error.Message != "{ a: 1 }" {
		t.Errorf("%+v, %v", out, err)
	}
	opts, running := begun()
	go func() {
		<-running
		if err := c.Interrupt(t.ctx); err != nil {
			t.Error(err)
		}
	}()
	// A loop after an await is not within the evaluation any more.
	out, err = c.Run(t.ctx, "await 0; await new Promise(r => setTimeout(r, 1)); console.log('begun'); while (true) {}", opts)
	if err != nil || out.Error == nil || out.Error.Name != "InterruptedError" {
		t.Errorf("%+v, %v", out, err)
	}
	if got := last(t.runCode(c, "y")); got != "3" && got != "1" {
		t.Errorf("afterwards y is %q", got)
	}
}

func typeScript(t *test) {
	t.needs("node")
	c, err := code.Create(t.ctx, t.box, code.Spec{Language: code.TypeScript})
	if sandbox.CodeOf(err) == sandbox.CodeTypeScriptNotAvailable {
		if !strings.Contains(err.Error(), "22.13") {
			t.Errorf("no reason: %v", err)
		}
		t.Skipf("the sandbox's node is too old: %v", err)
	}
	t.ok(err)
	t.closing(c)
	t.runCode(c, "interface P { x: number }\nenum E { A = 7 }\nconst p: P = { x: E.A }")
	if got := last(t.runCode(c, "p.x as number")); got != "7" {
		t.Errorf("%q", got)
	}
	out, err := c.Run(t.ctx, "const a: = 1", code.RunOptions{})
	if err != nil || out.Error == nil || out.Error.Name != "SyntaxError" {
		t.Errorf("%+v, %v", out, err)
	}
}

func refusedContexts(t *test) {
	for _, c := range []struct {
		spec code.Spec
		code sandbox.Code
	}{
		{code.Spec{Language: "cobol"}, sandbox.CodeInvalidArgument},
		{code.Spec{ID: "../x"}, sandbox.CodeInvalidArgument},
		{code.Spec{ID: strings.Repeat("x", 33)}, sandbox.CodeInvalidArgument},
		{code.Spec{Language: code.Python, Env: map[string]string{"PATH": "/nowhere"}}, sandbox.CodePythonNotAvailable},
		{code.Spec{Language: code.JavaScript, Env: map[string]string{"PATH": "/nowhere"}}, sandbox.CodeJavaScriptNotAvailable},
		{code.Spec{Language: code.TypeScript, Env: map[string]string{"PATH": "/nowhere"}}, sandbox.CodeTypeScriptNotAvailable},
	} {
		_, err := code.Create(t.ctx, t.box, c.spec)
		if sandbox.CodeOf(err) != c.code {
			t.Errorf("%+v: %v (%s), want %s", c.spec, err, sandbox.CodeOf(err), c.code)
		}
	}
	// A program of that name that is no interpreter.
	t.out("mkdir -p bin && printf '#!/bin/sh\\necho broken >&2\\nexit 3\\n' > bin/python3 && chmod +x bin/python3 && cp bin/python3 bin/python")
	_, err := code.Create(t.ctx, t.box, code.Spec{Env: map[string]string{"PATH": strings.TrimSpace(t.out("pwd")) + "/bin:/usr/bin:/bin"}})
	t.wantCode(err, sandbox.CodePythonNotAvailable)
	if err != nil && !strings.Contains(err.Error(), "broken") {
		t.Errorf("the reason is missing: %v", err)
	}
	if got := t.out("ls -d /tmp/tongs-code-* 2>/dev/null | wc -l"); t.h.Isolated && got != "0\n" {
		t.Errorf("%s directories are left", got)
	}
}

func listedContexts(t *test) {
	t.needs("python3")
	id := "list-" + fmt.Sprint(time.Now().UnixNano()%1e9)
	c, err := code.Create(t.ctx, t.box, code.Spec{ID: id, Dir: "/"})
	t.ok(err)
	t.closing(c)
	_, err = code.Create(t.ctx, t.box, code.Spec{ID: id})
	t.wantCode(err, sandbox.CodeAlreadyExists)
	t.runCode(c, "x = 41")
	all, err := code.List(t.ctx, t.box)
	t.ok(err)
	want := c.Info()
	if want.Version == "" || want.Dir != "/" || want.Language != code.Python {
		t.Errorf("%+v", want)
	}
	want.Version = ""
	if d := cmp.Diff([]code.Info{want}, all); d != "" {
		t.Error(d)
	}

	// Another client takes it over, in the middle of a run; the state is there.
	opts, running := begun()
	lost := make(chan error, 1)
	go func() {
		_, err := c.Run(t.ctx, "import time\nprint('begun')\ntime.sleep(0.5)\nx = 42", opts)
		lost <- err
	}()
	select {
	case <-running:
	case <-t.ctx.Done():
		t.Fatal("the run does not begin")
	}
	box := t.again()
	other, err := code.Attach(t.ctx, box, id)
	t.ok(err)
	if got := last(t.runCode(other, "x")); got != "42" {
		t.Errorf("the other client finds %q", got)
	}
	t.wantCode(<-lost, sandbox.CodeConnectionLost)
	other.Detach()
	third, err := code.Attach(t.ctx, box, id)
	t.ok(err)
	if got := last(t.runCode(third, "x + 1")); got != "43" {
		t.Errorf("%q", got)
	}
	t.ok(code.Delete(t.ctx, box, id))
	t.wantCode(code.Delete(t.ctx, box, id), sandbox.CodeContextNotFound)
	_, err = code.Attach(t.ctx, box, id)
	t.wantCode(err, sandbox.CodeContextNotFound)
}
