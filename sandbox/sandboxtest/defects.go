package sandboxtest

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/shell"
)

// testDefects holds the sandbox to what another one of its kind was measured to get
// wrong. Each defect is a case:
//
//	the server dies when several sessions run many commands      ManyCommandsInManySessions
//	`if then`, `exit 3`, `set -e; false` end the session         NothingEndsASession
//	a quote that is never closed hangs the session               UnbalancedQuote
//	a command past its deadline runs on, and blocks the session  TimeoutKills
//	the deadline of one command becomes the session's            TimeoutIsOfOneCommand
//	kill leaves grandchildren behind                             KillReachesGrandchildren
//	a last newline and NUL bytes vanish, other bytes turn into
//	U+FFFD, and the order of the two streams is lost             EveryByteAndItsOrder
//	a call without a command fails with a message of the runtime NoCommand
//	64 MiB of output end the server                              MuchOutput
//	files over 32 MiB can't be read, over 16 MiB not written     LargeFile
//
// and of the tools that were built on it:
//
//  1. the two sides disagree about a port and hang             BothSidesSpeakTheSameProtocol
//  2. grep needs a program that isn't there                    GrepNeedsNothing
//  3. relative paths mean another directory than is said       OneDirectory
//  4. read shows the whole file for a range of it              ReadRange
//  5. edit corrupts what has a $ in it, and isn't atomic       EditIsLiteral
//  6. glob does not find src/**/*.ts                           GlobMatches
//  7. a directory that isn't there is listed as empty          ListOfWhatIsNotThere
//  8. grep takes a pattern for an option                       GrepOfOptions
//  9. bash has no deadline, bound, abort, order, directory     BashTool
func testDefects(t *testing.T, h Harness) {
	cases{
		"ManyCommandsInManySessions": manyInMany,
		"NothingEndsASession":        nothingEndsASession,
		"UnbalancedQuote":            unbalancedQuote,
		"TimeoutKills":               timeoutKills,
		"TimeoutIsOfOneCommand":      timeoutOfOne,
		"KillReachesGrandchildren":   grandchildren,
		"EveryByteAndItsOrder":       bytesAndOrder,
		"NoCommand":                  noCommand,
		"MuchOutput":                 muchOutput,
		"LargeFile":                  largeFile,

		"BothSidesSpeakTheSameProtocol": sameProtocol,
		"GrepNeedsNothing":              grepNeedsNothing,
		"OneDirectory":                  oneDirectory,
		"ReadRange":                     readRange,
		"EditIsLiteral":                 editIsLiteral,
		"GlobMatches":                   globMatches,
		"ListOfWhatIsNotThere":          listOfNothing,
		"GrepOfOptions":                 grepOfOptions,
		"BashTool":                      bashTool,
	}.run(t, h)
}

func manyInMany(t *test) {
	const sessions, commands = 8, 50
	done := make(chan error, sessions)
	for i := range sessions {
		s := t.session(shell.Spec{Name: fmt.Sprint("s", i)})
		go func() {
			for k := range commands {
				want := fmt.Sprintf("%d of %d\n", k, i)
				res, err := s.Exec(t.ctx, shell.Command{Script: "echo " + strings.TrimSpace(want)})
				if err == nil && string(res.Stdout) != want {
					err = fmt.Errorf("printed %q, want %q", res.Stdout, want)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range sessions {
		t.ok(<-done)
	}
	t.answers()
}

func nothingEndsASession(t *test) {
	s := t.session(shell.Spec{})
	t.run(s, "cd /usr; export A=a", 0, "")
	for script, code := range map[string]int{"if then": 2, "exit 3": 3, "set -e; false": 1, "kill -KILL $$": 137, "exec false": 1} {
		t.run(s, script, code, "")
		t.run(s, "pwd; echo $A", 0, "/usr\na\n")
	}
}

func unbalancedQuote(t *test) {
	s := t.session(shell.Spec{})
	for _, script := range []string{"echo 'abc", `echo "abc`, "echo `abc", "echo $(abc", "cat <<EOF\nabc", "{ echo abc"} {
		res, err := s.Exec(t.ctx, shell.Command{Script: script})
		t.ok(err)
		if len(res.Stderr) == 0 {
			t.Errorf("%q: nothing is said about it: %+v", script, res.Exit)
		}
		t.run(s, "echo next", 0, "next\n")
	}
}

func timeoutKills(t *test) {
	s := t.session(shell.Spec{})
	res, err := s.Exec(t.ctx, shell.Command{Script: "sleep 1000 & echo $!; wait", Timeout: 200 * time.Millisecond})
	t.ok(err)
	if !res.Exit.TimedOut {
		t.Errorf("%+v", res.Exit)
	}
	t.gone(strings.TrimSpace(string(res.Stdout)))
	t.run(s, "echo next", 0, "next\n")
}

func timeoutOfOne(t *test) {
	s := t.session(shell.Spec{})
	_, err := s.Exec(t.ctx, shell.Command{Script: "true", Timeout: 100 * time.Millisecond})
	t.ok(err)
	t.run(s, "sleep 0.5; echo slow", 0, "slow\n")
}

func grandchildren(t *test) {
	in, err := t.box.Start(t.ctx, bash(`bash -c 'sleep 1000 & echo $!; sleep 1000 & echo $!; wait' & wait`))
	t.ok(err)
	first, err := t.box.WaitLog(t.ctx, in.ID, sandbox.LogWait{Pattern: `^\d+$`})
	t.ok(err)
	other, err := t.box.WaitLog(t.ctx, in.ID, sandbox.LogWait{Pattern: `^\d+$`, Offset: first.End})
	t.ok(err)
	t.ok(t.box.Kill(t.ctx, in.ID))
	t.gone(first.Line)
	t.gone(other.Line)
}

func bytesAndOrder(t *test) {
	spec := bash(`printf 'a\0b\377\n'; printf 'c\n' >&2; printf 'd\n\n'`)
	spec.Merge = true
	res, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: spec})
	t.ok(err)
	if want := "a\x00b\xff\nc\nd\n\n"; string(res.Stdout) != want {
		t.Errorf("%q, want %q", res.Stdout, want)
	}
}

func noCommand(t *test) {
	for _, argv := range [][]string{nil, {}, {""}} {
		_, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: argv}})
		t.wantCode(err, sandbox.CodeInvalidCommand)
	}
	t.answers()
}

func muchOutput(t *test) {
	const size = 64 << 20
	var n counter
	exit, err := t.box.Run(t.ctx, sandbox.ProcessSpec{Argv: []string{"dd", "if=/dev/zero", "bs=64k", fmt.Sprint("count=", size>>16), "status=none"}}, nil, &n, nil)
	t.ok(err)
	if !exit.Success() || n != size {
		t.Errorf("%+v, %d bytes of %d", exit, n, size)
	}
	t.answers()
}

type counter int64

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

func largeFile(t *test) {
	data := bytes.Repeat([]byte("\x00\x01\xfe\xff0123456789a\n"), 40<<20/16)
	_, err := t.box.WriteFile(t.ctx, "large", data, sandbox.WriteOptions{})
	t.ok(err)
	r, err := t.box.OpenFile(t.ctx, "large", sandbox.ReadOptions{})
	t.ok(err)
	defer r.Close()
	got, err := io.ReadAll(r)
	t.ok(err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back of %d, or other ones", len(got), len(data))
	}
}

func sameProtocol(t *test) {
	info, err := t.box.Info(t.ctx)
	t.ok(err)
	if info.Protocol != sandbox.Protocol {
		t.Errorf("the guest speaks %d, the client %d", info.Protocol, sandbox.Protocol)
	}
	_, err = sandbox.ParseGreeting("TONGS 8671 RPC")
	t.wantCode(err, sandbox.CodeProtocolMismatch)
}

// tool runs one of OpenCode's tools.
func (t *test) tool(name string, args map[string]any) (*sandbox.ToolResult, error) {
	t.Helper()
	t.need(t.h.Tools, "Tools")
	return t.box.RunTool(t.ctx, sandbox.ToolCall{Name: name, Args: args}, sandbox.ToolHooks{})
}

// toolOutput wants a tool to succeed, and its output to hold texts.
func (t *test) toolOutput(name string, args map[string]any, texts ...string) string {
	t.Helper()
	res, err := t.tool(name, args)
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	for _, text := range texts {
		if !strings.Contains(res.Output, text) {
			t.Errorf("%s %v: %q is not in %q", name, args, text, res.Output)
		}
	}
	return res.Output
}

func grepNeedsNothing(t *test) {
	t.write("a/b.txt", "one\nneedle two\n")
	t.toolOutput("grep", map[string]any{"pattern": "needle t."}, "b.txt", "Line 2", "needle two")
}

func oneDirectory(t *test) {
	info, err := t.box.Info(t.ctx)
	t.ok(err)
	t.write("relative", "content")
	if got := t.out("pwd; cat relative"); got != info.Project+"\ncontent" {
		t.Errorf("%q", got)
	}
	fi, err := t.box.Stat(t.ctx, "relative")
	t.ok(err)
	if fi.Path != info.Project+"/relative" {
		t.Errorf("%q", fi.Path)
	}
	if !t.h.Tools {
		return
	}
	t.toolOutput("bash", map[string]any{"command": "pwd", "description": "where"}, info.Project+"\n")
	t.toolOutput("read", map[string]any{"filePath": "relative"}, "content")
	t.toolOutput("glob", map[string]any{"pattern": "rel*"}, info.Project+"/relative")
	t.toolOutput("grep", map[string]any{"pattern": "content"}, "relative")
}

func readRange(t *test) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "line %d\n", i+1)
	}
	t.write("long", b.String())
	got := t.toolOutput("read", map[string]any{"filePath": "long", "offset": 100, "limit": 3}, "100", "line 100", "line 102")
	if strings.Contains(got, "line 99\n") || strings.Contains(got, "line 103") {
		t.Errorf("more than was asked for: %q", got)
	}
	t.write("binary", "\x00\x01\x02\x7fELF\x00\xff")
	if res, err := t.tool("read", map[string]any{"filePath": "binary"}); err == nil {
		t.Errorf("a binary file is shown as %q", res.Output)
	}
	t.write("dir/inside", "x")
	t.toolOutput("read", map[string]any{"filePath": "dir"}, "inside")
	lines, err := t.box.ReadLines(t.ctx, "long", sandbox.LineOptions{First: 100, Count: 3})
	t.ok(err)
	if string(lines.Text) != "line 100\nline 101\nline 102\n" || lines.Total != 5000 || !lines.Truncated {
		t.Errorf("%+v", lines)
	}
}

func editIsLiteral(t *test) {
	replacement := "$& $1 $$ $` $' \\1"
	t.write("f", "before old after")
	_, err := t.box.Edit(t.ctx, "f", "old", replacement, sandbox.EditOptions{})
	t.ok(err)
	if got := t.out("cat f"); got != "before "+replacement+" after" {
		t.Errorf("%q", got)
	}
	if !t.h.Tools {
		return
	}
	edit := func(old, new string, all bool) error {
		_, err := t.tool("edit", map[string]any{"filePath": "f", "oldString": old, "newString": new, "replaceAll": all})
		return err
	}
	t.toolOutput("read", map[string]any{"filePath": "f"})
	t.ok(edit(replacement, "x x", false))
	if err := edit("x", replacement, false); err == nil {
		t.Error("one of two was replaced")
	}
	t.ok(edit("x", replacement, true))
	if got := t.out("cat f"); got != "before "+replacement+" "+replacement+" after" {
		t.Errorf("%q", got)
	}
	if err := edit("not there", "y", false); err == nil {
		t.Error("what isn't there was replaced")
	}
}

func globMatches(t *test) {
	for _, path := range []string{"src/a.ts", "src/deep/er/b.ts", "src/c.js", "d.ts", "with space/e f.ts"} {
		t.write(path, "x")
	}
	info, err := t.box.Info(t.ctx)
	t.ok(err)
	for pattern, want := range map[string][]string{
		"src/**/*.ts": {"src/a.ts", "src/deep/er/b.ts"}, "*.ts": {"d.ts"}, "src/*.{ts,js}": {"src/a.ts", "src/c.js"}, "with space/*": {"with space/e f.ts"},
	} {
		got := t.toolOutput("glob", map[string]any{"pattern": pattern})
		for _, path := range []string{"src/a.ts", "src/deep/er/b.ts", "src/c.js", "d.ts", "with space/e f.ts"} {
			wanted := strings.Contains("\n"+strings.Join(want, "\n")+"\n", "\n"+path+"\n")
			// A bare pattern matches at any depth, as ripgrep's does.
			if pattern == "*.ts" && strings.HasSuffix(path, ".ts") {
				wanted = true
			}
			if has := strings.Contains(got+"\n", info.Project+"/"+path+"\n"); has != wanted {
				t.Errorf("%s: %s is in it: %v\n%s", pattern, path, has, got)
			}
		}
	}
}

func listOfNothing(t *test) {
	_, err := t.box.ListFiles(t.ctx, "no/such", sandbox.ListOptions{})
	t.wantCode(err, sandbox.CodeFileNotFound)
	t.write("with space/'quoted'/f", "x")
	page, err := t.box.ListFiles(t.ctx, "with space/'quoted'", sandbox.ListOptions{})
	t.ok(err)
	if len(page.Entries) != 1 || page.Entries[0].Name != "f" {
		t.Errorf("%+v", page)
	}
	if !t.h.Tools {
		return
	}
	if res, err := t.tool("list", map[string]any{"path": "no/such"}); err == nil {
		t.Errorf("listed as %q", res.Output)
	}
	t.toolOutput("list", map[string]any{"path": "with space/'quoted'"}, "f")
}

func grepOfOptions(t *test) {
	t.write("with space/'f'.txt", "a -e b\n--version\n")
	t.toolOutput("grep", map[string]any{"pattern": "-e"}, "a -e b")
	t.toolOutput("grep", map[string]any{"pattern": "--version", "path": "with space", "include": "*.txt"}, "Line 2")
	var many strings.Builder
	for range 20_000 {
		many.WriteString("needle\n")
	}
	t.write("many", many.String())
	if got := t.toolOutput("grep", map[string]any{"pattern": "needle"}); len(got) > 64<<10 {
		t.Errorf("%d bytes of results", len(got))
	}
}

func bashTool(t *test) {
	res, err := t.tool("bash", map[string]any{"command": "for i in 1 2 3; do echo o$i; echo e$i >&2; done; pwd; exit 3", "workdir": "/usr", "description": "order"})
	t.ok(err)
	if res.Output != "o1\ne1\no2\ne2\no3\ne3\n/usr\n" || res.Metadata["exit"] != 3.0 {
		t.Errorf("%q %v", res.Output, res.Metadata["exit"])
	}
	got := t.toolOutput("bash", map[string]any{"command": "echo before; sleep 1000", "timeout": 200, "description": "late"}, "before")
	if !strings.Contains(strings.ToLower(got), "timeout") {
		t.Errorf("%q says nothing of the timeout", got)
	}
	if got := t.toolOutput("bash", map[string]any{"command": "seq 1000000", "description": "much"}, "1000000"); len(got) > 256<<10 {
		t.Errorf("%d bytes of output", len(got))
	}
	t.toolOutput("bash", map[string]any{"command": "sleep 1000 & echo left", "description": "background"}, "left")
	for _, script := range []string{"exit 1", "if then", "echo 'x"} {
		if _, err := t.tool("bash", map[string]any{"command": script, "description": "odd"}); err != nil {
			t.Errorf("%q: %v", script, err)
		}
	}
	// Aborted while it runs, and beside others.
	done := make(chan error, 1)
	told := make(chan struct{}, 1)
	go func() {
		_, err := t.box.RunTool(t.ctx, sandbox.ToolCall{Name: "bash", CallID: "c", Args: map[string]any{"command": "echo running; sleep 1000", "description": "long"}},
			sandbox.ToolHooks{Progress: func(_ string, metadata map[string]any) {
				if text, _ := metadata["output"].(string); strings.Contains(text, "running") {
					select {
					case told <- struct{}{}:
					default:
					}
				}
			}})
		done <- err
	}()
	select {
	case <-told: // it streams
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	}
	t.toolOutput("bash", map[string]any{"command": "echo beside", "description": "beside"}, "beside")
	if found, err := t.box.CancelTool(t.ctx, "c"); err != nil || !found {
		t.Errorf("cancel: %v, %v", found, err)
	}
	t.wantCode(<-done, sandbox.CodeAborted)
}
