//go:build linux

package linux_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tongs-dev/tongs/internal/driver"
	"github.com/tongs-dev/tongs/internal/driver/linux"
	"github.com/tongs-dev/tongs/internal/idmap/idmaptest"
	"github.com/tongs-dev/tongs/internal/image"
	"github.com/tongs-dev/tongs/sandbox"
)

// placeEnv tells the test binary that it runs in one of the places of TestSurroundings, and which.
const placeEnv = "TONGS_LINUX_TEST_PLACE"

// verdict is what making a sandbox in a place came to.
type verdict struct {
	Code     sandbox.Code
	Message  string
	Hint     string
	Findings []driver.Finding
}

// place is somewhere that sandboxes can't be made, or only weaker ones: what docker, chroot and others
// leave of a machine.
type place struct {
	name string
	user idmaptest.User

	before func(dir string) error          // as root, in the place's mount namespace; dir is removed in the end
	inside func() error                    // as the user, in the process that makes the sandbox
	attr   func(attr *syscall.SysProcAttr) // of that process

	works     bool   // a sandbox is made all the same
	finding   string // the name of the finding that says why
	why, cure string // parts of what it and the error say
}

var (
	root = idmaptest.User{Name: "root"}
	bob  = idmaptest.User{Name: "bob", ID: ordinary}
)

var places = []place{
	{name: "Open", user: bob, works: true, finding: "user ids", why: "/etc/subuid gives this user 0 ids", cure: "sudo usermod --add-subuids"},
	{name: "OpenWithRanges", user: idmaptest.Alice, works: true, finding: "user ids", why: "65536 in each sandbox, on the host 2000000000-2000039999, 2000200000-"},
	{name: "SmallRange", user: idmaptest.User{Name: "carol", ID: 42426, UIDs: idmaptest.Alice.UIDs[:1], GIDs: idmaptest.Alice.GIDs}, works: true,
		finding: "user ids", why: "40000 in each sandbox, on the host 2000000000-2000039998, 2000039999;", cure: "usermod --add-subuids"},
	{name: "MaskedProc", user: bob, before: mask, finding: "sandbox", why: "masked (/proc/timer_list)", cure: "systempaths=unconfined"},
	{name: "MaskedProcWithRanges", user: idmaptest.Alice, before: mask, finding: "sandbox", why: "masked (/proc/timer_list)", cure: "systempaths=unconfined"},
	{name: "MaskedProcOfRoot", user: root, before: mask, works: true, finding: "sandbox", why: "one was made"},
	{name: "Filter", user: bob, inside: refuseUserNamespaces, finding: "sandbox", why: "a filter of system calls", cure: "seccomp=unconfined"},
	{name: "Chroot", user: bob, before: chroot, finding: "rights", why: "chroot", cure: "run tongs outside of it"},
	{name: "RootWithoutRights", user: root, before: func(string) error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0) }, finding: "rights", why: "without CAP_SYS_ADMIN", cure: "docker run --privileged"},
	{name: "RootWithoutDevices", user: root, before: func(string) error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_MKNOD, 0, 0, 0) }, works: true, finding: "sandbox", why: "one was made"},
	{name: "RootOfNamespace", user: root, attr: ownNamespace, finding: "rights", why: "root of a user namespace", cure: "as an ordinary user in it"},
	{name: "NoNewPrivileges", user: idmaptest.Alice, before: func(string) error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, works: true,
		finding: "user ids", why: "no_new_privs", cure: "NoNewPrivileges=no"},
	{name: "NoProgram", user: idmaptest.Alice, before: func(string) error { return bind("/dev/null", "/usr/bin/newuidmap") }, works: true,
		finding: "user ids", why: "newuidmap is not installed", cure: "uidmap"},
	{name: "PlainProgram", user: idmaptest.Alice, before: plainProgram, works: true, finding: "user ids", why: "neither setuid root", cure: "sudo chown root:root /usr/bin/newgidmap && sudo chmod u+s"},
	{name: "NoSetuid", user: idmaptest.Alice, before: func(string) error { return rebind("/usr", unix.MS_NOSUID) }, works: true, finding: "user ids", why: "mounted nosuid", cure: "mount -o remount,suid /usr"},
}

// TestSurroundings makes a sandbox in each place. Where that can't be, the error and `tongs doctor` say why,
// and what helps.
func TestSurroundings(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make such places")
	}
	guest, err := initBinary()
	must(t, err)
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for name, v := range visit(t, p, guest) {
				if !strings.Contains(v[0], p.why) || !strings.Contains(v[1], p.cure) {
					t.Errorf("%s says %q → %q, and should name %q → %q", name, v[0], v[1], p.why, p.cure)
				}
			}
		})
	}
}

// visit gives what was said in a place, by whom, each with its cure.
func visit(t *testing.T, p place, guest string) map[string][2]string {
	dir, err := os.MkdirTemp("", "tongs-place-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o777))
	must(t, os.Chown(tmp, p.user.ID, p.user.ID))
	self, err := os.Executable()
	must(t, err)
	copyProgram(t, self, filepath.Join(dir, "test"))
	copyProgram(t, guest, filepath.Join(dir, "init"))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "test"), "-test.run", "^TestInPlace$")
	cmd.Dir = tmp
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tmp, placeEnv + "=" + p.name, smallEnv + "=" + filepath.Join(dir, "init")}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if p.attr != nil {
		p.attr(cmd.SysProcAttr)
	}
	var out []byte
	if p.before != nil {
		out, err = p.user.CombinedOutput(t, cmd, func() error { return p.before(dir) })
	} else {
		out, err = p.user.CombinedOutput(t, cmd)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(tmp, "verdict"))
	must(t, err)
	var v verdict
	must(t, json.Unmarshal(data, &v))
	return v.says(t, p)
}

// TestInPlace makes a sandbox where it is, and writes down what became of it.
func TestInPlace(t *testing.T) {
	name := os.Getenv(placeEnv)
	if name == "" {
		t.Skip("TestSurroundings runs it")
	}
	for _, p := range places {
		if p.name == name && p.inside != nil {
			must(t, p.inside())
		}
	}
	home := filepath.Join(os.TempDir(), "home")
	d, err := linux.New(linux.Config{Home: home, Guest: &driver.Guest{Path: os.Getenv(smallEnv)}})
	must(t, err)
	defer d.Close()
	base, _, err := image.Host(t.Context(), image.HostConfig{Dir: filepath.Join(home, "images")})
	must(t, err)
	var v verdict
	if err := d.Create(t.Context(), driver.Spec{ID: "here", Image: base}); err != nil {
		var e *sandbox.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		v.Code, v.Message, v.Hint = e.Code, e.Message, e.Hint
	} else {
		all, err := d.List(t.Context())
		must(t, err)
		if len(all) != 1 || !all[0].Running {
			t.Errorf("the sandbox: %+v", all)
		}
		must(t, d.Destroy(t.Context(), "here"))
	}
	v.Findings = d.Check(t.Context())
	data, err := json.Marshal(v)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(os.TempDir(), "verdict"), data, 0o644))
}

func bind(from, to string) error {
	return os.NewSyscallError("mount "+to, unix.Mount(from, to, "", unix.MS_BIND, ""))
}

// mask hides a part of /proc, as engines for containers do.
func mask(string) error { return bind("/dev/null", "/proc/timer_list") }

// rebind mounts a directory on itself, with flags.
func rebind(dir string, flags uintptr) error {
	if err := bind(dir, dir); err != nil {
		return err
	}
	return os.NewSyscallError("remount "+dir, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
}

// plainProgram puts a newgidmap there that anybody could have made.
func plainProgram(dir string) error {
	p := filepath.Join(dir, "newgidmap")
	return errors.Join(os.WriteFile(p, nil, 0o755), bind(p, "/usr/bin/newgidmap"))
}

// chroot makes the calling thread's root another that has the same in it, as chroot(8) is used.
func chroot(dir string) error {
	dir = filepath.Join(dir, "chroot")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"dev", "etc", "proc", "tmp", "usr"} {
		to := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(to, 0o755), unix.Mount("/"+name, to, "", unix.MS_BIND|unix.MS_REC, "")); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return os.NewSyscallError("chroot", unix.Chroot(dir))
}

// ownNamespace makes a process root of a user namespace with some ids.
func ownNamespace(attr *syscall.SysProcAttr) {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	attr.Cloneflags, attr.UidMappings, attr.GidMappings, attr.GidMappingsEnableSetgroups = unix.CLONE_NEWUSER|unix.CLONE_NEWNS, ids, ids, true
}

// refuseUserNamespaces puts a filter on this process that does what Docker's does for a container without
// CAP_SYS_ADMIN.
func refuseUserNamespaces() error {
	const (
		load, equal, all, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	)
	p := []unix.SockFilter{
		{Code: load, K: 0},
		{Code: equal, Jt: 4, K: unix.SYS_CLONE3},
		{Code: equal, Jf: 2, K: unix.SYS_CLONE},
		{Code: load, K: 16},
		{Code: all, Jt: 2, K: unix.CLONE_NEWUSER},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // which the filter takes to the other threads
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return errno
	}
	return nil
}
