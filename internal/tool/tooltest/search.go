package tooltest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// sources is a small project with what a search has to know about.
func sources() f {
	files := f{
		"main.go": "package main\n\nfunc main() {\n\tprintln(\"hello\")\n}\n", "lib/util.go": "package lib\n\n// TODO: write\nfunc Util() {}\n",
		"lib/deep/er/x.ts": "export const hello = 1;\n", "web/app.tsx": "// hello TODO\r\nconst a = 1;\r\n", "web/app.js": "hello();\n",
		"README.md": "# Hello\n\nTODO: hello\n", ".env": "HELLO=hello\n", ".github/ci.yml": "run: hello\n",
		".gitignore": "node_modules\n*.log\n/build\n!keep.log\nlib/gen/\n", "node_modules/m/index.js": "hello\n",
		"a.log": "hello\n", "keep.log": "hello\n", "build/out.js": "hello\n", "sub/build/in.js": "hello\n", "lib/gen/g.go": "// hello\n",
		"sub/.gitignore": "secret.txt\n!a.log\n", "sub/secret.txt": "hello\n", "sub/a.log": "hello\n",
		"sub/.ignore": "ign.txt\n", "sub/ign.txt": "hello\n", "bin/data": "hello\x00hello\n", "text/late": "hello\nfoo\x00hello\n",
		"empty": "", "names/a b.txt": "hello\n", "names/[x].txt": "hello\n", "names/ünï.txt": "hello\n",
		"utf16.txt": "\xff\xfeh\x00e\x00l\x00l\x00o\x00\n\x00", "bom.txt": "\ufeffhello\n",
	}
	files["link.go"] = "->main.go"
	return files
}

// SearchCases are those of glob and grep.
func SearchCases() []Case {
	glob := func(pattern string, more ...any) Case {
		args := m{"pattern": pattern}
		for i := 0; i+1 < len(more); i += 2 {
			args[more[i].(string)] = more[i+1]
		}
		return Case{Name: fmt.Sprint(pattern, more), Files: sources(), Tool: "glob", Args: args}
	}
	grep := func(pattern string, more ...any) Case {
		g := glob(pattern, more...)
		g.Tool = "grep"
		return g
	}
	many := f{}
	for i := range 150 {
		many[fmt.Sprintf("d%d/f%03d.txt", i%7, i)] = "needle\n"
	}
	hundred := f{}
	for i := range 100 {
		hundred[fmt.Sprintf("f%03d.txt", i)] = "needle\n"
	}
	count := func(t *testing.T, theirs, ours Outcome) {
		t.Helper()
		lines := func(o Outcome) int { return strings.Count(o.Output, "\n") }
		if tail := ours.Output[strings.LastIndex(ours.Output, "\n"):]; !strings.HasSuffix(theirs.Output, tail) || lines(theirs) != lines(ours) && !strings.HasPrefix(ours.Output, "Found") {
			t.Errorf("theirs\n%s\nours\n%s", theirs.Output, ours.Output)
		}
	}
	first := "which of more than 100 the built-in gives is chance; ours are the first by path"
	cases := []Case{
		glob("*.go"), glob("**/*.go"), glob("*"), glob("**"), glob("**/*"), glob("lib/**"), glob("lib/*"), glob("lib/**/*.ts"),
		glob("*.{ts,tsx}"), glob("**/*.{js,go}"), glob("{main,nothing}.go"), glob("?ain.go"), glob("[lm]ain.go"), glob("[!a]*.go"),
		glob("/main.go"), glob("main.go"), glob("./main.go"), glob("app.*"), glob("web/app.*"), glob("lib/"), glob("lib"), glob("**/lib/**"),
		glob(".env"), glob(".*"), glob("**/.github/*"), glob("*.log"), glob("node_modules/**"), glob("**/index.js"), glob("build/*"),
		glob("names/*"), glob(`names/\[x\].txt`), glob("names/[[]x].txt"), glob("**/ünï.txt"), glob("names/a b.txt"), glob("!*.go"), glob("nothing*"),
		glob("*.GO"), glob("a*b"), glob("**er/*.ts"), glob("lib/**er/x.ts"), glob("{lib,web}/**"), glob("{**/x.ts,main.go}"), glob("lib/{deep/er,gen}/*"),
		glob("*.go", "path", "{P}/lib"), glob("*.go", "path", "lib"), glob("*.go", "path", "{P}/main.go"), glob("*", "path", "{P}/node_modules"),
		glob("*", "path", "{P}/.github"), glob("hosts", "path", "/etc"), glob("**/.git/**"), glob("HEAD"),
		{Name: "100", Files: hundred, Tool: "glob", Args: m{"pattern": "*.txt"}},
		{Name: "150", Files: many, Tool: "glob", Args: m{"pattern": "*.txt"}, Differs: first, Check: count},

		grep("hello"), grep("Hello"), grep("(?i)HELLO"), grep("TODO"), grep("hello|TODO"), grep(`func\s+\w+\(`), grep("^package"), grep(`\)$`), grep("nothing here"),
		grep("hello", "include", "*.go"), grep("hello", "include", "*.{js,ts}"), grep("hello", "include", "lib/**"), grep("hello", "include", "*"),
		grep("hello", "path", "{P}/lib"), grep("hello", "path", "lib"), grep("hello", "path", "{P}/node_modules"), grep("hello", "path", "sub"),
		grep(`\bhello\b`), grep("-x"), grep("--version"), grep("a b"), grep(`"hello"`), grep("^$"), grep("^"), grep("a.*b"), grep(`\$|\{`), grep("[[:upper:]]{3,}"),
		grep(`\x68ello`), grep("localhost", "path", "/etc", "include", "hosts"),
		{Name: "long line", Files: f{"a.txt": strings.Repeat("x", 3000) + "needle" + strings.Repeat("y", 3000) + "\nshort needle\n"}, Tool: "grep", Args: m{"pattern": "needle"}},
		{Name: "100", Files: hundred, Tool: "grep", Args: m{"pattern": "needle"}},
		{Name: "150", Files: many, Tool: "grep", Args: m{"pattern": "needle"}, Differs: first, Check: count},
		{Name: "no pattern", Tool: "grep", Args: m{"pattern": ""}},
	}
	differ := map[string]string{
		"glob/path missing": "a clearer error", "glob/[": "a clearer error",
		"grep/not UTF-8": "the built-in fails as a whole", "grep/file": "the built-in searches the whole directory of a file", "grep/(": "a clearer error", "grep/(?=x)": "a clearer error",
	}
	for _, g := range []Case{
		{Name: "path missing", Tool: "glob", Args: m{"pattern": "*", "path": "{P}/nowhere"}},
		{Name: "[", Tool: "glob", Args: m{"pattern": "["}},
		{Name: "file", Files: sources(), Tool: "grep", Args: m{"pattern": "hello", "path": "{P}/web/app.js"}},
		{Name: "not UTF-8", Files: f{"latin": "caf\xe9 hello\n"}, Tool: "grep", Args: m{"pattern": "caf"}},
		{Name: "(", Tool: "grep", Args: m{"pattern": "("}},
		{Name: "(?=x)", Tool: "grep", Args: m{"pattern": "(?=x)"}},
	} {
		g.Differs = differ[g.Tool+"/"+g.Name]
		cases = append(cases, g)
	}
	return cases
}

// BashCases are those of bash.
func BashCases() []Case {
	bash := func(command string, more ...any) Case {
		args := m{"command": command}
		for i := 0; i+1 < len(more); i += 2 {
			args[more[i].(string)] = more[i+1]
		}
		return Case{Name: strings.TrimSuffix(fmt.Sprint(command, " ", more), " []"), Files: f{"d/x.txt": "in d\n", "a.txt": "a\n"}, Tool: "bash", Args: args}
	}
	other := func(g Case, why string) Case { g.Differs = why; return g }
	cut := func(g Case) Case {
		g.Differs = "the note that output was cut counts, too, so that OpenCode does not cut again"
		g.Check = func(t *testing.T, theirs, ours Outcome) {
			t.Helper()
			head, tail, ok := strings.Cut(ours.Output, "FILE\n\n")
			// On a busy machine the built-in loses the end of what a command printed just before its shell ended.
			lost := reached(theirs) < reached(ours)
			if !ok || !strings.HasPrefix(theirs.Output, head) || !lost && (!strings.HasSuffix(theirs.Output, tail) || len(tail) < len(theirs.Output)*9/10) {
				t.Errorf("theirs\n%.300s\nours\n%.300s", theirs.Output, ours.Output)
			}
		}
		return g
	}
	return []Case{
		bash("echo hello"), bash("true"), bash("false"), bash("exit 7"), bash("printf 'no newline'"),
		bash("pwd", "workdir", "{P}/d"), bash("pwd", "workdir", "d"), bash("pwd", "workdir", "/tmp"),
		bash("cat /etc/hostname"), bash("cat < /etc/hostname"), bash("cd d && cat x.txt"), bash("cd /tmp && pwd"), bash("mkdir -p new/dir && touch new/dir/f"),
		bash("echo a | tr a b > out.txt; cat out.txt"), bash("for i in 1 2 3; do echo $i; done"), bash("if true; then echo yes; else echo no; fi"),
		bash("echo $(echo inner; pwd)"), bash("X=1 Y=2 env | grep -c '^[XY]='"), bash("X=5; echo $X"), bash("(cd d; ls)"), bash("{ echo a; echo b; }"),
		bash("echo 'a;b' \"c && d\" e\\;f"), bash("git status --short"), bash("git stash list"), bash("cat <<EOF\nhi $(echo there)\nEOF"), bash("cat <<'EOF'\nno $(echo there)\nEOF"),
		bash("f() { echo in f; }; f"), bash("case x in x) echo X;; *) echo other;; esac"), bash("while false; do echo never; done; echo after"),
		bash("[ -f a.txt ] && echo yes"), bash("[[ -f a.txt && -d d ]] && echo yes"), bash("! false"), bash("echo \"$(cat a.txt)\""), bash("export A=$(echo 1) && echo $A"),
		bash("echo `echo back`"), bash("cat ~/nothing 2>/dev/null || true"), bash("rm -f ../outside-file"), bash("cp a.txt /tmp/ && rm /tmp/a.txt"), bash("ls *.txt # comment"),
		bash("echo $((1 + 2))"), bash("nothing-such-command"), other(bash("syntax error ("), "a line that can't be read is asked for as a whole"), bash("echo é 😀"), bash("diff <(echo a) <(echo a)"), bash("{ time true; } 2>/dev/null"),
		bash("sleep 5", "timeout", 300), bash("echo before; sleep 5", "timeout", 300), bash("echo a && \\\n echo b"), bash("echo a;\necho b"), bash("echo a & wait"),
		bash("npm run build --if-present >/dev/null 2>&1; echo done"), bash("touch x.sh; chmod +x x.sh"), bash("  echo   spaced  "), bash("echo one two > /dev/null"), bash("cat /etc/hostname /etc/hosts > /dev/null"),
		cut(bash("seq 1 3000")), cut(bash("seq 1 2000")), cut(bash("head -c 60000 /dev/zero | tr '\\0' x")), cut(bash("for i in $(seq 900); do printf '%0100d\\n' $i; done")), cut(bash("seq 1 100000")),
		bash("echo hi", "timeout", 5000), bash("echo hi", "description", "Says hi"),
		bash("echo a > f1 | cat"), bash("echo a | cat > f1 | cat"), bash("true && echo b > f1"), bash("true; echo b > f1"), bash("false || echo b 2>&1 | cat > f1"),
		bash("> f1 echo b"), bash("echo b > f1 c"), bash("cat <<EOF | tr a b\naaa\nEOF"), bash("cat <<EOF > f1\naaa\nEOF\ncat f1"), bash("cat <<< word"), bash("cat <<-EOF\n\taaa\n\tEOF"),
		bash("(echo a; echo b) > f1"), bash("{ echo a; } > f1"), bash("for i in 1; do echo $i > f1; done"), bash("if true; then echo a > f1; fi"), bash("f() { echo a > f1; }; f"),
		bash("X=$(echo a > f1; cat f1); echo $X"), bash("echo \"a $(cat a.txt | tr a b)\""), bash("echo ${X:-$(echo dflt)}"), bash("sleep 0.01 & echo b"), bash("until true; do :; done"),
		bash("a=1 && cat <<EOF\nx\nEOF"), bash("echo a &&\n\techo b > f1"), bash("echo a |& cat"), bash("exec 3>&1; echo a >&3"), bash("eval 'echo evaluated'"), bash("source /dev/null"), bash("A=(1 2 3); echo ${A[1]}"),
		bash("let x=1+1; echo $x"), bash("declare -i n=3; echo $n"), bash("unset X; echo ok"), bash("test -f a.txt && echo y"), bash("printf '%s\\n' \"$HOME\" > /dev/null"), bash("echo a; # comment ; rm x\necho b"),
		bash("trap 'echo bye' EXIT"), bash("case a in a|b) echo ab;; (c) echo c;; esac"), bash("for ((i=0;i<2;i++)); do echo $i; done"), bash("echo *.nothing ?.txt [ab].txt"), bash("mv a.txt b.txt; cp -r d e; rm -rf d"),
	}
}

// reached is the largest number that stands on a line of its own in an output.
func reached(o Outcome) (most int) {
	for line := range strings.Lines(o.Output) {
		if n, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil {
			most = max(most, n)
		}
	}
	return most
}
