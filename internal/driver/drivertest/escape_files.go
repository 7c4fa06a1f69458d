package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// denied is how a refusal is told, whatever refuses.
const denied = `(?i)not permitted|permission denied|read-only|must be (root|superuser)`

// fileEscapes are attempts at mounts, devices, other people's files and what the guest does with files.
var fileEscapes = []escape{
	{name: "mount a file system", attempt: "mount -t tmpfs x /mnt", says: denied, control: "unshare -m mount -t tmpfs x /mnt", where: onHost, root: true},
	{name: "bind a directory over another", attempt: "mount --bind /home/user /etc", says: denied, control: "unshare -m mount --bind /tmp /mnt", where: onHost, root: true},
	{name: "make /usr writable", attempt: "mount -o remount,bind,rw /usr", says: denied, control: "unshare -m sh -c 'mount --bind /usr /usr && mount -o remount,bind,rw /usr'", where: onHost, root: true},
	{name: "unmount a mask", attempt: "umount /proc/sys || umount /proc/keys || umount /proc/meminfo", says: denied, control: "unshare -m sh -c 'mount -t tmpfs x /mnt && umount /mnt'", where: onHost, root: true},
	{name: "write to /usr", attempt: "touch /usr/tongs-was-here", says: denied, control: "touch ~/tongs-was-here"},
	{name: "write to /etc", attempt: "touch /etc/tongs-was-here || echo x >> /etc/passwd", says: denied, control: "touch ~/tongs-was-here", as: "user", foreign: true},
	{name: "write to /dev", attempt: "touch /dev/tongs-was-here || rm /dev/null || chmod 600 /dev/null", says: denied, control: ": > /dev/null"},
	{name: "make a block device", attempt: "mknod /tmp/disk b 254 0", says: denied, control: "d=$(mktemp -d) && mknod $d/disk b 254 0; r=$?; rm -r $d; exit $r", where: onHost, root: true},
	{name: "make a character device", attempt: "mknod ~/mem c 1 1", says: denied, control: "rm -f ~/fifo && mkfifo ~/fifo"},
	{name: "use a device that the host has left in a shared directory", attempt: "head -c 1 /opt/shared/zero", says: denied, control: "mount -o remount,dev %SHARED%; head -c 1 %SHARED%/zero", where: onHost, root: true, made: true, shared: true},
	{name: "become who owns a program that the host has left", attempt: "/opt/shared/become-owner -u | grep -qx 0 && test $(id -u) != 0", as: "user", control: "setpriv --reuid 1000 --clear-groups %SHARED%/become-owner -u | grep -qx 0", where: onHost, root: true, made: true},
	{name: "become root by a program of the sandbox's root", attempt: "cp /usr/bin/id /opt/become && chmod 4755 /opt/become && setpriv --reuid 1000 --regid 1000 --clear-groups /opt/become -u | grep -qx 0", as: "root",
		control: "d=$(mktemp -d /var/tmp/XXXXXX) && chmod 755 $d && cp /usr/bin/id $d/become && chmod 4755 $d/become && setpriv --reuid 1000 --regid 1000 --clear-groups $d/become -u | grep -qx 0; r=$?; rm -r $d; exit $r", where: onHost, root: true},
	{name: "give a program capabilities", attempt: "cp /usr/bin/true ~/able && perl -e '($p, $n, $v) = (\"$ENV{HOME}/able\", q(security.capability), pack q(V5), 0x02000001, 1 << 21, 0, 0, 0); syscall(%SETXATTR%, $p, $n, $v, 20, 0) == 0 or die $!'", says: denied,
		control: "cp /usr/bin/true able && perl -e '($p, $n, $v) = (q(able), q(security.capability), pack q(V5), 0x02000001, 1 << 21, 0, 0, 0); syscall(%SETXATTR%, $p, $n, $v, 20, 0) == 0 or die $!'", where: onHost, root: true},
	{name: "read the host's shadow", attempt: "cat /etc/shadow", control: "cat /etc/shadow", where: onHost, root: true},
	{name: "read a file that the host keeps to itself", attempt: "cat /opt/shared/secret", says: denied, control: "cat /opt/shared/readable", foreign: true},
	{name: "write to a file of the host", attempt: "echo x >> /opt/shared/readable", says: denied, control: "cat /opt/shared/readable"},
	{name: "write to a file of the host that isn't its own", attempt: "echo x >> /opt/writable/readable", says: denied, control: "echo -n >> %SHARED%/readable", where: onHost, foreign: true},
	{name: "take a file of the host", attempt: "chown $(id -u) /opt/writable/readable", says: denied, control: "chown $(id -u) %SHARED%/readable", where: onHost, foreign: true},
	{name: "find the host's files", attempt: "ls %HOME% || ls %SHARED%", control: "ls %HOME%", where: onHost},
	{name: "see what the host mounts later", try: func(p *prison) error { return p.later("test -e /opt/shared/later/marker") }, prove: (*prison).mountsArePassedOn, root: true, made: true, kernel: true},
	{name: "chroot", attempt: "chroot / true", says: denied, control: "chroot / true", where: onHost, root: true},
	{name: "change the root", attempt: "mkdir -p ~/r && cd ~/r && perl -e '$d = q(.); syscall(%PIVOT_ROOT%, $d, $d) == 0 or $!{EINVAL} or $!{EBUSY} or die $!'", says: denied, control: "perl -e '$d = q(.); syscall(%PIVOT_ROOT%, $d, $d) == 0 or $!{EINVAL} or $!{EBUSY} or die $!'", where: onHost, root: true},
	{name: "open a file by its handle", attempt: openByHandle, says: denied, where: onHost, root: true, kernel: true},
	{name: "find set-user-id programs that count", attempt: "! grep -E ' / | /usr | /tmp | /dev/shm ' /proc/mounts | grep -qv nosuid; test $? -ne 0", control: "grep -E ' / ' /proc/mounts | grep -qv nosuid", where: onHost, shared: true},
	{name: "have the guest read a file of root's by a racing link", try: (*prison).raceLink, prove: (*prison).readOwn, as: "user", foreign: true},
	{name: "have the guest write out of a tree", try: (*prison).writeOut, prove: (*prison).writeIn, as: "user"},
	{name: "have the guest start in a directory of the host", try: (*prison).startOutside, prove: (*prison).startInside},
}

// openByHandle asks for the handle of /usr and opens it.
const openByHandle = `perl -e '$p = q(/usr); $h = pack q(Ll), 128, 0; $h .= chr(0) x 128; $m = pack q(l), 0; syscall(%NAME_TO_HANDLE%, -100, $p, $h, $m, 0) == 0 or die $!; open D, q(<), $p; syscall(%OPEN_BY_HANDLE%, fileno D, $h, 0) >= 0 or die $!'`

// later mounts something below the shared directory, looks whether that is seen inside, and takes it away again.
func (p *prison) later(look string) error {
	p.controls.mu.Lock()
	defer p.controls.mu.Unlock()
	dir := filepath.Join(p.shared, "later")
	if out, err := exec.Command("mount", "-t", "tmpfs", "tongs-test", dir).CombinedOutput(); err != nil {
		p.t.Fatalf("mount: %v: %s", err, out)
	}
	defer exec.Command("umount", "-l", dir).Run()
	must(p.t, os.WriteFile(filepath.Join(dir, "marker"), nil, 0o644))
	return refusedBy(p.exec(sandbox.ProcessSpec{Argv: []string{"sh", "-c", look + " || { echo it is not seen >&2; exit 1; }"}}))
}

// mountsArePassedOn sees that the same mount is seen in another mount namespace that asks for such.
func (p *prison) mountsArePassedOn() error {
	p.controls.mu.Lock()
	defer p.controls.mu.Unlock()
	dir := filepath.Join(p.shared, "later")
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-m", "--propagation", "slave", "sh", "-c", "echo ready; read x; test -e '"+dir+"/marker'")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	err = exec.Command("mount", "-t", "tmpfs", "tongs-test", dir).Run()
	if err == nil {
		defer exec.Command("umount", "-l", dir).Run()
		err = os.WriteFile(filepath.Join(dir, "marker"), nil, 0o644)
	}
	in.Close()
	return errors.Join(err, cmd.Wait())
}

// races is how often the guest is asked at least while a link is moved under it.
const races = 400

// raceLink has a link lead to a file of the user's and to ones that it may not read, by turns, and the guest read it.
func (p *prison) raceLink() error {
	run, err := p.c.Start(p.t.Context(), sandbox.ProcessSpec{Mode: sandbox.Follow, Argv: []string{"perl", "-e", `
		chdir $ENV{HOME}; open F, ">", "own"; print F "own"; close F; $| = 1;
		for (;;) { for $to ("own", "/etc/of-root", "own", "/proc/1/environ", "own", "/proc/1/root/etc/of-root") { unlink "n"; symlink $to, "n"; rename "n", "race"; print "." unless $i++ } }`}})
	must(p.t, err)
	defer func() { _ = p.c.Kill(p.t.Context(), run.ID) }()
	outputAs(p.t, p.c, "", "until test -L ~/race; do sleep 0.01; done")
	own, rounds := 0, 0
	for began := time.Now(); rounds < races || own < races/10 && time.Since(began) < raceTime; rounds++ {
		data, _, err := p.c.ReadFile(p.t.Context(), "/home/user/race", sandbox.ReadOptions{})
		switch {
		case err == nil && string(data) != "own":
			p.t.Logf("read: %q", data)
			return nil
		case err == nil:
			own++
		}
	}
	if own == 0 {
		p.t.Errorf("in none of %d rounds the link led to the user's file", rounds)
	}
	return fmt.Errorf("%d times the file that may be read, in %d rounds", own, rounds)
}

func (p *prison) readOwn() error {
	_, err := p.c.WriteFile(p.t.Context(), "/home/user/plain", []byte("own"), sandbox.WriteOptions{})
	must(p.t, err)
	outputAs(p.t, p.c, "", "ln -sfn plain ~/link")
	data, _, err := p.c.ReadFile(p.t.Context(), "/home/user/link", sandbox.ReadOptions{})
	if err == nil && string(data) != "own" {
		err = fmt.Errorf("read %q", data)
	}
	return err
}

// tree writes entries below a directory of the user's.
func (p *prison) tree(entries ...sandbox.TreeEntry) error {
	w, err := p.c.WriteTree(p.t.Context(), "/home/user/tree", sandbox.WriteTreeOptions{Overwrite: true, LinksOut: true})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, e := range entries {
		e.Mode, e.Size = 0o644, int64(len(canaryText))
		var content io.Reader = strings.NewReader(canaryText)
		if e.Type != sandbox.TreeFile {
			content, e.Size = nil, 0
		}
		if err := w.Add(&e, content); err != nil {
			return err
		}
	}
	_, err = w.Finish()
	return err
}

// writeOut writes by names and links that lead out of the tree. Each must be refused.
func (p *prison) writeOut() error {
	outputAs(p.t, p.c, "", "mkdir -p ~/tree ~/elsewhere && ln -sfn ~/elsewhere ~/tree/planted")
	file := func(name string) sandbox.TreeEntry { return sandbox.TreeEntry{Name: name, Type: sandbox.TreeFile} }
	link := func(name, target string, kind sandbox.TreeType) sandbox.TreeEntry {
		return sandbox.TreeEntry{Name: name, Type: kind, Target: target}
	}
	var all []error
	for _, hostile := range [][]sandbox.TreeEntry{
		{file("../elsewhere/out")},
		{file("/home/user/elsewhere/out")},
		{file("planted/out")},
		{link("own", "../elsewhere", sandbox.TreeSymlink), file("own/out")},
		{link("hard", "../elsewhere/target", sandbox.TreeHardlink), file("hard")},
		{link("etc", "/etc", sandbox.TreeSymlink), link("etc/out", "/etc/of-root", sandbox.TreeHardlink)},
	} {
		err := p.tree(hostile...)
		if err == nil {
			p.t.Logf("written: %+v", hostile)
			return nil
		}
		all = append(all, err)
	}
	if got := outputAs(p.t, p.c, "", "ls -A ~/elsewhere | wc -l"); got != "0" {
		p.t.Logf("%s files are elsewhere", got)
		return nil
	}
	return all[0]
}

func (p *prison) writeIn() error {
	outputAs(p.t, p.c, "", "mkdir -p ~/tree")
	if err := p.tree(sandbox.TreeEntry{Name: "in", Type: sandbox.TreeFile}); err != nil {
		return err
	}
	data, _, err := p.c.ReadFile(p.t.Context(), "/home/user/tree/in", sandbox.ReadOptions{})
	if err == nil && !bytes.Equal(data, []byte(canaryText)) {
		err = fmt.Errorf("read %q", data)
	}
	return err
}

// startOutside starts commands in directories that are named by descriptors of the guest's.
func (p *prison) startOutside() error {
	secret := filepath.Join(p.shared, "readable")
	up := strings.Repeat("../", 16)
	last := errors.New("there was no such directory")
	for fd := range manyFDs {
		for _, who := range []string{"self", "1", "thread-self"} {
			dir := fmt.Sprintf("/proc/%s/fd/%d", who, fd)
			res, err := p.exec(sandbox.ProcessSpec{Argv: []string{"sh", "-c", "pwd -P; cat '" + up + secret[1:] + "'"}, Dir: dir})
			if err == nil && bytes.Contains(res.Stdout, []byte(canaryText)) {
				p.t.Logf("by %s: %s", dir, res.Stdout)
				return nil
			}
			last = errors.Join(err, last)
		}
	}
	return fmt.Errorf("%.200s …", last.Error())
}

func (p *prison) startInside() error {
	res, err := p.exec(sandbox.ProcessSpec{Argv: []string{"sh", "-c", "cat readable"}, Dir: "/opt/shared"})
	if err == nil && !bytes.Contains(res.Stdout, []byte(canaryText)) {
		err = fmt.Errorf("%s%s", res.Stdout, res.Stderr)
	}
	return err
}
