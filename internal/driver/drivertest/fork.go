package drivertest

import (
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/sandbox"
)

// testFork makes a sandbox with the files of another: everything that a file system can hold, the traces
// of what was removed, and a process that changes the tree while it is copied.
func testFork(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("parent"))
	parent := b.connect(t, "parent")
	output(t, parent, `set -e
cd ~
printf 'text' >plain; chmod 640 plain; touch -d @1000000000 plain
printf '#!/bin/sh\necho ran\n' >tool; chmod 755 tool
ln -s plain link; ln -s /etc/shadow outward; ln plain second
mkfifo pipe; mkdir -p a/b/c locked empty; echo deep >a/b/c/file; echo hidden >locked/file; chmod 000 locked; chmod 1777 empty
truncate -s 300M sparse; printf end >>sparse
d=deep; for i in $(seq 100); do d=$d/d; done; mkdir -p $d; echo bottom >$d/file
printf 'odd' >"$(printf 'new\nline \xff')"
rm -rf project/.git; mkdir project/.git; echo mine >project/.git/only
mkdir swap1; echo mine >swap1/passwd; ln -s /etc swap2
echo begun >/tmp/marker
`)
	// It swaps a directory and a link to the host's most wanted one as fast as it can.
	run, err := parent.Start(t.Context(), sandbox.ProcessSpec{Argv: []string{"perl", "-e",
		`chdir "/home/user"; while (1) { rename "swap1", "swap"; rename "swap", "swap1"; rename "swap2", "swap"; rename "swap", "swap2" }`}})
	must(t, err)

	spec := driver.Spec{ID: "child", From: "parent", Labels: map[string]string{"of": "parent"}}
	b.create(t, spec)
	must(t, parent.Kill(t.Context(), run.ID))
	child := b.connect(t, "child")

	tree := `cd ~ && chmod 700 locked && find . -path ./swap\* -prune -o \( -type d -printf '%p %m %U:%G\n' \) -o -printf '%p %y %m %U:%G %s %l %T@ %n\n' | sort; find . -path ./swap\* -prune -o -type f ! -name sparse -exec sha256sum {} + | sort; tail -c3 sparse; du -k sparse | cut -f1; chmod 000 locked`
	if s.OwnKernel {
		tree = "rm -f ~/pipe; " + strings.Replace(tree, "%T@ ", "", 1)
	}
	want, got := output(t, parent, tree), output(t, child, tree)
	if want != got {
		wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
		for i := range min(len(wants), len(gots)) {
			if wants[i] != gots[i] {
				t.Errorf("line %d\nparent %s\nchild  %s", i, wants[i], gots[i])
			}
		}
		t.Errorf("%d lines, then %d", len(wants), len(gots))
	}
	for script, want := range map[string]string{
		"~/tool":                    "ran",
		"ls -A ~/project/.git":      "only", // what was removed stays so
		"test -e /tmp/marker; echo": "",
		"for d in ~/swap ~/swap1; do test -L $d || cat $d/passwd 2>/dev/null; done | grep -v mine; true": "",
		"pgrep perl; true": "",
		"touch ~/project/new && mkdir ~/project/dir && git init -q ~/x && echo ok": "ok",
	} {
		if got := output(t, child, script); got != want {
			t.Errorf("in the child: %s\ngot  %q\nwant %q", script, got, want)
		}
	}
	output(t, child, "echo changed >~/plain")
	output(t, parent, "echo other >~/after")
	if got := output(t, parent, "cat ~/plain; test -e ~/project/new && echo leaked; true"); got != "text" {
		t.Errorf("the parent reads %q", got)
	}
	if res := bash(t, child, "cat ~/after"); res.Exit.Success() {
		t.Error("the child sees what the parent did later")
	}

	// Of one that doesn't run, and of a fork.
	must(t, b.Stop(t.Context(), "child"))
	b.create(t, driver.Spec{ID: "grandchild", From: "child"})
	if got := output(t, b.connect(t, "grandchild"), "cat ~/plain"); got != "changed" {
		t.Errorf("the grandchild reads %q", got)
	}
	must(t, b.Destroy(t.Context(), "parent"))
	must(t, b.Start(t.Context(), "child"))
	if got := output(t, b.connect(t, "child"), "cat ~/plain"); got != "changed" {
		t.Errorf("after its parent has gone the child reads %q", got)
	}
	wantCode(t, b.Create(t.Context(), driver.Spec{ID: "orphan", From: "parent"}), sandbox.CodeSandboxNotFound)
	wantCode(t, b.Create(t.Context(), driver.Spec{ID: "self", From: "self"}), sandbox.CodeInvalidArgument)
	wantCode(t, b.Create(t.Context(), driver.Spec{ID: "bad", From: "../child"}), sandbox.CodeInvalidArgument)
}
