package drivertest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/internal/driver"
)

func testPlaces(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("places"))
	c := b.connect(t, "places")
	for script, want := range map[string]string{
		"pwd":                                    "/home/user/project",
		"echo $HOME $(id -un) $(id -u):$(id -g)": "/home/user user 1000:1000",
		"git log --format='%an <%ae>' | tail -1 && git branch --show-current && git status --porcelain": "OpenCode Agent <agent@opencode.ai>\nmain",
		"git commit -q --allow-empty -m x && git log -1 --format='%an <%ae>'":                           "OpenCode Agent <agent@opencode.ai>",
		"stat -c %U /tmp/opencode /tmp/opencode/output && stat -c %a /tmp":                              "user\nuser\n1777",
		"hostname": "sandbox",
		"cat /etc/resolv.conf | grep -c nameserver":                                             "1",
		"getent hosts sandbox | awk '{print $1}'":                                               "127.0.0.1",
		"echo a > /dev/shm/x && cat /dev/shm/x && head -c 4 /dev/zero | wc -c && : > /dev/null": "a\n4",
		"command -v bash sh cat env | wc -l":                                                    "4",
		"test -r /etc/ssl/certs/ca-certificates.crt && echo certificates":                       "certificates",
		"mkdir -p ~/.cache/x && touch /var/tmp/y && echo ok":                                    "ok",
		"readlink /dev/fd /dev/stdin /dev/ptmx | tr '\\n' ' '":                                  "/proc/self/fd /proc/self/fd/0 pts/ptmx ",
	} {
		if strings.Contains(script, "ca-certificates.crt") {
			if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err != nil {
				continue // this host keeps them elsewhere
			}
		}
		if got := output(t, c, script); got != want {
			t.Errorf("%s\ngot  %q\nwant %q", script, got, want)
		}
	}
}

func testGiven(t *testing.T, s Suite) {
	b := newBed(t, s)
	shared := t.TempDir()
	must(t, os.Chmod(shared, 0o755))
	must(t, os.WriteFile(filepath.Join(shared, "seen"), []byte("from outside"), 0o644))
	must(t, os.WriteFile(filepath.Join(shared, "secret"), []byte("x"), 0o600))
	open := t.TempDir()
	must(t, os.Chmod(open, 0o777))
	spec := b.spec("given")
	spec.Hostname = "box-7"
	spec.Env = []string{"GREETING=hello there", "LANG=de_DE.UTF-8"}
	spec.Labels = map[string]string{"a": "b"}
	spec.Binds = []driver.Bind{
		{Source: shared, Target: "/opt/shared"},
		{Source: filepath.Join(shared, "seen"), Target: "/home/user/one-file"},
		{Source: open, Target: "/srv/open", Writable: true},
	}
	spec.Files = []driver.File{
		{Path: "/home/user/.config/app/settings", Data: []byte("x=1\n"), Mode: 0o600, UID: 1000},
		{Path: "/etc/app.conf", Data: []byte("root's\n")},
		{Path: "/home/user/project/run", Data: []byte("#!/bin/sh\necho ran\n"), Mode: 0o755, UID: 1000},
	}
	b.create(t, spec)
	if got := b.status(t, "given").Labels["a"]; got != "b" {
		t.Errorf("label %q", got)
	}
	refused, owner := "Permission denied", "root"
	if s.OneUser() {
		refused, owner = "", "user"
	}
	readOnly := "Read-only file system"
	if s.OwnKernel {
		readOnly = "Permission denied"
	}
	check := func(t *testing.T) {
		c := b.connect(t, "given")
		for script, want := range map[string]string{
			"hostname":              "box-7",
			"echo $GREETING, $LANG": "hello there, de_DE.UTF-8",
			"cat /opt/shared/seen":  "from outside",
			"cat ~/one-file":        "from outside",
			"cat /opt/shared/secret 2>&1 | grep -o 'Permission denied'; true":                            refused,
			"touch /opt/shared/new 2>&1 | grep -o '[RP][a-z-]* [a-z]*[a-z ]*$'":                          readOnly,
			"touch /srv/open/new && ls /srv/open":                                                        "new",
			"cat ~/.config/app/settings; stat -c '%a %U' ~/.config ~/.config/app ~/.config/app/settings": "x=1\n755 user\n755 user\n600 user",
			"stat -c '%a %U' /etc/app.conf; cat /etc/app.conf":                                           "644 " + owner + "\nroot's",
			"./run": "ran",
		} {
			if got := output(t, c, script); got != want {
				t.Errorf("%s\ngot  %q\nwant %q", script, got, want)
			}
		}
	}
	check(t)
	must(t, b.Stop(t.Context(), "given"))
	must(t, b.Start(t.Context(), "given"))
	t.Run("again", check)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testSeparation(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("a"))
	b.create(t, b.spec("b"))
	ca, cb := b.connect(t, "a"), b.connect(t, "b")
	output(t, ca, "echo a > only-a; echo a > /tmp/only-a; echo a > /dev/shm/only-a; echo a > ~/only-a; echo a > /var/tmp/only-a")
	output(t, ca, "nohup sleep 4321 >/dev/null 2>&1 & true")
	if got := output(t, ca, "ls only-a /tmp/only-a /dev/shm/only-a ~/only-a /var/tmp/only-a | wc -l; pgrep -f '[s]leep 4321' | wc -l"); got != "5\n1" {
		t.Fatalf("control: %q", got)
	}
	if got := output(t, cb, "ls only-a /tmp/only-a /dev/shm/only-a ~/only-a /var/tmp/only-a 2>/dev/null | wc -l; pgrep -f '[s]leep 4321' | wc -l"); got != "0\n0" {
		t.Errorf("b sees a's files or processes: %q", got)
	}
	if got := output(t, cb, "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' \\n'; cat /proc/net/route | wc -l"); got != "lo1" {
		t.Errorf("interfaces and routes: %q", got)
	}
	l, err := ca.Listen(t.Context(), "test", "tcp:127.0.0.1:4567")
	if err != nil {
		if l, err = ca.Listen(t.Context(), "test", "127.0.0.1:4567"); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	const try = "exec 3<>/dev/tcp/127.0.0.1/4567 && echo connected"
	if got := output(t, ca, try); got != "connected" {
		t.Errorf("control: %q", got)
	}
	if res := bash(t, cb, try); res.Exit.Success() {
		t.Error("b reaches a's port")
	}
	if c, err := net.Dial("tcp", "127.0.0.1:4567"); err == nil {
		c.Close()
		t.Error("the host reaches a's port as its own")
	}
}

// canaryEnv is set in the environment of the tests, and must not be seen inside.
const canaryEnv = "TONGS_DRIVERTEST_CANARY"

func testHostInvisible(t *testing.T, s Suite) {
	b := newBed(t, s)
	files := canaries(t)
	if len(files) < 3 || os.Getenv(canaryEnv) == "" {
		t.Fatalf("no canaries: %v", files)
	}
	b.create(t, b.spec("one"))
	c := b.connect(t, "one")
	look := "ls -d " + strings.Join(files, " ") + " 2>/dev/null | wc -l"
	// The control: on the host, the same look finds all of them.
	if out, err := exec.Command("bash", "-c", look).Output(); err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(len(files)) {
		t.Fatalf("control: %q, %v", out, err)
	}
	if got := output(t, c, look); got != "0" {
		t.Errorf("%s of %d canaries are visible", got, len(files))
	}
	for _, env := range []string{"env", "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'"} {
		if got := output(t, c, env+"; true"); strings.Contains(got, canaryEnv) {
			t.Errorf("%s shows the host's environment: %s", env, got)
		}
	}
	if got := output(t, c, "cat /proc/self/mountinfo /proc/self/cgroup /proc/cmdline"); strings.Contains(got, b.home) {
		t.Errorf("the mounts tell where the sandbox is kept: %s", got)
	}
	if got := output(t, c, "ls /etc/shadow /etc/sudoers /etc/ssh /etc/npmrc /etc/pip.conf /etc/environment 2>/dev/null; ls -A /home /srv /mnt /media /root 2>/dev/null | grep -c canary; true"); got != "0" {
		t.Errorf("parts of the host's /etc or homes are visible: %q", got)
	}
}

// canaries are files of the host in places where secrets lie.
func canaries(t *testing.T) []string {
	t.Helper()
	var all []string
	dirs := []string{t.TempDir(), os.TempDir(), "/root", "/home", "/srv", "/var/tmp", "/opt"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, home)
	}
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, wd)
	}
	for _, dir := range dirs {
		f, err := os.CreateTemp(dir, ".tongs-canary-")
		if err != nil {
			continue // not there, or not ours
		}
		t.Cleanup(func() { os.Remove(f.Name()) })
		must(t, f.Chmod(0o644))
		must(t, f.Close())
		all = append(all, f.Name())
	}
	return all
}
