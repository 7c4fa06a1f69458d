package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tongs-dev/tongs/sandbox"
)

// processEscapes are attempts at processes: the guest, who is process 1, the host's, and those that are just being made; and
// at rights that a process could gain.
var processEscapes = []escape{
	{name: "read the first process's memory", attempt: "head -c 1 /proc/1/mem || cat /proc/1/environ | grep -q . || readlink /proc/1/fd/0", says: denied, control: "readlink /proc/self/fd/0 && cat /proc/self/environ | grep -q ."},
	{name: "reach files through the first process", attempt: "ls /proc/1/root/ || ls /proc/1/cwd/", says: denied, control: "ls /proc/self/root/"},
	{name: "read the first process's program", attempt: "cat /proc/1/exe > /dev/null", says: denied, control: "cat /proc/self/exe > /dev/null"},
	{name: "change the first process's program", attempt: "echo x >> /proc/1/exe", says: denied, control: "cp /usr/bin/true ~/program && exec 9< ~/program && echo x >> /proc/self/fd/9"},
	{name: "change the guest's program by running it", try: (*prison).overwriteGuest, prove: (*prison).overwriteOwn},
	{name: "kill the first process", attempt: "kill -9 1 && ! kill -0 1", control: "sleep 100 & kill -9 $!"},
	{name: "signal the first process", attempt: "kill -URG 1", says: denied, control: "sleep 100 & kill -URG $! && kill -9 $!", fence: true},
	{name: "trace the first process", attempt: ptrace("1"), says: denied, control: "sleep 100 & " + ptrace("$!") + "; r=$?; kill -9 $!; exit $r", shared: true},
	{name: "look into a process of the guest's before it is another program", try: (*prison).race, prove: (*prison).raceVictim},
	{name: "see the host's processes", attempt: "test $(ls -d /proc/[0-9]* | wc -l) -gt 40", control: "test $(ls -d /proc/[0-9]* | wc -l) -gt 40", where: onHost},
	{name: "gain rights by running a program", attempt: "grep -q 'NoNewPrivs:.*0' /proc/self/status", control: "grep -q 'NoNewPrivs:.*0' /proc/self/status", where: onHost},
	{name: "have capabilities", attempt: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -qv 0000000000000000", control: "grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -qv 0000000000000000", where: onHost, root: true, as: "user"},
	{name: "have more capabilities than a sandbox's root may", attempt: moreCapabilities, where: onHost, root: true, as: "root"},
	{name: "gain capabilities in a user namespace", attempt: "unshare -U true || unshare -Urmn mount -t tmpfs x /mnt", says: denied, where: onHost},
	{name: "allow itself user namespaces", attempt: "echo 9 > /proc/sys/user/max_user_namespaces", says: denied, control: "unshare -Ur sh -c 'echo 9 > /proc/sys/user/max_user_namespaces'", where: onHost},
	{name: "become root", attempt: "su -c true root </dev/null || sudo -n true || setpriv --reuid 0 true", control: "setpriv --reuid 1000 --clear-groups true", where: onHost, root: true, as: "user"},
	{name: "become a user of the host's", attempt: "setpriv --reuid 70000 --clear-groups true", control: "setpriv --reuid 70000 --clear-groups true", where: onHost, root: true},
	{name: "inherit descriptors", attempt: "for f in /proc/self/fd/*; do n=${f##*/}; test $n -gt 2 -a -e $f -a \"$(readlink $f)\" != \"$(readlink /proc/$$/fd/255 2>/dev/null)\" && readlink $f | grep -v pipe: | grep -v /proc/ | grep -q . && exit 0; done; exit 1",
		control: "exec 9</etc/passwd; for f in /proc/self/fd/*; do n=${f##*/}; test $n -gt 2 -a -e $f && readlink $f | grep -v pipe: | grep -v /proc/ | grep -q . && exit 0; done; exit 1"},
	{name: "raise a hard limit", attempt: "ulimit -Hc unlimited", says: denied, control: "ulimit -Sc 0"},
	{name: "see another sandbox's processes", attempt: "pgrep -f '[s]leep 98765'", where: next},
	{name: "read another sandbox's files", attempt: "grep -qs 'secret of the neighbour' /home/user/secret /tmp/secret /dev/shm/secret", where: next},
}

// ptrace attaches to a process and lets go of it: PTRACE_SEIZE, PTRACE_DETACH.
func ptrace(pid string) string {
	return `perl -e '$r = syscall(%PTRACE%, 0x4206, 0 + shift, 0, 0); $r == 0 or die $!' ` + pid
}

// moreCapabilities looks for a capability, usable or not, besides CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID
// and NET_BIND_SERVICE.
const moreCapabilities = `for kind in Prm Eff Bnd Amb; do c=$(sed -n "s/Cap$kind:[[:space:]]*//p" /proc/self/status); test $((0x$c & ~0x4fb)) -ne 0 && exit 0; done; exit 1`

// overwriteGuest runs the guest's program as a command, by the name that it has in the process that is to become the
// command, keeps hold of its file, and writes to that when it has ended.
func (p *prison) overwriteGuest() error { return p.overwrite("/proc/self/exe", "0") }

// overwriteOwn does so with a copy of another program.
func (p *prison) overwriteOwn() error {
	outputAs(p.t, p.c, p.user, "rm -f ~/own-program && cp /usr/bin/cat ~/own-program")
	home := outputAs(p.t, p.c, p.user, "echo $HOME")
	return p.overwrite(home+"/own-program", "-")
}

func (p *prison) overwrite(program, argument string) error {
	run, err := p.c.Start(p.t.Context(), sandbox.ProcessSpec{Argv: []string{program, argument}, User: p.user, Stdin: true, Mode: sandbox.Follow, Timeout: patience / 2})
	if err != nil {
		return err
	}
	defer func() { _ = p.c.Kill(p.t.Context(), run.ID) }()
	res, err := p.exec(sandbox.ProcessSpec{Argv: []string{"sh", "-c", fmt.Sprintf(
		"exec 9</proc/%[1]d/exe || exit 1; kill -9 %[1]d; i=0; while kill -0 %[1]d 2>/dev/null && test $i -lt 200; do sleep 0.02; i=$((i+1)); done; echo x >> /proc/self/fd/9", run.PID)}})
	return refusedBy(res, err)
}

// raceExecs is how many commands are started while somebody looks for one that isn't one yet, and raceTime when that
// is enough in any case: the looking takes a processor.
const (
	raceExecs = 150
	raceTime  = 5 * time.Second

	raceTries = 5 // on a machine with more to do, the watcher may not get to look
)

// race looks, while the guest starts commands, for a process that still has the guest's memory.
func (p *prison) race() error {
	return p.watchFor("tongs-guest", 0, func() error {
		began := time.Now()
		for i := 0; i < raceExecs && time.Since(began) < raceTime; i++ {
			user := p.user
			if i%2 == 0 {
				user = ""
			}
			if _, err := p.c.Exec(p.t.Context(), sandbox.ExecSpec{ProcessSpec: sandbox.ProcessSpec{Argv: []string{"true"}, User: user}}); err != nil {
				return err
			}
		}
		return nil
	})
}

// raceVictim does so while a program that takes no care starts commands.
func (p *prison) raceVictim() error {
	err := p.watchFor("/opt/shared/probe", 1, func() error {
		res, err := p.exec(sandbox.ProcessSpec{Argv: []string{"/opt/shared/probe"}, Env: map[string]string{probeEnv: "victim", probeArg: fmt.Sprint(raceExecs)}})
		if err == nil && !res.Exit.Success() {
			err = fmt.Errorf("%s", res.Stderr)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the memory of a program that starts others is never seen: %w", err)
	}
	return nil
}

// watchFor gives nil if somebody inside opens a process in time whose memory has a program mapped; of the program's own
// process, if it is one that the watcher sees begin, besides.
func (p *prison) watchFor(program string, own int, meanwhile func() error) error {
	for try := 1; ; try++ {
		reached, seen, said := p.watch(program, meanwhile)
		switch {
		case reached > own:
			p.t.Logf("the memory of %d processes was reached, of %d", reached, seen)
			return nil
		case seen >= raceExecs/20:
			return fmt.Errorf("the memory of %d processes was reached, of %d", reached, seen)
		case try == raceTries:
			p.t.Fatalf("the watcher saw nothing, %d times: %s", try, said)
		}
	}
}

// watch does it once, and tells how many processes the watcher reached and saw, and what it said.
func (p *prison) watch(program string, meanwhile func() error) (reached, seen int, text string) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	r, w := io.Pipe()
	defer w.Close()
	said := &listener{first: make(chan struct{})}
	ended := make(chan error, 1)
	go func() {
		_, err := p.c.Run(ctx, sandbox.ProcessSpec{Argv: []string{"/opt/shared/probe"}, User: p.user, Env: map[string]string{probeEnv: "watch", probeArg: program}}, r, said, said)
		ended <- err
	}()
	select {
	case <-said.first:
	case err := <-ended:
		p.t.Fatalf("the watcher ended: %v %s", err, said.text())
	}
	must(p.t, meanwhile())
	w.Close()
	must(p.t, <-ended)
	if _, err := fmt.Sscanf(said.text(), "watching\nreached %d of %d", &reached, &seen); err != nil {
		p.t.Fatalf("the watcher said nothing (%v): %s", err, said.text())
	}
	return reached, seen, said.text()
}

// listener keeps what is written to it, and tells when that begins.
type listener struct {
	mu    sync.Mutex
	all   bytes.Buffer
	once  sync.Once
	first chan struct{}
}

func (l *listener) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.once.Do(func() { close(l.first) })
	return l.all.Write(b)
}

func (l *listener) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
