package tool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/sandbox"
)

func TestBashOutputKeepsItsOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	res := b.ok("bash", m{"command": "for i in $(seq 200); do echo out $i; echo err $i >&2; done"})
	var want strings.Builder
	for i := range 200 {
		fmt.Fprintf(&want, "out %d\nerr %d\n", i+1, i+1)
	}
	if res.Output != want.String() {
		t.Errorf("standard output and error are out of order:\n%.500s", res.Output)
	}
}

func TestBashSignal(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	res := b.ok("bash", m{"command": "echo before; kill -9 $$"})
	if want := "before\n\n\n<shell_metadata>\nThe command was ended by signal SIGKILL\n</shell_metadata>"; res.Output != want {
		t.Errorf("%q", res.Output)
	}
	if res.Metadata["exit"] != nil {
		t.Errorf("exit %v: no exit code was given", res.Metadata["exit"])
	}
}

// TestBashShowsOutputWhileItRuns: the command ends only after its first output
// has been shown.
func TestBashShowsOutputWhileItRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	var mu sync.Mutex
	var shown []string
	b.onProgress = func(meta map[string]any) {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, meta["output"].(string))
		if meta["output"] == "first\n" {
			b.put("go-on", "")
		}
	}
	res := b.ok("bash", m{"command": "echo first; until [ -e go-on ]; do sleep 0.01; done; echo second"})
	mu.Lock()
	defer mu.Unlock()
	if len(shown) < 2 || shown[0] != "" || shown[1] != "first\n" {
		t.Errorf("shown: %q", shown)
	}
	if res.Output != "first\nsecond\n" {
		t.Errorf("%q", res.Output)
	}
}

func TestBashProgressIsSpaced(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	n := 0
	b.onProgress = func(map[string]any) { n++ }
	began := time.Now()
	b.ok("bash", m{"command": "for i in $(seq 20000); do echo $i; done"})
	if most := int(time.Since(began)/(100*time.Millisecond)) + 3; n > most {
		t.Errorf("%d updates in %v, want at most %d", n, time.Since(began), most)
	}
}

func TestBashAbort(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	last := ""
	b.onProgress = func(meta map[string]any) {
		if last = meta["output"].(string); last == "begun\n" {
			cancel()
		}
	}
	began := time.Now()
	_, err := b.callWith(ctx, "bash", m{"command": "(sleep 3; touch survived) & echo begun; sleep 300"})
	if sandbox.CodeOf(err) != sandbox.CodeAborted || !strings.Contains(err.Error(), "Tool execution aborted") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if !strings.HasPrefix(last, "begun\n") || !strings.Contains(last, "User aborted the command") {
		t.Errorf("shown last: %q", last)
	}
}

func TestBashTimeoutKeepsOutput(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	res := b.ok("bash", m{"command": "echo begun; sleep 300", "timeout": 200})
	if !strings.HasPrefix(res.Output, "begun\n\n\n<shell_metadata>\nshell tool terminated command after exceeding timeout 200 ms.") {
		t.Errorf("%q", res.Output)
	}
	if res.Metadata["exit"] != nil {
		t.Errorf("exit %v", res.Metadata["exit"])
	}
}

func TestBashEndsWithItsShell(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	began := time.Now()
	res := b.ok("bash", m{"command": "sleep 20 & disown; echo $!"})
	if time.Since(began) > 15*time.Second {
		t.Error("it waited for what the command left in the background")
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(res.Output)); err == nil && pid > 1 {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
}

var kept = regexp.MustCompile(`Full output saved to: (\S+)`)

func TestLongOutputIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	for _, c := range []struct {
		name, command, last string
		size                int64
	}{
		{"lines", "seq 1 5000", "5000\n", 23893},
		{"bytes", "seq 1 200000", "200000\n", 1288895},
		{"one line", "head -c 300000 /dev/zero | tr '\\0' x", "xxx", 300000},
		{"much", "yes 0123456789 | head -c 20000000", "\n012345678", 20000000},
	} {
		res := b.ok("bash", m{"command": c.command})
		at := kept.FindStringSubmatch(res.Output)
		if at == nil {
			t.Errorf("%s: no path of the whole output in %.200q", c.name, res.Output)
			continue
		}
		if at[1] != res.Metadata["outputPath"] || res.Metadata["truncated"] != true {
			t.Errorf("%s: metadata say %v, the answer %s", c.name, res.Metadata["outputPath"], at[1])
		}
		st, err := os.Stat(at[1])
		must(t, err)
		if st.Size() != c.size {
			t.Errorf("%s: %d bytes kept, want %d", c.name, st.Size(), c.size)
		}
		if !strings.HasSuffix(res.Output, c.last) {
			t.Errorf("%s: the answer ends with %q", c.name, res.Output[len(res.Output)-20:])
		}
		if len(res.Output) < 45000 && strings.Count(res.Output, "\n") < 1900 {
			t.Errorf("%s: only %d bytes are in the answer", c.name, len(res.Output))
		}
		b.ok("read", m{"filePath": at[1], "limit": 10})
	}
}

func TestEndlessOutputIsBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	res := b.ok("bash", m{"command": "yes 0123456789abcdef | head -c 100000000"})
	st, err := os.Stat(kept.FindStringSubmatch(res.Output)[1])
	must(t, err)
	if st.Size() > 65<<20 {
		t.Errorf("%d bytes were kept", st.Size())
	}
}

func TestOutputNeedsNoRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t, f{"file": ""})
	b.env.OutputDir = b.path("file/output") // can't be made
	res := b.ok("bash", m{"command": "seq 1 100000"})
	if !strings.HasPrefix(res.Output, "...output truncated...\n\n") || strings.Contains(res.Output, "saved to") {
		t.Errorf("%.200q", res.Output)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{"tool_new": 0, "tool_old": 8 * 24 * time.Hour, "tool_week": 6 * 24 * time.Hour, "mine": 100 * 24 * time.Hour} {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Chtimes(path, now.Add(-age), now.Add(-age)))
	}
	for i := range 5 { // holes: 5 × 100 MiB
		path := filepath.Join(dir, fmt.Sprintf("tool_big%d", i))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, 100<<20))
		must(t, os.Chtimes(path, now, now.Add(-time.Duration(i+1)*time.Hour)))
	}
	tool.Sweep(dir, now)
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != "mine tool_big0 tool_big1 tool_new" {
		t.Errorf("left: %s", got)
	}
}

func TestScanCommand(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"":                                nil,
		"a":                               {"a"},
		"a; b && c || d | e & f":          {"a", "b", "c", "d", "e", "f"},
		"cd x && make":                    {"make"},
		"X=$(rm y) true":                  {"X=$(rm y) true", "rm y"},
		"echo \"`rm y`\"":                 {"echo \"`rm y`\"", "rm y"},
		"echo $(echo $(echo $(rm y)))":    {"echo $(echo $(echo $(rm y)))", "echo $(echo $(rm y))", "echo $(rm y)", "rm y"},
		"echo $((1 + $(rm y)))":           {"echo $((1 + $(rm y)))", "rm y"},
		"cat <(rm y)":                     {"cat <(rm y)", "rm y"},
		"f() { rm y; }; f":                {"rm y", "f"},
		"function g { rm y; }":            {"rm y"},
		"case $x in a) rm y;; esac":       {"rm y"},
		"case $(rm z) in a|b) c;; esac":   {"rm z", "c"},
		"for i in $(rm z); do c; done":    {"rm z", "c"},
		"[[ a && $(rm y) ]] && b":         {"rm y", "b"},
		"if ! rm y; then :; fi":           {"rm y", ":"},
		"cat <<E\n$(rm y)\nE\nb":          {"cat <<E\n$(rm y)\nE", "rm y", "b"},
		"cat <<'E'\n$(rm y)\nE\nb":        {"cat <<'E'\n$(rm y)\nE", "b"},
		"echo ${x:-$(rm y)}":              {"echo ${x:-$(rm y)}", "rm y"},
		"a=(1 $(rm y)); b":                {"rm y", "b"},
		"# nothing":                       nil,
		"echo '$(rm y)'":                  {"echo '$(rm y)'"},
		"echo \\$(rm y)":                  {"echo \\$(rm y)"}, // can't be read: asked for as a whole
		"echo \"unclosed":                 {"echo \"unclosed"},
		"(((":                             {"((("},
		strings.Repeat("$(", 100) + "rm":  {strings.Repeat("$(", 100) + "rm"},
		strings.Repeat("a;", 1500) + "rm": {strings.Repeat("a;", 1500) + "rm"},
	} {
		got, _, _ := tool.ScanCommand(line)
		if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Errorf("%.60q: %q, want %q", line, got, want)
		}
	}
	for line, want := range map[string]string{
		"git commit -m x": "git commit *", "git": "git *", "npm run build": "npm run build *", "docker compose up -d": "docker compose up *",
		"ls -la": "ls *", "my-tool sub x": "my-tool *", "python3 x.py": "python3 *", "git stash pop": "git stash pop *",
	} {
		if _, always, _ := tool.ScanCommand(line); len(always) != 1 || always[0] != want {
			t.Errorf("%q: always %q, want %q", line, always, want)
		}
	}
}
