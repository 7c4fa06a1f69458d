package project_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
)

// object writes an object that git would not write by itself, and gives its name.
func object(t *testing.T, dir, kind string, data []byte) string {
	t.Helper()
	out, err := gitErr(t, dir, data, "hash-object", "-t", kind, "-w", "--literally", "--stdin")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// treeOf is the content of a tree with one name in it.
func treeOf(t *testing.T, mode, name, id string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(mode+" "+name+"\x00"), raw...)
}

// commitOf makes a commit of a tree the one that is checked out, and one of an innocent tree on top of it.
func commitOf(t *testing.T, dir, tree string) {
	t.Helper()
	head := git(t, dir, "rev-parse", "HEAD")
	evil := git(t, dir, "commit-tree", tree, "-p", head, "-m", "evil")
	top := git(t, dir, "commit-tree", head+"^{tree}", "-p", evil, "-m", "innocent")
	git(t, dir, "update-ref", "refs/heads/main", top)
}

func TestNamesThatLeadElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "file", "x\n")
	r.commit()
	l := r.take(project.Options{})
	for name, refused := range map[string]bool{
		".git": true, ".GIT": true, ".gIt": true, ".git ": true, ".git.": true, ".git . .": true, "git~1": true, "GIT~1": true, ".git::$INDEX_ALLOCATION": true,
		".g\u200cit": true, ".\u202eGit": true, "..": true, ".": true, `.git\config`: true, "a/b": true, strings.Repeat("n", 256): true,
		".gitx": false, "git": false, "..a": false, ".github": false, "git~2x": false, "a:b": false, strings.Repeat("n", 255): false, "new\nline": false,
	} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, l)
			blob := object(t, b.dir(), "blob", []byte("#!/bin/sh\n"))
			inner := object(t, b.dir(), "tree", treeOf(t, "100644", name, blob))
			commitOf(t, b.dir(), object(t, b.dir(), "tree", treeOf(t, "40000", "dir", inner)))
			w, err := r.store.Bring(t.Context(), b, l, project.BringOptions{})
			if w != nil {
				defer w.Close()
			}
			if refused && sandbox.CodeOf(err) != project.CodeUnsafe || !refused && err != nil {
				t.Errorf("refused: %v, the error is %v", refused, err)
			}
		})
	}
}

func TestObjectsThatAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "file", "x\n")
	r.commit()
	l := r.take(project.Options{})
	link := func(mode, name, text string) func(t *testing.T, b *box) {
		return func(t *testing.T, b *box) {
			commitOf(t, b.dir(), object(t, b.dir(), "tree", treeOf(t, mode, name, object(t, b.dir(), "blob", []byte(text)))))
		}
	}
	for name, test := range map[string]struct {
		do   func(t *testing.T, b *box)
		want string // in the error; "" for none
	}{
		"a file":               {link("100644", "a", "x"), ""},
		"a link within":        {link("120000", "a", "b/../c"), ""},
		"an absolute link":     {link("120000", "a", "/etc/passwd"), "leads out of the project"},
		"a link above":         {link("120000", "a", "b/../../c"), "leads out of the project"},
		"a link into .git":     {link("120000", "a", ".GIT/config"), "leads out of the project"},
		"an odd mode":          {link("100777", "a", "x"), ""}, // which git takes for 100755
		"a device":             {link("20666", "a", "x"), ""},  // which git takes for a submodule
		"hostile submodule":    {link("100644", ".gitmodules", "[submodule \"a\"]\n\tpath = a\n\turl = --upload-pack=touch ran\n"), "git refuses"},
		"submodule's name":     {link("100644", ".gitmodules", "[submodule \"../../x\"]\n\tpath = a\n\turl = https://example.org/x\n"), "git refuses"},
		"submodules":           {link("100644", ".gitmodules", "[submodule \"a\"]\n\tpath = a\n\turl = https://example.org/x\n"), ""},
		"gitmodules is a link": {link("120000", ".gitmodules", "x"), "git refuses"},
		"a link in the files":  {func(t *testing.T, b *box) { symlink(t, "/etc", filepath.Join(b.dir(), "out")) }, "leads out of the project"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, l)
			test.do(t, b)
			w, err := r.store.Bring(t.Context(), b, l, project.BringOptions{})
			if w != nil {
				defer w.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || sandbox.CodeOf(err) != project.CodeUnsafe) {
				t.Errorf("the error is %v, it should have %q", err, test.want)
			}
			if strings.Contains(test.want, "leads out") && !strings.Contains(name, ".git") {
				w, err := r.store.Bring(t.Context(), b, l, project.BringOptions{OutsideLinks: true})
				if err != nil {
					t.Errorf("allowed, and refused: %v", err)
				} else {
					w.Close()
				}
			}
		})
	}
}

func symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// liar is a sandbox that sends what it likes.
type liar func(ctx context.Context, out io.Writer) error

func (l liar) Run(ctx context.Context, _ sandbox.ProcessSpec, _ io.Reader, stdout, _ io.Writer) (sandbox.Exit, error) {
	return sandbox.Exit{}, l(ctx, stdout)
}

func TestLies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "file", "x\n")
	r.commit()
	l := r.take(project.Options{})
	b := newBox(t, l)
	// The truth, to lie about.
	write(t, b.dir(), "file", "y\n")
	write(t, b.dir(), "dir/new", "z\n")
	git(t, b.dir(), "add", "-A")
	git(t, b.dir(), "commit", "-qm", "second")
	head, top := git(t, b.dir(), "rev-parse", "HEAD"), git(t, b.dir(), "rev-parse", "HEAD^{tree}")
	sub, blob := git(t, b.dir(), "rev-parse", "HEAD:dir"), git(t, b.dir(), "rev-parse", "HEAD:file")
	inner := git(t, b.dir(), "rev-parse", "HEAD:dir/new")
	pack := func(objects ...string) []byte {
		var in []byte
		for _, o := range objects {
			in = append(in, o+"\n"...)
		}
		out, err := gitErr(t, b.dir(), in, "pack-objects", "--stdout", "-q")
		if err != nil {
			t.Fatal(err)
		}
		return []byte(out)
	}
	whole := pack(head, top, sub, blob, inner)
	say := func(tree, head string, pack []byte) liar {
		return func(_ context.Context, out io.Writer) error {
			_, err := out.Write(append([]byte("tongs-project "+tree+" "+head+"\n"), pack...))
			return err
		}
	}
	zeros := strings.Repeat("0", 40)
	cut, turned := whole[:len(whole)-10], bytes.Clone(whole)
	turned[len(turned)/2] ^= 1
	for name, test := range map[string]struct {
		box  liar
		want string
	}{
		"the truth":             {say(top, head, whole), ""},
		"nothing":               {func(context.Context, io.Writer) error { return nil }, "nothing that makes sense"},
		"a line without end":    {func(_ context.Context, out io.Writer) error { return endless(out, "x") }, "the sandbox sends"},
		"no pack":               {say(top, head, nil), "git refuses"},
		"not a pack":            {say(top, head, []byte("PACKnonsense and more")), "git refuses"},
		"a cut pack":            {say(top, head, cut), "git refuses"},
		"a turned bit":          {say(top, head, turned), "git refuses"},
		"a missing file":        {say(top, head, pack(head, top, sub, inner)), "git refuses"},
		"a missing tree":        {say(top, head, pack(head, blob, inner)), "git refuses"},
		"a missing commit":      {say(top, zeros[:39]+"1", whole), "does not send everything"},
		"a commit for a tree":   {say(head, head, whole), "is none"},
		"a file for a tree":     {say(blob, head, whole), "is none"},
		"a file for a commit":   {say(top, blob, whole), "a commit is none"},
		"an option":             {say("--output=x", head, whole), "the sandbox sends"},
		"another format":        {say(top+zeros[:24], head, whole), "the sandbox sends"},
		"a broken tree":         {say(top, head, whole), ""},
		"something that is old": {say(l.Base, l.Commit, pack()), "is none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "a broken tree" {
				other := newBox(t, l)
				bad := object(t, other.dir(), "tree", []byte("nonsense"))
				out, err := gitErr(t, other.dir(), []byte(bad+"\n"), "pack-objects", "--stdout", "-q")
				if err != nil {
					t.Fatal(err)
				}
				test.box, test.want = say(bad, "", []byte(out)), "git refuses"
			}
			w, err := r.store.Bring(t.Context(), test.box, l, project.BringOptions{})
			if w != nil {
				defer w.Close()
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || sandbox.CodeOf(err) != project.CodeUnsafe) {
				t.Errorf("the error is %v, it should have %q", err, test.want)
			}
		})
	}
	t.Run("a sandbox that says nothing", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		silent := liar(func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return ctx.Err() })
		if _, err := r.store.Bring(ctx, silent, l, project.BringOptions{}); err == nil || ctx.Err() == nil {
			t.Errorf("%v", err)
		}
	})
}

func endless(out io.Writer, text string) error {
	for {
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
}

// TestNothingRuns: neither what the sandbox's repository configures nor what the project's does is run outside.
func TestNothingRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	write(t, r.dir, "file", "x\n")
	write(t, r.dir, "other", "x\n")
	r.commit()
	marker := filepath.Join(r.home, "ran")
	// In the sandbox it may run what it likes; what this is for happens outside.
	script := filepath.Join(r.home, "evil.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ -n \"$INSIDE\" ] || echo \"$0 $*\" >>"+marker+"\ncat\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	poison := func(dir string) {
		for _, key := range []string{"core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "filter.evil.clean", "filter.evil.smudge", "diff.evil.textconv", "diff.evil.command",
			"diff.external", "merge.evil.driver", "uploadpack.packObjectsHook", "core.alternateRefsCommand", "gpg.program", "credential.helper", "core.gitProxy"} {
			git(t, dir, "config", key, script)
		}
		git(t, dir, "config", "commit.gpgSign", "true")
		git(t, dir, "config", "core.attributesFile", filepath.Join(r.home, "attributes"))
		write(t, dir, ".git/info/attributes", "* filter=evil diff=evil merge=evil\n")
		for _, hook := range []string{"pre-commit", "post-commit", "reference-transaction", "post-index-change", "update", "pre-receive", "post-receive", "post-checkout", "fsmonitor-watchman", "pre-auto-gc", "post-update", "push-to-checkout"} {
			write(t, dir, ".git/hooks/"+hook, "#!/bin/sh\nexec "+script+" "+hook+" </dev/null\n")
			if err := os.Chmod(filepath.Join(dir, ".git/hooks", hook), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	poison(r.dir)
	write(t, r.dir, "untracked", "x\n")
	l := r.take(project.Options{})
	b := newBox(t, l)
	b.env = []string{"INSIDE=1"}
	poison(b.dir())
	write(t, b.dir(), ".gitattributes", "* filter=evil diff=evil merge=evil\n")
	write(t, b.dir(), "file", "changed\n")
	write(t, b.dir(), "new", "new\n")
	w := r.bring(l, b)
	if patch := r.patch(w); !bytes.Contains(patch, []byte("+changed")) {
		t.Errorf("the patch is %s", patch)
	}
	if _, err := w.Pull(t.Context(), project.PullOptions{Name: "box"}); err != nil {
		t.Fatal(err)
	}
	if ran, err := os.ReadFile(marker); err == nil {
		t.Errorf("this ran: %s", ran)
	}
	// The same things do run when git is used as usual.
	write(t, r.dir, "file", "changed here\n")
	if _, err := gitErr(t, r.dir, nil, "-c", "commit.gpgSign=false", "commit", "-qam", "x"); err != nil {
		t.Fatal(err)
	}
	ran, err := os.ReadFile(marker)
	if err != nil || !strings.Contains(string(ran), "reference-transaction") || !strings.Contains(string(ran), "pre-commit") {
		t.Errorf("nothing ran when it should: %s, %v", ran, err)
	}
}
