package sandboxtest

import (
	"path"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tongs-dev/tongs/sandbox"
)

// patch: both languages, what they do to files, and where they are wrong.
func patch(t *test) {
	project, err := t.box.Stat(t.ctx, ".")
	t.ok(err)
	for name, c := range map[string]struct {
		files map[string]string
		text  string
		opts  sandbox.PatchOptions
		want  map[string]string // "-" is gone
		did   []sandbox.PatchedFile
		code  sandbox.Code
	}{
		"unified": {
			files: map[string]string{"f": "a\nb\nc\nd\ne\nf\ng\nh\n"},
			text:  "--- a/f\t2020-01-01\n+++ b/f\n@@ -1,3 +1,3 @@ func\n a\n-b\n+B\n c\n@@ -7,2 +7,3 @@\n g\n+G\n h\n",
			want:  map[string]string{"f": "a\nB\nc\nd\ne\nf\ng\nG\nh\n"},
			did:   []sandbox.PatchedFile{{Path: "f", Kind: "update"}},
		},
		"moved lines": {
			files: map[string]string{"f": "0\n0\n0\na\nb\nc\n"},
			text:  "--- f\n+++ f\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n",
			want:  map[string]string{"f": "0\n0\n0\na\nB\nc\n"},
			did:   []sandbox.PatchedFile{{Path: "f", Kind: "update"}},
		},
		"no newline at the end": {
			files: map[string]string{"f": "a\nb"},
			text:  "--- f\n+++ f\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n",
			want:  map[string]string{"f": "a\nc\n"},
			did:   []sandbox.PatchedFile{{Path: "f", Kind: "update"}},
		},
		"add and delete": {
			files: map[string]string{"old": "x\n"},
			text:  "--- /dev/null\n+++ b/d/new\n@@ -0,0 +1,2 @@\n+one\n+two\n--- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
			want:  map[string]string{"d/new": "one\ntwo\n", "old": "-"},
			did:   []sandbox.PatchedFile{{Path: "d/new", Kind: "add"}, {Path: "old", Kind: "delete"}},
		},
		"strip and directory": {
			files: map[string]string{"sub/f": "a\n"},
			text:  "--- x/y/f\n+++ x/y/f\n@@ -1 +1 @@\n-a\n+b\n",
			opts:  sandbox.PatchOptions{Dir: "sub", Strip: 2},
			want:  map[string]string{"sub/f": "b\n"},
			did:   []sandbox.PatchedFile{{Path: "sub/f", Kind: "update"}},
		},
		"OpenCode's": {
			files: map[string]string{"f": "a\nb\nc\n", "gone": "x\n"},
			text:  "*** Begin Patch\n*** Update File: f\n*** Move to: g\n@@\n a\n-b\n+B\n*** Delete File: gone\n*** Add File: new\n+hello\n*** End Patch",
			want:  map[string]string{"f": "-", "g": "a\nB\nc\n", "gone": "-", "new": "hello\n"},
			did:   []sandbox.PatchedFile{{Path: "g", Kind: "move", From: "f"}, {Path: "gone", Kind: "delete"}, {Path: "new", Kind: "add"}},
		},
		"another text":    {files: map[string]string{"f": "z\n"}, text: "--- f\n+++ f\n@@ -1 +1 @@\n-a\n+b\n", code: sandbox.CodePatchFailed},
		"no file":         {text: "--- absent\n+++ absent\n@@ -1 +1 @@\n-a\n+b\n", code: sandbox.CodeFileNotFound},
		"there already":   {files: map[string]string{"f": "z\n"}, text: "--- /dev/null\n+++ f\n@@ -0,0 +1 @@\n+a\n", code: sandbox.CodePatchFailed},
		"out by ..":       {text: "--- /dev/null\n+++ b/../../f\n@@ -0,0 +1 @@\n+a\n", code: sandbox.CodeInvalidPath},
		"absolute":        {text: "--- /dev/null\n+++ /tmp/f\n@@ -0,0 +1 @@\n+a\n", code: sandbox.CodeInvalidPath},
		"OpenCode's, out": {text: "*** Begin Patch\n*** Add File: ../f\n+a\n*** End Patch", code: sandbox.CodeInvalidPath},
		"cut off":         {files: map[string]string{"f": "a\n"}, text: "--- f\n+++ f\n@@ -1,5 +1 @@\n-a\n", code: sandbox.CodePatchFailed},
		"no patch":        {text: "hello\n", code: sandbox.CodePatchFailed},
		"nothing":         {text: "", code: sandbox.CodePatchFailed},
		"a binary file":   {text: "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\n", code: sandbox.CodePatchFailed},
		"huge numbers":    {files: map[string]string{"f": "a\n"}, text: "--- f\n+++ f\n@@ -99999999999999999999,1 +1 @@\n-a\n", code: sandbox.CodePatchFailed},
		"no directory":    {text: "--- f\n+++ f\n@@ -1 +1 @@\n-a\n+b\n", opts: sandbox.PatchOptions{Dir: "absent"}, code: sandbox.CodeFileNotFound},
	} {
		t.out("rm -rf -- *")
		for name, text := range c.files {
			t.write(name, text)
		}
		res, err := t.box.ApplyPatch(t.ctx, c.text, c.opts)
		if c.code != "" {
			if t.wantCode(err, c.code); t.Failed() {
				t.Fatalf("in %q", name)
			}
			for name, text := range c.files {
				t.holds(name, text)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range c.did {
			for _, p := range []*string{&c.did[i].Path, &c.did[i].From} {
				if *p != "" {
					*p = path.Join(project.Path, *p)
				}
			}
		}
		if diff := cmp.Diff(c.did, res.Files, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		for file, text := range c.want {
			if there, err := t.box.Exists(t.ctx, file); err != nil || there != (text != "-") {
				t.Errorf("%s: %s exists: %v, %v", name, file, there, err)
			} else if there {
				t.holds(file, text)
			}
		}
	}
}

// A patch of which the last part does not fit changes nothing.
func patchAllOrNothing(t *test) {
	t.write("a", "1\n")
	t.write("b", "1\n")
	_, err := t.box.ApplyPatch(t.ctx, "--- a\n+++ a\n@@ -1 +1 @@\n-1\n+2\n--- /dev/null\n+++ new\n@@ -0,0 +1 @@\n+x\n--- b\n+++ b\n@@ -1 +1 @@\n-no\n+2\n", sandbox.PatchOptions{})
	t.wantCode(err, sandbox.CodePatchFailed)
	if !strings.Contains(err.Error(), "hunk 1 of") || !strings.Contains(err.Error(), "/b does not fit") {
		t.Errorf("the error does not say where: %v", err)
	}
	t.holds("a", "1\n")
	t.holds("b", "1\n")
	if got := t.out("ls -A -I .git"); got != "a\nb\n" {
		t.Errorf("there is %q", got)
	}
}

// What git makes of two trees, we carry out as git would.
func patchAsGit(t *test) {
	if !t.sh("command -v git").Exit.Success() {
		t.Skip("the sandbox has no git")
	}
	diff := t.out(`export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
		mkdir w && cd w && git init -q && git config user.email a@b && git config user.name a && git config core.quotepath true
		seq 100 > long; printf 'no end' > end; : > empty; echo x > gone; echo run > script; seq 50 > 'old name'; printf 'a\r\nb\r\n' > crlf; echo ü > 'ü x'; echo > ümode
		git add -A && git commit -qm one
		sed -i -e 5d -e 's/^50$/fifty/' -e '80i new' long; printf 'now' > end; rm gone empty; chmod +x script ümode; mv 'old name' 'new name'; sed -i s/25/x/ 'new name'
		printf 'a\r\nc\r\n' > crlf; echo y >> 'ü x'; mkdir d; echo made > d/made; : > d/nothing
		git add -A && git diff --cached -M > ../diff; git stash -q; cp -r . ../ours; git stash pop -q --index; cat ../diff`)
	_, err := t.box.ApplyPatch(t.ctx, diff, sandbox.PatchOptions{Dir: "ours"})
	if err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
	t.out("rm -rf w/.git ours/.git; diff -r w ours && test -x ours/script && test -x ours/ümode && test ! -x ours/long")
}
