package drivertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tongs-dev/tongs/sandbox"
)

// escape is one attempt of a sandbox's user to reach what isn't the sandbox's.
type escape struct {
	name string
	// attempt is a script that succeeds where the thing is possible. It runs in the sandbox, and must
	// fail there.
	attempt string
	// control is a script that must succeed, so that the attempt can't fail for being wrong. It runs on
	// the host when onHost is set, else in the sandbox. Empty: the attempt itself, on the host.
	control string
	onHost  bool
	root    bool // the control needs root on the host
	kernel  bool // the control fails where the kernel hasn't got the thing at all; then there is nothing to show
	shared  bool // is about what a sandbox sees of the host's kernel, which one on a kernel of its own doesn't
	foreign bool // makes sense only where the user doesn't own the sandbox's whole tree
}

// escapes is the table. %PORT% is a port on which the host listens on its loopback, %ABSTRACT% the name
// of an abstract unix socket of the host's.
var escapes = []escape{
	{name: "mount a file system", attempt: "mount -t tmpfs x /mnt", control: "unshare -m mount -t tmpfs x /mnt", onHost: true, root: true},
	{name: "bind a directory over another", attempt: "mount --bind /home/user /etc", control: "unshare -m mount --bind /tmp /mnt", onHost: true, root: true},
	{name: "make /usr writable", attempt: "mount -o remount,bind,rw /usr", control: "unshare -m sh -c 'mount --bind /usr /usr && mount -o remount,bind,rw /usr'", onHost: true, root: true},
	{name: "unmount a mask", attempt: "umount /proc/sys || umount /proc/keys", control: "unshare -m sh -c 'mount -t tmpfs x /mnt && umount /mnt'", onHost: true, root: true},
	{name: "write to /usr", attempt: "touch /usr/tongs-was-here", control: "touch ~/tongs-was-here"},
	{name: "write to /etc", attempt: "touch /etc/tongs-was-here || echo x >> /etc/passwd", control: "touch ~/tongs-was-here", foreign: true},
	{name: "write to /dev", attempt: "touch /dev/tongs-was-here || rm /dev/null || chmod 600 /dev/null", control: ": > /dev/null"},
	{name: "make a block device", attempt: "mknod /tmp/disk b 254 0", control: "d=$(mktemp -d) && mknod $d/disk b 254 0; r=$?; rm -r $d; exit $r", onHost: true, root: true},
	{name: "make a character device", attempt: "mknod /home/user/mem c 1 1", control: "mkfifo /home/user/fifo"},
	{name: "chroot", attempt: "chroot / true", control: "chroot / true", onHost: true, root: true},
	{name: "change the host name", attempt: "hostname other", control: "unshare -u hostname other", onHost: true, root: true},
	{name: "write kernel settings", attempt: "echo x > /proc/sys/kernel/core_pattern", control: "test -w /proc/sys/kernel/core_pattern", onHost: true, root: true},
	{name: "write network settings", attempt: "echo 1 > /proc/sys/net/ipv4/ip_forward", control: "test -w /proc/sys/net/ipv4/ip_forward", onHost: true, root: true},
	{name: "trigger sysrq", attempt: "test -e /proc/sysrq-trigger && echo h > /proc/sysrq-trigger && test ! -c /proc/sysrq-trigger", control: "test -w /proc/sys/kernel/randomize_va_space", onHost: true, root: true},
	{name: "write to /sys", attempt: "for f in /sys/kernel/mm/transparent_hugepage/enabled /sys/power/state; do echo x > $f && exit 0; done; exit 1", control: "test -w /sys/kernel/mm", onHost: true, root: true},
	{name: "find control groups", attempt: "ls -A /sys/fs/cgroup | grep -q .", control: "ls -A /sys/fs/cgroup | grep -q .", onHost: true},
	{name: "mount control groups", attempt: "mount -t cgroup -o memory x /mnt || mount -t cgroup2 x /mnt", control: "unshare -m mount -t cgroup2 x /mnt", onHost: true, root: true},
	{name: "read the first process's memory", attempt: "head -c 1 /proc/1/mem || cat /proc/1/environ | grep -q . || ls /proc/1/fd/ | grep -q .", control: "ls /proc/self/fd/ | grep -q . && cat /proc/self/environ | grep -q ."},
	{name: "reach files through the first process", attempt: "ls /proc/1/root/ || ls /proc/1/cwd/", control: "ls /proc/self/root/"},
	{name: "read the first process's program", attempt: "cat /proc/1/exe > /dev/null", control: "cat /proc/self/exe > /dev/null"},
	{name: "kill the first process", attempt: "kill -9 1 && ! kill -0 1", control: "sleep 100 & kill -9 $!"},
	{name: "see the host's processes", attempt: "test $(ls -d /proc/[0-9]* | wc -l) -gt 40", control: "test $(ls -d /proc/[0-9]* | wc -l) -gt 40", onHost: true},
	{name: "gain rights by running a program", attempt: "grep -q 'NoNewPrivs:.*0' /proc/self/status", control: "grep -q 'NoNewPrivs:.*0' /proc/self/status", onHost: true},
	{name: "have capabilities", attempt: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -qv 0000000000000000", control: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -qv 0000000000000000", onHost: true, root: true},
	{name: "gain capabilities in a user namespace", attempt: "unshare -U true || unshare -Urmn mount -t tmpfs x /mnt", onHost: true},
	{name: "allow itself user namespaces", attempt: "echo 9 > /proc/sys/user/max_user_namespaces", control: "unshare -Ur sh -c 'echo 9 > /proc/sys/user/max_user_namespaces'", onHost: true},
	{name: "find set-user-id programs that count", attempt: "! grep -E ' / | /usr | /tmp | /dev/shm ' /proc/mounts | grep -qv nosuid; test $? -ne 0", control: "grep -E ' / ' /proc/mounts | grep -qv nosuid", onHost: true, shared: true},
	{name: "become root", attempt: "su -c true root </dev/null || sudo -n true || setpriv --reuid 0 true", control: "setpriv --reuid 1000 --clear-groups true", onHost: true, root: true},
	{name: "read the host's shadow", attempt: "cat /etc/shadow", control: "cat /etc/shadow", onHost: true, root: true},
	{name: "inherit descriptors", attempt: "for f in /proc/self/fd/*; do n=${f##*/}; test $n -gt 2 -a -e $f -a \"$(readlink $f)\" != \"$(readlink /proc/$$/fd/255 2>/dev/null)\" && readlink $f | grep -v pipe: | grep -v /proc/ | grep -q . && exit 0; done; exit 1",
		control: "exec 9</etc/passwd; for f in /proc/self/fd/*; do n=${f##*/}; test $n -gt 2 -a -e $f && readlink $f | grep -v pipe: | grep -v /proc/ | grep -q . && exit 0; done; exit 1"},
	{name: "reach the host's loopback", attempt: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", onHost: true},
	{name: "reach the metadata address", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'", control: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", onHost: true},
	{name: "reach the internet", attempt: "timeout 5 bash -c 'exec 3<>/dev/tcp/1.1.1.1/53'", control: "exec 3<>/dev/tcp/127.0.0.1/%PORT%", onHost: true},
	{name: "find the host's abstract sockets", attempt: "grep -q %ABSTRACT% /proc/net/unix", onHost: true},
	{name: "find the guest's socket", attempt: "grep -q '[.]sock' /proc/net/unix || find / -xdev -name '*.sock' -type s 2>/dev/null | grep -q .", control: "grep -q . /proc/net/unix"},
	{name: "see the host's System V objects", attempt: "test $(tail -n +2 /proc/sysvipc/shm | wc -l) -gt 0", control: "id=$(ipcmk -M 4096 | grep -o '[0-9]*$') && test $(tail -n +2 /proc/sysvipc/shm | wc -l) -gt 0; r=$?; ipcrm -m $id; exit $r", onHost: true},
	{name: "read keys", attempt: "test -s /proc/keys", control: "test -e /proc/keys", shared: true},
	{name: "raise a hard limit", attempt: "ulimit -Hc unlimited", control: "ulimit -Sc 0"},
	{name: "load a kernel module", attempt: "modprobe -q dummy || insmod /dev/null", control: "true"},
	{name: "set the clock", attempt: "date -s @1", control: "date -d @1"},
}

func testEscapes(t *testing.T, s Suite) {
	b := newBed(t, s)
	b.create(t, b.spec("prison"))
	c := b.connect(t, "prison")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	abstract := fmt.Sprintf("tongs-canary-%d", l.Addr().(*net.TCPAddr).Port)
	u, err := net.Listen("unix", "@"+abstract)
	must(t, err)
	defer u.Close()
	fill := strings.NewReplacer(append(callNumbers, "%PORT%", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), "%ABSTRACT%", abstract)...)
	for _, e := range slices.Concat(escapes, callEscapes) {
		t.Run(e.name, func(t *testing.T) {
			if e.foreign && s.OneUser() {
				t.Skip("the sandbox's user owns its whole tree")
			}
			if e.root && os.Geteuid() != 0 {
				t.Skip("the control needs root on the host")
			}
			if e.shared && s.OwnKernel {
				t.Skip("the sandbox has a kernel of its own")
			}
			control := e.control
			if control == "" {
				control = e.attempt
			}
			err := e.tryControl(t, c, fill.Replace(control))
			if err != nil && e.kernel {
				t.Skipf("not on this machine: %v", err)
			}
			if err != nil {
				t.Fatalf("the control fails, so this row shows nothing: %v", err)
			}
			if res := bash(t, c, "("+fill.Replace(e.attempt)+") 2>&1"); res.Exit.Success() {
				t.Errorf("possible: %s\n%s", e.attempt, res.Stdout)
			}
		})
	}
	if got := output(t, c, "echo alive"); got != "alive" {
		t.Errorf("after all attempts: %q", got)
	}
}

func (e escape) tryControl(t *testing.T, c *sandbox.Client, script string) error {
	if !e.onHost {
		if res := bash(t, c, script); !res.Exit.Success() {
			return fmt.Errorf("in the sandbox: %s: %+v %s", script, res.Exit, res.Stderr)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "bash", "-c", script).CombinedOutput(); err != nil {
		return fmt.Errorf("on the host: %s: %w: %s", script, err, out)
	}
	return nil
}
