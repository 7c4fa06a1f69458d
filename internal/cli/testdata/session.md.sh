#!/bin/bash
# Records docs/cli-session.md: somebody uses `tongs sandbox` for the first time and makes mistakes. Every
# line is really run against the running service of $TONGS_HOME; ids, times and sizes are as they come.
#   TONGS_HOME=… PATH=bin:$PATH bash internal/cli/testdata/session.md.sh > docs/cli-session.md
cd "$(mktemp -d)" || exit 1
say() { printf '\n%s\n\n' "$*"; }
begin() { echo '```console'; }
end() { echo '```'; }
run() {
  printf '$ %s\n' "$1"
  bash -c "$1" 2>&1
  local status=$?
  [ $status = 0 ] || printf '# status %d\n' $status
}
cat <<'TEXT'
# Ten minutes with the command line

A recording of somebody who uses `tongs sandbox` for the first time, with their mistakes. Each command was run,
by `internal/cli/testdata/session.md.sh`, and this is what it said; `# status N` is the exit status where it
is not 0.
TEXT

say "Before \`tongs up\` runs, with a home of its own:"
begin
run 'tongs --home /tmp/not-yet sandbox list'
run 'tongs sandbx list'
run 'tongs sandbox'
end

say "It runs now, in another terminal. What is there?"
begin
run 'tongs sandbox list'
run 'tongs sandbox create My_Project'
run 'tongs sandbox create my-project --memory lots'
run 'tongs sandbox create my-project --memory 1GiB --label team=docs'
run 'tongs sandbox create my-project'
run 'tongs sandbox list'
end

say "Running something. Quotes, flags, \`cd\` and misspelt names:"
begin
run 'tongs sandbox exec my-project'
run "tongs sandbox exec my-project 'ls -la'"
run 'tongs sandbox exec my-project ls -la'
run 'tongs sandbox exec my-porject ls'
run 'tongs sandbox exec --workdri /tmp my-project pwd'
run 'tongs sandbox exec my-project cd /tmp'
run 'tongs sandbox exec --workdir /tmp my pwd'
run "tongs sandbox exec my-project A=1 env"
run "tongs sandbox exec -e A=1 my-project -- sh -c 'echo \"A is \$A\"; exit 3'"
run 'tongs sandbox exec --timeout 1s my-project sleep 60'
run 'tongs sandbox exec my-project pyhton3 --version'
end

say "Files, in and out:"
begin
run "printf 'first\nsecond\n' > notes.txt; mkdir -p site/css; echo '<h1>hello</h1>' > site/index.html; echo 'h1 {}' > site/css/main.css"
run 'tongs sandbox cp notes.txt my-project'
run 'tongs sandbox cp notes.txt my-project:'
run 'tongs sandbox cp site my-project:'
run 'tongs sandbox ls my-project'
run 'tongs sandbox ls -lR my-project:site'
run 'tongs sandbox cat my-project:note.txt'
run 'tongs sandbox cat my-project:notes.txt'
run 'date +%Y | tongs sandbox exec my-project -- tee year.txt'
run 'tongs sandbox cp my-project:site .'
run 'tongs sandbox cp my-project:year.txt -'
run 'tongs sandbox cp my-project:site -'
run 'tongs sandbox exec my-project tar c site | tar t'
run 'tongs sandbox cp my-project:site /nowhere/'
end

say "A server, its output, and its port on this machine:"
begin
run "tongs sandbox exec -d --id web my-project -- node -e 'require(\"http\").createServer((q, r) => { console.log(q.method, q.url); r.end(\"hello\\n\") }).listen(3000, () => console.log(\"listening\"))'"
run 'timeout 60 sh -c "until tongs sandbox ports my-project | grep -q 3000; do sleep 0.2; done"; tongs sandbox ports my-project'
run 'tongs sandbox forward my-project web'
run 'tongs sandbox forward my-project 18080:3000 & sleep 2; curl -s http://127.0.0.1:18080/a http://127.0.0.1:18080/b; kill %1; wait'
run 'tongs sandbox logs my-project'
run 'tongs sandbox logs my-project web --since 10 --json'
run 'tongs sandbox logs my-project wbe'
run 'tongs sandbox ps my-project'
run 'tongs sandbox kill -s KIL my-project web'
run 'tongs sandbox kill my-project web; tongs sandbox logs -f my-project web | tail -1'
run 'tongs sandbox ps my-project'
run 'tongs sandbox ps -a my-project'
end

say "A shell, here without a terminal (with one it is a real one; Ctrl-] d leaves it running):"
begin
run "printf 'cd site && ls\nexit 4\n' | tongs sandbox shell my-project"
end

say "For a program that shall have this sandbox and no other:"
begin
run 'tongs sandbox token issue my-project --for 1h --note ci > token'
run 'tongs sandbox create other'
run 'tongs sandbox --token-file token exec my-project hostname'
run 'tongs sandbox --token-file token exec other hostname'
run 'tongs sandbox --token-file token rm my-project'
run 'tongs sandbox --token-file tokn list'
run "tongs sandbox token revoke \$(tongs sandbox token list | awk '/ci\$/ {print \$1}')"
run 'tongs sandbox --token-file token list'
end

say "And away with it:"
begin
run 'tongs sandbox rm'
run 'tongs sandbox rm my-project othr'
run 'tongs sandbox rm other'
run 'tongs sandbox list'
end
