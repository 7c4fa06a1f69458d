package project_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/sandbox"
)

const inside = "home/user/project"

// rig is a project of the user's, and a home of Tongs.
type rig struct {
	t     testing.TB
	dir   string
	home  string
	store *project.Store
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git on this machine")
	}
	base := t.TempDir()
	r := &rig{t: t, dir: filepath.Join(base, "mine"), home: filepath.Join(base, "tongs")}
	for _, dir := range []string{r.dir, r.home} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.store = project.Open(r.home)
	return r
}

// git runs git in a directory, as a user would.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := gitErr(t, dir, nil, args...)
	if err != nil {
		t.Fatalf("git %q in %s: %v", args, dir, err)
	}
	return strings.TrimSuffix(out, "\n")
}

func gitErr(t testing.TB, dir string, in []byte, args ...string) (string, error) {
	t.Helper()
	// What the tests configure to be run must not be run by them.
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "gc.auto=0", "-c", "core.fsmonitor=false", "-c", "filter.lfs.clean=", "-c", "filter.lfs.process="}, args...)...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "GIT_") }),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_ALLOW_PROTOCOL=file")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

func write(t testing.TB, dir, name, data string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commit makes the directory a repository with everything in it.
func (r *rig) commit(args ...string) {
	r.t.Helper()
	git(r.t, r.dir, append([]string{"init", "-q", "-b", "main"}, args...)...)
	git(r.t, r.dir, "add", "-A")
	git(r.t, r.dir, "commit", "-q", "--allow-empty", "-m", "first")
}

func (r *rig) take(opts project.Options) *project.Layer {
	r.t.Helper()
	if opts.Dir == "" {
		opts.Dir = r.dir
	}
	l, err := r.store.Take(r.t.Context(), opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(l.Close)
	return l
}

// tree describes everything below a directory: kinds, rights, contents. With times it says whether anything was touched.
func tree(t testing.TB, dir string, times bool) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := os.Lstat(p)
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " " + to
		}
		if times {
			st := info.Sys().(*syscall.Stat_t)
			text += fmt.Sprint(" ", st.Ino, st.Nlink, st.Mtim, st.Ctim, st.Uid, st.Gid)
		}
		all[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// without leaves out what is in a directory of the tree.
func without(all map[string]string, dir string) map[string]string {
	out := map[string]string{}
	for name, text := range all {
		if name != dir && !strings.HasPrefix(name, dir+"/") && name != "." {
			out[name] = text
		}
	}
	return out
}

// box stands for a sandbox: a copy of the layer, in which scripts run with its places for the sandbox's.
type box struct {
	t    testing.TB
	root string
	env  []string
	path string
}

func newBox(t testing.TB, l *project.Layer) *box {
	t.Helper()
	b := &box{t: t, root: t.TempDir()}
	if out, err := exec.Command("cp", "-a", l.Root()+"/.", b.root).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	// In a sandbox everything is its user's; here it is that of who tests.
	if out, err := exec.Command("chown", "-hR", fmt.Sprint(os.Geteuid()), b.root).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	return b
}

func (b *box) dir() string { return filepath.Join(b.root, inside) }

func (b *box) Run(ctx context.Context, spec sandbox.ProcessSpec, stdin io.Reader, stdout, stderr io.Writer) (sandbox.Exit, error) {
	move := func(text string) string {
		if strings.HasPrefix(text, "/home/user") {
			return b.root + text
		}
		return text
	}
	var args []string
	for _, arg := range spec.Argv {
		args = append(args, move(arg))
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = spec.Dir, stdin, stdout, stderr
	cmd.Env = append([]string{"PATH=" + b.path + "/usr/local/bin:/usr/bin:/bin", "HOME=" + b.root + "/home/user"}, b.env...)
	for k, v := range spec.Env {
		cmd.Env = append(cmd.Env, k+"="+move(v))
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return sandbox.Exit{Code: exit.ExitCode()}, nil
	}
	return sandbox.Exit{}, err
}

func (r *rig) bring(l *project.Layer, b *box) *project.Work {
	r.t.Helper()
	w, err := r.store.Bring(r.t.Context(), b, l, project.BringOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(w.Close)
	return w
}

func (r *rig) patch(w *project.Work) []byte {
	r.t.Helper()
	var out bytes.Buffer
	if err := w.Diff(r.t.Context(), &out); err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes()
}
