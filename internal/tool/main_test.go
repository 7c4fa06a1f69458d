package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tongs-dev/tongs/internal/tool"
	"github.com/tongs-dev/tongs/internal/tool/tooltest"
	"github.com/tongs-dev/tongs/sandbox"
)

type (
	m = map[string]any
	f = map[string]string
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files, err := tooltest.Tree(dir)
	must(t, err)
	return files
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a project in a directory of its own.
type bench struct {
	t    testing.TB
	dir  string // the project
	env  tool.Env
	asks []tool.AskRequest
	// onAsk may refuse, or do something in the meantime.
	onAsk func(tool.AskRequest) error
	// onProgress is told what hooks are.
	onProgress func(map[string]any)
}

func newBench(t testing.TB, files f) *bench {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	b := &bench{t: t, dir: filepath.Join(root, "project")}
	must(t, os.Mkdir(b.dir, 0o755))
	for name, text := range files {
		b.put(name, text)
	}
	b.env = tool.Env{
		Directory: b.dir, Home: root, OutputDir: filepath.Join(root, "output"),
		Shell: hostShell{}, Environ: append(os.Environ(), "LC_ALL=C.UTF-8"),
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) put(name, text string) {
	b.t.Helper()
	must(b.t, os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
	must(b.t, os.WriteFile(b.path(name), []byte(text), 0o644))
}

func (b *bench) get(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	must(b.t, err)
	return string(data)
}

// call runs a tool with a deadline that only a hang can reach.
func (b *bench) call(name string, args any) (tool.Result, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return b.callWith(ctx, name, args)
}

func (b *bench) callWith(ctx context.Context, name string, args any) (tool.Result, error) {
	b.t.Helper()
	raw, ok := args.(json.RawMessage)
	if !ok {
		var err error
		raw, err = json.Marshal(args)
		must(b.t, err)
	}
	hooks := tool.Hooks{Ask: func(_ context.Context, req tool.AskRequest) error {
		b.asks = append(b.asks, req)
		if b.onAsk != nil {
			return b.onAsk(req)
		}
		return nil
	}}
	if b.onProgress != nil {
		hooks.Progress = func(_ string, m map[string]any) { b.onProgress(m) }
	}
	res, err := tool.Call(ctx, b.env, name, raw, hooks)
	lines, size := tool.BoundedMaxLines, tool.BoundedMaxBytes
	if name == "bash" {
		lines, size = tool.DefaultMaxLines, tool.DefaultMaxBytes
	}
	if n := strings.Count(res.Output, "\n") + 1; n > lines || len(res.Output) > size {
		b.t.Errorf("%s: an answer of %d lines and %d bytes is more than OpenCode takes", name, n, len(res.Output))
	}
	if ctx.Err() == context.DeadlineExceeded {
		b.t.Fatalf("%s hung", name)
	}
	return res, err
}

// ok runs a tool that has to succeed.
func (b *bench) ok(name string, args any) tool.Result {
	b.t.Helper()
	res, err := b.call(name, args)
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	return res
}

// fails runs a tool that has to fail with a code and words in its message.
func (b *bench) fails(code sandbox.Code, name string, args any, words ...string) {
	b.t.Helper()
	res, err := b.call(name, args)
	var e *sandbox.Error
	if !errors.As(err, &e) {
		b.t.Fatalf("%s: got %v and %.200q, want a failure with %s", name, err, res.Output, code)
	}
	if e.Code != code {
		b.t.Errorf("%s: code %s (%s), want %s", name, e.Code, e.Message, code)
	}
	for _, word := range words {
		if !strings.Contains(e.Message, word) {
			b.t.Errorf("%s: %q does not say %q", name, e.Message, word)
		}
	}
	if len(e.Message) > 2000 {
		b.t.Errorf("%s: an error of %d bytes", name, len(e.Message))
	}
}
