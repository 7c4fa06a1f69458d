//go:build linux

package project_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/internal/project"
	"github.com/tongs-dev/tongs/internal/snapshot"
	"github.com/tongs-dev/tongs/sandbox"
)

// asEnv is set in the process of an ordinary user.
const asEnv = "TONGS_PROJECT_TEST_AS"

// TestInOrdinarySandboxes is TestInSandboxes as an ordinary user, without and with a range of ids.
func TestInOrdinarySandboxes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("TestInSandboxes is an ordinary user's already")
	}
	for _, user := range []idmaptest.User{{Name: "bob", ID: 42424}, idmaptest.Alice} {
		t.Run(user.Name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "tp")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			tmp := filepath.Join(dir, "tmp")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			for _, do := range []error{os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o700), os.Chown(tmp, user.ID, user.ID), program(self, filepath.Join(dir, "test")),
				program(drivertest.GuestBinary(t).Path, filepath.Join(dir, "tongs-guest"))} {
				if do != nil {
					t.Fatal(do)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(dir, "test"), "-test.run=^TestInSandboxes$", "-test.v")
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, driver.GuestEnv + "=" + filepath.Join(dir, "tongs-guest"), asEnv + "=" + user.Name}
			out, err := user.CombinedOutput(t, cmd)
			if strings.Contains(string(out), "--- SKIP") {
				t.Skipf("%s", out)
			}
			if err != nil || !strings.Contains(string(out), "--- PASS: TestInSandboxes") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func program(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// machine is a driver, and what sandboxes are made from.
type machine struct {
	*rig
	driver *linux.Driver
	image  image.Root
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	if n, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); os.Geteuid() != 0 && (err != nil || strings.TrimSpace(string(n)) == "0") {
		t.Skip("this machine allows no user namespaces to ordinary users")
	}
	guest := drivertest.GuestBinary(t)
	m := &machine{rig: newRig(t)}
	// Paths of sockets have to be short.
	home, err := os.MkdirTemp("", "tp")
	if err != nil {
		t.Fatal(err)
	}
	ids, _ := idmap.Find()
	t.Cleanup(func() {
		if err := idmap.RemoveAll(context.Background(), ids, home); err != nil {
			t.Error(err)
		}
	})
	m.home, m.store = home, project.Open(home)
	if m.driver, err = linux.New(linux.Config{Home: home, Guest: &guest}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.driver.Close() })
	if m.image, _, err = image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(home, "images")}); err != nil {
		t.Fatal(err)
	}
	if os.Getenv(asEnv) == "alice" && m.image.Map.None() {
		t.Fatal("the user has no range of ids")
	}
	return m
}

// sandbox makes a sandbox with a layer, or with another one's files.
func (m *machine) sandbox(id, from string, l *project.Layer) *sandbox.Client {
	m.t.Helper()
	spec := driver.Spec{ID: id, From: from}
	if from == "" {
		spec.Image = m.image
		spec.Image.Lower = slices.Concat([]string{l.Root()}, spec.Image.Lower)
	}
	if err := m.driver.Create(m.t.Context(), spec); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := m.driver.Destroy(context.Background(), id); err != nil {
			m.t.Error(err)
		}
	})
	return m.connect(id)
}

func (m *machine) sh(c *sandbox.Client, command string) string {
	m.t.Helper()
	res, err := c.Exec(m.t.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"sh", "-c", command}, Merge: true}})
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSuffix(string(res.Stdout), "\n")
}

// TestInSandboxes has the driver put layers under sandboxes.
func TestInSandboxes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	odd(t, m.dir)
	m.commit()
	git(t, m.dir, "tag", "v1")
	write(t, m.dir, "plain.txt", "one\ntwo\nthree\nmine\n")
	write(t, m.dir, "untracked", "mine\n")
	status := git(t, m.dir, "status", "--porcelain")
	before := tree(t, m.dir, true)
	l := m.take(project.Options{Map: m.image.Map})
	one := m.sandbox("one", "", l)
	for command, want := range map[string]string{
		"git status --porcelain":    status,
		"git for-each-ref":          git(t, m.dir, "for-each-ref"), // none of the image's
		"git log --format=%H --all": git(t, m.dir, "rev-parse", "HEAD"),
		"stat -c '%U %G %a' . plain.txt .git/HEAD dir/deep run.sh ~/.gitconfig": "user user 755\nuser user 644\nuser user 644\nuser user 755\nuser user 755\nuser user 644",
		"cat untracked; readlink out":                                           "mine\n/etc/passwd",
		"git config user.name":                                                  "OpenCode Agent",
	} {
		if got := m.sh(one, command); got != want {
			t.Errorf("%s gives %q, want %q", command, got, want)
		}
	}
	// States for undo are kept as always.
	states := snapshot.Open(one, "/home/user/project", "/home/user")
	first, err := states.Take(t.Context(), snapshot.Refs{Set: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	m.sh(one, `echo more >>plain.txt; rm untracked; echo new >"new file"; chmod 700 dir; git add -A; git commit -qm work; echo x >>dir/b; mv .gitconfig x 2>&1`)
	if second, err := states.Take(t.Context(), snapshot.Refs{Set: []string{"b"}}); err != nil || second == first {
		t.Errorf("the state after it is %s, %v", second, err)
	}
	// Directories that came with the project can be renamed: at once where root makes the sandbox, else by copying.
	rename := "git mv dir.x renamed && git mv renamed dir.x && echo ok"
	if os.Geteuid() != 0 {
		rename = "mv dir.x renamed && mv renamed dir.x && echo ok"
	}
	if got := m.sh(one, rename); got != "ok" {
		t.Errorf("rename: %s", got)
	}
	// Another sandbox with the layer, and one that starts with the first one's files.
	two, fork := m.sandbox("two", "", l), m.sandbox("fork", "one", nil)
	if got := m.sh(two, "git status --porcelain; git log --format=%s; ls 'new file' 2>&1 | grep -c cannot"); got != status+"\nfirst\n1" {
		t.Errorf("the other sandbox has %q", got)
	}
	if got := m.sh(fork, "git log --format=%s; cat dir/b"); got != "work\nfirst\n2\nx" {
		t.Errorf("the fork has %q", got)
	}
	for name, c := range map[string]*sandbox.Client{"one": one, "fork": fork} {
		w, err := m.store.Bring(t.Context(), c, l, project.BringOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if out, err := gitErr(t, m.dir, m.patch(w), "apply", "--check", "-"); err != nil {
			t.Errorf("%s: %v %s", name, err, out)
		}
		p, err := w.Pull(t.Context(), project.PullOptions{Name: name})
		if err != nil || p.Commits != 2 || !p.Uncommitted || p.Files != 4 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if got := git(t, m.dir, "log", "--format=%s %an", "main..tongs/one"); got != "Uncommitted work of sandbox one OpenCode Agent\nwork OpenCode Agent" {
		t.Errorf("the branch has %s", got)
	}
	if diff := cmp.Diff(without(before, ".git"), without(tree(t, m.dir, true), ".git")); diff != "" {
		t.Errorf("the project was touched: %s", diff)
	}
	// A stopped sandbox starts with the same.
	if err := m.driver.Stop(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := m.driver.Start(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if got := m.sh(m.connect("one"), "git log --format=%s"); got != "work\nfirst" {
		t.Errorf("after a restart: %q", got)
	}
	// A layer that only ids within can remove goes, too.
	write(t, m.dir, "untracked", "mine again\n")
	next := m.take(project.Options{Map: m.image.Map})
	if next.ID == l.ID {
		t.Error("it is the same layer")
	}
	next.Close()
	n, err := m.store.GC(t.Context(), func(context.Context) (map[string]bool, error) { return map[string]bool{l.ID: true}, nil })
	if err != nil || n != 1 {
		t.Errorf("removed %d, %v", n, err)
	}
}

func (m *machine) connect(id string) *sandbox.Client {
	m.t.Helper()
	c, err := sandbox.Connect(m.t.Context(), func(ctx context.Context) (net.Conn, error) { return m.driver.Dial(ctx, id) })
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	return c
}
