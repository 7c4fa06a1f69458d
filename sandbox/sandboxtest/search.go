package sandboxtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/sandbox"
)

func testSearch(t *testing.T, h Harness) {
	cases{
		"Glob":      searchGlob,
		"Grep":      searchGrep,
		"Context":   searchContext,
		"Find":      searchFind,
		"Bounds":    searchBounds,
		"BadInput":  searchBadInput,
		"AsRipgrep": searchAsRipgrep,
	}.run(t, h)
}

func (t *test) sources() (root string) {
	for name, text := range map[string]string{
		"main.go": "package main\n\nfunc main() {\n\tprintln(\"hello\")\n}\n", "lib/util.go": "// TODO: Hello\nfunc Util() {}\n",
		"lib/deep/x.ts": "export const hello = 1\n", "web/app.js": "hello();\r\nconst a = 1;\r\n", ".env": "hello=1\n",
		".gitignore": "node_modules\n*.log\n", ".git/HEAD": "hello\n", "node_modules/m/index.js": "hello\n", "a.log": "hello\n",
		"data.bin": "hello\x00hello\n", "latin.txt": "caf\xe9 hello\n", "names/a b.txt": "x\n",
	} {
		t.write("w/"+name, text)
	}
	st, err := t.box.Stat(t.ctx, "w")
	t.ok(err)
	return st.Path
}

func searchGlob(t *test) {
	root := t.sources()
	for _, c := range []struct {
		opts sandbox.GlobOptions
		want string
		more sandbox.SearchLimit
	}{
		{sandbox.GlobOptions{}, "data.bin,latin.txt,lib/deep/x.ts,lib/util.go,main.go,names/a b.txt,web/app.js", ""},
		{sandbox.GlobOptions{Scope: sandbox.Scope{Include: []string{"*.go", "*.js"}}}, "lib/util.go,main.go,web/app.js", ""},
		{sandbox.GlobOptions{Scope: sandbox.Scope{Include: []string{"*.go", "*.ts"}, Exclude: []string{"lib/deep"}}}, "lib/util.go,main.go", ""},
		{sandbox.GlobOptions{Scope: sandbox.Scope{Exclude: []string{"*.go", "lib", "names/"}}}, "data.bin,latin.txt,web/app.js", ""},
		{sandbox.GlobOptions{Scope: sandbox.Scope{Hidden: true, NoIgnore: true, Exclude: []string{"lib", "web", "names", "data.bin"}}}, ".env,.gitignore,a.log,latin.txt,main.go,node_modules/m/index.js", ""},
		{sandbox.GlobOptions{Limit: 2}, "data.bin,latin.txt", sandbox.LimitMatches},
		{sandbox.GlobOptions{Scope: sandbox.Scope{Include: []string{"nothing"}}}, "", ""},
	} {
		c.opts.Path = "w"
		res, err := t.box.Glob(t.ctx, c.opts)
		t.ok(err)
		var got []string
		for _, p := range res.Paths {
			got = append(got, strings.TrimPrefix(p, root+"/"))
		}
		if strings.Join(got, ",") != c.want || res.Truncated != c.more {
			t.Errorf("%+v: %q %q", c.opts, got, res.Truncated)
		}
	}
}

func (t *test) grep(pattern string, o sandbox.GrepOptions) *sandbox.GrepResult {
	t.Helper()
	if o.Path == "" {
		o.Path = "w"
	}
	res, err := t.box.Grep(t.ctx, pattern, o)
	t.ok(err)
	return res
}

func searchGrep(t *test) {
	root := t.sources()
	for _, c := range []struct {
		pattern string
		opts    sandbox.GrepOptions
		want    string
	}{
		{"hello", sandbox.GrepOptions{}, "latin.txt:1:caf\uFFFD hello lib/deep/x.ts:1:export const hello = 1 main.go:4:\tprintln(\"hello\") web/app.js:1:hello();"},
		{"hello", sandbox.GrepOptions{IgnoreCase: true, Scope: sandbox.Scope{Include: []string{"*.go"}}}, "lib/util.go:1:// TODO: Hello main.go:4:\tprintln(\"hello\")"},
		{`^func \w+\(`, sandbox.GrepOptions{}, "lib/util.go:2:func Util() {} main.go:3:func main() {"},
		{`main() {`, sandbox.GrepOptions{Fixed: true}, "main.go:3:func main() {"},
		{"hello", sandbox.GrepOptions{Scope: sandbox.Scope{Path: "w/.env"}}, ".env:1:hello=1"},
		{"hello", sandbox.GrepOptions{Scope: sandbox.Scope{Hidden: true, NoIgnore: true, Include: []string{".env", "*.log"}}}, ".env:1:hello=1 a.log:1:hello"},
		{"-x", sandbox.GrepOptions{}, ""},
	} {
		res := t.grep(c.pattern, c.opts)
		var got []string
		for _, m := range res.Matches {
			got = append(got, fmt.Sprintf("%s:%d:%s", strings.TrimPrefix(m.Path, root+"/"), m.Line, m.Text))
			if m.End <= m.Start || m.End > len(m.Text) {
				t.Errorf("%q is not in %+v", c.pattern, m)
			}
		}
		if s := strings.Join(got, " "); s != c.want || res.Truncated != "" {
			t.Errorf("%q %+v:\n%s\n%s", c.pattern, c.opts, s, c.want)
		}
	}
	if m := t.grep("hello", sandbox.GrepOptions{Scope: sandbox.Scope{Include: []string{"main.go"}}}).Matches; len(m) != 1 || m[0].Text[m[0].Start:m[0].End] != "hello" {
		t.Errorf("%+v", m)
	}
}

func searchContext(t *test) {
	t.write("w/f", "1\n2\nx 3\n4\nx 5\r\n6\n7\n8\n9\nx 10")
	t.write("w/g", "x")
	m := t.grep("x", sandbox.GrepOptions{Context: 2}).Matches
	want := []sandbox.GrepMatch{
		{Line: 3, Text: "x 3", Before: []string{"1", "2"}, After: []string{"4", "x 5"}},
		{Line: 5, Text: "x 5", Before: []string{"x 3", "4"}, After: []string{"6", "7"}},
		{Line: 10, Text: "x 10", Before: []string{"8", "9"}},
		{Line: 1, Text: "x"},
	}
	for i := range m {
		m[i].Path, m[i].Start, m[i].End = "", 0, 0
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func searchFind(t *test) {
	for _, name := range []string{
		"internal/guest/filewrite.go", "internal/guest/file.go", "internal/guest/file_test.go", "sandbox/client_file.go", "docs/profile.md",
		"cmd/tongs/main.go", "internal/cli/main.go", "a/fig/le", "README.md", "Makefile", "node_modules/file.go", "internal/gateway/origin.go",
	} {
		t.write("w/"+name, "")
	}
	t.write("w/.ignore", "node_modules\n")
	for query, want := range map[string][]string{
		"file.go":  {"internal/guest/file.go", "sandbox/client_file.go"},
		"fwrite":   {"internal/guest/filewrite.go"},
		"climain":  {"internal/cli/main.go"},
		"README":   {"README.md"},
		"gateorig": {"internal/gateway/origin.go"},
		"g ft":     {"internal/guest/file_test.go"},
		"mkf":      {"Makefile"},
		"zzz":      nil,
	} {
		res, err := t.box.Find(t.ctx, query, sandbox.FindOptions{Scope: sandbox.Scope{Path: "w"}})
		t.ok(err)
		var got []string
		for i, m := range res.Matches {
			if strings.Contains(m.Path, "node_modules") || i > 0 && m.Score > res.Matches[i-1].Score {
				t.Errorf("%q: %+v", query, res.Matches)
			}
			_, rel, _ := strings.Cut(m.Path, "/w/")
			got = append(got, rel)
		}
		if len(got) < len(want) || len(want) == 0 && len(got) > 0 || !slices.Equal(got[:len(want)], want) {
			t.Errorf("%q: %q, want first %q", query, got, want)
		}
	}
	res, err := t.box.Find(t.ctx, "go", sandbox.FindOptions{Scope: sandbox.Scope{Path: "w"}, Limit: 2})
	t.ok(err)
	if len(res.Matches) != 2 || res.Truncated != sandbox.LimitMatches {
		t.Errorf("%+v", res)
	}
}

func searchBounds(t *test) {
	t.out("mkdir -p w/d; cd w; seq 15000 | sed 's/$/ needle/' > a; seq 10 | sed 's/$/ needle/' > b; head -c 3000000 /dev/zero | tr '\\0' y > long; echo needle >> long; mkfifo pipe; ln -s ../w d/loop; ln -s /dev/zero zero")
	res := t.grep("needle", sandbox.GrepOptions{Limit: 10_000})
	if len(res.Matches) != 10_000 || res.Truncated != sandbox.LimitMatches {
		t.Errorf("%d matches, %q", len(res.Matches), res.Truncated)
	}
	res = t.grep("needle", sandbox.GrepOptions{Limit: 10, Scope: sandbox.Scope{Include: []string{"b"}}})
	if len(res.Matches) != 10 || res.Truncated != "" {
		t.Errorf("%d matches, %q", len(res.Matches), res.Truncated)
	}
	res = t.grep("y", sandbox.GrepOptions{Scope: sandbox.Scope{Include: []string{"long"}}})
	if len(res.Matches) != 1 || len(res.Matches[0].Text) != sandbox.MaxSearchLine {
		t.Errorf("%d matches", len(res.Matches))
	}
	// An answer is bounded in bytes too.
	t.out("cd w; head -c 20000000 /dev/zero | tr '\\0' z | fold -w 2000 > wide")
	res = t.grep("z", sandbox.GrepOptions{Limit: 10_000, Scope: sandbox.Scope{Include: []string{"wide"}}})
	if res.Truncated != sandbox.LimitBytes || len(res.Matches) < 1000 {
		t.Errorf("%d matches, %q", len(res.Matches), res.Truncated)
	}
	// And in time: what was found until then is the answer.
	began := time.Now()
	res = t.grep("(z?){12}z{12}q", sandbox.GrepOptions{Scope: sandbox.Scope{Timeout: 200 * time.Millisecond}})
	if res.Truncated != sandbox.LimitTime && res.Truncated != "" {
		t.Errorf("%q", res.Truncated)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("a search of 200 ms took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	_, err := t.box.Grep(ctx, "(z?){12}z{12}q", sandbox.GrepOptions{Scope: sandbox.Scope{Path: "w"}})
	if err == nil && ctx.Err() != nil {
		t.Error("the search went on after its context")
	}
	t.answers()
}

func searchBadInput(t *test) {
	t.write("f", "x")
	t.out("mkfifo pipe")
	for name, c := range map[string]struct {
		err  error
		code sandbox.Code
	}{
		"no directory":   {second(t.box.Glob(t.ctx, sandbox.GlobOptions{Scope: sandbox.Scope{Path: "absent"}})), sandbox.CodeFileNotFound},
		"a file":         {second(t.box.Glob(t.ctx, sandbox.GlobOptions{Scope: sandbox.Scope{Path: "f"}})), sandbox.CodeNotDirectory},
		"a FIFO":         {second(t.box.Grep(t.ctx, "x", sandbox.GrepOptions{Scope: sandbox.Scope{Path: "pipe"}})), sandbox.CodeNotRegular},
		"/dev/zero":      {second(t.box.Grep(t.ctx, "x", sandbox.GrepOptions{Scope: sandbox.Scope{Path: "/dev/zero"}})), sandbox.CodeNotRegular},
		"a bad glob":     {second(t.box.Glob(t.ctx, sandbox.GlobOptions{Scope: sandbox.Scope{Include: []string{"["}}})), sandbox.CodeInvalidArgument},
		"a bad pattern":  {second(t.box.Grep(t.ctx, "(", sandbox.GrepOptions{})), sandbox.CodeInvalidArgument},
		"look-around":    {second(t.box.Grep(t.ctx, "(?=x)", sandbox.GrepOptions{})), sandbox.CodeInvalidArgument},
		"no pattern":     {second(t.box.Grep(t.ctx, "", sandbox.GrepOptions{})), sandbox.CodeInvalidArgument},
		"two lines":      {second(t.box.Grep(t.ctx, "a\nb", sandbox.GrepOptions{Fixed: true})), sandbox.CodeInvalidArgument},
		"a huge pattern": {second(t.box.Grep(t.ctx, strings.Repeat("x", 1<<20), sandbox.GrepOptions{})), sandbox.CodeInvalidArgument},
		"a bomb":         {second(t.box.Grep(t.ctx, "((((x{50}){50}){50}){50})", sandbox.GrepOptions{})), sandbox.CodeInvalidArgument},
		"a limit":        {second(t.box.Grep(t.ctx, "x", sandbox.GrepOptions{Limit: 1 << 30})), sandbox.CodeInvalidArgument},
		"context":        {second(t.box.Grep(t.ctx, "x", sandbox.GrepOptions{Context: 1000})), sandbox.CodeInvalidArgument},
		"timeout":        {second(t.box.Find(t.ctx, "x", sandbox.FindOptions{Scope: sandbox.Scope{Timeout: time.Hour}})), sandbox.CodeInvalidArgument},
		"a long query":   {second(t.box.Find(t.ctx, strings.Repeat("x", 5000), sandbox.FindOptions{})), sandbox.CodeInvalidArgument},
		"NUL":            {second(t.box.Glob(t.ctx, sandbox.GlobOptions{Scope: sandbox.Scope{Exclude: []string{"a\x00"}}})), sandbox.CodeInvalidArgument},
	} {
		if sandbox.CodeOf(c.err) != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}
	t.answers()
}

// The answers are those of ripgrep, on trees made at random.
func searchAsRipgrep(t *test) {
	if !t.sh("command -v rg").Exit.Success() {
		t.Skip("the sandbox has no rg to compare with")
	}
	rounds := 15
	if os.Getenv("TONGS_TEST_LONG") != "" {
		rounds = 300
	}
	for round := range rounds {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 2))
		pick := func(all ...string) string { return all[r.IntN(len(all))] }
		dir := fmt.Sprint("w", round)
		for range 1 + r.IntN(15) {
			var text strings.Builder
			for range r.IntN(12) {
				text.WriteString(pick("needle", "hay", "a needle b", "Needle", "", "é needle", "x.y", "xzy") + pick("\n", "\n", "\r\n"))
			}
			text.WriteString(pick("", "needle", "\x00needle\n"))
			name := path.Join(dir, pick("", "a", "b", "a/b", ".h", "build"), pick("x.go", "x.js", "f", ".env", "x.log", "x y", "é.go"))
			_, _ = t.box.WriteFile(t.ctx, name, []byte(text.String()), sandbox.WriteOptions{Parents: true})
		}
		for range r.IntN(3) {
			name := path.Join(dir, pick("", "a", "b"), pick(".gitignore", ".ignore", ".rgignore"))
			_, _ = t.box.WriteFile(t.ctx, name, []byte(pick("*.log", "build/", "!x.log", "a/b", "/a", "x.*")+"\n"), sandbox.WriteOptions{Parents: true})
		}
		if r.IntN(2) == 0 {
			t.ok(t.box.Mkdir(t.ctx, dir+"/.git", true))
		}
		opts := sandbox.GrepOptions{Scope: sandbox.Scope{Path: dir}, IgnoreCase: r.IntN(3) == 0, Fixed: r.IntN(3) == 0}
		pattern := pick("needle", "needle$", "^needle", "x.y", `\w+`, "n.*e", "a|b", "^$", "é", "[^y]$")
		argv := []string{"rg", "--no-config", "--color=never", "--no-heading", "--with-filename", "--line-number", "--null", "--no-messages"}
		for flag, on := range map[string]bool{"--ignore-case": opts.IgnoreCase, "--fixed-strings": opts.Fixed} {
			if on {
				argv = append(argv, flag)
			}
		}
		if opts.Hidden = r.IntN(3) == 0; opts.Hidden {
			argv = append(argv, "--hidden")
		}
		if opts.NoIgnore = r.IntN(4) == 0; opts.NoIgnore {
			argv = append(argv, "--no-ignore")
		}
		if r.IntN(3) == 0 {
			opts.Include = []string{pick("*.go", "a/**", "x.*", "b", "*.{js,log}")}
			argv = append(argv, "--glob="+opts.Include[0])
		}
		if r.IntN(4) == 0 {
			opts.Exclude = []string{pick("*.js", "/a", "build", "f")}
			argv = append(argv, "--glob=!"+opts.Exclude[0])
		}
		argv = append(argv, "--glob=!**/.git/**", "--", pattern, ".")
		ran, err := t.box.Exec(t.ctx, sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: argv, Dir: dir}})
		t.ok(err)
		var want, got []string
		for line := range strings.Lines(string(ran.Stdout)) {
			if name, rest, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\x00"); ok {
				want = append(want, strings.TrimPrefix(name, "./")+":"+rest)
			}
		}
		res, err := t.box.Grep(t.ctx, pattern, opts)
		t.ok(err)
		root, err := t.box.Stat(t.ctx, dir)
		t.ok(err)
		for _, m := range res.Matches {
			got = append(got, fmt.Sprintf("%s:%d:%s", strings.TrimPrefix(m.Path, root.Path+"/"), m.Line, m.Text))
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("seed %d: %q\nrg (-) and ours (+)\n%s\n%s", seed, argv, diff, t.out("cd "+dir+"; find . -type f; cat .gitignore .ignore .rgignore a/.??ignore 2>/dev/null || true"))
		}
	}
}
