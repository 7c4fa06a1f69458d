package tool_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/tool"
)

func benchCall(b *testing.B, env tool.Env, name string, args m) {
	b.Helper()
	raw, err := json.Marshal(args)
	must(b, err)
	for b.Loop() {
		if _, err := tool.Call(b.Context(), env, name, raw, tool.Hooks{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead4KiB(b *testing.B) {
	p := newBench(b, f{"a.txt": strings.Repeat(strings.Repeat("x", 63)+"\n", 64)})
	benchCall(b, p.env, "read", m{"filePath": "a.txt"})
}

func BenchmarkWrite4KiB(b *testing.B) {
	p := newBench(b, nil)
	benchCall(b, p.env, "write", m{"filePath": "a.txt", "content": strings.Repeat(strings.Repeat("x", 63)+"\n", 64)})
}

// BenchmarkWrite4KiBBare is what the file system alone takes.
func BenchmarkWrite4KiBBare(b *testing.B) {
	p := newBench(b, nil)
	data := []byte(strings.Repeat(strings.Repeat("x", 63)+"\n", 64))
	for b.Loop() {
		must(b, os.WriteFile(p.path("a.txt"), data, 0o644))
	}
}

func BenchmarkEdit4KiB(b *testing.B) {
	p := newBench(b, f{"a.txt": strings.Repeat(strings.Repeat("x", 63)+"\n", 63) + "flip\n"})
	raw := [2]json.RawMessage{
		json.RawMessage(`{"filePath":"a.txt","oldString":"flip","newString":"flop"}`),
		json.RawMessage(`{"filePath":"a.txt","oldString":"flop","newString":"flip"}`),
	}
	i := 0
	for b.Loop() {
		if _, err := tool.Call(b.Context(), p.env, "edit", raw[i%2], tool.Hooks{}); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkBashTrue(b *testing.B) {
	p := newBench(b, nil)
	benchCall(b, p.env, "bash", m{"command": "true"})
}

// sourceTree is 20,000 files of about 2 KiB, one of which has the needle.
func sourceTree(b *testing.B) *bench {
	b.Helper()
	p := newBench(b, nil)
	body := strings.Repeat("func name(argument int) (result string, err error) { return }\n", 32)
	for i := range 20_000 {
		if i%100 == 0 {
			must(b, os.MkdirAll(p.path(fmt.Sprintf("d%03d", i/100)), 0o755))
		}
		must(b, os.WriteFile(p.path(fmt.Sprintf("d%03d/f%05d.go", i/100, i)), []byte(body), 0o644))
	}
	p.put("d150/needle.go", "// the needle\n")
	return p
}

func BenchmarkSearch20000Files(b *testing.B) {
	p := sourceTree(b)
	rg := os.Getenv("TONGS_TEST_RIPGREP")
	if rg == "" {
		rg, _ = exec.LookPath("rg")
	}
	with := p.env
	with.Ripgrep = rg
	b.Run("grep", func(b *testing.B) { benchCall(b, p.env, "grep", m{"pattern": "needle"}) })
	b.Run("grep regexp", func(b *testing.B) { benchCall(b, p.env, "grep", m{"pattern": `n[aeiou]+dle\b`}) })
	b.Run("glob", func(b *testing.B) { benchCall(b, p.env, "glob", m{"pattern": "**/needle.go"}) })
	if rg == "" {
		return
	}
	b.Run("grep by rg", func(b *testing.B) { benchCall(b, with, "grep", m{"pattern": "needle"}) })
	b.Run("grep regexp by rg", func(b *testing.B) { benchCall(b, with, "grep", m{"pattern": `n[aeiou]+dle\b`}) })
	bare := func(args ...string) func(*testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(rg, append([]string{"--no-config"}, args...)...)
				cmd.Dir = p.dir
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v %s", err, out)
				}
			}
		}
	}
	b.Run("rg itself", bare("--hidden", "needle", "."))
	b.Run("rg itself, sorted", bare("--hidden", "--sort=path", "needle", "."))
	b.Run("rg itself, files", bare("--files", "--glob=**/needle.go", "."))
}
