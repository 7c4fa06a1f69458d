//go:build linux

package linux_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/drivertest"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/idmap"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// limiting are the controllers that limits need.
var limiting = []string{"memory", "pids", "cpu"}

// groupFor makes a group of version 2 and gives it to a user, as systemd does with Delegate=yes; nil where version 2 has not
// the controllers for it. The name ends as given.
func groupFor(t *testing.T, user int, suffix string) *os.File {
	t.Helper()
	root := cgroup2Root()
	have, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	for _, c := range limiting {
		if err != nil || !slices.Contains(strings.Fields(string(have)), c) {
			t.Logf("ordinary users can't limit commands here: no controller %s of version 2", c)
			return nil
		}
		must(t, os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0))
	}
	return plainGroupFor(t, root, user, suffix)
}

// plainGroupFor is groupFor, whatever controllers there are.
func plainGroupFor(t *testing.T, root string, user int, suffix string) *os.File {
	t.Helper()
	dir, err := os.MkdirTemp(root, "tongs-test-*"+suffix)
	must(t, err)
	t.Cleanup(func() { removeGroups(t, dir) })
	must(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		must(t, os.Chown(filepath.Join(dir, name), user, user))
	}
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// removeGroups removes a group with all below it, and ends what is in it.
func removeGroups(t *testing.T, dir string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0))
	for {
		var all []string
		must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				all = append(all, path)
			}
			return err
		}))
		var err error
		for _, d := range slices.Backward(all) {
			err = errors.Join(err, unix.Rmdir(d))
		}
		if err == nil {
			return
		}
		select { // the kernel has no event for the end of the last process's exit
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Errorf("remove %s: %v", dir, err)
			return
		}
	}
}

// What the tests below are told by environment variables when they run as an ordinary user.
const (
	groupEnv = "TONGS_LINUX_TEST_GROUP" // the group that was given to the user
	pipeEnv  = "TONGS_LINUX_TEST_PIPE"  // named pipes: the guest's process number goes into .out, and it goes on at a line in .in
)

// TestUserGroup looks at the control groups of an ordinary user's sandbox, whatever controllers there are.
func TestUserGroup(t *testing.T) {
	t.Parallel()
	if os.Getenv(pipeEnv) != "" {
		inUserGroup(t)
		return
	}
	needRoot(t)
	root := cgroup2Root()
	if root == "" {
		t.Skip("no cgroup 2 hierarchy is mounted")
	}
	for name, user := range map[string]idmaptest.User{"one id": {Name: "bob", ID: ordinary}, "range": idmaptest.Alice} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			group := plainGroupFor(t, root, user.ID, "")
			leaf := filepath.Join(group.Name(), "leaf")
			must(t, os.Mkdir(leaf, 0o755))
			in, err := os.Open(leaf)
			must(t, err)
			defer in.Close()
			dir := dirFor(t, user)
			pipes := filepath.Join(dir, "pipe")
			var ends []*os.File
			for _, end := range []string{".out", ".in"} {
				must(t, unix.Mkfifo(pipes+end, 0o600))
				must(t, os.Chown(pipes+end, user.ID, user.ID))
				f, err := os.OpenFile(pipes+end, os.O_RDWR|unix.O_NONBLOCK, 0)
				must(t, err)
				defer f.Close()
				must(t, f.SetDeadline(time.Now().Add(2*time.Minute)))
				ends = append(ends, f)
			}
			looked := make(chan struct{})
			go func() {
				defer close(looked)
				var pid int
				if _, err := fmt.Fscanln(ends[0], &pid); err != nil {
					t.Errorf("no guest: %v", err)
					return
				}
				lookIntoGuest(t, pid, root, group.Name())
				fmt.Fprintln(ends[1], "go on")
			}()
			out, err := runAs(t, user, dir, in, []string{"-test.run", "^TestUserGroup$"}, groupEnv+"="+group.Name(), pipeEnv+"="+pipes)
			if err != nil || strings.Count(out, "--- PASS: TestUserGroup") != 1 {
				t.Errorf("%v:\n%s", err, out)
				_ = ends[0].SetDeadline(time.Unix(1, 0))
			}
			<-looked
		})
	}
}

// inUserGroup makes the sandbox.
func inUserGroup(t *testing.T) {
	home, group := t.TempDir(), os.Getenv(groupEnv)
	if m, err := idmap.Find(); err == nil {
		home = filepath.Join(home, "home")
		t.Cleanup(func() { must(t, idmap.RemoveAll(context.WithoutCancel(t.Context()), m, home)) })
	}
	guest := drivertest.GuestBinary(t)
	d, err := linux.New(linux.Config{Home: home, CgroupV2: group, Guest: &guest})
	must(t, err)
	defer d.Close()
	root, _, err := image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(home, "images")})
	must(t, err)
	must(t, d.Create(t.Context(), driver.Spec{ID: "grouped", Image: root}))
	c, err := sandbox.Connect(t.Context(), func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, "grouped") })
	must(t, err)
	defer c.Close()
	res, err := c.Exec(t.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"grep", "0::", "/proc/self/cgroup", "/proc/1/cgroup"}}})
	text := string(res.Stdout)
	if err != nil || !strings.Contains(text, "/proc/self/cgroup:0::/"+filepath.Base(group)+"/tongs/grouped.") || !strings.Contains(text, "/cmd\n") || !strings.HasSuffix(text, "/guest\n") {
		t.Errorf("the groups of a command and of the guest: %+v %v", res, err)
	}
	data, err := os.ReadFile(filepath.Join(home, "sandboxes", "grouped", "guest.json"))
	must(t, err)
	var g struct{ PID int }
	must(t, json.Unmarshal(data, &g))
	out, err := os.OpenFile(os.Getenv(pipeEnv)+".out", os.O_WRONLY, 0)
	must(t, err)
	defer out.Close()
	in, err := os.Open(os.Getenv(pipeEnv) + ".in")
	must(t, err)
	defer in.Close()
	fmt.Fprintln(out, g.PID)
	var line [16]byte
	if _, err := in.Read(line[:]); err != nil {
		t.Error(err)
	}
	must(t, d.Destroy(t.Context(), "grouped"))
	if left, err := filepath.Glob(filepath.Join(group, "tongs", "grouped.*")); err != nil || len(left) > 0 {
		t.Errorf("groups that are left: %q, %v", left, err)
	}
}

// lookIntoGuest checks, as the host's root, that a guest has the commands' group open as a mount from which there is no way to
// the host's files, and nothing can be written.
func lookIntoGuest(t *testing.T, pid int, root, group string) {
	found, err := filepath.Glob(filepath.Join(group, "tongs", "grouped.*", "cmd"))
	if err != nil || len(found) != 1 {
		t.Errorf("the commands' groups: %q, %v", found, err)
		return
	}
	cmd, host, groups := inodeOf(t, found[0]), inodeOf(t, "/"), inodeOf(t, root)
	// The control: there is a way up from a directory that is open as usual, and its files can be written to.
	f, err := os.Open(found[0])
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	plain := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if up := top(t, plain); up != host {
		t.Errorf("the way up from %s ends at %v; the root is %v", found[0], up, host)
	}
	if err := mayWrite(plain + "/cgroup.procs"); err != nil {
		t.Errorf("this process can't write either: %v", err)
	}
	// Nobody else gets in, whatever the mode of the file; root does.
	for who, want := range map[int]bool{0: true, ordinary + 9: false} {
		sh := exec.Command("sh", "-c", `echo $$ | tee "$0"/cgroup.procs`, found[0])
		sh.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who), Gid: uint32(who)}}
		if out, err := sh.CombinedOutput(); (err == nil) != want || !want && !strings.Contains(string(out), "enied") {
			t.Errorf("user %d enters the commands' group: %v %s", who, err, out)
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	seen := 0
	for _, e := range all {
		p := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Stat(p, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if up := top(t, p); up == host || up == groups {
			t.Errorf("from the guest's descriptor %s there is a way to the host's files", e.Name())
		}
		if (inode{st.Dev, st.Ino}) == cmd {
			seen++
			if err := mayWrite(p + "/cgroup.procs"); !errors.Is(err, unix.EROFS) {
				t.Errorf("the guest's descriptor %s is of a group that can be written to: %v", e.Name(), err)
			}
		}
	}
	if seen != 1 {
		t.Errorf("the guest has %d descriptors of its commands' group", seen)
	}
}

func mayWrite(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return err
}

type inode struct{ dev, ino uint64 }

func inodeOf(t *testing.T, path string) inode {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Errorf("stat %s: %v", path, err)
	}
	return inode{st.Dev, st.Ino}
}

// top is where the way up from a directory ends.
func top(t *testing.T, path string) inode {
	at := inodeOf(t, path)
	for range 64 {
		path += "/.."
		next := inodeOf(t, path)
		if next == at {
			return at
		}
		at = next
	}
	t.Errorf("no end of the way up from %s", path)
	return at
}

// TestDelegation starts as an ordinary user in groups of several kinds, and looks at where everybody is then.
func TestDelegation(t *testing.T) {
	t.Parallel()
	if os.Getenv(groupEnv) != "" {
		var both [2]string
		var wg sync.WaitGroup
		for i := range both {
			wg.Go(func() { both[i] = linux.NoLimits() })
		}
		wg.Wait()
		own, err := os.ReadFile("/proc/self/cgroup")
		must(t, err)
		fmt.Printf("limits: %s\nagain: %s\ngroup: %s\n", both[0], both[1], strings.TrimSpace(string(own)))
		return
	}
	needRoot(t)
	if g := groupFor(t, ordinary, ""); g == nil {
		t.Skip("version 2 has not the controllers here")
	}
	for name, c := range map[string]struct {
		suffix          string
		owner           int
		marked, company bool
		want            string // the reason why there are no limits, or ""
	}{
		"given":                          {owner: ordinary, company: true},
		"a unit that is marked":          {suffix: ".scope", owner: ordinary, marked: true, company: true},
		"a unit, alone":                  {suffix: ".scope", owner: ordinary},
		"a unit, in company":             {suffix: ".scope", owner: ordinary, company: true, want: "shares its control group"},
		"a group of root's":              {company: true, want: "not yours to divide"},
		"another ordinary user's, alone": {owner: ordinary + 7, want: "not yours to divide"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			user := idmaptest.User{Name: "bob", ID: ordinary}
			group := groupFor(t, c.owner, c.suffix)
			if c.marked {
				must(t, unix.Setxattr(group.Name(), "user.delegate", []byte("1"), 0))
			}
			var company *exec.Cmd
			if c.company {
				company = exec.Command("sleep", "600")
				company.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
				must(t, company.Start())
				defer company.Wait()
				defer company.Process.Kill()
			}
			out, err := runAs(t, user, dirFor(t, user), group, []string{"-test.run", "^TestDelegation$"}, groupEnv+"="+group.Name())
			must(t, err)
			where := "/" + filepath.Base(group.Name())
			if c.want == "" {
				where += "/tongs-host"
				if !strings.Contains(out, "limits: \nagain: \n") {
					t.Errorf("no limits:\n%s", out)
				}
			} else if strings.Count(out, c.want) != 2 || !strings.Contains(out, "limits: ") {
				t.Errorf("not twice %q:\n%s", c.want, out)
			}
			if !strings.Contains(out, "group: 0::"+where+"\n") {
				t.Errorf("not in %s:\n%s", where, out)
			}
			if c.company {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", company.Process.Pid))
				if err != nil || strings.TrimSpace(string(data)) != "0::"+where {
					t.Errorf("what else is in the group: %q, %v; want %s", data, err, where)
				}
			}
			if _, err := os.Stat(filepath.Join(group.Name(), "tongs-host")); (err == nil) != (c.want == "") {
				t.Errorf("the group below: %v", err)
			}
		})
	}
}
