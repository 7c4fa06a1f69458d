package sandboxtest

import (
	"context"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
	"github.com/tongs-dev/tongs/sandbox/git"
)

func testGit(t *testing.T, h Harness) {
	cases{
		"a repository is checked out":            checkedOut,
		"a branch, a tag and a depth":            branchAndDepth,
		"by the network, with progress":          byNetwork,
		"what fails says why and leaves nothing": failedCheckouts,
		"what hangs ends with its caller":        hangingCheckout,
		"a password is not kept":                 noPasswordKept,
		"no hook and no helper runs":             noHooks,
	}.run(t, h)
}

// repository makes one with three commits on main, a branch and a tag, and gives its
// absolute path.
func (t *test) repository() string {
	t.Helper()
	t.needs("git")
	return strings.TrimSpace(t.out(`set -e
		mkdir -p repos/origin.git && cd repos/origin.git && git init -q -b main . 2>&1
		git config user.name test; git config user.email test@example.com; git config commit.gpgsign false
		for i in 1 2 3; do echo "line $i" >> file; git add file; git commit -q -m "commit $i"; [ $i = 2 ] && git tag v2; done
		git checkout -q -b side; echo side > side; git add side; git commit -q -m side; git checkout -q main
		pwd`))
}

func (t *test) checkout(spec git.Spec) *git.Result {
	t.Helper()
	res, err := git.Checkout(t.ctx, t.box, spec)
	if err != nil {
		t.Fatalf("%+v: %v", spec, err)
	}
	return res
}

func checkedOut(t *test) {
	origin := t.repository()
	res := t.checkout(git.Spec{URL: origin})
	if path.Base(res.Dir) != "origin" || res.Branch != "main" || len(res.Commit) != 40 {
		t.Errorf("%+v", res)
	}
	if got := t.out("cat origin/file; cd origin; git log --format=%s; git status --short; git rev-parse HEAD"); got != "line 1\nline 2\nline 3\ncommit 3\ncommit 2\ncommit 1\n"+res.Commit+"\n" {
		t.Errorf("the checkout has %q", got)
	}
	// An empty directory is as good as none; a full one is not touched.
	t.out("mkdir 'an empty one'")
	t.checkout(git.Spec{URL: origin, Dir: "an empty one"})
	_, err := git.Checkout(t.ctx, t.box, git.Spec{URL: origin, Dir: "an empty one"})
	t.wantCode(err, sandbox.CodeDirNotEmpty)
	t.checkout(git.Spec{URL: "./repos/origin.git", Dir: "deep/er/one"})
	t.out("test -f deep/er/one/file")
	if got := t.out("ls -A deep/er . | grep checkout- || true"); got != "" {
		t.Errorf("left over: %s", got)
	}
}

func branchAndDepth(t *test) {
	origin := t.repository()
	if res := t.checkout(git.Spec{URL: origin, Branch: "side", Dir: "a"}); res.Branch != "side" {
		t.Errorf("%+v", res)
	}
	t.out("test -f a/side")
	if res := t.checkout(git.Spec{URL: origin, Branch: "v2", Dir: "b"}); res.Branch != "" || res.Commit == "" {
		t.Errorf("of a tag: %+v", res)
	}
	if got := t.out("cat b/file"); got != "line 1\nline 2\n" {
		t.Errorf("the tag has %q", got)
	}
	t.checkout(git.Spec{URL: origin, Depth: 1, Dir: "c"})
	if got := t.out("cd c; git log --format=%s"); got != "commit 3\n" {
		t.Errorf("with a depth of 1 there is %q", got)
	}
	t.out("git init -q -b main repos/empty.git")
	if res := t.checkout(git.Spec{URL: "./repos/empty.git", Dir: "e"}); res.Commit != "" || res.Branch != "main" {
		t.Errorf("of an empty repository: %+v", res)
	}
}

// freePort is one that nothing listened on a moment ago.
func freePort(t *test) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func byNetwork(t *test) {
	origin := t.repository()
	port := freePort(t)
	w, err := t.box.WatchPorts(t.ctx)
	t.ok(err)
	defer w.Close()
	p, err := t.box.Start(t.ctx, sandbox.ProcessSpec{Argv: []string{"git", "daemon", "--listen=127.0.0.1", "--port=" + strconv.Itoa(port), "--base-path=" + path.Dir(origin), "--export-all", "--reuseaddr", "--informative-errors"}})
	t.ok(err)
	defer func() { _ = t.box.Kill(t.ctx, p.ID) }()
	t.event(w, sandbox.PortOpened, port)
	var phases []string
	url := fmt.Sprintf("git://127.0.0.1:%d/", port)
	res := t.checkout(git.Spec{URL: url + "origin.git", Progress: func(p git.Progress) {
		if p.Percent == 100 && p.Done == p.Total {
			phases = append(phases, p.Phase)
		}
	}})
	t.out("test -f origin/file")
	if res.Branch != "main" || !strings.Contains(strings.Join(phases, ","), "Receiving objects") {
		t.Errorf("%+v, phases %q", res, phases)
	}
	_, err = git.Checkout(t.ctx, t.box, git.Spec{URL: url + "nothing.git"})
	t.wantCode(err, sandbox.CodeGitRepositoryNotFound)
	_, err = git.Checkout(t.ctx, t.box, git.Spec{URL: url + "origin.git", Dir: "x", Branch: "nobranch"})
	t.wantCode(err, sandbox.CodeGitBranchNotFound)
}

// statusServer answers every HTTP request with the status that its path begins with;
// under /hang it does not answer, and prints what it was asked.
const statusServer = `
require("http").createServer((q, r) => {
	if (q.url.startsWith("/hang")) return console.log("asked " + q.url);
	const status = Number(q.url.slice(1, 4));
	r.writeHead(status, status == 401 ? {"www-authenticate": "Basic realm=x"} : {});
	r.end("no");
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`

func failedCheckouts(t *test) {
	origin := t.repository()
	t.needs("node")
	_, port := t.listener("node", "-e", statusServer)
	http := fmt.Sprintf("http://127.0.0.1:%d/", port)
	before := t.out("ls -A")
	for _, c := range []struct {
		spec git.Spec
		code sandbox.Code
	}{
		{git.Spec{URL: http + "401/x.git"}, sandbox.CodeGitAuthFailed},
		{git.Spec{URL: http + "403/x.git"}, sandbox.CodeGitAuthFailed},
		{git.Spec{URL: http + "404/x.git"}, sandbox.CodeGitRepositoryNotFound},
		{git.Spec{URL: http + "503/x.git"}, sandbox.CodeGitNetworkError},
		{git.Spec{URL: "http://127.0.0.1:1/x.git"}, sandbox.CodeGitNetworkError},
		{git.Spec{URL: "https://no-such-host.invalid/x.git"}, sandbox.CodeGitNetworkError},
		{git.Spec{URL: "/no/such/repository"}, sandbox.CodeGitRepositoryNotFound},
		{git.Spec{URL: origin, Branch: "nobranch", Dir: "x"}, sandbox.CodeGitBranchNotFound},
		{git.Spec{URL: origin, Branch: "--upload-pack=touch y"}, sandbox.CodeInvalidArgument},
		{git.Spec{URL: origin, Depth: -1}, sandbox.CodeInvalidArgument},
		{git.Spec{URL: origin, Dir: "/"}, sandbox.CodeInvalidPath},
		{git.Spec{URL: "ext::sh -c touch% y"}, sandbox.CodeInvalidGitURL},
		{git.Spec{URL: "--upload-pack=touch y"}, sandbox.CodeInvalidGitURL},
		{git.Spec{}, sandbox.CodeInvalidGitURL},
	} {
		_, err := git.Checkout(t.ctx, t.box, c.spec)
		if sandbox.CodeOf(err) != c.code {
			t.Errorf("%+v: %v (%s), want %s", c.spec, err, sandbox.CodeOf(err), c.code)
		}
	}
	if after := t.out("ls -A"); after != before {
		t.Errorf("before there was\n%safterwards\n%s", before, after)
	}
}

func hangingCheckout(t *test) {
	t.needs("git")
	t.needs("node")
	server, port := t.listener("node", "-e", statusServer)
	url := fmt.Sprintf("http://127.0.0.1:%d/hang/", port)
	_, err := git.Checkout(t.ctx, t.box, git.Spec{URL: url + "late.git", Timeout: 500 * time.Millisecond})
	t.wantCode(err, sandbox.CodeTimeout)

	ctx, cancel := context.WithCancel(t.ctx)
	result := make(chan error, 1)
	go func() {
		_, err := git.Checkout(ctx, t.box, git.Spec{URL: url + "x.git"})
		result <- err
	}()
	// Once git has asked it is given up.
	log, err := t.box.Output(t.ctx, server, sandbox.OutputOptions{Follow: true})
	t.ok(err)
	defer log.Close()
	for said := ""; !strings.Contains(said, "asked /hang/x.git"); {
		_, data, _, err := log.Next(t.ctx)
		t.ok(err)
		said += string(data)
	}
	cancel()
	select {
	case err = <-result:
	case <-t.ctx.Done():
		t.Fatal("the checkout goes on without its caller")
	}
	if err != context.Canceled {
		t.Errorf("given up: %v", err)
	}
	if got := t.out("ls -A | grep -v '^.git$' || true"); got != "" {
		t.Errorf("left over: %s", got)
	}
	t.answers()
}

func noPasswordKept(t *test) {
	origin := t.repository()
	t.needs("node")
	// A server of the plain file protocol that asks for a password.
	t.out("cd " + origin + " && git update-server-info")
	_, port := t.listener("node", "-e", `
		const fs = require("fs"), root = process.argv[1];
		require("http").createServer((q, r) => {
			if (q.headers.authorization != "Basic " + Buffer.from("me:hunter2").toString("base64")) { r.writeHead(401, {"www-authenticate": "Basic realm=x"}); return r.end(); }
			fs.readFile(root + "/.git" + q.url.split("?")[0].replace("/r.git", ""), (e, b) => { r.writeHead(e ? 404 : 200); r.end(b); });
		}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });`, origin)
	host := fmt.Sprintf("127.0.0.1:%d/r.git", port)
	t.checkout(git.Spec{URL: "http://me:hunter2@" + host})
	if got := t.out("cat r/file; git -C r remote get-url origin; grep -r hunter2 r/.git || true"); got != "line 1\nline 2\nline 3\nhttp://"+host+"\n" {
		t.Errorf("the checkout has %q", got)
	}
	_, err := git.Checkout(t.ctx, t.box, git.Spec{URL: "http://me:wrong-secret@" + host, Dir: "again"})
	t.wantCode(err, sandbox.CodeGitAuthFailed)
	if err != nil && strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("the password is shown: %v", err)
	}
}

func noHooks(t *test) {
	origin := t.repository()
	// Settings of the sandbox's user that would run something.
	t.out(`set -e; mkdir -p hooks template/hooks
		printf '#!/bin/sh\ntouch "$OLDPWD/ran"; touch ran\n' > hooks/post-checkout; chmod +x hooks/post-checkout; cp hooks/post-checkout template/hooks/
		git config --global core.hooksPath "$PWD/hooks"; git config --global init.templateDir "$PWD/template"; git config --global credential.helper '!touch ran'`)
	defer t.out("git config --global --remove-section core; git config --global --remove-section init; git config --global --remove-section credential")
	t.checkout(git.Spec{URL: origin, Dir: "quiet"})
	if got := t.out("ls ran quiet/ran quiet/.git/ran quiet/.git/hooks 2>/dev/null || true"); got != "" {
		t.Errorf("there is %q", got)
	}
}
